"""Lines recorded from vLLM 0.32.0 and llama.cpp (xllamacpp), and what they must be read as."""

from typing import Any

import msgspec
import pytest

from servescope.loadgen.endpoints import Ask, Piece, openai
from servescope.loadgen.program import Call

VLLM = [
    b'{"id":"chatcmpl-9018d4707fa41bc2","object":"chat.completion.chunk","created":1795350277,"model":"tiny","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}',
    b'{"id":"chatcmpl-9018d4707fa41bc2","object":"chat.completion.chunk","created":1795350277,"model":"tiny","choices":[{"index":0,"delta":{"content":" have"},"logprobs":null,"finish_reason":null,"token_ids":null}]}',  # noqa: E501
    b'{"id":"chatcmpl-9018d4707fa41bc2","object":"chat.completion.chunk","created":1795350277,"model":"tiny","choices":[{"index":0,"delta":{"content":"gi"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]}',
    b'{"id":"chatcmpl-9018d4707fa41bc2","object":"chat.completion.chunk","created":1795350277,"model":"tiny","choices":[],"usage":{"prompt_tokens":17,"total_tokens":21,"completion_tokens":4},"system_fingerprint":"vllm-0.32.0-dad782e7"}',
]
VLLM_DEATH = b'{"error": {"message": "EngineCore encountered an issue...","type":"InternalServerError","param":null,"code":500}}'  # noqa: E501
LLAMA_CHAT = [
    b'{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"created":1795350439,"id":"chatcmpl-6nNs","model":"tiny","system_fingerprint":"b0-unknown","object":"chat.completion.chunk"}',
    b'{"choices":[{"finish_reason":null,"index":0,"delta":{"content":"kai"}}],"created":1795350439,"id":"chatcmpl-6nNs","model":"tiny","system_fingerprint":"b0-unknown","object":"chat.completion.chunk"}',
    b'{"choices":[{"finish_reason":"length","index":0,"delta":{}}],"created":1795517561,"id":"chatcmpl-6nNs","model":"tiny","system_fingerprint":"b0-unknown","object":"chat.completion.chunk","timings":{"cache_n":4,"prompt_n":11,"prompt_ms":0.581,"predicted_n":2,"predicted_ms":0.244}}',
]
LLAMA_LAST = b'{"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"length"}],"created":1795517561,"model":"tiny","system_fingerprint":"b0-unknown","object":"text_completion","usage":{"completion_tokens":2,"prompt_tokens":5,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":4}},"id":"chatcmpl-85hW","timings":{"cache_n":4,"prompt_n":1,"prompt_ms":0.221,"predicted_n":2,"predicted_ms":0.196}}'  # noqa: E501

CALL = Call("c", "p", 0, 3, 7)


def one(event: str | bytes) -> Piece:
    (piece,) = openai.read([event.encode() if isinstance(event, str) else event])
    return piece


def chunk(**delta: Any) -> bytes:
    return msgspec.json.encode({"choices": [{"delta": delta}]})


def asked(ask: Ask) -> dict[str, Any]:
    return openai.completions(ask)


def test_a_stream_of_vllm_is_a_role_two_chunks_and_the_usage() -> None:
    name = "chatcmpl-9018d4707fa41bc2"
    assert openai.read(VLLM) == [
        Piece(id=name, choice=True),
        Piece(text=" have", id=name, choice=True),
        Piece(text="gi", finish="length", id=name, choice=True),
        Piece(prompt_tokens=17, completion_tokens=4, id=name),
    ]


def test_llama_cpp_is_counted_by_its_timings_where_it_sends_no_usage() -> None:
    role, text, last = openai.read(LLAMA_CHAT)
    assert (role.has_text, text.text, last.has_text) == (False, "kai", False)
    counts = (last.prompt_tokens, last.cached_tokens, last.completion_tokens)
    assert counts == (15, 4, 2), "prompt_n leaves out what was cached"


def test_usage_counts_before_timings_and_may_come_with_the_reason_to_end() -> None:
    last = one(LLAMA_LAST)
    assert (last.has_text, last.finish) == (False, "length")
    assert (last.prompt_tokens, last.completion_tokens, last.cached_tokens) == (5, 2, 4)


def test_running_usage_is_read_on_every_chunk() -> None:
    event = (
        '{"choices":[{"text":"%s"}],"usage":{"prompt_tokens":9,"total_tokens":0,'
        '"completion_tokens":%d}}'
    )
    pieces = openai.read([(event % each).encode() for each in (("a", 1), ("bc", 3))])
    assert [(piece.text, piece.completion_tokens) for piece in pieces] == [("a", 1), ("bc", 3)]


def test_token_ids_count_the_tokens_of_their_event() -> None:
    piece = one('{"choices":[{"text":"a b","token_ids":[7,8]}]}')
    assert piece == Piece(text="a b", tokens=2, choice=True)
    assert one('{"choices":[{"text":"a","token_ids":null}]}').tokens is None


def test_cached_and_reasoning_tokens_are_read_where_they_are() -> None:
    piece = one(
        '{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,'
        '"prompt_tokens_details":{"cached_tokens":8},'
        '"completion_tokens_details":{"reasoning_tokens":3}}}'
    )
    assert (piece.cached_tokens, piece.reasoning_tokens) == (8, 3)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_a_chunk_and_no_answer(field: str) -> None:
    (piece,) = openai.read([chunk(**{field: "hm"})])
    assert piece == Piece(reasoning="hm", choice=True)
    assert piece.has_text


def test_a_part_of_a_tool_call_is_a_chunk_without_text() -> None:
    calls = [{"index": 0, "function": {"arguments": '{"a'}}]
    (piece,) = openai.read([chunk(content=None, tool_calls=calls)])
    assert piece == Piece(tool=True, choice=True)
    assert piece.has_text
    assert openai.read([chunk(tool_calls=[])]) == [Piece(choice=True)]


@pytest.mark.parametrize(
    "event",
    [
        chunk(role="assistant"),
        chunk(role="assistant", content=None),
        chunk(role="assistant", content=""),
        chunk(),
        b'{"choices":[{"text":""}]}',
        b'{"choices":[{"delta":null}]}',
    ],
)
def test_a_choice_that_brings_nothing_is_an_empty_chunk(event: bytes) -> None:
    assert one(event) == Piece(choice=True)


@pytest.mark.parametrize(
    "event", [b'{"choices":[]}', b'{"choices":null,"usage":null,"error":null}', b"{}"]
)
def test_what_has_no_choice_is_no_chunk(event: bytes) -> None:
    assert one(event) == Piece()


def test_a_role_in_every_chunk_hides_no_text() -> None:
    """As mlx-lm writes it, also with its reason to end on a chunk without content."""
    pieces = openai.read([chunk(role="assistant", content=text) for text in ("a", "b")])
    assert [piece.text for piece in pieces] == ["a", "b"]
    last = one('{"choices":[{"index":0,"finish_reason":"length","delta":{"role":"assistant"}}]}')
    assert last == Piece(finish="length", choice=True)


def test_choices_of_one_event_are_one_piece() -> None:
    piece = one('{"choices":[{"text":"a"},{"index":1,"text":"b","finish_reason":"stop"}]}')
    assert piece == Piece(text="ab", finish="stop", choice=True)


def test_an_error_inside_a_stream_of_status_200_is_an_error() -> None:
    assert one(VLLM_DEATH).error == "EngineCore encountered an issue..."
    assert one('{"error":"out of memory"}').error == "out of memory"
    assert one('{"error":{"code":500}}').error == "{'code': 500}"
    assert one('{"error":"","choices":[{"text":"a"}]}').error == ""


def test_an_answer_that_the_server_gave_up_is_an_error() -> None:
    text = one('{"choices":[{"text":"a","finish_reason":"abort"}]}')
    said = "the server aborted the request"
    assert text == Piece("a", finish="abort", error=said, choice=True)
    assert one('{"choices":[{"delta":{},"finish_reason":"abort"}]}').error is not None


def test_the_core_of_a_request_is_what_every_server_takes() -> None:
    bare = Ask(CALL, "tiny", prompt=[4, 5, 6], ignore_eos=False, min_tokens=False)
    assert asked(bare) == {
        "prompt": [4, 5, 6],
        "model": "tiny",
        "max_tokens": 7,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    messages = [{"role": "user", "content": "a b c"}]
    chat = openai.chat(Ask(CALL, "tiny", messages=messages, ignore_eos=False, min_tokens=False))
    assert chat["messages"] == messages
    assert chat.keys() ^ asked(bare).keys() == {"prompt", "messages"}


def test_what_is_asked_beyond_the_core_is_left_out_where_it_is_refused() -> None:
    call = msgspec.structs.replace(CALL, priority=0)
    ask = Ask(call, "tiny", prompt=[4], usage_each=True)
    extras = asked(ask)
    assert (extras["ignore_eos"], extras["min_tokens"], extras["priority"]) == (True, 7, 0)
    assert extras["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    refused = frozenset({"ignore_eos", "min_tokens", "priority", "stream_options"})
    assert asked(Ask(call, "tiny", prompt=[4], usage_each=True, refused=refused)) == {
        "prompt": [4],
        "model": "tiny",
        "max_tokens": 7,
        "temperature": 0,
        "stream": True,
    }
