"""Who may look: this machine by its own names, others with the token; nothing comes from away."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from servescope.dashboards import Library, Server, app_of
from servescope.dashboards.server import COOKIE, is_loopback
from servescope.traces.errors import InputError

TOKEN = "a-token-of-some-length"


def ask(
    server: Server, path: str = "/", host: str | None = None, **headers: str
) -> http.client.HTTPResponse:
    port = int(server.address.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host or f"localhost:{port}")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


@pytest.fixture(scope="module")
def local(kept: Path) -> Iterator[Server]:
    with Server(app_of(Library(kept))) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(kept: Path) -> Iterator[Server]:
    with Server(app_of(Library(kept)), token=TOKEN) as server:
        yield server


def test_this_machine_needs_no_token(local: Server) -> None:
    assert local.token == ""
    assert ask(local).status == 200
    assert ask(local, host="127.0.0.1:1").status == 200
    assert ask(local, host="[::1]:1").status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "", "[::2]:1"])
def test_another_name_for_this_machine_is_not_answered(local: Server, host: str) -> None:
    assert ask(local, host=host or "x").status == 403


def test_the_page_may_load_nothing_from_elsewhere(local: Server) -> None:
    answer = ask(local)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    scripts = policy.split("script-src ")[1].split(";")[0]
    assert "unsafe" not in scripts
    assert "http" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    page = answer.read().decode()
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../server.py",
        "/assets/%2e%2e/server.py",
        "/assets/..%2fserver.py",
        "/../../../../etc/passwd",
        "/style.css/../library.py",
        "/_dash-component-suites/dash/../../../../etc/passwd",
    ],
)
def test_no_path_leads_to_a_file(local: Server, path: str) -> None:
    answer = ask(local, path)
    body = answer.read()
    assert b"root:" not in body
    assert b"import" not in body
    assert answer.status == 404 or body.lstrip().startswith(b"<!DOCTYPE html>")


def test_without_the_token_nothing_is_told(guarded: Server) -> None:
    for path in ("/", "/_dash-layout", "/style.css", "/assets/servescope.js", "/?token=wrong"):
        answer = ask(guarded, path)
        assert answer.status == 401
        assert TOKEN not in answer.read().decode()
    assert ask(guarded, Cookie=f"{COOKIE}=wrong").status == 401
    assert ask(guarded, Cookie=f"{COOKIE}={TOKEN}").status == 200


def test_the_token_moves_from_the_address_into_a_cookie(guarded: Server) -> None:
    assert guarded.url.endswith(f"/?token={TOKEN}")
    answer = ask(guarded, f"/run?run=chat%2Fsarathi&token={TOKEN}")
    assert answer.status == 302
    assert answer.headers["Location"] == "/run?run=chat%2Fsarathi"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_the_token_leads_to_no_other_host(guarded: Server) -> None:
    answer = ask(guarded, f"//evil.example/?token={TOKEN}")
    assert answer.headers["Location"].startswith("/evil.example")


def test_another_host_gets_a_token_by_itself(kept: Path) -> None:
    with Server(app_of(Library(kept)), host="0.0.0.0") as server:
        assert len(server.token) >= 32
        assert ask(server).status == 401
        assert ask(server, host="box.lan", Cookie=f"{COOKIE}={server.token}").status == 200


def test_a_short_token_is_refused(kept: Path) -> None:
    with pytest.raises(InputError, match="fewer than"):
        Server(app_of(Library(kept)), host="0.0.0.0", token="short")


def test_a_taken_port_is_a_sentence(kept: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"{port} cannot be listened on"):
            Server(app_of(Library(kept)), port=port)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("box.lan", False)],
)  # fmt: skip
def test_loopback_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
