"""Mooncake traces of Kimi, with the identity of every 512-token block (Qin et al., FAST 2025)."""

import msgspec
import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats.source import Source
from servescope.traces.trace import Provenance, Trace

BLOCK_TOKENS = 512


class _Line(msgspec.Struct):
    timestamp: int
    input_length: int
    output_length: int
    hash_ids: list[int]


def sniff(head: bytes) -> bool:
    """Recognise the four fields on the first line."""
    try:
        return bool(msgspec.json.decode(head.split(b"\n", 1)[0], type=_Line))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def read(source: Source) -> Trace:
    """Read a Mooncake file: milliseconds, and prefix block ids of one global namespace.

    Raises BadRow where the blocks do not cover the prompt (ceil(input_length / 512) of them): the
    file then has another unit or block size, and reading it on would distort every prompt.
    """
    rows = []
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(source.content.splitlines(), start=1):
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
                f"{source.name}, line {number}: {len(row.hash_ids)} hash_ids cannot cover"
                f" {row.input_length} tokens in blocks of {BLOCK_TOKENS}.",
                "The file uses another block size; only Mooncake's 512 is read as mooncake.",
            )
        rows.append((number, row))
    t0 = min(row.timestamp for _, row in rows)
    calls = pl.DataFrame(
        {
            "call_id": [str(number) for number, _ in rows],
            "source_row": [number for number, _ in rows],
            "arrival_s": [(row.timestamp - t0) / 1000 for _, row in rows],
            "input_tokens": [row.input_length for _, row in rows],
            "output_tokens": [row.output_length for _, row in rows],
            "prefix_blocks": [row.hash_ids for _, row in rows],
        },
        schema_overrides={"prefix_blocks": pl.List(pl.UInt64)},
    ).sort("arrival_s", maintain_order=True)
    tied = calls["arrival_s"].diff().eq(0).mean()
    batched = isinstance(tied, float) and tied > 0.5
    provenance = Provenance(
        format="mooncake",
        source=source.name,
        sha256=source.sha256,
        licence="Apache-2.0",
        attribution="Qin et al., Mooncake, FAST 2025; kvcache-ai/Mooncake",
        rows_read=len(rows),
        t0=f"{t0} ms on the source's own clock",
        tick_s=3.0 if batched else 0.001,
        block_tokens=BLOCK_TOKENS,
        block_rule="ceil",
        block_scope="global",
        doubts=(
            f"{tied:.0%} of the arrivals share a stamp: the source wrote them in batches of 3 s.",
        )
        if batched
        else (),
    )
    return Trace.of(calls, provenance)
