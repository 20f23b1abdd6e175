"""Mooncake traces of Kimi, with the identity of every 512-token block (Qin et al., FAST 2025)."""

from typing import Annotated

import msgspec
import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats.arrivals import in_order
from servescope.traces.formats.source import Source
from servescope.traces.trace import Provenance, Trace

BLOCK_TOKENS = 512
BATCH_MS = 3000
_BOM = b"\xef\xbb\xbf"
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Line(msgspec.Struct):
    timestamp: int
    input_length: _Count
    output_length: _Count
    hash_ids: list[_Count]


def sniff(head: bytes) -> bool:
    """Recognise the four fields on the first line."""
    try:
        first = msgspec.json.decode(head.removeprefix(_BOM).split(b"\n", 1)[0])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return isinstance(first, dict) and first.keys() >= set(_Line.__struct_fields__)


def read(source: Source) -> Trace:
    """Read a Mooncake file: milliseconds, and prefix block ids of one global namespace.

    Raises BadRow where the blocks do not cover the prompt (ceil(input_length / 512) of them): the
    file then has another unit or block size, and reading it on would distort every prompt.
    """
    rows = []
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(source.content.removeprefix(_BOM).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise BadRow(
                f"{source.name}, line {number}: {error}.",
                "Mend the line, or export the file again.",
            ) from None
        if len(row.hash_ids) != -(-row.input_length // BLOCK_TOKENS):
            raise BadRow(
                f"{source.name}, line {number}: {len(row.hash_ids)} hash_ids do not fit"
                f" {row.input_length} tokens in blocks of {BLOCK_TOKENS}.",
                "The file uses another block size; only Mooncake's 512 is read as mooncake.",
            )
        if max(row.hash_ids, default=0) >> 64:
            raise BadRow(
                f"{source.name}, line {number}: hash id {max(row.hash_ids)} has over 64 bits.",
                "Number the blocks anew; only whether two ids are the same matters.",
            )
        rows.append((number, row))
    if not rows:
        raise BadRow(f"{source.name} has no lines.", "Give a file with at least one call.")
    stamps = [row.timestamp for _, row in rows]
    t0 = min(stamps)
    numbers = [number for number, _ in rows]
    calls, moved = in_order(
        pl.DataFrame(
            {
                "call_id": numbers,
                "source_row": numbers,
                "arrival_s": [(stamp - t0) / 1000 for stamp in stamps],
                "input_tokens": [row.input_length for _, row in rows],
                "output_tokens": [row.output_length for _, row in rows],
                "prefix_blocks": [row.hash_ids for _, row in rows],
            },
            schema_overrides={"prefix_blocks": pl.List(pl.UInt64)},
        )
    )
    tied = 1 - len(set(stamps)) / len(stamps)
    on_grid = sum((stamp + 1) % BATCH_MS <= 1 for stamp in stamps) / len(stamps)
    batched = tied > 0.5 and on_grid > 0.9
    batches = (
        f"{tied:.0%} of the arrivals share a stamp: the source wrote them in batches of 3 s.",
    )
    provenance = Provenance(
        format="mooncake",
        source=source.name,
        sha256=source.sha256,
        licence="Apache-2.0",
        attribution="Qin et al., Mooncake, FAST 2025; kvcache-ai/Mooncake",
        rows_read=len(rows),
        t0=f"{t0} ms on the source's own clock",
        tick_s=BATCH_MS / 1000 if batched else 0.001,
        block_tokens=BLOCK_TOKENS,
        block_rule="ceil",
        block_scope="global",
        doubts=(*moved, *(batches if batched else ())),
    )
    return Trace.of(calls, provenance)
