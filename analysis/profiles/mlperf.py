"""The definitions of MLPerf's endpoints (mlcommons/endpoints)."""

from __future__ import annotations

import polars as pl
from polars import col

from servescope.analysis.profiles import seen as streams
from servescope.analysis.profiles.profile import (
    Field,
    Profile,
    Quantity,
    Value,
    deviation,
    least,
    mean,
    most,
    percentile,
    spread,
)
from servescope.analysis.profiles.reading import Reading
from servescope.analysis.profiles.seen import Seen

# Its files also hold nine more percentiles.
STATISTICS = (
    mean("avg"), least(), most(), percentile(50, "median", "lower"),
    deviation("std_dev", of_sample=True), percentile(90, "percentiles.90", "lower"),
    percentile(99, "percentiles.99", "lower"),
)  # fmt: skip
_STREAMED = col("status").is_in(streams.STREAMED).fill_null(False)


def _counts(seen: Seen) -> pl.Expr:
    return col("end_s").is_not_null()  # a failed sample completes too


def _quantities(seen: Seen) -> dict[str, Quantity]:
    tokens = col("output_tokens")
    after_first = tokens - col("first_chunk_tokens")
    decode = col("end_s") - col("first_token_s")
    known = col("counted") & col("first_chunk_tokens").is_not_null()
    return {
        "ttft": Quantity(expr=col("first_token_s") - col("start_s")),
        "tpot": Quantity(
            expr=pl.when(_STREAMED & (after_first > 0)).then(decode / after_first),
            unknown=_STREAMED & (col("chunks") > 1) & ~known,
            why=streams.NO_COUNTS,
        ),
        "latency": Quantity(expr=col("end_s") - col("start_s")),
        "osl": Quantity(
            expr=pl.when(_STREAMED).then(tokens),
            unknown=_STREAMED & (col("chunks") > 0) & ~col("counted"),
            why=streams.NO_USAGE,
        ),
        "chunk_delta": Quantity(expr=streams.gaps(streams.CHUNKS), per="gap"),
    }


def _failed(reading: Reading) -> Value:
    return Value(float(reading.seen.calls.select((~_STREAMED).sum()).item()))


def _every(name: str, quantity: str, unit: str, says: str, ours: str | None = None) -> list[Field]:
    return list(spread(f"{name}.{{}}", quantity, STATISTICS, unit, says, ours))


MLPERF = Profile(
    name="mlperf",
    tool="MLPerf endpoints (mlcommons/endpoints)",
    version="0.1.0 of the repository at 0479710",
    counts=_counts,
    quantities=_quantities,
    duration_s=lambda reading: reading.seen.span_s,
    fields=(
        Field("n_samples_issued", "count", "calls that were sent",
              lambda r: Value(float(r.seen.calls.height)), ours="calls"),
        Field("n_samples_completed", "count", "calls that ended, failed ones included",
              lambda r: r.count),
        Field("n_samples_failed", "count", "calls that ended in an error", _failed, ours="failed"),
        Field("duration_ns", "ns", "from the start to the last completion",
              lambda r: _scaled(r.lasted), ours="span"),
        Field("qps", "1/s", "completed calls, failed ones included, over the duration",
              lambda r: r.rate(r.count), ours="calls_rps"),
        Field("tps", "tokens/s", "tokens of answers over the duration",
              lambda r: r.rate(r.total("osl")), ours="output_tps"),
        *_every("ttft", "ttft", "ns", "from issuing a call to its first chunk with content or"
                " reasoning, also if it failed later", "ttft"),
        *_every("tpot", "tpot", "ns", "(completion - first chunk) / tokens after the first chunk",
                "tpot"),
        *_every("latency", "latency", "ns", "from issuing a call to its completion, failed calls"
                " included"),
        *_every("output_sequence_lengths", "osl", "tokens", "tokens of an answer, reasoning"
                " included"),
        *_every("chunk_delta_ns", "chunk_delta", "ns", "every gap between two chunks, pooled over"
                " calls; in its snapshots, where all chunks are streamed", "icl"),
    ),
    doubts=(
        "It counts tokens with a pinned tokenizer and never takes the server's word; here the"
        " counts are the server's.",
        "Its moments are taken behind a queue between processes, which a run does not have.",
        "With Poisson arrivals it prints, unless told otherwise, QPS as (completed - 1) over the"
        " time from the first call to the completion of the one that was issued last.",
        "Parts of tool calls are no chunk for it, and a run does not tell them apart.",
        "Its early-stopping estimates of percentiles are not computed.",
    ),
)  # fmt: skip


def _scaled(value: Value) -> Value:
    return Value(None if value.value is None else value.value * 1e9, value.why)
