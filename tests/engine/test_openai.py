import json

import msgspec
import pytest

from servescope.engine.openai import (
    ChatAsk,
    CompletionAsk,
    Frames,
    chat_tokens,
    pieces,
    prompt_tokens,
)
from servescope.engine.request import Request
from servescope.traces.errors import InputError


def events(frames: bytes) -> list[object]:
    parts = frames.decode().split("\n\n")
    assert parts.pop() == ""
    return [
        part if part == "data: [DONE]" else json.loads(part.removeprefix("data: "))
        for part in parts
    ]


def test_a_text_prompt_counts_its_words_and_ids_count_themselves() -> None:
    assert len(prompt_tokens("how  many\nwords are here")) == 5
    assert prompt_tokens([1, 2, 3]) == [1, 2, 3]
    assert prompt_tokens(["one text"]) == ["one", "text"]
    assert prompt_tokens([[4, 5]]) == [4, 5]


def test_a_chat_counts_the_words_of_all_its_texts() -> None:
    body = b"""{"messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what is it"},
                                     {"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "assistant", "content": null}]}"""
    assert len(chat_tokens(msgspec.json.decode(body, type=ChatAsk).messages)) == 5


@pytest.mark.parametrize("prompt", ["3", "null", "[1.5]", '{"a": 1}'])
def test_what_is_no_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"prompt": %s}' % prompt.encode(), type=CompletionAsk)


@pytest.mark.parametrize("prompt", [["a", "b"], [[1, 2], [3]], [1, "a"]])
def test_several_prompts_are_refused(prompt: list[int | str | list[int]]) -> None:
    with pytest.raises(InputError):
        prompt_tokens(prompt)


def test_prompts_that_begin_alike_have_pieces_in_common() -> None:
    """Up to the block in which they part: 20 words are a whole block and four."""
    said = [f"word{n}" for n in range(20)]
    one, other = pieces([*said, "here"]), pieces([*said, "there"])
    assert [piece.tokens for piece in one] == [16, 5]
    assert one[0] == other[0]
    assert one[1] != other[1]
    shifted = pieces(["x", *said])
    assert not set(shifted) & set(one)
    assert pieces([1, 2, 3]) == pieces([1, 2, 3]) != pieces([1, 2, 4])


def test_the_events_do_not_depend_on_how_tokens_are_bunched() -> None:
    frames = Frames(Request("cmpl-1", 3, 4, 0.0), 4, "llama", chat=True, include_usage=True)
    one_by_one = b"".join(frames.next(1, sent) for sent in range(4))
    assert one_by_one == frames.next(4, 0) == frames.next(1, 0) + frames.next(3, 1)
    assert len(events(one_by_one)) == 1 + 4 + 1 + 1


def test_a_single_token_is_first_and_last_at_once() -> None:
    frames = Frames(Request("cmpl-1", 3, 1, 0.0), 1, "llama", chat=False, include_usage=False)
    chunk, done = events(frames.next(1, 0))
    assert chunk["choices"][0]["finish_reason"] == "length"  # type: ignore[index]
    assert done == "data: [DONE]"
