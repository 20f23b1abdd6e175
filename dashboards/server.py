"""Serving the app: on loopback, or elsewhere to whoever has the token."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlencode

from dash import Dash
from flask import Flask, Response, abort, redirect, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response as Answer

from servescope.traces.errors import InputError

COOKIE, PARAMETER = "servescope-token", "token"
FEWEST_OF_TOKEN = 16
_LOCAL_NAMES = {"localhost", "127.0.0.1", "::1"}


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # a browser keeps its connections

    def log(self, type: str, message: str, *args: object) -> None:
        """Say nothing: an address may hold the token."""


class Server:
    """The app at an address, from its making until `close`; raises InputError for a taken port.

    A host other than loopback needs a token: one is made if none is given. It is asked of every
    request, once in the address (`?token=...`) and then as a cookie.
    """

    def __init__(self, app: Dash, host: str = "127.0.0.1", port: int = 0, token: str = "") -> None:
        if token and len(token) < FEWEST_OF_TOKEN:
            raise InputError(
                f"The token has fewer than {FEWEST_OF_TOKEN} characters.", "Take a longer one."
            )
        self.local = is_loopback(host)
        self.token = token or ("" if self.local else secrets.token_urlsafe(24))
        protect(app, self.token, any_name=not self.local)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._listener = socket.create_server((host, port), family=family)
        except OSError as error:
            raise InputError(
                f"{host}:{port} cannot be listened on: {error.strerror or error}.",
                "Choose another --port, or 0 for any free one.",
            ) from None
        self._server: BaseWSGIServer = make_server(
            host,
            self._listener.getsockname()[1],
            app.server,
            threaded=True,
            request_handler=_Handler,
            fd=self._listener.fileno(),
        )
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        shown = "localhost" if self.local else host
        if host in ("0.0.0.0", "::"):
            shown = socket.gethostname()
        self.address = f"http://{shown}:{self._listener.getsockname()[1]}/"

    @property
    def url(self) -> str:
        """What to open: the address, with the token if there is one."""
        return self.url_of("")

    def url_of(self, page: str) -> str:
        """Return what to open for a page, which may have a selection: `run?run=a`."""
        if not self.token:
            return self.address + page
        mark = "&" if "?" in page else "?"
        return f"{self.address}{page}{mark}{PARAMETER}={self.token}"

    def run(self) -> None:
        """Serve until `close` or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        """End serving; may be called from another thread."""
        self._server.shutdown()
        self._server.server_close()
        self._listener.close()

    def __enter__(self) -> Server:
        """Serve in a thread as long as the context lasts."""
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._thread.join()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def protect(app: Dash, token: str, *, any_name: bool) -> None:
    """Ask every request for the token, and let a page load nothing but what the app itself serves.

    Without `any_name` only the names of this machine are answered, so that no page of another site
    can reach the app by a name that it made point here (DNS rebinding).
    """
    server: Flask = app.server
    policy: list[str] = []  # made once all callbacks are there: it names their scripts

    def admit() -> Answer | None:
        if not any_name and _name_of(request.host) not in _LOCAL_NAMES:
            abort(Response("This address is not served. Open it as localhost.\n", 403))
        if not token:
            return None
        given = request.args.get(PARAMETER, "")
        if _same(given, token):
            rest = [(k, v) for k, v in request.args.items(multi=True) if k != PARAMETER]
            path = "/" + request.path.lstrip("/")  # two slashes would lead to another host
            # the token must not stay in the address
            answer = redirect(f"{path}?{urlencode(rest)}" if rest else path)
            answer.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
            return answer
        if not _same(request.cookies.get(COOKIE, ""), token):
            text = "The token is missing or wrong. Open the address that servescope printed.\n"
            abort(Response(text, 401))
        return None

    def harden(answer: Response) -> Response:
        if not policy:
            policy.append(_policy(app.csp_hashes))
        answer.headers["Content-Security-Policy"] = policy[0]
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        return answer

    server.before_request_funcs.setdefault(None, []).insert(0, admit)
    server.after_request(harden)


def _policy(hashes: Callable[[], object]) -> str:
    scripts = " ".join(["'self'", *map(str, hashes())])  # type: ignore[call-overload]
    return (
        "default-src 'none'; connect-src 'self'; font-src 'self'; form-action 'none';"
        " base-uri 'none'; frame-ancestors 'none'; img-src 'self' data: blob:;"
        f" script-src {scripts}; style-src 'self' 'unsafe-inline'"
    )


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _name_of(host: str) -> str:
    """Return the name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
