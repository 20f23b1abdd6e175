"""The definitions of AIPerf."""

from __future__ import annotations

from collections.abc import Mapping

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

# Those that its console shows; its files also hold p1, p5, p10, p25, p75 and p95.
STATISTICS = (
    mean("avg"), least(), most(), percentile(99, "p99"), percentile(90, "p90"),
    percentile(50, "p50"), deviation("std"),
)  # fmt: skip


def _counts(seen: Seen) -> pl.Expr:
    return col("status").is_in(streams.STREAMED) & col("first_token_s").is_not_null()


def _quantities(seen: Seen) -> dict[str, Quantity]:
    unknown, why = ~col("counted"), streams.NO_USAGE
    tokens = col("output_tokens")
    ttft = col("first_token_s") - col("start_s")
    latency = col("last_token_s") - col("start_s")
    decode = col("last_token_s") - col("first_token_s")
    itl = pl.when(tokens >= 2).then(decode / (tokens - 1))
    thought = col("reasoning_tokens")
    silent = thought.is_null() & (col("first_answer_s").ne_missing(col("first_token_s")))

    def counted(expr: pl.Expr) -> Quantity:
        return Quantity(expr=expr, unknown=unknown, why=why)

    return {
        "ttft": Quantity(expr=ttft),
        "ttst": Quantity(expr=col("second_chunk_s") - col("first_token_s")),
        "ttfo": Quantity(expr=col("first_answer_s") - col("start_s")),
        "latency": Quantity(expr=latency),
        "decode": Quantity(expr=decode),
        "itl": counted(itl),
        "icl": Quantity(expr=streams.gaps(streams.CHUNKS), per="gap"),
        "per_user": counted(pl.when(itl != 0).then(1 / itl)),
        "e2e_per_user": counted(pl.when(latency != 0).then(tokens / latency)),
        "prefill_per_user": Quantity(expr=pl.when(ttft != 0).then(col("input_tokens") / ttft)),
        "osl": counted(tokens),
        "output_count": Quantity(
            expr=tokens - thought.fill_null(0),
            unknown=unknown | silent,
            why="a run does not tell the tokens of the answer from those of reasoning",
        ),
        "reasoning_count": Quantity(expr=thought),
        "isl": Quantity(expr=col("input_tokens")),
    }


def _duration_s(reading: Reading) -> float | None:
    calls = reading.answered
    first, last = calls["start_s"].min(), calls["last_token_s"].max()
    return None if first is None or last is None else float(last) - float(first)  # type: ignore[arg-type]


def _meets(bounds: Mapping[str, float]) -> pl.Expr:
    found = {"ttft": col("ttft"), "tpot": col("itl"), "e2e": col("latency")}
    within = (found[name] <= bound for name, bound in bounds.items())
    return pl.all_horizontal(within).fill_null(False)  # what is not measured is not good


def _sent(reading: Reading) -> int:
    return reading.seen.calls.height


def _every(name: str, quantity: str, unit: str, says: str, ours: str | None = None) -> list[Field]:
    return list(spread(name + ".{}", quantity, STATISTICS, unit, says, ours))


AIPERF = Profile(
    name="aiperf",
    tool="aiperf profile",
    version="AIPerf 0.13.0",
    counts=_counts,
    quantities=_quantities,
    duration_s=_duration_s,
    meets=_meets,
    fields=(
        *_every("time_to_first_token", "ttft", "ms", "from before the request is made, a new"
                " connection included, to the first chunk with content; reasoning and tool calls"
                " count", "ttft"),
        *_every("time_to_second_token", "ttst", "ms", "from the first chunk with content to the"
                " second"),
        *_every("time_to_first_output_token", "ttfo", "ms", "from before the request is made to the"
                " first chunk that is not reasoning", "ttfo"),
        *_every("request_latency", "latency", "ms", "from before the request is made to the last"
                " chunk with content", "e2e"),
        *_every("decode_duration", "decode", "ms", "from the first to the last chunk with content"),
        *_every("inter_token_latency", "itl", "ms", "(request latency - time to first token) /"
                " (tokens - 1) of a call of two tokens or more", "tpot"),
        *_every("inter_chunk_latency", "icl", "ms", "every gap between two chunks with content,"
                " pooled over calls", "icl"),
        *_every("output_token_throughput_per_user", "per_user", "tokens/s", "1 / inter-token"
                " latency of a call; none where that is 0"),
        *_every("e2e_output_token_throughput", "e2e_per_user", "tokens/s", "tokens of a call over"
                " its request latency"),
        *_every("prefill_throughput_per_user", "prefill_per_user", "tokens/s", "prompt tokens of a"
                " call over its time to first token"),
        *_every("output_sequence_length", "osl", "tokens", "tokens of an answer, reasoning"
                " included"),
        *_every("output_token_count", "output_count", "tokens", "tokens of an answer without"
                " reasoning"),
        *_every("reasoning_token_count", "reasoning_count", "tokens", "tokens of reasoning, of"
                " calls whose count is known"),
        *_every("input_sequence_length", "isl", "tokens", "tokens of a prompt"),
        Field("benchmark_duration", "s", "from the first start to the last chunk with content, of"
              " valid calls alone", lambda r: r.lasted, ours="span"),
        Field("request_count", "count", "valid calls: no error, and at least one chunk with"
              " content", lambda r: r.count),
        Field("error_request_count", "count", "all other calls that were sent",
              lambda r: r.failed, ours="failed"),
        Field("request_error_rate", "%", "calls that are not valid, of all that were sent",
              lambda r: r.share(Value((r.failed.value or 0.0) * 100), _sent(r))),
        Field("request_throughput", "1/s", "valid calls over the duration",
              lambda r: r.rate(r.count), ours="calls_rps"),
        Field("output_token_throughput", "tokens/s", "tokens of answers over the duration",
              lambda r: r.rate(r.total("osl")), ours="output_tps"),
        Field("input_token_throughput", "tokens/s", "tokens of prompts over the duration",
              lambda r: r.rate(r.total("isl")), ours="input_tps"),
        Field("total_token_throughput", "tokens/s", "tokens of prompts and answers over the"
              " duration", lambda r: r.rate(r.total("isl", "osl")), ours="total_tps"),
        Field("good_request_count", "count", "valid calls within every bound; one without a value"
              " is not good", lambda r: r.good),
        Field("good_request_fraction", "share", "good calls, of all that were sent",
              lambda r: r.share(r.good, _sent(r)), ours="attainment"),
        Field("goodput", "1/s", "good calls over the duration", lambda r: r.rate(r.good),
              ours="goodput"),
    ),
    doubts=(
        "AIPerf counts tokens with the client's tokenizer unless --use-server-token-count is given;"
        " here the counts are the server's.",
        "It divides by tokens - 1 also where the first chunk held several, unless --per-chunk-usage"
        " is given.",
        "Its percentiles of inter_chunk_latency come from a sketch (t-digest); here they are of all"
        " gaps.",
        "Part of a tool call is an output token for its time_to_first_output_token, and not here.",
        "Its adj_... percentiles, which take a failure for an endless latency, are not computed.",
    ),
)  # fmt: skip
