import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientError, ClientSession, ClientTimeout, web

from servescope.engine.cluster import Cluster
from servescope.engine.engine import Deadlock, Engine
from servescope.engine.faults import Fault, Faults
from servescope.engine.http import listen, make_app
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, Parts, Scheduler, View
from servescope.engine.prefixes import Prefixes
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems.sarathi import Sarathi
from servescope.traces.errors import InputError


def two_ms(load: Load) -> float:
    return 0.002


@pytest.fixture
def engine() -> Engine:
    return Engine(Sarathi(), two_ms, BlockPool(10_000), 150_000)


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[ClientSession]:
    runner = web.AppRunner(make_app(engine, "llama"), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with ClientSession(url, timeout=ClientTimeout(20)) as session:
        yield session
    await runner.cleanup()


async def ask(client: ClientSession, path: str, **body: object) -> tuple[int, str]:
    async with client.post(path, json=body) as response:
        text = await response.text()
        return response.status, re.sub(r'"created":\d+', '"created":0', text)


async def test_it_is_healthy_and_names_its_model(client: ClientSession) -> None:
    async with client.get("/health") as response:
        assert response.status == 200
    async with client.get("/v1/models") as response:
        (card,) = (await response.json())["data"]
    assert (card["id"], card["max_model_len"]) == ("llama", 150_000)


async def test_a_streamed_completion_is_written_as_vllm_writes_it(client: ClientSession) -> None:
    status, text = await ask(
        client,
        "/v1/completions",
        model="llama",
        prompt="one two three",
        max_tokens=2,
        stream=True,
        stream_options={"include_usage": True},
        request_id="7",
        temperature=0.0,
        ignore_eos=True,
        min_tokens=2,
    )
    start = 'data: {"id":"cmpl-7","object":"text_completion","created":0,"model":"llama","choices":'
    choice = '[{"index":0,"text":" token","logprobs":null,"finish_reason":%s,"stop_reason":null}]}'
    usage = '[],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2}}'
    assert status == 200
    assert text == "".join(
        event + "\n\n"
        for event in (
            start + choice % "null",
            start + choice % '"length"',
            start + usage,
            "data: [DONE]",
        )
    )


async def test_a_streamed_chat_opens_with_its_role(client: ClientSession) -> None:
    status, text = await ask(
        client,
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "hello"}],
        max_completion_tokens=2,
        stream=True,
        request_id="7",
    )
    start = (
        'data: {"id":"chatcmpl-7","object":"chat.completion.chunk","created":0,"model":"llama",'
        '"choices":[{"index":0,"delta":'
    )
    assert status == 200
    assert text == "".join(
        event + "\n\n"
        for event in (
            start + '{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}',
            start + '{"content":" token"},"logprobs":null,"finish_reason":null}]}',
            start + '{"content":" token"},"logprobs":null,"finish_reason":"length"}]}',
            "data: [DONE]",
        )
    )


async def test_a_whole_answer_has_its_text_and_usage(client: ClientSession) -> None:
    status, text = await ask(client, "/v1/completions", prompt=[5, 6, 7], max_tokens=4)
    answer = json.loads(text)
    assert status == 200
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == " token" * 4
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 7, "completion_tokens": 4}

    messages = [{"role": "user", "content": "hello you"}]
    status, text = await ask(client, "/v1/chat/completions", messages=messages, max_tokens=1)
    assert json.loads(text)["choices"][0]["message"] == {"role": "assistant", "content": " token"}
    assert json.loads(text)["usage"]["prompt_tokens"] == 2


async def test_without_max_tokens_a_completion_has_sixteen(client: ClientSession) -> None:
    _, text = await ask(client, "/v1/completions", prompt="a")
    assert json.loads(text)["usage"]["completion_tokens"] == 16


async def test_a_hundred_thousand_token_ids_are_a_prompt(client: ClientSession) -> None:
    prompt = list(range(100_000))
    _, text = await ask(client, "/v1/completions", prompt=prompt, max_tokens=1)
    assert json.loads(text)["usage"]["prompt_tokens"] == 100_000


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"model": "gpt", "prompt": "a"}, 404, "The model `gpt` does not exist"),
        ({"prompt": "a", "max_tokens": 150_000}, 400, "maximum context length is 150000 tokens"),
        ({"prompt": "", "max_tokens": 1}, 400, "0 prompt tokens"),
        ({"prompt": "a", "max_tokens": 0}, 400, "at least 1"),
        ({"prompt": "a", "n": 2}, 400, "Only n=1"),
        ({"prompt": ["a", "b"]}, 400, "Only one prompt"),
        ({"prompt": "a", "max_tokens": 2, "min_tokens": 3}, 400, "equal to max_tokens=2, got 3"),
        ({"max_tokens": 1}, 400, "missing required field `prompt`"),
    ],
)
async def test_errors_are_in_vllms_shape(
    client: ClientSession, body: dict[str, object], status: int, says: str
) -> None:
    got, text = await ask(client, "/v1/completions", **body)
    error = json.loads(text)["error"]
    assert (got, error["code"]) == (status, status)
    assert says in error["message"]
    assert error["type"] == {400: "BadRequestError", 404: "NotFoundError"}[status]


async def test_broken_json_and_unknown_paths_are_errors_too(client: ClientSession) -> None:
    for broken in (b'{"prompt":', b'{"prompt":"\xff"}'):
        for path in ("/v1/completions", "/v1/chat/completions"):
            async with client.post(path, data=broken) as response:
                assert response.status == 400
    async with client.get("/v2/nothing") as response:
        assert response.status == 404
        assert (await response.json())["error"]["message"] == "Not Found"
    async with client.get("/v1/completions") as response:
        assert response.status == 405


async def test_ids_priorities_and_programs_reach_the_request(
    client: ClientSession, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Request] = []
    submit = engine.submit

    def spy(request: Request, now: float) -> None:
        seen.append(request)
        submit(request, now)

    monkeypatch.setattr(engine, "submit", spy)
    body = {"prompt": "a", "max_tokens": 1, "priority": 3, "program_id": "agent-1"}
    async with client.post(
        "/v1/completions", json=body, headers={"X-Request-Id": "mine"}
    ) as response:
        assert (await response.json())["id"] == "cmpl-mine"
    (request,) = seen
    assert (request.id, request.priority, request.program_id) == ("cmpl-mine", 3, "agent-1")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_frees_its_blocks(
    client: ClientSession, engine: Engine, stream: bool
) -> None:
    body = {"prompt": [1] * 1000, "max_tokens": 100_000, "stream": stream}
    going = asyncio.create_task(ask(client, "/v1/completions", **body))
    async with asyncio.timeout(20):
        while not engine.pool.used:
            await asyncio.sleep(0.005)
        going.cancel()
        while engine.pool.used:
            await asyncio.sleep(0.005)
    assert engine.counters.aborted == 1
    engine.check()


async def test_the_metrics_count_what_was_served(client: ClientSession) -> None:
    await ask(client, "/v1/completions", prompt="a b c", max_tokens=5)
    async with client.get("/metrics") as response:
        assert response.content_type == "text/plain"
        text = await response.text()
    labels = r'\{engine="0",model_name="llama"\}'
    assert re.search(rf"^vllm:prompt_tokens_total{labels} 3$", text, re.MULTILINE)
    assert re.search(rf"^vllm:generation_tokens_total{labels} 5$", text, re.MULTILINE)
    assert re.search(rf"^servescope_engine_behind_seconds_count{labels} 5$", text, re.MULTILINE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_listens_on_any_free_port_until_it_is_told_to_stop(
    engine: Engine, number: signal.Signals
) -> None:
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(listen(engine, "llama", port=0, on_listening=listening.set_result))
    url = await asyncio.wait_for(listening, 10)
    async with ClientSession() as session, session.get(f"{url}/health") as response:
        assert response.status == 200
    os.kill(os.getpid(), number)
    await asyncio.wait_for(server, 10)


async def test_a_port_in_use_is_said_with_a_mend(engine: Engine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"Cannot listen on 127.0.0.1:{port}: .* 0 takes any"):
            await listen(engine, "llama", port=port)


class Lazy:
    def plan(self, view: View) -> Batch:
        return Batch()


class Raises:
    def plan(self, view: View) -> Batch:
        if view.decoding:
            raise KeyError("nothing here")
        return Sarathi().plan(view)


@contextlib.asynccontextmanager
async def served_by(system: Scheduler, **more: Any) -> AsyncIterator[ClientSession]:
    engine = Engine(system, two_ms, BlockPool(100, Prefixes()), 1000)
    runner = web.AppRunner(make_app(engine, "llama", **more), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with ClientSession(url, timeout=ClientTimeout(20)) as session:
            yield session
    finally:
        await runner.cleanup()


async def test_a_policy_that_never_plans_fails_its_requests_and_the_server_stays() -> None:
    deaths: list[Exception] = []
    async with served_by(Lazy(), on_death=deaths.append) as client:
        for _ in range(2):
            status, text = await ask(client, "/v1/completions", prompt="a")
            error = json.loads(text)["error"]
            assert (status, error["type"]) == (500, "InternalServerError")
            assert "Lazy plans nothing" in error["message"]
        async with client.get("/health") as response:
            assert response.status == 503
        async with client.get("/metrics") as response:
            assert response.status == 200
    assert [type(death) for death in deaths] == [Deadlock]


async def test_a_policy_that_raises_ends_streams_with_an_error() -> None:
    async with served_by(Raises()) as client:
        status, text = await ask(client, "/v1/completions", prompt="a", max_tokens=3, stream=True)
        first, error, done, rest = text.split("\n\n")
        assert (status, done, rest) == (200, "data: [DONE]", "")
        assert '" token"' in first
        said = json.loads(error.removeprefix("data: "))["error"]
        assert said["code"] == 500
        assert re.search(r"test_http\.py, line \d+: KeyError: 'nothing here'", said["message"])


async def test_every_response_says_that_it_is_emulated() -> None:
    async with served_by(Sarathi(), label="sarathi on paper") as client:
        async with client.get("/v1/models") as response:
            assert response.headers["X-Servescope-Emulated"] == "sarathi on paper"
            assert "emulated" in (await response.json())["data"][0]["owned_by"]
        body = {"prompt": "a", "stream": True}
        async with client.post("/v1/completions", json=body) as response:
            assert response.headers["X-Servescope-Emulated"] == "sarathi on paper"


async def test_usage_tells_what_was_cached() -> None:
    prompt = " ".join(map(str, range(40)))
    async with served_by(Sarathi()) as client:
        usages = []
        for _ in range(2):
            _, text = await ask(client, "/v1/completions", prompt=prompt, max_tokens=2)
            usages.append(json.loads(text)["usage"]["prompt_tokens_details"]["cached_tokens"])
        _, text = await ask(
            client, "/v1/completions", prompt=prompt, max_tokens=2, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        assert usages == [0, 32]
        assert '"cached_tokens":32' in text
        async with client.get("/metrics") as response:
            metrics = await response.text()
        assert 'vllm:prefix_cache_queries_total{engine="0",model_name="llama"} 120' in metrics
        assert 'vllm:prefix_cache_hits_total{engine="0",model_name="llama"} 64' in metrics


async def test_what_continuums_client_says_reaches_the_request(
    client: ClientSession, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Request] = []
    submit = Engine.submit

    def spy(self: Engine, request: Request, now: float) -> None:
        seen.append(request)
        submit(self, request, now)

    monkeypatch.setattr(Engine, "submit", spy)
    body = {"prompt": "a", "job_id": "j", "is_last_step": False, "this_func_call": "ls",
            "last_func_call": None}  # fmt: skip
    headers = {"X-Step": "revise", "X-Deadline": "30"}
    async with client.post("/v1/completions", json=body, headers=headers) as response:
        assert response.status == 200
    async with client.post("/v1/completions", json=body, headers={"X-Deadline": "x"}) as response:
        assert response.status == 400
    (request,) = seen
    assert (request.program_id, request.last, request.tool) == ("j", False, "ls")
    assert request.call_class == "revise"
    assert request.deadline_s == pytest.approx(request.arrival_s + 30)


@pytest.mark.parametrize("stream", [True, False])
async def test_faults_befall_requests_on_purpose(stream: bool) -> None:
    faults = Faults([Fault.parse("error-503:0.3"), Fault.parse("reset:0.3")], seed=1)
    drawn = Faults(faults.faults, seed=1)
    expected = [drawn.draw() for _ in range(20)]
    assert {fault and fault.kind for fault in expected} == {None, "error", "reset"}
    async with served_by(Sarathi(), faults=faults) as client:
        for fault in expected:
            asked = ask(client, "/v1/completions", prompt="a", max_tokens=8, stream=stream)
            if fault is not None and fault.kind == "reset":
                with pytest.raises(ClientError):
                    await asked
            else:
                assert (await asked)[0] == (503 if fault else 200)
        async with client.get("/metrics") as response:
            assert 'kind="reset"' in await response.text()


async def test_a_stall_pauses_in_the_middle_of_an_answer() -> None:
    faults = Faults([Fault.parse("stall:1:0.3s")])
    async with served_by(Sarathi(), faults=faults) as client:
        begun = time.monotonic()
        status, text = await ask(client, "/v1/completions", prompt="a", max_tokens=4, stream=True)
        assert (status, text.count('" token"')) == (200, 4)
        assert time.monotonic() - begun >= 0.3


async def test_replicas_serve_side_by_side() -> None:
    engines = [Engine(Sarathi(), two_ms, BlockPool(100), 1000, number=n) for n in range(2)]
    cluster = Cluster(Parts(Sarathi()), engines)
    runner = web.AppRunner(make_app(cluster, "llama"))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        asked = [ask(client, "/v1/completions", prompt="a", max_tokens=5) for _ in range(10)]
        assert [status for status, _ in await asyncio.gather(*asked)] == [200] * 10
        async with client.get("/metrics") as response:
            metrics = await response.text()
    await runner.cleanup()
    assert [engine.counters.finished for engine in engines] == [5, 5]
    assert 'vllm:generation_tokens_total{engine="1",model_name="llama"} 25' in metrics
