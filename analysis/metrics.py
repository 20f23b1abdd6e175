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

from servescope.traces.status import OK

Unit = Literal["s", "s/token", "ratio"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One quantity: what it is measured on, how it is computed, what it means, who defines it so.

    `per` says what one value belongs to: a call, a program, or the gap between two tokens. What is
    `between_tokens` a call of one token has not; what is `of_client` says something of the client,
    and so of failed calls too. A program's expression is an aggregate over its calls, of which
    those `on_path` are the critical path.
    """

    name: str
    label: str
    per: Literal["call", "program", "gap"]
    clock: Literal["sent", "due", "none"]
    needs: tuple[str, ...]
    expr: pl.Expr
    says: str
    source: str
    unit: Unit = "s"
    between_tokens: bool = False
    of_client: bool = False


ANSWERED = col("status").eq_missing(OK)  # an unknown status is no answer
# list.diff forgets the type of a batch of nulls alone, which ends a streamed query
_GAPS = col("chunk_s").list.eval(pl.element().diff(null_behavior="drop"))
# The gaps between chunks say something of tokens where there are as many chunks as tokens, or where
# the server says how many tokens each holds: then a gap is shared by the tokens that end it.
CHUNK_IS_TOKEN = col("chunk_s").list.len() == col("output_tokens")
CHUNKS_ARE_COUNTED = (
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


def _done(moment: str) -> pl.Expr:
    """Say of a program whether all of its calls were answered and stamped."""
    stamped = col("last_token_s").is_not_null() & col(moment).is_not_null()
    return (ANSWERED & stamped).all()


def _path(part: pl.Expr) -> pl.Expr:
    """Add a part of JCT up over the critical path of a program that is done."""
    on_path = part.filter("on_path")
    return pl.when(_done("due_s") & on_path.is_not_null().all()).then(on_path.sum())


_ON_PATH = ("program_id", "due_s", "last_token_s", "on_path", "path_from_s")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "ttft", "TTFT", "call", "sent", ("sent_s", "first_token_s"),
            col("first_token_s") - col("sent_s"),
            "time to first token: from sending the request to its first non-empty piece of answer",
            "Sarathi-Serve, Etalon; AIPerf's TTFT",
        ),
        Metric(
            "ttft_due", "TTFT from due", "call", "due", ("due_s", "first_token_s"),
            col("first_token_s") - col("due_s"),
            "time to first token from the moment the plan wanted the call sent",
            "wrk2's corrected latency, of the first token",
        ),
        Metric(
            "ttfo", "TTFO", "call", "sent", ("sent_s", "first_answer_s"),
            col("first_answer_s") - col("sent_s"),
            "time to first output: from sending the request to its first piece of answer after"
            " reasoning and calls of tools",
            "AIPerf's TTFO",
        ),
        Metric(
            "ttfo_due", "TTFO from due", "call", "due", ("due_s", "first_answer_s"),
            col("first_answer_s") - col("due_s"),
            "time to first output from the moment the plan wanted the call sent",
            "AIPerf's TTFO, from the planned time",
        ),
        Metric(
            "queue", "Queue", "call", "none", ("observed_queue_s",),
            col("observed_queue_s"),
            "scheduling delay: from the server's receiving a request until it first computes it, as"
            " the server itself says of the call",
            "Sarathi-Serve's scheduling delay",
        ),
        Metric(
            "tpot", "TPOT", "call", "none", ("first_token_s", "last_token_s", "output_tokens"),
            pl.when((col("output_tokens") > 1) & (col("last_token_s") > col("first_token_s"))).then(
                (col("last_token_s") - col("first_token_s")) / (col("output_tokens") - 1)
            ),
            "time per output token: (last token - first token) / (tokens - 1) of a call; null where"
            " all came at once",
            "DistServe; inference-perf's TPOT, AIPerf's ITL",
            unit="s/token",
            between_tokens=True,
        ),
        Metric(
            "tbt", "TBT", "gap", "none", ("chunk_s", "output_tokens"),
            pl.when(CHUNK_IS_TOKEN).then(_GAPS).when(CHUNKS_ARE_COUNTED).then(_SHARED_GAPS),
            "time between tokens: every gap of every call, pooled; only of calls whose chunks hold"
            " one token each, or as many as the server says",
            "Sarathi-Serve's TBT",
            between_tokens=True,
        ),
        Metric(
            "icl", "ICL", "gap", "none", ("chunk_s",), _GAPS,
            "inter-chunk latency: every gap between two non-empty chunks, pooled over calls",
            "AIPerf's ICL; what vLLM and SGLang call ITL",
            between_tokens=True,
        ),
        Metric(
            "stall", "Longest stall", "call", "none", ("chunk_s",), _GAPS.list.max(),
            "the longest gap between two chunks of a call: what a reader sees as a hang",
            "Sarathi-Serve's generation stall",
            between_tokens=True,
        ),
        Metric(
            "e2e", "E2E", "call", "sent", ("sent_s", "last_token_s"),
            col("last_token_s") - col("sent_s"),
            "end-to-end latency: from sending the request to its last non-empty piece of answer",
            "vLLM's E2EL",
        ),
        Metric(
            "e2e_due", "E2E from due", "call", "due", ("due_s", "last_token_s"),
            col("last_token_s") - col("due_s"),
            "end-to-end latency from the moment the plan wanted the call sent",
            "wrk2's corrected latency",
        ),
        Metric(
            "norm", "Normalised latency", "call", "sent",
            ("sent_s", "last_token_s", "output_tokens"),
            pl.when(col("output_tokens") > 0).then(
                (col("last_token_s") - col("sent_s")) / col("output_tokens")
            ),
            "end-to-end latency of a call over its output tokens",
            "Orca, vLLM (SOSP 2023); inference-perf's NTPOT",
            unit="s/token",
        ),
        Metric(
            "norm_due", "Normalised latency from due", "call", "due",
            ("due_s", "last_token_s", "output_tokens"),
            pl.when(col("output_tokens") > 0).then(
                (col("last_token_s") - col("due_s")) / col("output_tokens")
            ),
            "end-to-end latency from the planned moment over the output tokens",
            "Orca, vLLM (SOSP 2023), from the planned time",
            unit="s/token",
        ),
        Metric(
            "jct", "JCT", "program", "due", ("program_id", "due_s", "last_token_s"),
            pl.when(_done("due_s")).then(col("last_token_s").max() - col("due_s").min()),
            "job completion time: from a program's first due call to its last token, pauses of"
            " users and tools included; null if any of its calls failed or gave no token",
            "Autellix, Continuum",
        ),
        Metric(
            "jct_sent", "JCT from sent", "program", "sent",
            ("program_id", "sent_s", "last_token_s"),
            pl.when(_done("sent_s")).then(col("last_token_s").max() - col("sent_s").min()),
            "job completion time from the moment the program's first call was sent",
            "Autellix, Continuum, from the sent time",
        ),
        Metric(
            "jct_pause", "JCT: pauses", "program", "none", _ON_PATH,
            _path(col("due_s") - col("path_from_s")),
            "pauses of users and tools on the critical path of a program",
            "Continuum's tool time",
        ),
        Metric(
            "jct_client", "JCT: client wait", "program", "none", (*_ON_PATH, "sent_s"),
            _path(col("sent_s") - col("due_s")),
            "what calls of the critical path waited in the client: for a slot, lag, connecting",
            "the share of JCT that is not the server's",
        ),
        Metric(
            "jct_prefill", "JCT: queue + prefill", "program", "none",
            (*_ON_PATH, "sent_s", "first_token_s"),
            _path(col("first_token_s") - col("sent_s")),
            "time to first token, added up over the critical path of a program",
            "Autellix's waiting and prefill",
        ),
        Metric(
            "jct_decode", "JCT: decode", "program", "none", (*_ON_PATH, "first_token_s"),
            _path(col("last_token_s") - col("first_token_s")),
            "from first to last token, added up over the critical path of a program",
            "Autellix's decode",
        ),
        Metric(
            "jct_closing", "JCT: closing", "program", "none", (*_ON_PATH, "path_until_s"),
            _path((col("path_until_s") - col("last_token_s")).fill_null(0.0)),
            "from a call's last token to the end of its response, which its successor waits for",
            "the rest, with which the parts add up to JCT",
        ),
        Metric(
            "slowdown", "Slowdown", "program", "due", (*_ON_PATH, "ideal_s"),
            pl.when(_done("due_s")).then(
                (col("last_token_s").max() - col("due_s").min())
                / (col("due_s") - col("path_from_s") + col("ideal_s")).filter("on_path").sum()
            ),
            "JCT over what the same critical path would take on an unloaded server: its pauses, and"
            " for every call the TTFT and TPOT of the quickest twentieth of calls like it",
            "slowdown of queueing theory (Harchol-Balter); the ideal is estimated from the run, so"
            " this is a lower bound",
            unit="ratio",
        ),
        Metric(
            "client_wait", "Client wait", "call", "due", ("due_s", "admitted_s"),
            col("admitted_s") - col("due_s"),
            "from due until one of the slots of --max-concurrency was free; inside the due clock,"
            " before the sent clock",
            "vLLM's wait for its semaphore, which its TTFT leaves out",
            of_client=True,
        ),
        Metric(
            "lag", "Schedule lag", "call", "none", ("admitted_s", "dispatched_s"),
            col("dispatched_s") - col("admitted_s"),
            "how late the client itself came to a call that it might send; a property of the"
            " client, not the server",
            "inference-perf's schedule delay",
            of_client=True,
        ),
        Metric(
            "connect", "Connect", "call", "none", ("dispatched_s", "sent_s"),
            col("sent_s") - col("dispatched_s"),
            "from picking a call up to a connection that can be written to: name look-up, TCP, TLS;"
            " inside the due clock, before the sent clock",
            "curl's time_connect and time_appconnect",
            of_client=True,
        ),
    )
}  # fmt: skip
JCT_PARTS = ("jct_pause", "jct_client", "jct_prefill", "jct_decode", "jct_closing")
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def of_call(metric: Metric) -> pl.Expr:
    """Return a metric of calls or gaps as a column of its name: null for failed calls."""
    counts = pl.lit(True) if metric.of_client else ANSWERED
    return pl.when(counts).then(metric.expr).alias(metric.name)
