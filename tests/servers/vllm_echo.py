"""vLLM's answers as they were recorded, byte for byte: errors above all.

`python vllm_echo.py URL NAME...` records them anew from a server that real.py started.
"""

import asyncio
import socket
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

RECORDED = Path(__file__).parents[1] / "data" / "vllm_errors"
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
PAUSE_S = 0.04  # after which `aborted` pauses the server, which gives up what it is at

_BASE: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 4,
    "temperature": 0,
    "stream": True,
    "stream_options": {"include_usage": True},
    "ignore_eos": True,
}
_IDS = {**_BASE, "prompt": [300] * 16}
_WORDS = {**_BASE, "messages": [{"role": "user", "content": "the time"}]}
# What was asked; `died` and `dead` want a server whose engine is ended while it answers.
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "served": (COMPLETIONS, _IDS),
    "served_chat": (CHAT, _WORDS),
    "too_long": (COMPLETIONS, {**_IDS, "prompt": [300] * 2100}),
    "too_long_chat": (CHAT, {**_BASE, "messages": [{"role": "user", "content": "the " * 3000}]}),
    "max_tokens": (COMPLETIONS, {**_IDS, "max_tokens": 5000}),
    "min_over_max": (COMPLETIONS, {**_IDS, "min_tokens": 8}),
    "wrong_type": (COMPLETIONS, {**_IDS, "max_tokens": "many"}),
    "no_prompt": (COMPLETIONS, _BASE),
    "no_model": (COMPLETIONS, {**_IDS, "model": "nope"}),
    "out_of_vocabulary": (COMPLETIONS, {**_IDS, "prompt": [300, 99999]}),
    "aborted": (COMPLETIONS, {**_IDS, "max_tokens": 1900}),
    "aborted_chat": (CHAT, {**_WORDS, "max_tokens": 1900}),
    "died": (COMPLETIONS, {**_IDS, "max_tokens": 1900}),
    "dead": (COMPLETIONS, _IDS),
}


@dataclass
class Echo:
    """`plan` says which recorded answer meets a request, by its body; `met` counts them."""

    plan: Callable[[dict[str, Any]], str]
    url: str = ""
    met: Counter[str] = field(default_factory=Counter)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests until the client ends it."""
        if task := asyncio.current_task():
            self.tasks.add(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                name = "models" if head.startswith(b"GET") else self.plan(msgspec.json.decode(body))
                self.met[name] += 1
                writer.write((RECORDED / f"{name}.http").read_bytes())
                await writer.drain()
        writer.close()


@asynccontextmanager
async def echoing(echo: Echo) -> AsyncIterator[Echo]:
    """Listen on a free port of loopback as long as the context lasts."""
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield echo
    finally:
        server.close()
        for task in echo.tasks:
            task.cancel()
        await asyncio.gather(*echo.tasks, return_exceptions=True)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


def record(url: str, name: str) -> None:
    """Ask a server and keep the bytes of its answer."""
    path, fields = ASKED.get(name, ("/v1/models", None))
    verb, body = ("GET", b"") if fields is None else ("POST", msgspec.json.encode(fields))
    head = f"{verb} {path} HTTP/1.1\r\nHost: tiny\r\nContent-Type: application/json\r\n"
    if name.startswith("aborted"):
        threading.Thread(target=_pause, args=(url,)).start()
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), 60) as there:
        there.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        said = b""
        while not _whole(said):
            said += there.recv(65536)
    (RECORDED / f"{name}.http").write_bytes(said)


def _whole(said: bytes) -> bool:
    head, end, body = said.partition(b"\r\n\r\n")
    if not end:
        return False
    if b"chunked" in head:
        return body.endswith(b"\r\n0\r\n\r\n")
    return len(body) >= _length(head)


def _pause(url: str) -> None:
    time.sleep(PAUSE_S)
    for path in ("/pause?mode=abort", "/resume"):
        urllib.request.urlopen(urllib.request.Request(url + path, b"", method="POST")).close()


if __name__ == "__main__":
    RECORDED.mkdir(exist_ok=True)
    for each in sys.argv[2:]:
        record(sys.argv[1], each)
