"""llama.cpp's own dialect, and all dialects that its server speaks, spoken with it."""

import json
import urllib.request
from pathlib import Path

import pytest

from servescope.loadgen.endpoints import Ask, Dialect, Piece, llamacpp, named
from servescope.loadgen.program import Call

HERE = Path(__file__).parents[2]
EVENTS = [
    b'{"index":0,"content":" ni","tokens":[701],"stop":false,"id_slot":-1,"tokens_predicted":1,"tokens_evaluated":5}',  # noqa: E501
    b'{"index":0,"content":"sterster","tokens":[1588],"stop":false,"id_slot":-1,"tokens_predicted":3,"tokens_evaluated":5}',
    b'{"content":"","tokens":[],"stop":true,"stop_type":"limit","tokens_predicted":3,"tokens_evaluated":5,"tokens_cached":7,"timings":{"cache_n":4,"prompt_n":1,"prompt_ms":0.343,"predicted_n":3,"predicted_ms":0.78}}',
]


def test_every_event_counts_and_the_last_one_says_what_was_cached() -> None:
    """`tokens_cached` is the length of the cache after the answer, not what was found there."""
    assert llamacpp.read(EVENTS) == [
        Piece(" ni", prompt_tokens=5, completion_tokens=1),
        Piece("sterster", prompt_tokens=5, completion_tokens=3),
        Piece("", finish="limit", prompt_tokens=5, completion_tokens=3, cached_tokens=4),
    ]


def test_an_end_without_a_reason_is_an_end() -> None:
    assert llamacpp.read([b'{"content":"","stop":true}']) == [Piece(finish="stop")]


def test_an_error_in_the_stream_is_an_error() -> None:
    (piece,) = llamacpp.read(
        [b'{"error":{"code":500,"message":"slot lost","type":"server_error"}}']
    )
    assert piece.error == "slot lost"


def test_the_request_asks_for_as_many_tokens_as_planned() -> None:
    ask = Ask(Call("c", "p", 0, 3, 7), "tiny", prompt=[4, 5, 6])
    body = llamacpp.COMPLETION.body(ask)
    assert (body["prompt"], body["n_predict"], body["ignore_eos"]) == ([4, 5, 6], 7, True)
    bare = Ask(ask.call, "tiny", prompt=[4, 5, 6], ignore_eos=False)
    assert "ignore_eos" not in llamacpp.COMPLETION.body(bare)


# --- a server that nobody here wrote ------------------------------------------------------------


def answered(url: str, dialect: Dialect, ask: Ask) -> list[Piece]:
    headers = {"Content-Type": "application/json"}
    headers |= dialect.headers(ask) if dialect.headers else {}
    body = json.dumps(dialect.body(ask)).encode()
    request = urllib.request.Request(url + dialect.path, data=body, headers=headers)
    with urllib.request.urlopen(request) as response:
        lines = response.read().split(b"\n")
    data = [line[5:].strip() for line in lines if line.startswith(b"data:")]
    return dialect.read([event for event in data if event != b"[DONE]"])


@pytest.mark.thirdparty
@pytest.mark.parametrize(
    "backend",
    ["openai", "openai-chat", "llamacpp", "transformers", "continuum", "llumnix"],
)
def test_llama_cpp_understands_and_is_understood(llama_url: str, backend: str) -> None:
    dialect = named(backend)
    ask = Ask(
        Call("c", "p", 0, 40, 12),
        "tiny",
        prompt=list(range(300, 340)) if dialect.takes == "prompt" else None,
        messages=[{"role": "user", "content": "time will do it all now"}],
    )
    first, again = (answered(llama_url, dialect, ask) for _ in range(2))
    for pieces in (first, again):
        assert [piece.error for piece in pieces] == [None] * len(pieces)
        assert pieces[-1].completion_tokens == 12
        finish = [piece.finish for piece in pieces if piece.finish]
        assert finish == ["limit" if backend == "llamacpp" else "length"]
        assert 1 < sum(piece.has_text for piece in pieces) <= 12
    prompt = again[-1].prompt_tokens
    assert prompt == (40 if dialect.takes == "prompt" else first[-1].prompt_tokens)
    assert again[-1].cached_tokens == (prompt or 0) - 1, (
        "all but the last token, which is read anew"
    )


@pytest.mark.thirdparty
def test_llama_cpp_counts_the_tokens_of_every_chunk(llama_url: str) -> None:
    ask = Ask(Call("c", "p", 0, 4, 9), "tiny", prompt=[310, 320, 330, 340])
    pieces = answered(llama_url, llamacpp.COMPLETION, ask)
    made = [piece.completion_tokens for piece in pieces if piece.has_text]
    assert None not in made
    assert made == sorted(made, key=int)  # type: ignore[arg-type]
    assert made[-1] == 9
