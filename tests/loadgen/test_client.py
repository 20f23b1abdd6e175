import asyncio

import msgspec
import pytest
from aiohttp import web
from faulty_server import DONE, LAST, TOKEN, Faulty, Script

from servescope.loadgen.endpoints import Ask
from servescope.loadgen.experiment import EndpointSpec
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.records import Record, record_of
from servescope.loadgen.replay import Due
from servescope.loadgen.target import Target
from servescope.loadgen.worker import ended_of


def call_of(number: int = 0, tokens: int = 16) -> Call:
    return Call(f"c{number}", "p", 0, tokens, 4, prompt_stream="s", number=number)


def body_of(target: Target, call: Call) -> bytes:
    spec = target.spec
    ask = Ask(call, "tiny", Prompts(0).prompt(call), ignore_eos=spec.ignore_eos, min_tokens=False)
    return msgspec.json.encode(target.dialect.body(ask) | spec.extra_body)


async def sent(server: Faulty, *, calls: int = 1, **spec: object) -> list[Record]:
    """Send calls one after the other, and read what came back as the conductor does."""
    target = Target.of(EndpointSpec(base_url=server.url, **spec))  # type: ignore[arg-type]
    records = []
    async with target.client() as client:
        for number in range(calls):
            call = call_of(number)
            exchange = await client.send(target.urls[0], body_of(target, call))
            ended = ended_of(Due(call, 0.0, 0.0), exchange, 0.0)
            records.append(
                record_of(
                    ended, target.dialect, 0, target.base_urls, done=False, secrets=target.secrets
                )[0]
            )
    return records


def script(*steps: bytes | float) -> Script:
    """Play bytes and pauses."""

    async def play(_: web.Request, response: web.StreamResponse) -> None:
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                await response.write(step)

    return play


async def test_a_stream_fills_every_stamp_in_order(faulty: Faulty) -> None:
    (record,) = await sent(faulty)
    assert record.status == "ok"
    assert record.chunk_s is not None
    assert len(record.chunk_s) == 4
    moments = [record.sent_s, record.first_byte_s, *record.chunk_s, record.end_s]
    assert moments == sorted(moments)  # type: ignore[type-var]
    assert (record.first_token_s, record.last_token_s) == (record.chunk_s[0], record.chunk_s[-1])
    assert (record.input_tokens, record.output_tokens) == (16, 4)


async def test_a_planted_pause_is_measured_where_it_was_planted(faulty: Faulty) -> None:
    faulty.script = script(0.2, TOKEN, TOKEN, 0.3, TOKEN, LAST, DONE)
    (record,) = await sent(faulty)
    assert record.chunk_s is not None
    assert record.sent_s is not None
    gaps = [b - a for a, b in zip([record.sent_s, *record.chunk_s], record.chunk_s, strict=False)]
    assert gaps[0] >= 0.2
    assert gaps[2] >= 0.3
    assert sorted(range(4), key=gaps.__getitem__)[2:] in ([0, 2], [2, 0])  # the two longest


async def test_without_usage_the_chunks_are_counted(faulty: Faulty) -> None:
    faulty.script = script(TOKEN, TOKEN, LAST, DONE)
    (record,) = await sent(faulty)
    assert record.output_tokens == 3
    assert record.input_tokens is None  # the journal takes the plan's


async def test_usage_in_every_chunk_tells_the_tokens_of_each(faulty: Faulty) -> None:
    chunk = (
        b'data: {"choices":[{"text":"x"}],"usage":{"prompt_tokens":16,"completion_tokens":%d}}\n\n'
    )
    faulty.script = script(chunk % 1, chunk % 4, chunk % 5, LAST.replace(b" b", b""), DONE)
    (record,) = await sent(faulty)
    assert record.chunk_tokens == [1, 3, 1]
    assert record.output_tokens == 5


async def test_a_stream_with_neither_finish_nor_done_is_truncated(faulty: Faulty) -> None:
    faulty.script = script(TOKEN, TOKEN)
    (record,) = await sent(faulty)
    assert record.status == "truncated"
    assert record.output_tokens == 2


async def test_a_finish_without_done_is_enough(faulty: Faulty) -> None:
    """transformers serve never sends [DONE]."""
    faulty.script = script(TOKEN, LAST)
    assert (await sent(faulty))[0].status == "ok"


async def test_a_last_event_without_a_line_end_counts(faulty: Faulty) -> None:
    faulty.script = script(TOKEN, LAST.rstrip())
    (record,) = await sent(faulty)
    assert (record.status, record.output_tokens) == ("ok", 2)


async def test_an_error_inside_the_stream_is_a_failure_of_the_server(faulty: Faulty) -> None:
    faulty.script = script(TOKEN, b'data: {"error":{"message":"engine died"}}\n\n', DONE)
    (record,) = await sent(faulty)
    assert (record.status, record.error) == ("server", "engine died")
    assert record.end_s is not None


async def test_a_chunk_that_is_not_json_is_malformed(faulty: Faulty) -> None:
    faulty.script = script(TOKEN, b"data: {oops\n\n", DONE)
    assert (await sent(faulty))[0].status == "malformed"


async def test_a_status_is_kept_with_what_it_said(faulty: Faulty) -> None:
    faulty.status = 503
    (record,) = await sent(faulty)
    assert (record.status, record.error) == ("http_503", "no room")


async def test_a_connection_that_breaks_off_is_a_row(faulty: Faulty) -> None:
    async def break_off(request: web.Request, response: web.StreamResponse) -> None:
        await response.write(TOKEN)
        assert request.transport is not None
        request.transport.abort()

    faulty.script = break_off
    (record,) = await sent(faulty)
    assert record.status == "reset"
    assert record.first_token_s is not None


async def test_a_stalled_stream_times_out_and_keeps_what_came(faulty: Faulty) -> None:
    faulty.script = script(TOKEN, 5.0, LAST)
    (record,) = await sent(faulty, timeout_s=0.3)
    assert record.status == "timeout"
    assert record.output_tokens == 1


async def test_nobody_listening_is_a_row_too() -> None:
    (record,) = await sent(Faulty(url="http://127.0.0.1:9"))
    assert record.status == "refused"
    assert record.sent_s is None
    assert record.end_s is not None


async def test_connections_are_reused_and_counted(faulty: Faulty) -> None:
    await sent(faulty, calls=3)
    assert len(faulty.connections) == 1


async def test_a_key_is_sent_and_never_kept(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    faulty.status = 401
    (record,) = await sent(faulty, api_key_env="MY_KEY")
    assert faulty.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in repr(record)


async def test_no_key_means_no_header(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Bearer None` was a peer's fault."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    await sent(faulty)
    assert "Authorization" not in faulty.headers[0]


async def test_a_body_of_megabytes_arrives_whole(faulty: Faulty) -> None:
    target = Target.of(EndpointSpec(base_url=faulty.url))
    body = body_of(target, call_of(tokens=400_000))
    async with target.client() as client:
        exchange = await client.send(target.urls[0], body)
    assert exchange.status is None
    assert faulty.bodies == [body]
    assert len(body) > 1 << 20


async def test_the_body_asks_for_usage_and_takes_extra_fields(faulty: Faulty) -> None:
    await sent(faulty, ignore_eos=False, extra_body={"top_k": 1, "temperature": 0.5})
    body = msgspec.json.decode(faulty.bodies[0])
    assert body["stream_options"] == {"include_usage": True}
    assert "ignore_eos" not in body
    assert (body["top_k"], body["temperature"], body["model"]) == (1, 0.5, "tiny")


async def test_a_key_that_the_server_repeats_is_struck_out(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some gateways echo the headers they refuse."""
    monkeypatch.setenv("MY_KEY", "sk-secret\n")
    faulty.status, faulty.says = 401, "bad header: Bearer sk-secret"
    (record,) = await sent(faulty, api_key_env="MY_KEY")
    assert record.error == "bad header: Bearer ***"
    faulty.status, faulty.script = 200, script(b'data: {"error":"key sk-secret expired"}\n\n')
    (record,) = await sent(faulty, api_key_env="MY_KEY")
    assert (record.status, record.error) == ("server", "key *** expired")


async def test_a_redirect_is_not_followed(faulty: Faulty) -> None:
    """Its time would be in TTFT, and its target is not the endpoint that was named."""
    faulty.status = 307
    (record,) = await sent(faulty)
    assert record.status == "http_307"
    assert len(faulty.bodies) == 1


async def test_bytes_that_are_no_text_are_malformed(faulty: Faulty) -> None:
    faulty.script = script(TOKEN, b'data: {"choices":[{"text":"\xff\xfe"}]}\n\n', DONE)
    assert (await sent(faulty))[0].status == "malformed"


async def test_a_count_that_no_table_can_hold_is_malformed(faulty: Faulty) -> None:
    absurd = b'data: {"choices":[],"usage":{"completion_tokens":%d}}\n\n' % 2**70
    faulty.script = script(TOKEN, absurd, DONE)
    assert (await sent(faulty))[0].status == "malformed"
