"""Events as SGLang's /generate writes them: all the text so far, or each part by itself."""

from itertools import accumulate

import msgspec
import pytest
from aiohttp import web
from faulty_server import Faulty
from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen.endpoints import Ask, Piece, sglang
from servescope.loadgen.experiment import EndpointSpec
from servescope.loadgen.probe import probe
from servescope.loadgen.program import Call
from servescope.loadgen.target import Target

CALL = Call("c", "p", 0, 3, 7, priority=4)


def event(text: str, made: int, finish: dict[str, object] | None = None) -> bytes:
    meta = {
        "id": "b1c2",
        "finish_reason": finish,
        "prompt_tokens": 9,
        "completion_tokens": made,
        "cached_tokens": 8,
        "weight_version": "default",
    }
    return msgspec.json.encode({"text": text, "output_ids": [5] * made, "meta_info": meta})


def texts(*said: str) -> list[str]:
    return [piece.text for piece in sglang.read([event(text, 1) for text in said])]


def test_text_so_far_is_read_as_what_each_event_adds() -> None:
    first, second, last = sglang.read(
        [event("The", 1), event("The cat", 2), event("The cat sat on", 4, {"type": "length"})]
    )
    assert first == Piece("The", prompt_tokens=9, completion_tokens=1, cached_tokens=8, id="b1c2")
    assert (second.text, second.completion_tokens, second.finish) == (" cat", 2, None)
    assert (last.text, last.completion_tokens, last.finish) == (" sat on", 4, "length")


@given(parts=st.lists(st.text(min_size=1), min_size=2, max_size=8))
def test_whatever_the_parts_are_text_so_far_gives_them_back(parts: list[str]) -> None:
    assert texts(*accumulate(parts)) == parts


def test_an_event_that_adds_no_text_is_no_chunk() -> None:
    assert texts("", "", "so", "so", "so far") == ["", "", "so", "", " far"]
    assert texts("so", "so") == ["so", ""]


def test_parts_by_themselves_are_read_as_they_are() -> None:
    """A server started with --incremental-streaming-output sends them so."""
    assert texts("The", " cat", " sat") == ["The", " cat", " sat"]
    assert texts(" the", " the", " the") == [" the", " the", " the"]


def test_a_stop_word_that_is_cut_off_at_the_end_adds_nothing() -> None:
    assert texts("a", "a b</s", "a b") == ["a", " b</s", ""]


@pytest.mark.parametrize(
    "data",
    [
        b'{"error": {"message": "too long", "code": 400}}',
        b'{"error": "too long"}',
        b'{"text": "", "meta_info": {"finish_reason": {"type": "abort", "message": "too long"}}}',
    ],
)
def test_errors_in_the_stream_and_aborts_are_errors(data: bytes) -> None:
    (piece,) = sglang.read([data])
    assert piece.error == "too long"


def test_the_request_has_sglangs_names() -> None:
    assert sglang.GENERATE.body(Ask(CALL, "tiny", prompt=[4, 5, 6])) == {
        "input_ids": [4, 5, 6],
        "sampling_params": {
            "max_new_tokens": 7,
            "min_new_tokens": 7,
            "ignore_eos": True,
            "temperature": 0,
        },
        "stream": True,
        "priority": 4,
    }


def test_a_text_is_sent_as_text_and_refused_fields_are_not_sent() -> None:
    refused = frozenset({"ignore_eos", "min_tokens", "priority"})
    assert sglang.GENERATE.body(Ask(CALL, "tiny", prompt="a b", refused=refused)) == {
        "text": "a b",
        "sampling_params": {"max_new_tokens": 7, "temperature": 0},
        "stream": True,
    }


async def test_a_small_call_finds_what_the_server_counts(faulty: Faulty) -> None:
    async def so_far(_: web.Request, response: web.StreamResponse) -> None:
        for made, text in enumerate(("a", "a b", "a b c", "a b c d"), 1):
            finish = {"type": "length", "length": 4} if made == 4 else None
            await response.write(b"data: " + event(text, made, finish) + b"\n\n")
        await response.write(b"data: [DONE]\n\n")

    faulty.script = so_far
    spec = EndpointSpec(base_url=faulty.url, backend="sglang", path="/v1/completions")
    found = await probe(Target.of(spec))
    assert (found.input_tokens, found.output_tokens, found.cached_tokens) == (9, 4, 8)
    assert (found.done, found.each) == (True, True)
    asked = msgspec.json.decode(faulty.bodies[0])
    assert len(asked["input_ids"]) == 16
    assert asked["sampling_params"]["max_new_tokens"] == 4
