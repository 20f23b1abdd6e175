"""How quick the dashboard is in a browser: the first page, a part of a million calls, a live run.

    python benchmarks/dashboard.py first [RUNS]      the list of 50 runs, by a server just started
    python benchmarks/dashboard.py brush [HEIGHT]    windows and classes of a run of a million calls
    python benchmarks/dashboard.py live [SECONDS]    how far what is shown is behind the run

It needs Chromium. Times are those of the browser: from the navigation, the release of the mouse or
the choice to the last figure that is drawn.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import exploring
import numpy as np
from playwright.sync_api import Page

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "servers"))
import chromium  # the same flags as the tests

from servescope.loadgen import null_server
from servescope.traces.run import Run

CLI = [sys.executable, "-m", "servescope.cli"]
TRIES, BRUSHES, CALLS = 5, 40, 1_000_000
QUIET_MS = 400
# Notes when a figure was drawn last, be it made anew or changed.
WATCH = """() => {
  if (!window.Plotly || Plotly.watched) return;
  Plotly.watched = true;
  addEventListener("mouseup", () => { window.began = performance.now(); }, true);
  for (const name of ["newPlot", "react"]) {
    const draw = Plotly[name];
    Plotly[name] = (...given) => draw(...given).then(plot => {
      window.drawn = performance.now();
      return plot;
    });
  }
}"""


@contextmanager
def dashboard(folder: Path) -> Iterator[str]:
    """Serve a folder in a process of its own; gives the address."""
    command = [*CLI, "dashboard", "open", str(folder), "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while "Dashboard: " not in (line := process.stderr.readline()):
            if not line:
                raise RuntimeError("the dashboard did not start")
        yield line.split("Dashboard: ")[1].strip().rstrip("/")
    finally:
        process.terminate()
        process.wait()


def told(what: str, times_ms: list[float]) -> None:
    ranked = sorted(times_ms)
    p95 = ranked[min(len(ranked) - 1, int(np.ceil(0.95 * len(ranked))) - 1)]
    print(
        f"{what}: median {statistics.median(ranked):.0f} ms, p95 {p95:.0f} ms,"
        f" {ranked[0]:.0f} to {ranked[-1]:.0f} ms ({len(ranked)})"
    )


def first(many: int) -> None:
    """Time the list of runs, shown whole, from a server that has read none of them."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "runs"
        demo = [*CLI, "demo", "--simulate", "--out", str(folder / "demo-0")]
        subprocess.run(demo, check=True, capture_output=True)
        for number in range(1, -(-many // 2)):
            shutil.copytree(folder / "demo-0", folder / f"demo-{number}")
        times = []
        with chromium.browser() as browser:
            for _ in range(TRIES):
                with dashboard(folder) as address:
                    page = browser.new_page()
                    page.goto(address)
                    rows = page.locator("tbody tr")
                    rows.nth(many - 1).wait_for()
                    times.append(page.evaluate("performance.now()"))
                    assert rows.count() == many
                    page.close()
        told(f"first page with {many} runs, cold server", times)


def brush(height: int) -> None:
    """Time what follows a brush over a run of many calls, and the choice of a class.

    The figures in sight of a window of this height are drawn, others when they come into sight.
    """
    run = Path(tempfile.gettempdir()) / f"servescope-exploring-{CALLS}"
    if not run.exists():
        exploring.write_run(run, CALLS)
    rng = np.random.default_rng(3)
    with chromium.browser() as browser, dashboard(run) as address:
        page = browser.new_page(viewport={"width": 1280, "height": height})
        began = time.monotonic()
        page.goto(f"{address}/run?run=.")
        page.locator(".cards").wait_for(timeout=120_000)
        page.locator("#run-strip").evaluate("strip => strip.scrollIntoView()")
        page.locator("#plots-part .main-svg").first.wait_for(timeout=20_000)
        print(f"the page of the run, loaded: {time.monotonic() - began:.1f} s")
        page.wait_for_timeout(3000)
        windows, classes = [], []
        for number in range(BRUSHES):
            if number % 4 == 3:
                classes.append(_chosen(page, str(rng.choice(exploring.CLASSES))))
            else:
                begin = rng.uniform(0, 0.9)
                width = 10 ** rng.uniform(-2, 0)
                windows.append(_dragged(page, begin, min(1.0, begin + max(0.02, width))))
        told("a window of the run, brushed", [t for t, _ in windows])
        told("  of which the server", [t for _, t in windows])
        told("a class of the run, chosen", [t for t, _ in classes])
        told("  of which the server", [t for _, t in classes])
        told("both", [t for t, _ in (*windows, *classes)])


def _dragged(page: Page, begin: float, end: float) -> tuple[float, float]:
    page.get_by_role("button", name="All of it").click()
    _settled(page)
    strip = page.locator("#run-strip .nsewdrag").first
    box = strip.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + begin * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"] - 1, y, steps=3)
    page.wait_for_timeout(100)
    return _timed(page, page.mouse.up)


def _chosen(page: Page, name: str) -> tuple[float, float]:
    page.get_by_role("button", name="All of it").click()
    _settled(page)
    page.get_by_role("group", name="class").get_by_role("button").click()
    return _timed(page, page.get_by_role("option", name=name, exact=True).click)


def _timed(page: Page, act: object) -> tuple[float, float]:
    """Return how long it took until the last figure was drawn, and what of it the server took."""
    page.evaluate(WATCH)
    page.evaluate("performance.clearResourceTimings()")
    act()  # type: ignore[operator]
    _settled(page)
    began, drawn = page.evaluate("[window.began, window.drawn]")
    took = page.evaluate(
        "Math.max(0, ...performance.getEntriesByType('resource')"
        ".filter(entry => entry.name.includes('_dash-update'))"
        ".map(entry => entry.responseEnd - entry.requestStart))"
    )
    return drawn - began, took


def _settled(page: Page) -> None:
    """Wait until nothing is asked and nothing drawn for a while."""
    page.evaluate(WATCH)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(QUIET_MS)


def live(seconds: int) -> None:
    """Compare the second that the live page shows with the clock, several times a second."""
    with tempfile.TemporaryDirectory() as place, null_server.serving(0.05, 0.01) as url:
        run = Path(place) / "run"
        replay = [*CLI, "replay", "--random-input-len", "64", "--random-output-len", "32"]
        replay += ["--request-rate", "20", "--duration", str(seconds), "--base-url", url]
        sender = subprocess.Popen(
            [*replay, "--out", str(run), "--quiet"], stdout=subprocess.DEVNULL
        )
        seen = []
        try:
            while not (run / "live.json").exists():
                time.sleep(0.1)
                if sender.poll() is not None:
                    sys.exit("the replay ended before it began")
            with chromium.browser() as browser, dashboard(run) as address:
                page = browser.new_page()
                page.goto(f"{address}/live?run=.")
                while sender.poll() is None:
                    said = page.locator("#live-made .verdict").first.inner_text()
                    now = time.time()
                    if said.startswith("In progress for"):
                        seen.append((now, float(said.split()[3])))
                    page.wait_for_timeout(97)
        finally:
            sender.terminate()
            sender.wait()
        zero = Run.open(run).info.zero_unix_s
        assert zero is not None
        told("the live page is behind", [1000 * (now - zero - shown) for now, shown in seen])


if __name__ == "__main__":
    verb, *rest = sys.argv[1:] or ["-h"]
    usual = {"first": (first, 50), "brush": (brush, 900), "live": (live, 30)}
    if verb not in usual:
        sys.exit(__doc__)
    work, number = usual[verb]
    work(int(rest[0]) if rest else number)
