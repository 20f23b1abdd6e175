"""The definitions of GuideLLM, of its successful requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl
from polars import col

from servescope.analysis.profiles import seen as streams
from servescope.analysis.profiles.profile import (
    Field,
    Profile,
    Quantity,
    Value,
    deviation,
    mean,
    percentile,
    spread,
)
from servescope.analysis.profiles.reading import Reading
from servescope.analysis.profiles.seen import Seen
from servescope.traces.status import CANCELLED, SERVER

# Its files also hold the mode, the variance and eight more percentiles.
STATISTICS = (
    mean(), percentile(50, "median", "order"), deviation("std_dev"),
    percentile(90, "percentiles.p90", "order"), percentile(95, "percentiles.p95", "order"),
    percentile(99, "percentiles.p99", "order"),
)  # fmt: skip
_UNSAID = "the server sent no usage, for which GuideLLM writes 0"


def _counts(seen: Seen) -> pl.Expr:
    # it stops at an event that is an error, and refuses an answer of nothing
    whole = col("status").is_in(streams.WHOLE) | ((col("status") == SERVER) & streams.ABORTED)
    return whole & ((col("chunks") > 0) | (col("output_tokens") > 0))


def _quantities(seen: Seen) -> dict[str, Quantity]:
    tokens = col("output_tokens")  # without usage it counts chunks, as a run does
    first, last = col("first_token_s"), col("last_token_s")
    per_token = (pl.coalesce("last_token_s", "end_s") - col("sent_s")) / tokens
    unknown = ~col("counted")
    return {
        "latency": Quantity(expr=col("end_s") - col("sent_s")),
        "ttft": Quantity(expr=first - col("sent_s")),
        "ttfot": Quantity(expr=col("first_answer_s") - col("sent_s")),
        "tpot": Quantity(expr=pl.when(tokens > 0).then(per_token), weight=tokens),
        "itl": Quantity(
            expr=pl.when(tokens > 1).then(((last - first) / (tokens - 1)).fill_null(0.0)),
            weight=tokens - 1,
        ),
        "prompt": Quantity(expr=col("input_tokens"), unknown=unknown, why=_UNSAID),
        "output": Quantity(expr=tokens.fill_null(0)),
        "total": Quantity(
            expr=col("input_tokens") + tokens.fill_null(0), unknown=unknown, why=_UNSAID
        ),
        "dispatch": Quantity(expr=col("sent_s") - col("due_s")),
        "scheduled": Quantity(expr=col("end_s") - col("due_s")),
    }


def _duration_s(reading: Reading) -> float | None:
    calls = reading.seen.calls
    first, last = calls.select(first=col("sent_s").min(), last=col("end_s").max()).row(0)
    return None if first is None or last is None else float(last - first)


def _meets(bounds: Mapping[str, float]) -> pl.Expr:
    found = {"ttft": col("ttft"), "tpot": col("itl"), "e2e": col("latency")}
    within = [found[name] <= bound for name, bound in bounds.items()]
    # a call that lacks a value is not judged, whatever its others are
    known = pl.all_horizontal(each.is_not_null() for each in within)
    return pl.when(known).then(pl.all_horizontal(within))


def _errored(reading: Reading) -> int:
    sent, answered = reading.seen.calls, reading.answered
    cancelled = int((sent["status"] == CANCELLED).fill_null(False).sum())
    return sent.height - answered.height - cancelled


def _incomplete(reading: Reading) -> Value:
    return Value(float(reading.failed.value or 0) - _errored(reading))


def _attainment(reading: Reading) -> Value:
    return reading.share(reading.good, reading.judged + _errored(reading))


def _rate(quantity: str) -> Callable[[Reading], Value]:
    return lambda reading: reading.rate(reading.total(quantity))


def _every(name: str, quantity: str, unit: str, says: str, ours: str | None = None) -> list[Field]:
    pattern = f"{name}.successful.{{}}"
    return list(spread(pattern, quantity, STATISTICS, unit, says, ours))


GUIDELLM = Profile(
    name="guidellm",
    tool="guidellm run",
    version="GuideLLM 0.8.1",
    counts=_counts,
    quantities=_quantities,
    duration_s=_duration_s,
    meets=_meets,
    fields=(
        Field("request_totals.successful", "count", "calls whose stream ended without an error and"
              " held text, a tool call or tokens", lambda r: r.count),
        Field("request_totals.incomplete", "count", "calls that were cancelled", _incomplete),
        Field("request_totals.errored", "count", "all other calls that were sent",
              lambda r: Value(float(_errored(r)))),
        *_every("request_latency", "latency", "s", "from the first byte of the request to the end"
                " of the stream"),
        *_every("request_dispatch_delay", "dispatch", "s", "from the scheduled start to the first"
                " byte of the request"),
        *_every("request_scheduled_latency", "scheduled", "s", "from the scheduled start to the end"
                " of the stream"),
        *_every("time_to_first_token_ms", "ttft", "ms", "from the first byte of the request to the"
                " first chunk with content; reasoning and tool calls count", "ttft"),
        *_every("time_to_first_output_token_ms", "ttfot", "ms", "from the first byte of the request"
                " to the first chunk that is not reasoning", "ttfo"),
        *_every("time_per_output_token_ms", "tpot", "ms", "(last chunk - start) / tokens, so TTFT"
                " is in it; each call counts as often as it has tokens", "norm"),
        *_every("inter_token_latency_ms", "itl", "ms", "(last chunk - first chunk) / (tokens - 1);"
                " each call counts tokens - 1 times", "tpot"),
        *_every("prompt_token_count", "prompt", "tokens", "tokens of a prompt, as the server"
                " counts"),
        *_every("output_token_count", "output", "tokens", "tokens of an answer as the server"
                " counts, and without usage its chunks"),
        Field("requests_per_second.successful.mean", "1/s", "successful calls over the time from"
              " the first start to the last end", lambda r: r.rate(r.count), ours="calls_rps"),
        Field("request_concurrency.successful.mean", "count", "latencies of successful calls added"
              " up, over the same time", _rate("latency"), ours="concurrency_mean"),
        Field("prompt_tokens_per_second.successful.mean", "tokens/s", "tokens of prompts over the"
              " same time", _rate("prompt"), ours="input_tps"),
        Field("output_tokens_per_second.successful.mean", "tokens/s", "tokens of answers over the"
              " same time", _rate("output"), ours="output_tps"),
        Field("tokens_per_second.successful.mean", "tokens/s", "tokens of prompts and answers over"
              " the same time", lambda r: r.rate(r.total("prompt", "output")), ours="total_tps"),
        Field("slo_attainment", "share", "calls within the bounds, of those judged and the errored;"
              " its tpot bounds the inter-token latency, and a call of one token is not judged by"
              " it", _attainment, ours="attainment"),
        Field("request_goodput.successful.mean", "1/s", "calls within the bounds over the same"
              " time", lambda r: r.rate(r.good), ours="goodput"),
    ),
    doubts=(
        "GuideLLM reads the clock of the day; here all moments are on one monotonic clock.",
        "A tool call is an output token for its time_to_first_output_token, and not here.",
        "A call that its own time-out cut off is incomplete there, and errored here.",
    ),
)  # fmt: skip
