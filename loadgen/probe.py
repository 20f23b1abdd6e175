"""Two small calls before a replay: is the endpoint there, and how does it behave?"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import msgspec

from servescope.loadgen.client import Client, told
from servescope.loadgen.experiment import EndpointSpec
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.records import Record
from servescope.loadgen.replay import Due
from servescope.traces.errors import EndpointError
from servescope.traces.status import OK

PROBE_INPUT, PROBE_OUTPUT = 16, 4


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What the endpoint showed: its model, whether connections can be reused, how it counts tokens.

    The token counts are None where the server reports no usage.
    """

    model: str
    reuse: bool
    input_tokens: int | None
    output_tokens: int | None
    ttft_s: float | None

    @property
    def doubts(self) -> tuple[str, ...]:
        """What a reader of the run should know of the endpoint."""
        said = []
        if self.output_tokens is None:
            said.append("The server reports no usage, so chunks are counted as tokens.")
        elif self.output_tokens < PROBE_OUTPUT:
            said.append(
                f"The server stopped after {self.output_tokens} of {PROBE_OUTPUT} tokens asked for,"
                " so answers may be shorter than planned (is ignore_eos honoured?)."
            )
        if not self.reuse:
            said.append(
                "The server closes every connection after a response, so each call opens a new one;"
                " that time is before the sent clock starts, and inside the due clock."
            )
        return tuple(said)


async def probe(spec: EndpointSpec) -> Probe:
    """Ask an endpoint for its model and send it two calls; raises EndpointError if it fails."""
    async with Client(spec) as client:
        model = spec.model or await _first_model(client)
        first = await _small_call(client, model, 0)
        if first.status != OK:
            raise _unusable(client, model, first)
        await asyncio.sleep(0.05)  # a server that closes the connection has done so by then
        reused = client.reused
        again = await _small_call(client, model, 1)
    counted = client.uncounted == 0
    return Probe(
        model=model,
        reuse=again.status == OK and client.reused > reused,
        input_tokens=first.input_tokens if counted else None,
        output_tokens=first.output_tokens if counted else None,
        ttft_s=None if first.first_token_s is None else first.first_token_s - (first.sent_s or 0),
    )


async def _first_model(client: Client) -> str:
    try:
        status, body = await client.get("/v1/models")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise _unreachable(client, told(error)) from None
    try:
        models: list[dict[str, Any]] = msgspec.json.decode(body)["data"]
        return str(models[0]["id"])
    except (msgspec.DecodeError, LookupError, TypeError):
        raise EndpointError(
            f"{client.base_url}/v1/models answered {status} and names no model.",
            "Check the base URL, or name the model with --model.",
        ) from None


async def _small_call(client: Client, model: str, number: int) -> Record:
    name = f"probe-{number}"
    call = Call(name, name, 0, PROBE_INPUT, PROBE_OUTPUT, prompt_stream=name)
    record = Record.of(Due(call, 0.0, 0.0), "unknown")
    await client.send(record, client.body(call, Prompts(seed=number), model), time.monotonic)
    return record


def _unusable(client: Client, model: str, record: Record) -> EndpointError:
    said = (record.error or "").strip().replace("\n", " ")[:200]
    match record.status:
        case "connection":
            return _unreachable(client, said)
        case "http_401" | "http_403":
            return EndpointError(
                f"{client.url} refused the key: {said}",
                f"Put a valid key into the environment variable {client.spec.api_key_env}.",
            )
        case "http_404" | "http_405":
            return EndpointError(
                f"{client.url} answered {record.status[5:]}: {said}",
                f"Check the path, the --backend ({client.spec.backend}) and the model ({model}).",
            )
        case status:
            return EndpointError(
                f"{client.url} failed a small call ({status}): {said}",
                "Look into the server's log; nothing was measured yet.",
            )


def _unreachable(client: Client, said: str) -> EndpointError:
    return EndpointError(
        f"Nothing answers at {client.base_url} ({said[:160]}).",
        "Start the server, or check --base-url.",
    )
