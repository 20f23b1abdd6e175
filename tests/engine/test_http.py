import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, ClientTimeout, web

from servescope.engine.engine import Engine
from servescope.engine.http import listen, make_app
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, View
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems.sarathi import Sarathi
from servescope.traces.errors import InputError, ServescopeError


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
        ({"prompt": ["a", "b"]}, 400, "`$.prompt[0]`"),
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


async def test_a_policy_that_deadlocks_ends_the_server() -> None:
    class Lazy:
        def plan(self, view: View) -> Batch:
            return Batch()

    engine = Engine(Lazy(), two_ms, BlockPool(100), 1000)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(listen(engine, "llama", port=0, on_listening=address.set_result))
    async with ClientSession(await asyncio.wait_for(address, 10)) as session:
        going = asyncio.create_task(ask(session, "/v1/completions", prompt="a"))
        with pytest.raises(ServescopeError, match="Lazy plans nothing"):
            await asyncio.wait_for(server, 10)
        going.cancel()
        await asyncio.wait([going])
