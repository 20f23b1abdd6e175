"""The definitions of inference-perf, of its successful requests."""

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
    least,
    mean,
    most,
    percentile,
    spread,
)
from servescope.analysis.profiles.reading import Reading
from servescope.analysis.profiles.seen import Seen
from servescope.traces.status import UNSTREAMED

# Its files also hold p0.1, p1, p5, p10, p25, p75, p95 and p99.9.
STATISTICS = (
    mean(), least(), most(), percentile(50, "median"), percentile(90, "p90"), percentile(99, "p99"),
)  # fmt: skip
_TOKENS = (
    "the server sent no usage, or no count of reasoning, and the text that the tool would tokenize"
    " is not kept"
)


def _counts(seen: Seen) -> pl.Expr:
    # it passes over what is no content, and an answer of nothing is a success
    return col("status").is_in((*streams.STREAMED, UNSTREAMED))


def answer_tokens() -> pl.Expr:
    """Return the tokens of the answer without those of reasoning; null where they are not known."""
    thought = pl.coalesce(
        "reasoning_tokens", pl.when(col("first_answer_s") == col("first_token_s")).then(0)
    )
    told = pl.when("counted").then(col("output_tokens") - thought)
    return pl.when(col("answer_chunks") == 0).then(0).otherwise(told)


def _quantities(seen: Seen) -> dict[str, Quantity]:
    tokens, chunks = answer_tokens(), col("answer_chunks")
    first, last = col("first_answer_s"), col("last_token_s")
    latency = col("end_s") - col("start_s")
    unknown = tokens.is_null()
    several = (chunks > 1) | (tokens > 1)

    def counted(expr: pl.Expr) -> Quantity:
        return Quantity(expr=expr, unknown=unknown, why=_TOKENS)

    return {
        "latency": Quantity(expr=latency),
        "ntpot": counted(pl.when(tokens > 0).then(latency / tokens).otherwise(0.0)),
        "tpot": counted(pl.when(tokens > 1).then((last - first) / (tokens - 1))),
        "ttft": Quantity(
            expr=pl.when(several).then(first - col("start_s")),
            unknown=unknown & (chunks == 1),
            why=_TOKENS,
        ),
        "itl": Quantity(
            expr=streams.gaps(streams.ANSWER_CHUNKS),
            per="gap",
            needs=("first_answer_s",),
            zeros=tokens - chunks,
            # fewer tokens than chunks: some chunk holds none by the tool's tokenizer
            unknown=unknown | (tokens < chunks),
            why=streams.NO_COUNTS,
        ),
        "input": Quantity(expr=col("input_tokens")),
        "output": counted(tokens),
        "made": Quantity(
            expr=col("output_tokens"), unknown=~col("counted") & (chunks > 0), why=_TOKENS
        ),
    }


def _meets(bounds: Mapping[str, float]) -> pl.Expr:
    found = {"ttft": col("ttft"), "tpot": col("tpot"), "e2e": col("latency")}
    within = (found[name] <= bound for name, bound in bounds.items())
    return pl.all_horizontal(within).fill_null(False)  # what is not measured is not good


def _goodput(reading: Reading) -> Value:
    first, last = reading.answered.select(first=col("start_s").min(), last=col("end_s").max()).row(
        0
    )
    return reading.share(reading.good, 0.0 if first is None else last - first)


def _every(name: str, quantity: str, unit: str, says: str, ours: str | None = None) -> list[Field]:
    return list(spread(f"{name}.{{}}", quantity, STATISTICS, unit, says, ours))


def _sent(reading: Reading) -> Value:
    return Value(float(reading.seen.calls.height))


def _delay(reading: Reading) -> Value:
    delays = reading.seen.calls.select(col("start_s") - col("due_s")).to_series().drop_nulls()
    return Value(delays.mean() if len(delays) else None, None if len(delays) else "no call has one")  # type: ignore[arg-type]


INFERENCE_PERF = Profile(
    name="inference-perf",
    tool="inference-perf",
    version="inference-perf 0.7.0",
    counts=_counts,
    quantities=_quantities,
    duration_s=lambda reading: reading.seen.span_s,
    meets=_meets,
    fields=(
        Field("benchmark_time_seconds", "s", "from the first start to the last end, failed calls"
              " included", lambda r: r.lasted, ours="span"),
        Field("load_summary.count", "count", "calls that were sent", _sent, ours="calls"),
        Field("load_summary.schedule_delay.mean", "s", "from the scheduled time to the start, of"
              " all calls that were sent", _delay),
        Field("successes.count", "count", "calls of status 200 that could be read to their end, an"
              " empty one included", lambda r: r.count),
        Field("failures.count", "count", "all other calls that were sent",
              lambda r: r.failed, ours="failed"),
        *_every("latency.request_latency", "latency", "s", "from before the request is posted, a"
                " new connection included, to the end of the response"),
        *_every("latency.normalized_time_per_output_token", "ntpot", "s/token", "request latency"
                " over tokens; 0 without any", "norm"),
        *_every("latency.time_per_output_token", "tpot", "s/token", "(last - first chunk of"
                " content) / (tokens - 1); 0 where all came at once", "tpot"),
        *_every("latency.time_to_first_token", "ttft", "s", "from before the request is posted to"
                " the first chunk of content; none of a call of one token", "ttft"),
        *_every("latency.inter_token_latency", "itl", "s", "every gap between two tokens, pooled"
                " over calls: 0 between those of one chunk, the whole gap between chunks", "tbt"),
        Field("throughput.input_tokens_per_sec", "tokens/s", "tokens of prompts over the time",
              lambda r: r.rate(r.total("input")), ours="input_tps"),
        Field("throughput.output_tokens_per_sec", "tokens/s", "tokens of answers by the client's"
              " tokenizer over the time", lambda r: r.rate(r.total("output")), ours="output_tps"),
        Field("throughput.total_tokens_per_sec", "tokens/s", "tokens of prompts and answers over"
              " the time", lambda r: r.rate(r.total("input", "output")), ours="total_tps"),
        Field("throughput.requests_per_sec", "1/s", "successes over the time",
              lambda r: r.rate(r.count), ours="calls_rps"),
        Field("prompt_tokens.total", "tokens", "tokens of prompts, as the server counts",
              lambda r: r.total("input")),
        Field("output_tokens.total", "tokens", "tokens of answers, as the server counts",
              lambda r: r.total("made")),
        Field("goodput_metrics.goodput_percentage", "%", "calls within the bounds, of successes;"
              " one without a value is not good",
              lambda r: r.share(_hundredfold(r.good), r.answered.height)),
        Field("goodput_metrics.request_goodput", "1/s", "calls within the bounds, over the time"
              " from the first start to the last end of successes", _goodput, ours="goodput"),
    ),
    doubts=(
        "inference-perf counts the tokens of answers with its own tokenizer unless"
        " use_server_output_tokens is set; here the counts are the server's, without reasoning.",
        "Of a chat it reads content alone: reasoning and tool calls are no token. A run does not"
        " tell parts of tool calls that follow an answer from the answer.",
    ),
)  # fmt: skip


def _hundredfold(value: Value) -> Value:
    return Value(None if value.value is None else value.value * 100, value.why)
