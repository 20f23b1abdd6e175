"""Qwen-Bailian traces: chats with parents, and the identity of every 16-token block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Annotated, Any

import msgspec

from servescope.traces.formats import clock, jsonl, links, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.rejects import Rejects
from servescope.traces.formats.source import Source
from servescope.traces.reshape import forget_lost_parents
from servescope.traces.trace import Trace

BLOCK_TOKENS = 16
_NONE = -1  # the parent of a root


class _Chat(msgspec.Struct):
    chat_id: int
    timestamp: int | Decimal  # by its digits: a float would lose some
    parent_chat_id: int = _NONE


class _Line(_Chat, kw_only=True):
    input_length: int
    output_length: int
    type: str | None = None
    turn: Annotated[int, msgspec.Meta(ge=1)] | None = None
    hash_ids: list[int] | None = None


def sniff(head: bytes) -> bool:
    """Recognise a chat_id beside the lengths."""
    return peek.paths(head) >= {"chat_id", "timestamp", "input_length", "output_length"}


def read(source: Source) -> Trace:
    """Read a Bailian trace: seconds, and block ids of one global namespace.

    A program is all chats that lead back to one root. The file is read twice, first for who follows
    whom, since a chat may stand before the one that it follows.
    """
    unit = source.options.unit or "s"
    chats = _Chats(source, unit)
    trace = gather(
        source,
        tabulate(source, chats.calls(), *chats.COLUMNS),
        format="bailian",
        licence="Apache-2.0",
        attribution="Wang et al., KVCache Cache in the Wild, USENIX ATC 2025;"
        " alibaba-edu/qwen-bailian-usagetraces-anon",
        t0=lambda ns: f"{ns / clock.NS_PER[unit]:.15g} {unit} on the source's own clock",
        clock="source",
        units="seconds, as published" if unit == "s" else unit,
        tick_s=clock.NS_PER[unit] / clock.NS_PER["s"] / 1000,
        block_tokens=source.options.block_tokens or BLOCK_TOKENS,
        block_rule=source.options.block_rule or "ceil",
        block_scope="global",
        inferred={"delay_s": links.GAPS},
    )
    if source.rejects.total:
        trace = replace(trace, frame=forget_lost_parents(trace.frame))
    if chats.lost:
        trace = trace.doubting(
            f"{chats.lost} chats follow a chat that is not in the file; they are taken as roots."
        )
    if chats.early:
        trace = trace.doubting(
            f"{chats.early} chats arrived before the chat that they follow; their pause is taken"
            " as 0."
        )
    return trace


@dataclass
class _Chats:
    """Turns lines into calls; knows of every chat which it follows, and when it arrived."""

    COLUMNS = (
        *("call_id", "program_id", "turn", "call_class", "stamp_ns"),
        *("input_tokens", "output_tokens", "prefix_blocks", "parents", "delay_s", "delay_kind"),
    )
    source: Source
    unit: str
    lost: int = 0
    early: int = 0
    parents: dict[int, int] = field(default_factory=dict)
    stamps: dict[int, int] = field(default_factory=dict)
    roots: dict[int, int | None] = field(default_factory=dict)

    def calls(self) -> Iterator[dict[str, Any]]:
        first = Source(self.source.files, self.source.name, rejects=_Deaf())
        for _, chat in jsonl.records(first, _Chat):
            stamp = clock.from_number(str(chat.timestamp), self.unit)
            if stamp is not None:
                self.parents.setdefault(chat.chat_id, chat.parent_chat_id)
                self.stamps.setdefault(chat.chat_id, stamp)
        for row, line in jsonl.records(self.source, _Line):
            stamp = clock.from_number(str(line.timestamp), self.unit)
            root = self._root(line.chat_id)
            if stamp is None:
                self.source.reject(
                    row,
                    f"its timestamp {line.timestamp} is no moment.",
                    "Bailian writes seconds from the start of the trace; mend the line.",
                    reason="timestamp is no moment",
                )
            elif root is None:
                self.source.reject(
                    row,
                    f"the parents of chat {line.chat_id} form a cycle.",
                    "Mend parent_chat_id; it is -1 for a root.",
                    reason="parents form a cycle",
                )
            else:
                yield self._call(row, line, stamp, root)

    def _call(self, row: int, line: _Line, stamp: int, root: int) -> dict[str, Any]:
        call: dict[str, Any] = {
            "source_row": row,
            "call_id": str(line.chat_id),
            "program_id": str(root),
            "turn": None if line.turn is None else line.turn - 1,
            "call_class": line.type or None,
            "stamp_ns": stamp,
            "input_tokens": line.input_length,
            "output_tokens": line.output_length,
            "prefix_blocks": line.hash_ids,
            "parents": [],
        }
        parent = line.parent_chat_id
        if parent in self.stamps:
            gap_s = (stamp - self.stamps[parent]) / clock.NS_PER["s"]
            self.early += gap_s < -1
            call |= {"parents": [str(parent)], "delay_s": max(gap_s, 0.0), "delay_kind": "user"}
        elif parent != _NONE:
            self.lost += 1
        return call

    def _root(self, chat: int) -> int | None:
        """Return the chat that a chat leads back to; None if its parents form a cycle."""
        way: dict[int, None] = {}
        at = chat
        while at not in self.roots:
            way[at] = None
            parent = self.parents.get(at, _NONE)
            if parent in way:
                self.roots[at] = None
            elif parent not in self.parents:
                self.roots[at] = at
            else:
                at = parent
        root = self.roots[at]
        self.roots.update(dict.fromkeys(way, root))
        return root


class _Deaf(Rejects):
    """Hears no complaints: the second reading makes them."""

    def add(self, where: str, problem: str, mend: str, *, reason: str, row: bytes = b"") -> None:
        pass


FORMAT = Format(
    sniff,
    read,
    "Qwen-Bailian JSON lines with chats and prefix blocks",
    "the fields chat_id, timestamp, input_length and output_length",
)
