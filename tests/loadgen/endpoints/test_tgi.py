"""Events as Text Generation Inference writes them: one token each, and details with the last."""

from pathlib import Path

import msgspec
from aiohttp import web
from background import Background
from faulty_server import Faulty, serving

from servescope.loadgen import runner
from servescope.loadgen.endpoints import Ask, Piece, tgi
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.program import Call

EVENTS = [
    b'{"index":1,"token":{"id":264,"text":" a","logprob":-1.1,"special":false},"generated_text":null,"details":null}',  # noqa: E501
    b'{"index":2,"token":{"id":9,"text":"","logprob":-1.1,"special":false},"generated_text":null,"details":null}',
    b'{"index":3,"token":{"id":5,"text":" b","logprob":-2.5,"special":false},"generated_text":null,"details":null}',  # noqa: E501
    b'{"index":4,"token":{"id":2,"text":"</s>","logprob":-0.1,"special":true},"generated_text":" a b","details":{"finish_reason":"eos_token","generated_tokens":4,"seed":null,"input_length":9}}',  # noqa: E501
]


def test_every_event_is_a_token_and_a_special_one_is_no_text() -> None:
    assert tgi.read(EVENTS) == [
        Piece(" a", completion_tokens=1),
        Piece("", completion_tokens=2),
        Piece(" b", completion_tokens=3),
        Piece("", finish="eos_token", prompt_tokens=9, completion_tokens=4),
    ]


def test_an_old_server_does_not_count_the_prompt() -> None:
    last = b'{"token":{"text":"a"},"details":{"finish_reason":"length","generated_tokens":1}}'
    assert tgi.read([last]) == [Piece("a", finish="length", completion_tokens=1)]


def test_an_error_in_the_stream_is_an_error_and_no_token() -> None:
    data = b'{"error":"Request failed during generation: out of memory","error_type":"generation"}'
    (_, piece) = tgi.read([EVENTS[0], data])
    assert piece.error == "Request failed during generation: out of memory"
    assert piece.completion_tokens == 1


def test_the_request_is_a_text_and_asks_for_details() -> None:
    ask = Ask(Call("c", "p", 0, 3, 7, priority=1), "tiny", prompt="a b c")
    assert tgi.GENERATE.takes == "text"
    assert tgi.GENERATE.body(ask) == {
        "inputs": "a b c",
        "parameters": {"max_new_tokens": 7, "do_sample": False, "details": True},
    }


async def four_tokens(_: web.Request, response: web.StreamResponse) -> None:
    for event in EVENTS:
        await response.write(b"data:" + event + b"\n\n")


def test_a_run_sends_texts_and_takes_a_stream_without_an_end_mark(tmp_path: Path) -> None:
    with Background(serving(Faulty(script=four_tokens))) as server:
        endpoint = EndpointSpec(base_url=server.url, backend="tgi", path="/v1/completions")
        workload = WorkloadSpec(trace="burstgpt:sample", calls=3, time_scale=0.001)
        run = runner.replay(
            Experiment(name="tgi", workload=workload, endpoint=endpoint), tmp_path / "run"
        )
        prompts = [msgspec.json.decode(body)["inputs"] for body in server.bodies]
    calls = run.trace.collect()
    assert calls["status"].to_list() == ["ok"] * 3
    assert calls["output_tokens"].to_list() == [4] * 3
    assert calls["chunk_tokens"].to_list() == [[1, 2]] * 3, "a token without text is of the next"
    words = sorted(len(prompt.split()) for prompt in prompts[-3:])
    assert words == sorted(run.plan["input_tokens"].to_list())
