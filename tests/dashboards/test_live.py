"""A run in progress, sent by another process to the embedded engine, as the live page shows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
import chromium
from playwright.sync_api import expect

from servescope.dashboards import Library, Server, app_of

pytestmark = [*chromium.needed, pytest.mark.slow]
CLI = [sys.executable, "-m", "servescope.cli"]
SOON_MS = 30_000
expect.set_options(timeout=SOON_MS)  # other tests are on the same cores


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    command = [*CLI, "serve", "--model", "Llama-3.2-1B", "--port", "0", "--end-with-stdin"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def replaying(
    engine: str, run: Path, seconds: int, *more: str, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start to send a call ten times a second."""
    command = [*CLI, "replay", "--random-input-len", "200", "--random-output-len", "20"]
    command += ["--request-rate", "10", "--duration", str(seconds), "--slo", "ttft<2s"]
    command += ["--base-url", engine, "--out", str(run), "--quiet", *more]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, env=env)


def test_a_run_is_watched_from_its_first_seconds_to_its_end(engine: str, tmp_path: Path) -> None:
    errors: list[str] = []
    sender = replaying(engine, tmp_path / "runs" / "now", 12)
    try:
        until = time.monotonic() + 30
        while not (tmp_path / "runs" / "now" / "live.json").exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        with (
            Server(app_of(Library(tmp_path / "runs"))) as server,
            chromium.browser() as browser,
        ):
            page = browser.new_page()
            page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(server.address)
            page.get_by_role("link", name="live", exact=True).click()
            state = page.locator("#live-made .verdict")
            expect(state).to_contain_text("In progress")
            sent = page.locator(".cards div", has_text=re.compile("^[0-9]+sent$")).locator("b")
            before = int(sent.inner_text())
            expect(sent).not_to_have_text(str(before))
            assert int(sent.inner_text()) > before
            expect(page.locator("#plots-live .main-svg").first).to_be_visible()
            expect(page.locator(".cards")).to_contain_text("queued on the server")
            expect(page.locator(".cards")).to_contain_text("within SLO")
            expect(state).to_contain_text("It has ended")
            page.get_by_role("link", name="Look at the whole of it").click()
            expect(page.locator("#page .verdict").first).to_contain_text("calls served")
    finally:
        sender.terminate()
        sender.wait(30)
    assert errors == []


def test_a_replay_opens_its_dashboard_and_takes_it_along(engine: str, tmp_path: Path) -> None:
    told = tmp_path / "address"
    browser = tmp_path / "browser.sh"
    browser.write_text(f'#!/bin/sh\necho "$1" > {told}.part && mv {told}.part {told}\n')
    browser.chmod(0o755)
    opening = {**os.environ, "BROWSER": f"{browser} %s"}
    sender = replaying(engine, tmp_path / "run", 8, "--dashboard", env=opening)
    try:
        until = time.monotonic() + 30
        while not told.exists():
            assert time.monotonic() < until
            assert sender.poll() is None
            time.sleep(0.1)
        address = told.read_text().strip()
        assert address.endswith("/live?run=.")
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.status == 200
        assert sender.wait(60) in (0, 1)  # busy cores make a run invalid, which ends it with 1
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(address, timeout=10)
    finally:
        sender.terminate()
        sender.wait(30)
