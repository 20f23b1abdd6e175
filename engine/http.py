"""An OpenAI-compatible HTTP server around the emulated engine, answering as vLLM does."""

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from servescope.engine import openai
from servescope.engine.engine import Engine, Refused
from servescope.engine.metrics import exposition
from servescope.engine.realtime import Realtime, Stream
from servescope.engine.request import Request
from servescope.traces.errors import InputError

MAX_BODY_BYTES = 64 * 2**20
COMPLETION_TOKENS = 16  # what vLLM generates when a completion does not say
CHAT_TOKENS = 256  # ASSUMED: vLLM goes on until the model stops, and this one never does
SHUTDOWN_S = 1.0  # for streams on their way when the server is told to stop

ENGINE_TASK = web.AppKey("engine_task", asyncio.Task[None])


def failure(status: HTTPStatus, message: str, param: str | None = None) -> web.Response:
    """Return an error in vLLM's JSON shape."""
    kind = {400: "BadRequestError", 404: "NotFoundError"}.get(status, status.phrase)
    error = {"message": message, "type": kind, "param": param, "code": status.value}
    return json_response({"error": error}, status)


def json_response(value: object, status: int = 200) -> web.Response:
    """Return a value as JSON."""
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")


class Server:
    """The handlers, around one realtime engine that serves one model by name."""

    def __init__(self, realtime: Realtime, model: str) -> None:
        self.realtime = realtime
        self.model = model
        self._completion = msgspec.json.Decoder(openai.CompletionAsk)
        self._chat = msgspec.json.Decoder(openai.ChatAsk)

    async def health(self, _: web.Request) -> web.Response:
        """`GET /health`."""
        return web.Response()

    async def models(self, _: web.Request) -> web.Response:
        """`GET /v1/models`."""
        card = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "servescope",
            "root": self.model,
            "parent": None,
            "max_model_len": self.realtime.engine.context_tokens,
        }
        return json_response({"object": "list", "data": [card]})

    async def metrics(self, _: web.Request) -> web.Response:
        """`GET /metrics`."""
        clock = self.realtime
        text = exposition(clock.engine, clock.waiting, clock.latencies, clock.behind, self.model)
        return web.Response(text=text)

    async def completions(self, http: web.Request) -> web.StreamResponse:
        """`POST /v1/completions`."""
        try:
            ask = self._completion.decode(await http.read())
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return failure(HTTPStatus.BAD_REQUEST, str(error))
        return await self._answer(http, ask, openai.prompt_tokens(ask.prompt), chat=False)

    async def chat_completions(self, http: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        try:
            ask = self._chat.decode(await http.read())
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return failure(HTTPStatus.BAD_REQUEST, str(error))
        return await self._answer(http, ask, openai.chat_tokens(ask.messages), chat=True)

    async def _answer(
        self, http: web.Request, ask: openai.Ask, input_tokens: int, chat: bool
    ) -> web.StreamResponse:
        if ask.model not in (None, self.model):
            message = f"The model `{ask.model}` does not exist."
            return failure(HTTPStatus.NOT_FOUND, message, "model")
        if ask.n != 1:
            return failure(HTTPStatus.BAD_REQUEST, "Only n=1 is served.", "n")
        output_tokens = ask.max_completion_tokens if chat else None
        if output_tokens is None:
            output_tokens = ask.max_tokens
        if output_tokens is None:
            output_tokens = CHAT_TOKENS if chat else COMPLETION_TOKENS
        given_id = ask.request_id or http.headers.get("X-Request-Id") or uuid.uuid4().hex
        request = Request(
            f"{'chatcmpl' if chat else 'cmpl'}-{given_id}",
            input_tokens,
            output_tokens,
            self.realtime.now(),
            ask.program_id,
            ask.priority,
        )
        try:
            stream = self.realtime.submit(request)
        except Refused as error:
            return failure(HTTPStatus.BAD_REQUEST, str(error))
        try:
            if not ask.stream:
                return await self._whole(stream, output_tokens, chat)
            include_usage = ask.stream_options is not None and ask.stream_options.include_usage
            frames = openai.Frames(request, output_tokens, self.model, chat, include_usage)
            return await self._streamed(http, stream, frames)
        finally:  # whoever went away holds no blocks
            if not request.done:
                self.realtime.abort(request.id)

    async def _whole(self, stream: Stream, output_tokens: int, chat: bool) -> web.Response:
        request = stream.request
        while not request.done:
            await stream.take()
        choice = openai.chat_choice if chat else openai.completion_choice
        answer = openai.Answer(
            request.id,
            "chat.completion" if chat else "text_completion",
            int(time.time()),
            self.model,
            [choice(openai.TOKEN * output_tokens, "length")],
            openai.usage_of(request, output_tokens),
        )
        return json_response(answer)

    async def _streamed(
        self, http: web.Request, stream: Stream, frames: openai.Frames
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
            }
        )
        sent = 0
        with suppress(ConnectionResetError):
            await response.prepare(http)
            while sent < frames.output_tokens:
                fresh = await stream.take()
                await response.write(frames.next(fresh, sent))
                sent += fresh
            await response.write_eof()
        return response


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer an unknown path, a wrong method or an oversized body in vLLM's JSON shape."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return failure(HTTPStatus(error.status), error.reason)


def make_app(engine: Engine, model: str) -> web.Application:
    """Return the application, which runs the engine as long as it runs itself."""
    realtime = Realtime(engine)
    server = Server(realtime, model)
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[errors_as_json])
    app.cleanup_ctx.append(partial(_running, realtime))
    app.router.add_get("/health", server.health)
    app.router.add_get("/v1/models", server.models)
    app.router.add_get("/metrics", server.metrics)
    app.router.add_post("/v1/completions", server.completions)
    app.router.add_post("/v1/chat/completions", server.chat_completions)
    return app


async def _running(realtime: Realtime, app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(realtime.run())
    app[ENGINE_TASK] = task
    yield
    task.cancel()
    await asyncio.wait([task])


async def listen(
    engine: Engine,
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_listening: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve until SIGINT or SIGTERM; port 0 takes any free one, `on_listening` hears the URL."""
    app = make_app(engine, model)
    # Without handler_cancellation a client that goes away would keep its blocks to the end.
    runner = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise InputError(
                f"Cannot listen on {host}:{port}: {error.strerror or error}.",
                "Choose another host or port; port 0 takes any free one.",
            ) from None
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        on_listening(f"http://{host}:{runner.addresses[0][1]}")
        stop = asyncio.create_task(stopped.wait())
        engine_task = app[ENGINE_TASK]
        ends: set[asyncio.Future[Any]] = {stop, engine_task}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        if engine_task.done():
            engine_task.result()  # the engine never ends by itself: this raises why it did
    finally:
        await runner.cleanup()


def serve(
    engine: Engine,
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_listening: Callable[[str], None] = lambda url: None,
) -> None:
    """Run `listen` on the fastest event loop there is."""
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(listen(engine, model, host, port, on_listening))
    else:
        uvloop.run(listen(engine, model, host, port, on_listening))
