"""A server on loopback that plays a script for each request, faults included."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Script = Callable[[web.Request, web.StreamResponse], Awaitable[None]]
TOKEN = b'data: {"choices":[{"text":" a","finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"text":" b","finish_reason":"length"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":16,"completion_tokens":%d}}\n\n'
DONE = b"data: [DONE]\n\n"


@dataclass
class Faulty:
    """A server that plays a script for each request; what it was sent is in `bodies`."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[object] = field(default_factory=set)
    script: Script | None = None
    stop: Callable[[], None] = lambda: None
    status: int = 200
    says: str = "no room"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.headers.append(dict(request.headers))
        self.connections.add(request.transport)
        if self.status != 200:
            away = {"Location": "/v1/models"} if 300 <= self.status < 400 else {}
            return web.Response(status=self.status, text=self.says, headers=away)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.script:
            await self.script(request, response)
        return response

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "tiny"}]})


async def well_behaved(_: web.Request, response: web.StreamResponse) -> None:
    for data in (TOKEN, TOKEN, TOKEN, LAST, USAGE % 4, DONE):
        await response.write(data)


@asynccontextmanager
async def serving(server: Faulty, tls: ssl.SSLContext | None = None) -> AsyncIterator[Faulty]:
    """Listen on a free port of loopback as long as the context lasts."""
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/completions", server.answer)
    app.router.add_post("/v1/chat/completions", server.answer)
    app.router.add_get("/v1/models", server.models)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
