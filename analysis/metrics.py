"""What is measured of a run: one row a metric, with its unit, its clock and its definition.

Every latency exists on two clocks. The *sent* clock starts when the client wrote the request; the
*due* clock when the plan wanted it sent, so that a late client cannot hide a wait (coordinated
omission). Missing is null: a call that never answered has no TTFT, and misses every SLO.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl
from polars import col

from servescope.traces.status import NOT_SENT, OK
from servescope.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Metric:
    """One latency in seconds: what it is measured on, how it is computed, and what it means.

    `per` says what one value belongs to: a call, a program, or the gap between two tokens. What is
    `between_tokens` a call of one token has not; what is `of_client` says something of the client,
    and so of failed calls too.
    """

    name: str
    label: str
    per: Literal["call", "program", "gap"]
    clock: Literal["sent", "due", "none"]
    needs: tuple[str, ...]
    expr: pl.Expr
    says: str
    between_tokens: bool = False
    of_client: bool = False


_ANSWERED = col("status").eq_missing(OK)  # an unknown status is no answer
_GAPS = col("chunk_s").list.diff(null_behavior="drop")
# The gaps between chunks say something of tokens where there are as many chunks as tokens, or where
# the server says how many tokens each holds: then a gap is shared by the tokens that end it.
_CHUNK_IS_TOKEN = col("chunk_s").list.len() == col("output_tokens")
_CHUNKS_ARE_COUNTED = (
    (col("chunk_tokens").list.len() == col("chunk_s").list.len())
    & (col("chunk_tokens").list.sum() == col("output_tokens"))
    & (col("chunk_tokens").list.min() > 0)
)
_ENDING_TOKENS = col("chunk_tokens").list.slice(1)
_GAP_OF_TOKEN = _ENDING_TOKENS.list.eval(
    pl.int_range(pl.len()).repeat_by(pl.element().clip(0)).explode()
)
_SHARED_GAPS = _GAPS.list.gather(_GAP_OF_TOKEN, null_on_oob=True) / _ENDING_TOKENS.list.gather(
    _GAP_OF_TOKEN
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "ttft", "TTFT", "call", "sent", ("sent_s", "first_token_s"),
            col("first_token_s") - col("sent_s"),
            "time to first token: from sending the request to its first non-empty piece of answer",
        ),
        Metric(
            "ttft_due", "TTFT from due", "call", "due", ("due_s", "first_token_s"),
            col("first_token_s") - col("due_s"),
            "time to first token from the moment the plan wanted the call sent",
        ),
        Metric(
            "tpot", "TPOT", "call", "none", ("first_token_s", "last_token_s", "output_tokens"),
            pl.when((col("output_tokens") > 1) & (col("last_token_s") > col("first_token_s"))).then(
                (col("last_token_s") - col("first_token_s")) / (col("output_tokens") - 1)
            ),
            "time per output token: (last token - first token) / (tokens - 1) of a call; null where"
            " all came at once",
            between_tokens=True,
        ),
        Metric(
            "tbt", "TBT", "gap", "none", ("chunk_s", "output_tokens"),
            pl.when(_CHUNK_IS_TOKEN).then(_GAPS).when(_CHUNKS_ARE_COUNTED).then(_SHARED_GAPS),
            "time between tokens: every gap of every call, pooled; only of calls whose chunks hold"
            " one token each, or as many as the server says",
            between_tokens=True,
        ),
        Metric(
            "icl", "ICL", "gap", "none", ("chunk_s",), _GAPS,
            "inter-chunk latency: every gap between two non-empty chunks, pooled over calls",
            between_tokens=True,
        ),
        Metric(
            "stall", "Longest stall", "call", "none", ("chunk_s",), _GAPS.list.max(),
            "the longest gap between two chunks of a call: what a reader sees as a hang",
            between_tokens=True,
        ),
        Metric(
            "e2e", "E2E", "call", "sent", ("sent_s", "last_token_s"),
            col("last_token_s") - col("sent_s"),
            "end-to-end latency: from sending the request to its last non-empty piece of answer",
        ),
        Metric(
            "e2e_due", "E2E from due", "call", "due", ("due_s", "last_token_s"),
            col("last_token_s") - col("due_s"),
            "end-to-end latency from the moment the plan wanted the call sent",
        ),
        Metric(
            "jct", "JCT", "program", "due", ("program_id", "due_s", "last_token_s"),
            pl.when(
                _ANSWERED.all()
                & col("last_token_s").is_not_null().all()
                & col("due_s").is_not_null().all()
            ).then(col("last_token_s").max() - col("due_s").min()),
            "job completion time: from a program's first due call to its last token, pauses of"
            " users and tools included; null if any of its calls failed or gave no token",
        ),
        Metric(
            "client_wait", "Client wait", "call", "due", ("due_s", "admitted_s"),
            col("admitted_s") - col("due_s"),
            "from due until one of the slots of --max-concurrency was free; inside the due clock,"
            " before the sent clock",
            of_client=True,
        ),
        Metric(
            "lag", "Schedule lag", "call", "none", ("admitted_s", "dispatched_s"),
            col("dispatched_s") - col("admitted_s"),
            "how late the client itself came to a call that it might send; a property of the"
            " client, not the server",
            of_client=True,
        ),
        Metric(
            "connect", "Connect", "call", "none", ("dispatched_s", "sent_s"),
            col("sent_s") - col("dispatched_s"),
            "from picking a call up to a connection that can be written to: name look-up, TCP, TLS;"
            " inside the due clock, before the sent clock",
            of_client=True,
        ),
    )
}  # fmt: skip


def of_calls(run: Trace) -> pl.DataFrame:
    """Return one row a call: the run's columns and every per-call metric, null for failed calls."""
    per_call = (metric for metric in METRICS.values() if metric.per == "call")
    return _calls(run).with_columns(_of_call(metric) for metric in per_call)


def _of_call(metric: Metric) -> pl.Expr:
    counts = pl.lit(True) if metric.of_client else _ANSWERED
    return pl.when(counts).then(metric.expr).alias(metric.name)


def of_programs(run: Trace) -> pl.DataFrame:
    """Return one row a program: program_id, calls, failed calls, due_s of its first call, jct."""
    return (
        _calls(run)
        .group_by("program_id", maintain_order=True)
        .agg(
            calls=pl.len(),
            failed=(~_ANSWERED).sum(),
            due_s=col("due_s").min(),
            jct=METRICS["jct"].expr,
        )
    )


def of_gaps(run: Trace, name: str) -> pl.DataFrame:
    """Return one row a gap of the metric `name` (tbt or icl): program_id, call_id, the gap."""
    return (
        _calls(run)
        .filter(_ANSWERED)
        .select("program_id", "call_id", METRICS[name].expr.alias(name))
        .explode(name)
        .drop_nulls(name)
    )


def _calls(run: Trace) -> pl.DataFrame:
    """Read the rows of a run; a call of no program is one by itself."""
    run.require("status", "due_s", "program_id")  # one column of each group that is needed
    return run.collect().with_columns(program_id=pl.coalesce("program_id", "call_id"))


def values(run: Trace, name: str) -> pl.DataFrame:
    """Return the values of a metric with the program they belong to; failed ones are left out."""
    metric = METRICS[name]
    run.require(*metric.needs)
    match metric.per:
        case "call":
            table = _calls(run).select("program_id", _of_call(metric))
        case "program":
            table = of_programs(run)
        case "gap":
            table = of_gaps(run, name)
    return table.select("program_id", value=col(name)).drop_nulls("value")


QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def summary(run: Trace) -> pl.DataFrame:
    """Return one row a metric: name, n, mean, p50, p90, p99, max; null where there is no value.

    A quantile is an order statistic (the smallest value with at least that share at or below it).
    """
    rows = []
    for name in METRICS:
        of = values(run, name)["value"]
        row: dict[str, object] = {"metric": name, "n": len(of), "mean": of.mean()}
        for label, q in QUANTILES.items():
            row[label] = of.quantile(q, "equiprobable")
        rows.append(row | {"max": of.max()})
    numbers = {"mean": pl.Float64, **dict.fromkeys(QUANTILES, pl.Float64), "max": pl.Float64}
    return pl.DataFrame(rows, schema={"metric": pl.String, "n": pl.Int64, **numbers})


@dataclass(frozen=True, slots=True)
class Throughput:
    """Rates over the span from the first due call to the last end; tokens are counted, not chunks.

    A rate over no time is null.
    """

    span_s: float
    calls: int
    failed: int
    programs: int
    calls_rps: float | None
    output_tps: float | None
    total_tps: float | None


def throughput(run: Trace) -> Throughput:
    """Return what was asked and served per second; a failed call is asked and not served.

    A call that was never sent, because one it waits for failed, does not stretch the span.
    """
    calls = _calls(run)
    sent = calls.filter(col("status").ne_missing(NOT_SENT))
    first, end = sent.select(first=col("due_s").min(), end=col("end_s").max()).row(0)
    span = 0.0 if first is None or end is None else end - first
    served = calls.filter(_ANSWERED)
    tokens_out = int(served["output_tokens"].sum())
    tokens_in = int(served["input_tokens"].sum())
    return Throughput(
        span_s=span,
        calls=calls.height,
        failed=calls.height - served.height,
        programs=calls["program_id"].n_unique(),
        calls_rps=_rate(served.height, span),
        output_tps=_rate(tokens_out, span),
        total_tps=_rate(tokens_in + tokens_out, span),
    )


def _rate(count: int, span_s: float) -> float | None:
    return count / span_s if span_s > 0 else None
