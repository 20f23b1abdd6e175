"""The definitions of SGLang's `bench_serving`."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from polars import col

from servescope.analysis.metrics import METRICS
from servescope.analysis.profiles import seen as streams
from servescope.analysis.profiles.peaks import most_at_once, most_in_a_second
from servescope.analysis.profiles.profile import (
    Field,
    Profile,
    Quantity,
    Value,
    deviation,
    mean,
    most,
    percentile,
    spread,
)
from servescope.analysis.profiles.reading import Reading
from servescope.analysis.profiles.seen import Seen
from servescope.traces.status import SERVER

STATISTICS = (
    mean(), percentile(50, "median"), deviation("std"),
    percentile(90, "p90"), percentile(95, "p95"), percentile(99, "p99"),
)  # fmt: skip
_NO_PLAN = "the server sent no usage, and the plan does not tell the length that was asked for"


def _native(seen: Seen) -> bool:
    return seen.backend.startswith("sglang") or seen.backend.endswith("/generate")


def _counts(seen: Seen) -> pl.Expr:
    # an event that is an error has no choices, which only the reader of chats passes over
    passed_over = pl.lit(True) if seen.chat else streams.ABORTED
    return col("status").is_in(streams.WHOLE) | ((col("status") == SERVER) & passed_over)


def _quantities(seen: Seen) -> dict[str, Quantity]:
    tokens = pl.when("counted").then("output_tokens").otherwise("planned_output_tokens")
    ttft = (col("first_token_s") - col("start_s")).fill_null(0.0)
    e2e = col("end_s") - col("start_s")
    if _native(seen):
        per_token = METRICS["tbt"].expr
        itl = Quantity(
            expr=per_token, per="gap", unknown=col("first_chunk_tokens").is_null(),
            why=streams.NO_COUNTS, needs=("output_tokens",),
        )  # fmt: skip
    else:
        itl = Quantity(expr=streams.gaps(streams.CHUNKS), per="gap")
    return {
        "ttft": Quantity(expr=ttft),
        "tpot": Quantity(
            expr=pl.when(tokens > 1).then((e2e - ttft) / (tokens - 1)),
            unknown=tokens.is_null(), why=_NO_PLAN,
        ),
        "itl": itl,
        "e2e": Quantity(expr=e2e),
        "input_tokens": Quantity(expr=pl.coalesce("planned_input_tokens", "input_tokens")),
        "output_tokens": Quantity(expr=tokens, unknown=tokens.is_null(), why=_NO_PLAN),
    }  # fmt: skip


def _meets(bounds: Mapping[str, float]) -> pl.Expr:
    # of a call of one token the TPOT is 0
    found = {"ttft": col("ttft"), "tpot": col("tpot").fill_null(0.0), "e2e": col("e2e")}
    return pl.all_horizontal(found[name] <= bound for name, bound in bounds.items())


def _peak(reading: Reading) -> Value:
    if _native(reading.seen):
        return Value(None, "of its own dialect a run does not tell the moment of each token")
    return most_in_a_second(reading, streams.CHUNKS)


def _retokenized(reading: Reading) -> Value:
    return Value(None, "the text is not kept")


_E2E = (
    "from before the request is posted, a new connection included, to the last line of the stream"
)
_TTFT = "from before the request is posted to the first chunk of text or reasoning; 0 of none"
_TPOT = "(E2E - TTFT) / (tokens - 1) of calls of more than one token, so up to [DONE]"
_ITL = (
    "every gap between two chunks of text, pooled over calls; of SGLang's own dialect shared by the"
    " tokens that end it"
)

SGLANG = Profile(
    name="sglang",
    tool="sglang.bench_serving",
    version="SGLang 0.5.23",
    counts=_counts,
    quantities=_quantities,
    duration_s=lambda reading: reading.seen.span_s,
    meets=_meets,
    fields=(
        Field("duration", "s", "from the first call that is sent to the last end, failed calls"
              " included", lambda r: r.lasted, ours="span"),
        Field("completed", "count", "calls of status 200 whose stream could be read, one without"
              " any text included", lambda r: r.count),
        Field("total_input_tokens", "tokens", "prompt tokens of completed calls, as planned",
              lambda r: r.total("input_tokens")),
        Field("total_output_tokens", "tokens", "tokens of completed calls as the server counts, and"
              " without usage the length that was asked for", lambda r: r.total("output_tokens")),
        Field("total_output_tokens_retokenized", "tokens", "tokens of the texts by the client's"
              " tokenizer", _retokenized),
        Field("request_throughput", "1/s", "completed over duration", lambda r: r.rate(r.count),
              ours="calls_rps"),
        Field("input_throughput", "tokens/s", "total_input_tokens over duration",
              lambda r: r.rate(r.total("input_tokens")), ours="input_tps"),
        Field("output_throughput", "tokens/s", "total_output_tokens over duration",
              lambda r: r.rate(r.total("output_tokens")), ours="output_tps"),
        Field("total_throughput", "tokens/s", "tokens of prompts and answers over duration",
              lambda r: r.rate(r.total("input_tokens", "output_tokens")), ours="total_tps"),
        Field("request_goodput", "1/s", "completed calls within the bounds over duration; a call of"
              " one token has a TPOT of 0", lambda r: r.rate(r.good), ours="goodput"),
        Field("slo_attainment", "share", "completed calls within the bounds over all that were"
              " sent", lambda r: r.share(r.good, r.seen.calls.height), ours="attainment"),
        Field("concurrency", "count", "E2E of completed calls added up, over duration",
              lambda r: r.rate(r.total("e2e")), ours="concurrency_mean"),
        Field("max_output_tokens_per_s", "chunks/s", "most chunks, not tokens, in one second from"
              " the first start", _peak),
        Field("max_concurrent_requests", "count", "most completed calls that touch one second",
              lambda r: most_at_once(r, "e2e"), ours="concurrency_peak"),
        *spread("{}_e2e_latency_ms", "e2e", STATISTICS, "ms", _E2E, "e2e"),
        *spread("{}_ttft_ms", "ttft", STATISTICS, "ms", _TTFT, "ttft"),
        *spread("{}_tpot_ms", "tpot", STATISTICS, "ms", _TPOT, "tpot"),
        *spread("{}_itl_ms", "itl", (*STATISTICS, most("max")), "ms", _ITL, "icl"),
    ),
    doubts=(
        "SGLang's own client does not ask OpenAI's endpoints for usage, and then counts every"
        " answer as long as was asked for; here the count is the server's where it sent one.",
        "The last line of the stream is taken to have come when the response ended.",
        "With speculative decoding SGLang splits gaps by a tokenizer; the text is not kept, so here"
        " they are whole.",
        "Parts of tool calls are no text for it, and a run does not tell them apart.",
    ),
)  # fmt: skip
