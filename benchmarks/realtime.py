"""How well the real clock paces tokens: what a client sees, beside when the engine says they came.

    python benchmarks/realtime.py [--streams 100 250 500 1000 2000] [--replicas 4] [--tokens 800]

Server and client are a process each, pinned to a core each, on loopback. All streams are open at
once and only tokens of that time count. The client reads sockets and looks at the clock, nothing
else; what it takes for that is in the error too. Goal: p99 under 5 ms at 1,000 streams.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import numpy as np
import uvloop

from servescope.engine import http, make_system
from servescope.engine.assembly import deploy
from servescope.engine.request import Request

MODEL, GPU, SYSTEM = "Llama-3.1-8B", "H100", "vllm_v1"
PROMPT_TOKENS = 64
OPENED_IN_S = 1.0
TOKEN = b'"text":" token"'
SERVER_CORE, CLIENT_CORE = 0, 1


def serve(said: Connection, replicas: int, streams: int) -> None:
    """Serve until SIGTERM; tell the URL, then when each token came and how late each step ended."""
    os.sched_setaffinity(0, {SERVER_CORE})
    system = make_system(SYSTEM, {"max_num_seqs": str(max(256, -(-streams // replicas)))})
    cluster = deploy(system, MODEL, [GPU] * replicas)
    told: dict[str, list[float]] = {}
    late_s: list[float] = []
    zero_s = time.monotonic()  # that of the engine's clock, to some microseconds

    def listening(url: str) -> None:
        emit = cluster.on_step
        assert emit is not None

        def on_step(emitted: list[Request]) -> None:
            if emitted:
                late_s.append(time.monotonic() - zero_s - emitted[0].token_s[-1])
            emit(emitted)
            for request in emitted:
                if request.done:
                    told[request.id] = [zero_s + moment for moment in request.token_s]

        cluster.on_step = on_step
        said.send(url)

    uvloop.run(http.listen(cluster, MODEL, port=0, on_listening=listening))
    said.send((told, late_s, time.process_time()))


@dataclass
class Reader:
    """One stream: when bytes came, and how many tokens were in them."""

    socket: socket.socket
    moments: list[float] = field(default_factory=list)
    tail: bytes = b""
    open: bool = True

    def read(self) -> None:
        """Take what is there."""
        data = self.socket.recv(1 << 16)
        now = time.monotonic()
        if not data:
            self.open = False
            return
        data = self.tail + data
        self.moments += [now] * data.count(TOKEN)
        self.tail = data[-len(TOKEN) + 1 :]
        if data.endswith(b"0\r\n\r\n"):
            self.open = False


def read_all(url: str, streams: int, tokens: int) -> list[Reader]:
    """Open all streams, one after another, and read them to their ends."""
    address = urlsplit(url)
    body = {"prompt": [1] * PROMPT_TOKENS, "max_tokens": tokens, "stream": True}
    readers: list[Reader] = []
    by_number: dict[int, Reader] = {}
    epoll = select.epoll()
    opens_s = time.monotonic() + np.arange(streams) * OPENED_IN_S / streams
    while len(readers) < streams or by_number:
        wait_s = 0.1
        if len(readers) < streams:
            wait_s = max(0.0, opens_s[len(readers)] - time.monotonic())
        for number, _ in epoll.poll(wait_s):
            reader = by_number[number]
            reader.read()
            if not reader.open:
                epoll.unregister(number)
                del by_number[number]
        while len(readers) < streams and opens_s[len(readers)] <= time.monotonic():
            number = len(readers)
            payload = json.dumps({**body, "request_id": str(number)}).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}"
            opened = socket.create_connection((address.hostname, address.port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.sendall(head.encode() + b"\r\n\r\n" + payload)
            readers.append(Reader(opened))
            by_number[opened.fileno()] = readers[-1]
            epoll.register(opened.fileno(), select.EPOLLIN)
    return readers


def measure(streams: int, replicas: int, tokens: int) -> None:
    """Serve, read, and print one row."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(theirs, replicas, streams))
    server.start()
    os.sched_setaffinity(0, {CLIENT_CORE})
    url = ours.recv()
    begun_s = time.monotonic()
    readers = read_all(url, streams, tokens)
    wall_s = time.monotonic() - begun_s
    assert server.pid is not None
    os.kill(server.pid, signal.SIGTERM)
    told, late_s, server_cpu_s = ours.recv()
    server.join()
    seen = np.array([reader.moments for reader in readers])
    said = np.array([told[f"cmpl-{number}"] for number in range(streams)])
    together = (said > said[:, 0].max()) & (said < said[:, -1].min())
    error = (seen - said)[together] * 1e3
    both = together[:, 1:] & together[:, :-1]
    gaps = np.diff(said)[both] * 1e3
    gap_error = np.abs(np.diff(seen) - np.diff(said))[both] * 1e3
    p = np.quantile
    print(
        f"{streams:5} streams on {replicas} replicas: error p50 {p(error, 0.5):6.2f}  "
        f"p99 {p(error, 0.99):6.2f}  max {error.max():6.2f} ms;  gaps p50 {p(gaps, 0.5):5.1f}, "
        f"off by p99 {p(gap_error, 0.99):6.2f} ms;  steps begun late p99 "
        f"{p(late_s, 0.99) * 1e3:5.2f} ms;  {len(error) / np.ptp(said[together]):6.0f} tokens/s, "
        f"server {server_cpu_s / wall_s:.0%} of a core",
        flush=True,
    )


def main() -> None:
    """Measure every number of streams."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 250, 500, 1000, 2000])
    parser.add_argument("--replicas", type=int, nargs="+", default=[4])
    parser.add_argument("--tokens", type=int, default=800)
    asked = parser.parse_args()
    for replicas in asked.replicas:
        for streams in asked.streams:
            measure(streams, replicas, asked.tokens)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
