"""A few small calls before a replay: is the endpoint there, and what does it support and honour?"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import msgspec

from servescope.loadgen import answer as answers
from servescope.loadgen import wire
from servescope.loadgen.answer import Answer
from servescope.loadgen.client import Client, Exchange
from servescope.loadgen.endpoints import Ask
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.target import Target
from servescope.traces.errors import EndpointError
from servescope.traces.status import OK, SERVER, TLS

PROBE_INPUT, PROBE_OUTPUT = 16, 4
# Fields that are no part of the dialect's core: a server may refuse them.
EXTRAS = ("min_tokens", "ignore_eos", "stream_options", "priority")
# How a refusal of a field looks: vLLM finds some of what it does not take after it has said 200.
REFUSALS = ("http_400", "http_422", SERVER)
FIN_S = 0.05  # a server that closes its connections has done so by then


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What the endpoint showed.

    `reuse`: connections outlive a call. `streams`: the answer came in more than one piece. `done`:
    streams end with `[DONE]`. `refused`: fields that it answers with an error. The counts are None
    where the server reports no usage, `each` says that it reports it with every chunk.
    """

    model: str
    reuse: bool
    streams: bool
    done: bool
    refused: tuple[str, ...]
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    each: bool
    ttft_s: float | None

    @property
    def doubts(self) -> tuple[str, ...]:
        """What a run against this endpoint cannot measure, or measures less well."""
        said = []
        if self.output_tokens is None:
            said.append("The server reports no usage, so chunks are counted as tokens.")
        elif self.output_tokens < PROBE_OUTPUT:
            said.append(
                f"The server stopped after {self.output_tokens} of {PROBE_OUTPUT} tokens asked for,"
                " so answers may be shorter than planned (is ignore_eos honoured?)."
            )
        if not self.streams:
            said.append(
                "The server sent its answer in one piece, so TTFT is the end of the call and no gap"
                " between tokens can be measured."
            )
        if self.refused:
            said.append(f"The server refuses {', '.join(self.refused)}; requests go without.")
        if not self.reuse:
            said.append(
                "The server closes every connection after a response, so each call opens a new one;"
                " that time is before the sent clock starts, and inside the due clock."
            )
        return tuple(said)


async def probe(target: Target) -> Probe:
    """Ask an endpoint for its model and send it small calls; raises EndpointError if it fails."""
    async with target.client() as client:
        model = target.spec.model or await _first_model(client, target)
        refused: tuple[str, ...] = ()
        first = await _small_call(client, target, model, refused)
        if first.status in REFUSALS:
            refused = await _refused(client, target, model)
            first = await _small_call(client, target, model, refused)
        if first.status != OK:
            raise _unusable(target, model, first)
        await asyncio.sleep(FIN_S)
        again = await _small_call(client, target, model, refused)
    answer, stream = first.answer, first.exchange.stream
    assert answer is not None
    assert stream is not None
    reused = again.exchange.stream
    return Probe(
        model=model,
        reuse=again.status == OK and reused is not None and reused.earlier > 0,
        streams=len(answer.chunk_s) > 1,
        done=answer.done,
        refused=refused,
        input_tokens=answer.prompt_tokens,
        output_tokens=answer.completion_tokens,
        cached_tokens=again.answer.cached_tokens if again.answer else None,
        each=answer.chunk_tokens is not None,
        ttft_s=answer.chunk_s[0] - stream.sent_s if answer.chunk_s else None,
    )


class _Tried:
    """A small call that was tried: what came back, and what that says."""

    def __init__(self, exchange: Exchange, answer: Answer | None) -> None:
        self.exchange = exchange
        self.answer = answer
        self.status = exchange.status or (answer.status if answer else OK)
        self.error = exchange.error or (answer.error if answer else None)


async def _small_call(
    client: Client, target: Target, model: str, refused: tuple[str, ...]
) -> _Tried:
    spec = target.spec
    priority = None if spec.priority == "none" else 1
    call = Call(
        "probe",
        "probe",
        0,
        PROBE_INPUT,
        PROBE_OUTPUT,
        prompt_stream="probe",
        priority=priority,
    )
    prompts = Prompts(seed=time.monotonic_ns() % 2**31)  # not in the server's cache yet
    prompt = {"prompt": prompts.prompt, "text": prompts.text}.get(target.dialect.takes)
    ask = Ask(
        call=call,
        model=model,
        prompt=prompt(call) if prompt else None,
        messages=(
            [{"role": "user", "content": prompts.text(call)}]
            if target.dialect.takes == "messages"
            else None
        ),
        ignore_eos=spec.ignore_eos,
        min_tokens=spec.min_tokens,
        usage_each=spec.usage_each,
        refused=frozenset(refused),
    )
    headers = target.dialect.headers(ask) if target.dialect.headers else None
    body = msgspec.json.encode(target.dialect.body(ask) | spec.extra_body)
    exchange = await client.send(target.urls[0], body, headers)
    if exchange.status is not None or exchange.stream is None:
        return _Tried(exchange, None)
    stream = exchange.stream
    return _Tried(exchange, answers.read(target.dialect, stream.blocks, stream.stamps))


async def _refused(client: Client, target: Target, model: str) -> tuple[str, ...]:
    """Return the extra fields without which a small call succeeds; none if all fail alike."""
    bare = await _small_call(client, target, model, EXTRAS)
    if bare.status != OK:
        return ()
    refused = []
    for name in EXTRAS:
        others = tuple(other for other in EXTRAS if other != name)
        if (await _small_call(client, target, model, others)).status != OK:
            refused.append(name)
    return tuple(refused)


async def _first_model(client: Client, target: Target) -> str:
    base = target.base_urls[0]
    try:
        status, body = await client.get(f"{base}/v1/models")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise _unreachable(target, *wire.fault_of(error)) from None
    try:
        models: list[dict[str, Any]] = msgspec.json.decode(body)["data"]
        return str(models[0]["id"])
    except (msgspec.DecodeError, LookupError, TypeError):
        raise EndpointError(
            f"{base}/v1/models answered {status} and names no model.",
            "Check the base URL, or name the model with --model.",
        ) from None


def _unusable(target: Target, model: str, tried: _Tried) -> EndpointError:
    said = (tried.error or "").strip().replace("\n", " ")[:200]
    url = target.urls[0]
    match tried.status:
        case "connection" | "refused" | "dns" | "tls" | "reset":
            return _unreachable(target, tried.status, said)
        case "http_401" | "http_403":
            return EndpointError(
                f"{url} refused the key: {said}",
                f"Put a valid key into the environment variable {target.spec.api_key_env}.",
            )
        case "http_404" | "http_405":
            return EndpointError(
                f"{url} answered {tried.status[5:]}: {said}",
                f"Check the path, the --backend ({target.spec.backend}) and the model ({model}).",
            )
        case status:
            return EndpointError(
                f"{url} failed a small call ({status}): {said}",
                "Look into the server's log; nothing was measured yet.",
            )


def _unreachable(target: Target, status: str, said: str) -> EndpointError:
    if status == TLS:
        return EndpointError(
            f"No safe connection to {target.base_urls[0]} can be made ({said[:160]}).",
            "If you trust its certificate, name the file of it in SSL_CERT_FILE; if it speaks no"
            " TLS, write http://.",
        )
    return EndpointError(
        f"Nothing answers at {target.base_urls[0]} ({said[:160]}).",
        "Start the server, or check --base-url.",
    )
