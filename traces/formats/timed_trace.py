"""The timed traces that `vllm bench serve --dataset-name timed_trace` replays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from servescope.traces.errors import InputError
from servescope.traces.formats import clock, jsonl, mooncake
from servescope.traces.formats.blocks import Blocks
from servescope.traces.formats.export import losses, new_file, placed, stamps
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace

BLOCK_TOKENS = 16
# Our columns, and vLLM's default labels of them.
_LABELS = {
    "arrival_s": ("timestamp", int | float),
    "input_tokens": ("input_length", int),
    "output_tokens": ("output_length", int),
    "prefix_blocks": ("hash_ids", list[int]),
}


def sniff(head: bytes) -> bool:
    """Recognise Mooncake's four fields where the first prompt is cut in blocks of 16 tokens."""
    return not mooncake.has_text_stamp(head) and mooncake.is_cut_in(head, BLOCK_TOKENS)


def read(source: Source) -> Trace:
    """Read a timed trace as vLLM does: seconds and blocks of 16 tokens, unless the user says else.

    The four fields may have other names, as with vLLM's --timed-trace-label-...: `columns` of the
    source's options gives them for arrival_s, input_tokens, output_tokens and prefix_blocks.
    """
    unit = source.options.unit or "s"
    kind = _kind(source.options.columns)

    def calls() -> Iterator[dict[str, Any]]:
        for row, line in jsonl.records(source, kind):
            ns = mooncake.stamp_of(source, row, line.arrival_s, unit)
            if ns is not None:
                yield {
                    "source_row": row,
                    "stamp_ns": ns,
                    "input_tokens": line.input_tokens,
                    "output_tokens": line.output_tokens,
                    "prefix_blocks": line.prefix_blocks,
                }

    trace = gather(
        source,
        tabulate(source, calls(), "stamp_ns", "input_tokens", "output_tokens", "prefix_blocks"),
        format="timed_trace",
        t0=lambda ns: mooncake.t0_of(ns, unit),
        clock="source",
        units=mooncake.units_of(unit),
        block_tokens=source.options.block_tokens or BLOCK_TOKENS,
        block_rule=source.options.block_rule or "ceil",
        block_scope="global",
    )
    if source.options.unit is None:
        trace = trace.doubting(
            "The file does not say its unit of time; seconds are taken, as vLLM takes them unless"
            " it is told otherwise."
        )
    return mooncake.on_its_clock(trace)


def _kind(columns: dict[str, str]) -> Any:
    """Return the type of a line, its fields called as the user says."""
    strange = sorted(columns.keys() - _LABELS.keys())
    if strange:
        raise InputError(
            f"A timed trace has no {strange[0]}.", f"Its columns are {', '.join(_LABELS)}."
        )
    labels = {name: columns.get(name, label) for name, (label, _) in _LABELS.items()}
    if len(set(labels.values())) < len(labels):
        raise InputError(
            "Two columns of a timed trace cannot be the same field.", "Name four fields."
        )
    fields = [(name, kind) for name, (_, kind) in _LABELS.items()]
    return msgspec.defstruct("Line", fields, rename=labels)


def write(trace: Trace, path: Path) -> list[str]:
    """Write the four fields, in seconds; prompts without blocks get some that no other has."""
    calls, doubts = placed(trace, "arrival_s", "input_tokens", "output_tokens")
    found = Blocks.of(trace)
    blocks = found or Blocks.distinct(BLOCK_TOKENS)
    if blocks.tokens != BLOCK_TOKENS:
        doubts.append(
            f"The blocks are of {blocks.tokens} tokens: replay with --timed-trace-chunk-hash-size"
            f" {blocks.tokens}, read with --block-tokens {blocks.tokens}."
        )
    wanted = [c for c in _LABELS if c != "prefix_blocks" or found]
    if blocks.by_program:
        wanted.append("program_id")
    made = 0
    with new_file(path) as file:
        for batch in calls.batches(*wanted):
            rows = batch.with_columns(arrival_s=clock.decimal_text(stamps(trace), "s"))
            for call in rows.iter_rows(named=True):
                tokens = call["input_tokens"]
                ids = blocks.ids(call.get("program_id"), call.get("prefix_blocks"), tokens)
                if ids is None:
                    ids = blocks.fresh(-(-tokens // blocks.tokens))
                    made += 1
                line = {
                    "timestamp": msgspec.Raw(call["arrival_s"].encode()),
                    "input_length": tokens,
                    "output_length": call["output_tokens"],
                    "hash_ids": ids,
                }
                file.write(msgspec.json.encode(line) + b"\n")
    if made:
        doubts.append(f"{made} prompts get block ids of their own: what they share is not known.")
    return doubts + losses(calls, *_LABELS)


FORMAT = Format(
    sniff,
    read,
    "vLLM bench's timed_trace: JSON lines with prefix blocks of 16 tokens",
    "Mooncake's four fields, and as many hash_ids as blocks of 16 tokens cover the first prompt",
    write,
)
