"""What a worker is given to send: calls, and the programs they belong to."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec


class Call(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One request to come: how many tokens, after which calls, after what delay.

    It is due `delay_s` after the end of its last parent, and not before `offset_s` after its
    program's start. `prompt_stream` names the text that its prompt is cut from; calls of one stream
    share as much of their prompts as the shorter one is long. `text`, or else `messages` (the JSON
    of a list of chat messages), is the real prompt where the trace has it. `pause` says whose the
    delay is (user, tool), `last` that no call of the program waits for this one. `call_class` names
    the kind of call, `tool` the tool that its answer calls; `deadline_s` is when its program should
    be done, from the program's start.
    """

    id: str
    program_id: str
    turn: int
    input_tokens: int
    output_tokens: int
    parents: tuple[str, ...] = ()
    delay_s: float = 0.0
    offset_s: float = 0.0
    prompt_stream: str = ""
    prefix_blocks: tuple[int, ...] = ()
    priority: int | None = None
    text: str | None = None
    messages: str | None = None
    pause: str | None = None
    last: bool = True
    number: int = 0  # its row in the plan
    call_class: str | None = None
    tool: str | None = None
    deadline_s: float | None = None


class Program(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Calls that belong together, parents before children, and when the first of them is due.

    `ended` says of the calls that need not be sent again when they ended: a resumed run has some.
    """

    id: str
    start_s: float
    calls: tuple[Call, ...]
    ended: dict[str, float] = {}


def write_programs(path: Path, programs: Iterator[Program]) -> int:
    """Write programs for `read_programs`, each with its length before it; returns their calls."""
    encode, calls = msgspec.msgpack.Encoder().encode, 0
    with path.open("wb") as file:
        for program in programs:
            data = encode(program)
            file.write(struct.pack("<I", len(data)) + data)
            calls += sum(call.id not in program.ended for call in program.calls)
    return calls


def read_programs(path: Path) -> Iterator[Program]:
    """Read programs one by one, as they are needed."""
    decode = msgspec.msgpack.Decoder(Program).decode
    with path.open("rb") as file:
        while head := file.read(4):
            yield decode(file.read(struct.unpack("<I", head)[0]))
