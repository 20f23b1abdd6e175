"""Tables of prompt and answer lengths without arrivals, as Sarathi, Vidur and Etalon keep them."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from servescope.traces.formats import csv
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather
from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace

NO_ARRIVALS = (
    "When calls arrive is not known: these are lengths, to be joined with an arrival process."
)
_NEEDED = {"num_prefill_tokens": pl.Int64, "num_decode_tokens": pl.Int64}
_OPTIONAL = {"num_total_tokens": pl.Int64}
_RATIO = "pd_ratio"


def sniff(head: bytes) -> bool:
    """Recognise the two counts, alone or with their sum and ratio: any other may be a time."""
    return _NEEDED.keys() <= set(csv.header(head)) <= {*_NEEDED, *_OPTIONAL, _RATIO}


def read(source: Source) -> Trace:
    """Read every row as a call whose arrival is unknown.

    pd_ratio is not read: the tables do not agree on which count is divided by which.
    """
    unequal = 0

    def calls() -> Iterator[pl.DataFrame]:
        nonlocal unequal
        for batch in csv.batches(source, _NEEDED, _OPTIONAL):
            prompt, answer = pl.col("num_prefill_tokens"), pl.col("num_decode_tokens")
            if "num_total_tokens" in batch.columns:
                unequal += batch.filter(pl.col("num_total_tokens") != prompt + answer).height
            yield batch.select(
                "source_row",
                stamp_ns=pl.lit(None, pl.Int64),
                input_tokens=prompt,
                output_tokens=answer,
            )

    trace = gather(source, calls(), format="token_lengths", doubts=[NO_ARRIVALS])
    if unequal:
        trace = trace.doubting(
            f"In {unequal} rows num_total_tokens is not the sum of the other two."
        )
    return trace


FORMAT = Format(
    sniff,
    read,
    "tables of prompt and answer lengths, without arrivals",
    "the columns num_prefill_tokens and num_decode_tokens, and none that says when",
)
