"""How a server stands before and after a run: does it answer, is it healthy, is it idle?"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from servescope.loadgen.metrics_page import Page, read_page
from servescope.traces import server
from servescope.traces.errors import EndpointError

LOOK_S = 0.25
ANSWER_S = 5.0
MOST_BYTES = 8 << 20


class Answer(NamedTuple):
    """What a GET came to: a status and a body, or no status and what went wrong."""

    status: int | None
    said: str
    refused: bool = False

    @property
    def in_words(self) -> str:
        """What happened, for a person."""
        return self.said if self.status is None else f"answers {self.status}"


def get(url: str, headers: Mapping[str, str] | None = None, limit_s: float = ANSWER_S) -> Answer:
    """Send a GET, without following redirects or using a proxy; a failure is an answer, too."""
    parts = urlsplit(url)
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[parts.scheme](parts.netloc, timeout=limit_s)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.read(MOST_BYTES).decode(errors="replace"))
    except TimeoutError:
        return Answer(None, f"does not answer within {limit_s:g} s")
    except ConnectionRefusedError:
        return Answer(None, "refuses connections", refused=True)
    except (OSError, http.client.HTTPException) as error:
        return Answer(None, f"cannot be reached ({str(error) or type(error).__name__})")
    finally:
        connection.close()


def wait_until_healthy(
    urls: Sequence[str], headers: Mapping[str, str], limit_s: float, look: Callable[[], None]
) -> str | None:
    """Wait until every URL answers 200; `look` is called between looks and may raise.

    Returns what the last answer was if one still does not after `limit_s`.
    """
    end = time.monotonic() + limit_s
    for url in urls:
        while True:
            look()
            answer = get(url, headers)
            if answer.status == 200:
                break
            if time.monotonic() >= end:
                return f"GET {url} {answer.in_words} after {limit_s:g} s."
            time.sleep(LOOK_S)
    return None


def wait_until_idle(bases: Sequence[str], headers: Mapping[str, str], limit_s: float) -> None:
    """Wait until no server says that it runs something or that something waits in it.

    One that does not say so on its metrics page, or does not answer, counts as idle: nothing that
    was sent from here is in flight. Raises EndpointError after `limit_s`.
    """
    end = time.monotonic() + limit_s
    for base in bases:
        while told := busy(base, headers):
            if time.monotonic() >= end:
                raise EndpointError(
                    f"{base} is not idle after {limit_s:g} s: {told}.",
                    "Keep others away from it, or wait longer (idle_timeout_s).",
                )
            time.sleep(LOOK_S)


def busy(base: str, headers: Mapping[str, str]) -> str | None:
    """Say what a server does by its metrics page, or None if it does nothing or says nothing."""
    answer = get(f"{base}/metrics", headers)
    if answer.status != 200:
        return None
    said = server.live(read_page(answer.said, Page()).series)
    running, waiting = said.get("running", 0.0), said.get("waiting", 0.0)
    if not running and not waiting:
        return None
    return f"{running:g} calls run in it and {waiting:g} wait"


def dead(bases: Sequence[str], headers: Mapping[str, str]) -> str | None:
    """Say which server takes no connections any more, or None if all do."""
    for base in bases:
        if get(f"{base}/metrics", headers).refused:
            return base
    return None
