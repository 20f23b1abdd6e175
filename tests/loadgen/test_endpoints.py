"""The dialects read what real servers write; the lines were recorded from the servers named."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen import endpoints
from servescope.loadgen.endpoints import Dialect, EventSplitter, Piece, openai
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts
from servescope.traces import plugins
from servescope.traces.errors import InputError

VLLM_ROLE = b'{"id":"chatcmpl-9018","object":"chat.completion.chunk","created":1795350277,"model":"tiny","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}'  # noqa: E501
VLLM_TOKEN = b'{"id":"chatcmpl-9018","object":"chat.completion.chunk","created":1795350277,"model":"tiny","choices":[{"index":0,"delta":{"content":" have"},"logprobs":null,"finish_reason":null,"token_ids":null}]}'  # noqa: E501
VLLM_LAST = b'{"id":"chatcmpl-9018","object":"chat.completion.chunk","created":1795350277,"model":"tiny","choices":[{"index":0,"delta":{"content":"gi"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}]}'  # noqa: E501
VLLM_USAGE = b'{"id":"chatcmpl-9018","object":"chat.completion.chunk","created":1795350277,"model":"tiny","choices":[],"usage":{"prompt_tokens":17,"total_tokens":21,"completion_tokens":4},"system_fingerprint":"vllm-0.32.0-dad782e7"}'  # noqa: E501
VLLM_DEATH = b'{"error": {"message": "EngineCore encountered an issue...","type":"InternalServerError","param":null,"code":500}}'  # noqa: E501
LLAMA_ROLE = b'{"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}],"created":1795350439,"model":"tiny","object":"chat.completion.chunk"}'  # noqa: E501


def test_a_chunk_with_only_a_role_is_no_token() -> None:
    assert openai.read(VLLM_ROLE) == Piece(has_text=False)
    assert openai.read(LLAMA_ROLE) == Piece(has_text=False)


def test_a_chunk_with_content_is_text_and_the_last_one_says_why_it_is_the_last() -> None:
    assert openai.read(VLLM_TOKEN) == Piece(has_text=True)
    assert openai.read(VLLM_LAST) == Piece(has_text=True, finish="length")


def test_usage_counts_tokens_without_being_one() -> None:
    piece = openai.read(VLLM_USAGE)
    assert (piece.has_text, piece.prompt_tokens, piece.completion_tokens) == (False, 17, 4)
    assert piece.cached_tokens is None


def test_cached_and_reasoning_tokens_are_read_where_they_are() -> None:
    data = (
        b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,'
        b'"prompt_tokens_details":{"cached_tokens":8},'
        b'"completion_tokens_details":{"reasoning_tokens":3}}}'
    )
    piece = openai.read(data)
    assert (piece.cached_tokens, piece.reasoning_tokens) == (8, 3)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_answer_too(field: str) -> None:
    assert openai.read(f'{{"choices":[{{"delta":{{"{field}":"hm"}}}}]}}'.encode()).has_text


def test_an_error_inside_a_stream_of_status_200_is_an_error() -> None:
    assert openai.read(VLLM_DEATH).error == "EngineCore encountered an issue..."
    assert openai.read(b'{"error":"out of memory"}').error == "out of memory"


def test_what_is_not_json_raises() -> None:
    with pytest.raises(msgspec.DecodeError):
        openai.read(b'{"choices":[{"te')


def test_completions_send_token_ids_and_chat_sends_words() -> None:
    call = Call("c", "p", 0, 12, 7, prompt_stream="s")
    completions = openai.COMPLETIONS.body(call, Prompts(0))
    chat = openai.CHAT.body(call, Prompts(0))
    assert len(completions["prompt"]) == 12
    assert completions["max_tokens"] == chat["max_tokens"] == 7
    assert len(chat["messages"][0]["content"].split()) == 12


STREAM = (
    b': keepalive 16/17\n\nevent: message\r\ndata: {"a":1}\r\n\r\ndata:{"b":2}\n\ndata: [DONE]\n\n'
)


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    split = EventSplitter()
    events = []
    for start, end in itertools.pairwise(edges):
        events += split.feed(STREAM[start:end])
    events += split.close()
    assert events == [b'{"a":1}', b'{"b":2}']
    assert split.done


def test_a_last_event_without_a_line_end_is_not_lost() -> None:
    split = EventSplitter()
    assert split.feed(b'data: {"a":1}') == []
    assert split.close() == [b'{"a":1}']
    assert split.close() == []


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"There is no backend 'vlmm'\. Known: openai"):
        endpoints.named("vlmm")


def test_a_stranger_adds_a_dialect_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "tgi"

        @staticmethod
        def load() -> Dialect:
            return Dialect("/generate_stream", openai.COMPLETIONS.body, openai.read, "TGI")

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point])
    assert endpoints.named("tgi").path == "/generate_stream"
    assert endpoints.named("openai") is openai.COMPLETIONS
