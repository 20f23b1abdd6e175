"""Bytes and stamps in, chunks and moments out: every stream here is written by hand."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen import endpoints
from servescope.loadgen.answer import Answer, read

DIALECT = endpoints.named("openai")


def event(text: str = " a", finish: str | None = None, **usage: int) -> bytes:
    ended = "null" if finish is None else f'"{finish}"'
    told = ", ".join(f'"{name}": {count}' for name, count in usage.items())
    counts = f', "usage": {{{told}}}' if usage else ""
    return f'data: {{"choices":[{{"text":"{text}","finish_reason":{ended}}}]{counts}}}\n\n'.encode()


DONE = b"data: [DONE]\n\n"


def answer_of(*blocks: bytes, done: bool = False) -> Answer:
    """Read blocks that came at seconds 1, 2, 3, ..."""
    return read(DIALECT, blocks, [float(k) for k in range(1, len(blocks) + 1)], done=done)


def test_each_chunk_has_the_moment_of_its_block() -> None:
    answer = answer_of(event(), event(), event(finish="length"), DONE)
    assert (answer.status, answer.chunk_s, answer.output_tokens) == ("ok", [1.0, 2.0, 3.0], 3)
    assert (answer.finish, answer.done, answer.text) == ("length", True, " a a a")


def test_an_event_counts_when_its_line_is_complete() -> None:
    """Cut in the middle of the JSON, and between the data and the line end."""
    whole = event()
    answer = answer_of(whole[:20], whole[20:-2], whole[-2:] + event(finish="stop"))
    assert answer.chunk_s == [3.0, 3.0]


def test_several_events_of_one_block_came_together() -> None:
    assert answer_of(event() + event(), event(finish="stop")).chunk_s == [1.0, 1.0, 2.0]


STREAM = b": keep-alive\n\nevent: message\r\n" + event().replace(b"\n\n", b"\r\n\r\n") + event(" b")
STREAM += event(" c", "stop", completion_tokens=3) + DONE


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_an_answer_is_the_same_however_its_bytes_are_cut(cuts: list[int]) -> None:
    edges = sorted({0, *cuts, len(STREAM)})
    blocks = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    answer = read(DIALECT, blocks, [float(k) for k in range(len(blocks))])
    assert (answer.status, answer.text, answer.done) == ("ok", " a b c", True)
    assert answer.completion_tokens == 3
    assert answer.chunk_s == sorted(answer.chunk_s)


def test_role_only_empty_and_usage_events_are_no_chunks_and_reasoning_is_no_answer() -> None:
    chat = endpoints.named("openai-chat")
    deltas = ['{"role":"assistant","content":""}', '{"reasoning_content":"hm"}', '{"content":"so"}']
    blocks = [f'data: {{"choices":[{{"delta":{delta}}}]}}\n\n'.encode() for delta in deltas]
    blocks.append(b'data: {"choices":[],"usage":{"completion_tokens":9}}\n\n')
    answer = read(chat, [*blocks, DONE], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert (answer.chunk_s, answer.first_answer_s, answer.completion_tokens) == ([2.0, 3.0], 3.0, 9)


def test_chunks_that_bring_nothing_have_their_moments_apart_from_the_others() -> None:
    """A role, an empty text, an end and the usage: all but the last have a choice."""
    chat = endpoints.named("openai-chat")
    deltas = [
        '{"role":"assistant"}',
        '{"content":"so"}',
        '{"content":""}',
        '{"content":" it"}',
        "{}",
    ]
    blocks = [f'data: {{"choices":[{{"delta":{delta}}}]}}\n\n'.encode() for delta in deltas]
    blocks.append(b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\n')
    answer = read(chat, [*blocks, DONE], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    assert (answer.chunk_s, answer.empty_s) == ([2.0, 4.0], [1.0, 3.0, 5.0])
    answer = answer_of(event(""), event(), event("", "stop"), DONE)
    assert (answer.chunk_s, answer.empty_s) == ([2.0], [1.0, 3.0])


def test_running_totals_tell_the_tokens_of_each_chunk() -> None:
    totals = [1, 4, 5]
    answer = answer_of(*(event(completion_tokens=total) for total in totals), DONE)
    assert answer.chunk_tokens == [1, 3, 1]


@pytest.mark.parametrize(
    ("blocks", "done", "status", "says"),
    [
        ([event(), event()], False, "truncated", "neither a finish_reason nor"),
        ([event(finish="stop")], True, "truncated", "without the [DONE] that this server sends"),
        ([event(), b"data: {oops\n\n", DONE], False, "malformed", "JSON is malformed"),
        ([event(), b'data: {"error":"died"}\n\n', DONE], False, "server", "died"),
        ([b'{"choices":[]}'], False, "unstreamed", "status 200 without a stream"),
        ([], False, "unstreamed", "an empty answer"),
        ([event()] * 5 + [event(finish="stop", completion_tokens=2)], False, "miscounted", "2 tok"),
        (
            [event(completion_tokens=5), event(finish="stop", completion_tokens=3)],
            False,
            "miscounted",
            "goes backwards",
        ),
    ],
)
def test_what_is_wrong_with_a_stream_has_a_status_and_words(
    blocks: list[bytes], done: bool, status: str, says: str
) -> None:
    answer = answer_of(*blocks, done=done)
    assert answer.status == status
    assert says in (answer.error or "")


def test_what_came_before_a_malformed_event_is_still_read() -> None:
    answer = answer_of(event(), event(" b"), b'data: {"choices":[{"te\n\n', event(" c"), DONE)
    assert (answer.status, answer.text, answer.chunk_s) == ("malformed", " a b", [1.0, 2.0])


def test_an_event_that_closes_the_list_and_opens_it_again_is_not_two() -> None:
    assert answer_of(event(), b'data: {"choices":[]},{"choices":[]}\n\n').status == "malformed"
