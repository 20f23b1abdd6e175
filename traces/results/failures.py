"""How a call of another tool failed, in our words, from the exception that its client raised."""

from __future__ import annotations

import re
from typing import Final

from servescope.traces.status import CONNECTION, FAILED, RESET, TIMEOUT

# Of aiohttp and httpx; vLLM and AIPerf use the one, GuideLLM the other.
KINDS: Final = {
    "ClientPayloadError": RESET,
    "ServerDisconnectedError": RESET,
    "ConnectionResetError": RESET,
    "RemoteProtocolError": RESET,
    "ReadError": RESET,
    "ClientConnectorError": CONNECTION,
    "ClientOSError": CONNECTION,
    "ConnectError": CONNECTION,
    "TimeoutError": TIMEOUT,
    "ServerTimeoutError": TIMEOUT,
    "SocketTimeoutError": TIMEOUT,
    "ConnectionTimeoutError": TIMEOUT,
    "ReadTimeout": TIMEOUT,
    "ConnectTimeout": TIMEOUT,
    "WriteTimeout": TIMEOUT,
    "PoolTimeout": TIMEOUT,
}
_STATUS = re.compile(r"(?:Client|Server) error '(\d{3}) ")


def of_exception(name: str | None) -> str:
    """Return the status of a call that ended with an exception of this class, dotted or not."""
    return KINDS.get((name or "").rpartition(".")[2], FAILED)


def of_repr(said: str) -> str:
    """Return the status of what an exception of httpx looks like in Python."""
    name, _, told = said.partition("(")
    if name == "HTTPStatusError" and (found := _STATUS.search(told)):
        return f"http_{found[1]}"
    return of_exception(name)
