"""The traces of splitwise-sim, the simulator of Splitwise (Patel et al., ISCA 2024)."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from servescope.traces.formats import csv, mooncake
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather
from servescope.traces.formats.source import Source
from servescope.traces.formats.vidur import stamped, timing
from servescope.traces.trace import Trace

_NEEDED = {
    "request_id": pl.String,
    "arrival_timestamp": pl.String,
    "prompt_size": pl.Int64,
    "token_size": pl.Int64,
}
_OPTIONAL = {"request_type": pl.Int64, "application_id": pl.String, "batch_size": pl.Int64}
_LLM = 2


def sniff(head: bytes) -> bool:
    """Recognise the columns, among others and in any order."""
    return set(csv.header(head)) >= _NEEDED.keys()


def read(source: Source) -> Trace:
    """Read arrivals, in seconds unless the user says else, and the tokens of each request.

    Requests to other models than LLMs are refused. The simulator gives one size of prompt and
    answer to a request, whatever its batch_size: where
    that is above 1, it is doubted.
    """
    batched = 0

    def calls() -> Iterator[pl.DataFrame]:
        nonlocal batched
        for batch in csv.batches(source, _NEEDED, _OPTIONAL):
            batch = stamped(batch, source, "arrival_timestamp")
            if "request_type" in batch.columns:
                batch = _of_llms(batch, source)
            if "batch_size" in batch.columns:
                batched += batch.filter(pl.col("batch_size") > 1).height
            columns = {
                "call_id": pl.col("request_id"),
                "input_tokens": pl.col("prompt_size"),
                "output_tokens": pl.col("token_size"),
            }
            if "application_id" in batch.columns:
                columns["client_id"] = pl.col("application_id")
            yield batch.select("source_row", "stamp_ns", **columns)

    trace = gather(source, calls(), format="splitwise", **timing(source))
    trace = mooncake.on_its_clock(trace)
    if batched:
        trace = trace.doubting(
            f"{batched} requests have a batch_size above 1; each is read as one call of its sizes."
        )
    return trace


def _of_llms(batch: pl.DataFrame, source: Source) -> pl.DataFrame:
    other = (pl.col("request_type") != _LLM).fill_null(False)
    for row, kind in batch.filter(other).select("source_row", "request_type").iter_rows():
        source.reject(
            row,
            f"'request_type' is {kind}, which is no request to an LLM.",
            f"Leave out what is not of type {_LLM}.",
            reason="no request to an LLM",
        )
    return batch.filter(~other)


FORMAT = Format(
    sniff,
    read,
    "splitwise-sim's CSV: arrivals and sizes",
    "the columns request_id, arrival_timestamp, prompt_size and token_size",
)
