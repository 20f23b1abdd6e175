"""An OpenAI-compatible HTTP server around the emulated engine, answering as vLLM does."""

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus

import msgspec
from aiohttp import web

from servescope.engine import openai
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine, Refused
from servescope.engine.faults import Fault, Faults
from servescope.engine.metrics import exposition
from servescope.engine.realtime import EngineDead, Realtime, Stream
from servescope.engine.request import Request
from servescope.traces.errors import InputError

MAX_BODY_BYTES = 64 * 2**20
COMPLETION_TOKENS = 16  # what vLLM generates when a completion does not say
CHAT_TOKENS = 256  # ASSUMED: vLLM goes on until the model stops, and this one never does
SHUTDOWN_S = 1.0  # for streams on their way when the server is told to stop


def failure(status: HTTPStatus, message: str, param: str | None = None) -> web.Response:
    """Return an error in vLLM's JSON shape."""
    kind = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}.get(
        status, status.phrase
    )
    error = {"message": message, "type": kind, "param": param, "code": status.value}
    return json_response({"error": error}, status)


def json_response(value: object, status: int = 200) -> web.Response:
    """Return a value as JSON."""
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")


class Server:
    """The handlers, around one realtime cluster that serves one model by name."""

    def __init__(self, realtime: Realtime, model: str, faults: Faults) -> None:
        self.realtime = realtime
        self.model = model
        self.faults = faults
        self.cached = any(each.engine.pool.prefixes is not None for each in realtime.cluster.all)
        self._completion = msgspec.json.Decoder(openai.CompletionAsk)
        self._chat = msgspec.json.Decoder(openai.ChatAsk)

    async def health(self, _: web.Request) -> web.Response:
        """`GET /health`: 503 once the engine is dead."""
        return web.Response(status=200 if self.realtime.error is None else 503)

    async def models(self, _: web.Request) -> web.Response:
        """`GET /v1/models`."""
        card = {
            "id": self.model,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "servescope (emulated: there is no model)",
            "root": self.model,
            "parent": None,
            "max_model_len": self.realtime.engine.context_tokens,
        }
        return json_response({"object": "list", "data": [card]})

    async def metrics(self, _: web.Request) -> web.Response:
        """`GET /metrics`."""
        clock = self.realtime
        engines = [replica.engine for replica in clock.cluster.replicas]
        text = exposition(
            engines, clock.inbox, clock.latencies, clock.behind, self.model, self.faults.counts
        )
        return web.Response(text=text)

    async def completions(self, http: web.Request) -> web.StreamResponse:
        """`POST /v1/completions`."""
        try:
            ask = self._completion.decode(await http.read())
            tokens = openai.prompt_tokens(ask.prompt)
        except (msgspec.MsgspecError, UnicodeDecodeError, InputError) as error:
            return failure(HTTPStatus.BAD_REQUEST, str(error))
        return await self._answer(http, ask, tokens, chat=False)

    async def chat_completions(self, http: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        try:
            ask = self._chat.decode(await http.read())
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return failure(HTTPStatus.BAD_REQUEST, str(error))
        return await self._answer(http, ask, openai.chat_tokens(ask.messages), chat=True)

    async def _answer(
        self, http: web.Request, ask: openai.Ask, tokens: openai.Tokens, chat: bool
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
        if ask.min_tokens > output_tokens:
            message = f"min_tokens must be less than or equal to max_tokens={output_tokens}, got"
            return failure(HTTPStatus.BAD_REQUEST, f"{message} {ask.min_tokens}.", "min_tokens")
        try:
            deadline_s = float(http.headers["X-Deadline"]) if "X-Deadline" in http.headers else None
        except ValueError:
            return failure(HTTPStatus.BAD_REQUEST, "X-Deadline is no number of seconds.")
        fault = self.faults.draw()
        if fault is not None and fault.kind == "error":
            return failure(HTTPStatus(fault.status), "A fault on purpose.")
        now = self.realtime.now()
        given_id = ask.request_id or http.headers.get("X-Request-Id") or uuid.uuid4().hex
        request = Request(
            f"{'chatcmpl' if chat else 'cmpl'}-{given_id}",
            len(tokens),
            output_tokens,
            now,
            ask.program_id or ask.job_id or http.headers.get("X-Program-Id"),
            ask.priority,
            openai.pieces(tokens) if self.cached else (),
            last=ask.is_last_step,
            call_class=http.headers.get("X-Step"),
            tool=ask.this_func_call,
            deadline_s=None if deadline_s is None else now + deadline_s,
        )
        try:
            stream = self.realtime.submit(request)
        except Refused as error:
            return failure(HTTPStatus.BAD_REQUEST, str(error))
        except EngineDead as error:
            return failure(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        try:
            if not ask.stream:
                return await self._whole(http, stream, output_tokens, chat, fault)
            include_usage = ask.stream_options is not None and ask.stream_options.include_usage
            frames = openai.Frames(
                request, output_tokens, self.model, chat, include_usage, self.cached
            )
            return await self._streamed(http, stream, frames, fault)
        finally:  # whoever went away holds no blocks
            if not request.done:
                self.realtime.abort(request.id)

    async def _whole(
        self,
        http: web.Request,
        stream: Stream,
        output_tokens: int,
        chat: bool,
        fault: Fault | None,
    ) -> web.StreamResponse:
        request = stream.request
        try:
            while not request.done:
                await stream.take()
        except EngineDead as error:
            return failure(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        if fault is not None:
            await self._go_wrong(http, fault)
        choice = openai.chat_choice if chat else openai.completion_choice
        answer = openai.Answer(
            request.id,
            "chat.completion" if chat else "text_completion",
            int(time.time()),
            self.model,
            [choice(openai.TOKEN * output_tokens, "length")],
            openai.usage_of(request, output_tokens, cached=self.cached),
        )
        return json_response(answer)

    async def _streamed(
        self, http: web.Request, stream: Stream, frames: openai.Frames, fault: Fault | None
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
            try:
                while sent < frames.output_tokens:
                    fresh = await stream.take()
                    await response.write(frames.next(fresh, sent))
                    sent += fresh
                    if fault is not None and 2 * sent >= frames.output_tokens:
                        await self._go_wrong(http, fault)
                        fault = None
            except EngineDead as error:  # as vLLM ends a stream that has begun
                said = failure(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)).body
                assert isinstance(said, bytes)
                await response.write(b"data: " + said + b"\n\n" + openai.DONE)
            await response.write_eof()
        return response

    async def _go_wrong(self, http: web.Request, fault: Fault) -> None:
        """Stall, or drop the connection."""
        if fault.kind == "stall":
            await asyncio.sleep(fault.stall_s)
        elif http.transport is not None:
            http.transport.abort()
            raise ConnectionResetError


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer an unknown path, a wrong method or an oversized body in vLLM's JSON shape."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return failure(HTTPStatus(error.status), error.reason)


def make_app(
    served: Engine | Cluster,
    model: str,
    label: str = "",
    faults: Faults | None = None,
    on_death: Callable[[Exception], None] = lambda error: None,
) -> web.Application:
    """Return the application, which runs the engines as long as it runs itself.

    Every response says in a header that it is an emulation, and of what: `label`. A system that
    fails is told to `on_death`; from then on every request is answered with 500.
    """
    realtime = Realtime(served)
    server = Server(realtime, model, faults or Faults())
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[errors_as_json])
    app.on_response_prepare.append(partial(_say_emulated, label or model))
    app.cleanup_ctx.append(partial(_running, realtime, on_death))
    app.router.add_get("/health", server.health)
    app.router.add_get("/v1/models", server.models)
    app.router.add_get("/metrics", server.metrics)
    app.router.add_post("/v1/completions", server.completions)
    app.router.add_post("/v1/chat/completions", server.chat_completions)
    return app


async def _say_emulated(label: str, _: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Servescope-Emulated"] = label


async def _running(
    realtime: Realtime, on_death: Callable[[Exception], None], _: web.Application
) -> AsyncIterator[None]:
    async def run() -> None:
        try:
            await realtime.run()
        except Exception as error:  # whatever a stranger's policy raises
            on_death(error)

    task = asyncio.create_task(run())
    yield
    task.cancel()
    await asyncio.wait([task])


async def listen(
    served: Engine | Cluster,
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_listening: Callable[[str], None] = lambda url: None,
    label: str = "",
    faults: Faults | None = None,
    on_death: Callable[[Exception], None] = lambda error: None,
) -> None:
    """Serve until SIGINT or SIGTERM; port 0 takes any free one, `on_listening` hears the URL."""
    app = make_app(served, model, label, faults, on_death)
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
        await stopped.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    finally:
        await runner.cleanup()


def serve(
    served: Engine | Cluster,
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_listening: Callable[[str], None] = lambda url: None,
    label: str = "",
    faults: Faults | None = None,
    on_death: Callable[[Exception], None] = lambda error: None,
) -> None:
    """Run `listen` on the fastest event loop there is."""
    listening = listen(served, model, host, port, on_listening, label, faults, on_death)
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        asyncio.run(listening)
    else:
        uvloop.run(listening)
