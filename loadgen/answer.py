"""What the bytes of a stream say: chunks and their moments, token counts, and how it ended.

Pure code, run away from the sockets once a response has ended.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from servescope.loadgen.endpoints import Dialect, Piece
from servescope.traces.status import MALFORMED, MISCOUNTED, OK, SERVER, TRUNCATED, UNSTREAMED


@dataclass(slots=True)
class Answer:
    """A stream that was read: `status` is ok or says what is wrong with it, `error` why.

    Moments are on the clock of the stamps. Counts are None where the server says nothing;
    `chunk_tokens` is there only where every chunk's are known. `first_answer_s` is the first chunk
    that is neither reasoning nor part of a tool call. `empty_s` are the chunks of OpenAI's dialects
    that bring no piece of answer: a role, an empty text, an end.
    """

    status: str = OK
    error: str | None = None
    chunk_s: list[float] = field(default_factory=list)
    chunk_tokens: list[int] | None = None
    empty_s: list[float] = field(default_factory=list)
    first_answer_s: float | None = None
    text: str = ""
    finish: str | None = None
    done: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    id: str | None = None

    @property
    def output_tokens(self) -> int:
        """Tokens made: as the server counts, or else the chunks."""
        return len(self.chunk_s) if self.completion_tokens is None else self.completion_tokens


def read(
    dialect: Dialect, blocks: Sequence[bytes], stamps: Sequence[float], *, done: bool = False
) -> Answer:
    """Read a whole response of status 200; `stamps` says when each block came.

    `done` demands a closing `[DONE]`, of a server that is known to send it. An event that is no
    JSON makes the answer malformed, and what came before it is still read.
    """
    answer = Answer()
    events, moments = _events(blocks, stamps, dialect, answer)
    try:
        pieces = dialect.read(events)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pieces = _before_the_fault(dialect, events, answer)
    _take(answer, pieces, moments)
    if answer.status == OK:
        answer.status, answer.error = _verdict(answer, bool(events), done, blocks)
    return answer


def _events(
    blocks: Sequence[bytes], stamps: Sequence[float], dialect: Dialect, answer: Answer
) -> tuple[list[bytes], list[float]]:
    """Return the data of every event, and when the line that holds it was complete.

    Comments and other fields are passed over; `[DONE]` is noted and not returned.
    """
    events: list[bytes] = []
    moments: list[float] = []
    sse, rest = dialect.lines == "sse", b""
    last_s = stamps[-1] if stamps else 0.0
    for block, now in zip((*blocks, b"\n"), (*stamps, last_s), strict=True):
        if sse and not rest and _is_one_event(block):
            events.append(block[6:-2])
            moments.append(now)
            continue
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            data = line[5:].strip() if line[:5] == b"data:" else b"" if sse else line.strip()
            if data == b"[DONE]":
                answer.done = True
            elif data:
                events.append(data)
                moments.append(now)
    return events, moments


def _is_one_event(block: bytes) -> bool:
    """Whether a block is the data of one event and nothing else, as nearly every block is."""
    return (
        block[:6] == b"data: "
        and block[-2:] == b"\n\n"
        and block.find(b"\n") == len(block) - 2
        and block[6:12] != b"[DONE]"
    )


def _before_the_fault(dialect: Dialect, events: list[bytes], answer: Answer) -> list[Piece]:
    """Return the pieces of all events before the first that cannot be read."""

    def faulty(count: int) -> bool:
        try:
            dialect.read(events[:count])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            answer.error = str(error)
            return True
        return False

    # reading fails from the faulty event on, so its place can be found by halving
    sound = bisect_left(range(len(events) + 1), True, key=faulty) - 1
    answer.status = MALFORMED
    return dialect.read(events[:sound])


def _take(answer: Answer, pieces: list[Piece], moments: list[float]) -> None:
    texts: list[str] = []
    totals: list[int | None] = []
    each: list[int | None] = []
    for piece, moment in zip(pieces, moments, strict=False):
        (
            text, reasoning, tool, finish, prompt, made, cached, thought, error, name, tokens,
            choice,
        ) = piece  # fmt: skip
        if text or reasoning or tool:
            answer.chunk_s.append(moment)
            totals.append(made)
            each.append(tokens)
            if text:
                texts.append(text)
                if answer.first_answer_s is None:
                    answer.first_answer_s = moment
        elif choice:
            answer.empty_s.append(moment)
        if finish is not None:
            answer.finish = finish
        if error is not None and answer.status == OK:
            answer.status, answer.error = SERVER, error
        if made is not None:
            answer.completion_tokens = made
        if prompt is not None:
            answer.prompt_tokens = prompt
        if cached is not None:
            answer.cached_tokens = cached
        if thought is not None:
            answer.reasoning_tokens = thought
        if name is not None:
            answer.id = name
    answer.text = "".join(texts)
    answer.chunk_tokens = _per_chunk(totals) or _known(each)


def _known(counts: list[int | None]) -> list[int] | None:
    known = [count for count in counts if count is not None]
    return known if known and len(known) == len(counts) else None


def _per_chunk(totals: list[int | None]) -> list[int] | None:
    known = _known(totals)
    return [b - a for a, b in zip([0, *known], known, strict=False)] if known else None


def _verdict(
    answer: Answer, streamed: bool, done: bool, blocks: Sequence[bytes]
) -> tuple[str, str | None]:
    if not streamed:
        said = b"".join(blocks)[:200].decode(errors="replace").strip()
        return UNSTREAMED, f"status 200 without a stream: {said}" if said else "an empty answer"
    if answer.finish is None and not answer.done:
        return TRUNCATED, "the stream ended with neither a finish_reason nor [DONE]"
    if done and not answer.done:
        return TRUNCATED, "the stream ended without the [DONE] that this server sends"
    made = answer.completion_tokens
    # one chunk more than tokens is a last flush of text that was held back
    if made is not None and made + 1 < len(answer.chunk_s):
        return MISCOUNTED, f"the server counts {made} tokens in {len(answer.chunk_s)} chunks"
    if answer.chunk_tokens and min(answer.chunk_tokens) < 0:
        return MISCOUNTED, "the server's running count of tokens goes backwards"
    return OK, None
