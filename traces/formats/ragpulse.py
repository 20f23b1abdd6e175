"""RAGPulse: questions to a university's RAG service, each prompt a list of known components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats import clock, jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.links import GAPS, Chain
from servescope.traces.formats.source import File, Source
from servescope.traces.trace import Trace

# The kinds of components in the order of the prompt, and the name of their ids in their own file.
KINDS: Final = {
    "sys_prompt": "sys_prompt_id",
    "passages_ids": "passage_id",
    "history": "history_id",
    "web_search": "web_search_id",
    "user_input": "user_input_id",
}
GLUE: Final = range(6, 13)  # tokens between the components
_RESET_NS = 3600 * clock.NS_PER["s"]  # a fall of time that is no mere disorder


class _Components(msgspec.Struct):
    sys_prompt: list[int]
    passages_ids: list[int]
    history: list[int]
    web_search: list[int]
    user_input: list[int]


class _Line(msgspec.Struct):
    timestamp: str | int
    input_length: int
    output_length: int
    hash_ids: _Components
    session_id: str | None = None


class _Component(msgspec.Struct):
    token_length: int
    sys_prompt_id: int | None = None
    passage_id: int | None = None
    history_id: int | None = None
    web_search_id: int | None = None
    user_input_id: int | None = None


def sniff(head: bytes) -> bool:
    """Recognise the trace by its lists of components, and the files that give their lengths."""
    return _is_trace(head) or _is_lengths(head)


def read(source: Source) -> Trace:
    """Read the trace file, and the lengths of components from the files in it or beside it.

    A component's id is its prefix block, under the rule "component": blocks have lengths of their
    own, kept in the table `block_lengths`. Raises BadRow where only files of lengths are given.
    """
    traces = tuple(file for file in source.files if _is_trace(file.head()))
    beside = tuple(file for file in source.files if _is_lengths(file.head()))
    if not traces:
        if beside:
            raise BadRow(
                f"{source.name} holds the lengths of components and no calls.",
                "Give the folder, or the file 0_trace.jsonl.",
            )
        traces = source.files
    parts = Source(traces, source.name, source.options, source.rejects)
    lengths = _lengths(source, beside or _neighbours(traces[0]))
    lines = _Lines(parts, lengths)
    trace = gather(
        parts,
        tabulate(parts, lines.calls(), *lines.COLUMNS),
        chain=Chain(),
        format="ragpulse",
        licence="MIT",
        attribution="RAGPulse, arXiv 2511.12979; flashserve/RAGPulse",
        t0=lambda ns: f"{ns / clock.NS_PER['s']:.15g} s after the start of the source's trace",
        clock="source",
        units="seconds, as published",
        tick_s=1.0,
        block_rule="component",
        block_scope="global",
        inferred={"delay_s": GAPS},
        doubts=[
            "Arrivals are stamped in whole seconds: nothing finer than 2 s can be said of them."
        ],
    )
    if len(source.files) > 1:
        trace = trace.known(files=len(source.files), sha256=source.sha256)
    if lengths is not None:
        trace = replace(trace, tables={**trace.tables, "block_lengths": lengths.lazy()})
    return trace.doubting(*lines.doubts())


def _is_trace(head: bytes) -> bool:
    return peek.paths(head) >= {"timestamp", "session_id", *(f"hash_ids.{kind}" for kind in KINDS)}


def _is_lengths(head: bytes) -> bool:
    found = peek.paths(head)
    return len(found) == 2 and "token_length" in found and bool(found & set(KINDS.values()))


def _neighbours(file: File) -> tuple[File, ...]:
    """Return the files of lengths in the folder of the trace."""
    found = sorted(path for path in file.path.parent.glob("[1-5]_*.jsonl*") if path.is_file())
    files = (File(path, str(path)) for path in found)
    return tuple(each for each in files if _is_lengths(each.head()))


def _lengths(source: Source, files: tuple[File, ...]) -> pl.DataFrame | None:
    """Return the table of components: block, kind and tokens, one row each."""
    if not files:
        return None
    known: dict[int, tuple[str, int]] = {}
    part = Source(files, source.name, source.options, source.rejects)
    for row, component in jsonl.records(part, _Component):
        found = [(k, getattr(component, name)) for k, name in KINDS.items()]
        ids = [(kind, block) for kind, block in found if block is not None]
        problem = None
        if len(ids) != 1:
            problem = "it does not say which component it gives the length of."
        elif not (0 <= component.token_length < 2**63 and 0 <= ids[0][1] < 2**63):
            problem = "its id or its length is no number of 0 or more."
        elif ids[0][1] in known:
            problem = f"component {ids[0][1]} came before, as {known[ids[0][1]][0]}."
        if problem is not None:
            part.reject(
                row, problem, "Mend the line, or take the file away.", reason="no component"
            )
            continue
        ((kind, block),) = ids
        known[block] = (kind, component.token_length)
    return pl.DataFrame(
        {
            "block": list(known),
            "kind": [kind for kind, _ in known.values()],
            "tokens": [tokens for _, tokens in known.values()],
        },
        schema={"block": pl.UInt64, "kind": pl.String, "tokens": pl.Int64},
    )


@dataclass
class _Lines:
    """Turns lines into calls, and knows at the end what can only be said of all of them."""

    COLUMNS = ("program_id", "stamp_ns", "input_tokens", "output_tokens", "prefix_blocks")
    source: Source
    lengths: pl.DataFrame | None
    resets: list[str] = field(default_factory=list)
    uneven: int = 0
    unknown: int = 0
    kinds: dict[int, str] = field(default_factory=dict)

    def calls(self) -> Iterator[dict[str, Any]]:
        tokens: dict[int, int] | None = None
        if self.lengths is not None:
            self.kinds.update(zip(self.lengths["block"], self.lengths["kind"], strict=True))
            tokens = dict(zip(self.lengths["block"], self.lengths["tokens"], strict=True))
        latest = 0
        for row, line in jsonl.records(self.source, _Line):
            stamp = clock.from_number(line.timestamp, "s")
            if stamp is None:
                self.source.reject(
                    row,
                    f"its timestamp {line.timestamp!r} is no number of seconds.",
                    "RAGPulse writes whole seconds from the start of the trace; mend the line.",
                    reason="timestamp is no number",
                )
                continue
            blocks = self._blocks(row, line)
            if blocks is None:
                continue
            if latest - stamp > _RESET_NS:
                self.resets.append(self.source.where(row))
                latest = 0
            latest = max(latest, stamp)
            if tokens is not None:
                if all(block in tokens for block in blocks):
                    over = line.input_length - sum(tokens[block] for block in blocks)
                    self.uneven += over not in GLUE
                else:
                    self.unknown += 1
            yield {
                "source_row": row,
                "program_id": line.session_id,
                "stamp_ns": stamp,
                "input_tokens": line.input_length,
                "output_tokens": line.output_length,
                "prefix_blocks": blocks,
            }

    def _blocks(self, row: int, line: _Line) -> list[int] | None:
        """Return the prompt's components in order; None, and the row rejected, if ids clash."""
        blocks: list[int] = []
        for kind in KINDS:
            for block in getattr(line.hash_ids, kind):
                if self.kinds.setdefault(block, kind) != kind:
                    self.source.reject(
                        row,
                        f"id {block} is a component of {kind} here and of {self.kinds[block]}"
                        " elsewhere.",
                        "RAGPulse numbers all components in one series; number them anew.",
                        reason="id of two kinds",
                    )
                    return None
                blocks.append(block)
        return blocks

    def doubts(self) -> list[str]:
        """Say what is odd about the lines that were read."""
        said = []
        if self.resets:
            said.append(
                f"Time falls back at {', '.join(self.resets)}: the source is"
                f" {len(self.resets) + 1} streams over the same time laid end to end; they are"
                " merged by time."
            )
        if self.uneven:
            said.append(
                f"In {self.uneven} rows input_length is not the sum of the components and"
                f" {GLUE[0]} to {GLUE[-1]} tokens between them."
            )
        if self.unknown:
            said.append(f"In {self.unknown} rows the length of a component is not known.")
        if self.lengths is None:
            said.append("The files of component lengths are not there: block_lengths is missing.")
        return said


FORMAT = Format(
    sniff,
    read,
    "RAGPulse: the trace and the lengths of its components",
    "hash_ids of five kinds (sys_prompt, passages_ids, history, web_search, user_input), or the"
    " lengths of components",
)
