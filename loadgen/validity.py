"""Whether a run can be believed: how the client did, and whether the endpoint did as asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from servescope.loadgen.calibration import Calibration
from servescope.loadgen.health import Arrivals, Health
from servescope.loadgen.sharing import shareable_tokens
from servescope.traces.run import Validity
from servescope.traces.status import NOT_SENT, OK

SUSPECT_LAG_S, INVALID_LAG_S = 0.005, 0.1
SUSPECT_STALL_S = 0.05
SUSPECT_CPU = 0.85
SUSPECT_STEAL = 0.05
LONG_CONNECT_S = 0.05
TOKENS_OFF = 0.01
TEMPLATE_TOKENS = 64  # that a server puts around a prompt, alike in all
# Late stamps, against the tails that they would be mistaken for.
SUSPECT_STAMP, INVALID_STAMP = 0.08, 0.5
SUSPECT_KS, INVALID_KS = 0.05, 0.25
SUSPECT_RATE, INVALID_RATE = 0.01, 0.1
SUSPECT_DISPERSION = 0.25


class Doubts:
    """What speaks against a run, gravest first, and the validity that is left."""

    def __init__(self) -> None:
        self.validity: Validity = "valid"
        self._said: dict[Validity, list[str]] = {"invalid": [], "suspect": [], "valid": []}

    def say(self, text: str, then: Validity = "valid") -> None:
        """Add a doubt, and what it makes of the run."""
        self._said[then].append(text)
        if then == "invalid" or (then == "suspect" and self.validity == "valid"):
            self.validity = then

    def all(self) -> tuple[str, ...]:
        """Return every doubt."""
        return tuple(text for texts in self._said.values() for text in texts)


def judge(
    calls: pl.DataFrame,
    plan: pl.DataFrame,
    health: Health,
    *,
    interrupted: bool,
    failures: Sequence[str] = (),
    resumed: bool = False,
    block_tokens: int | None = None,
    calibration: Calibration | None = None,
) -> tuple[Validity, tuple[str, ...]]:
    """Return whether a run is valid, suspect or invalid, and every doubt with its mend."""
    doubts = Doubts()
    _judge_served(doubts, _statuses(calls))
    for failure in failures:
        doubts.say(
            f"{failure.splitlines()[0].rstrip('.')}. What it had in flight is lost, and the others"
            " were stopped; --resume sends the rest.",
            "invalid",
        )
    _judge_client(doubts, health, _gap_tail_s(calls), calibration)
    if health.arrivals:
        _judge_arrivals(doubts, health.arrivals)
    _judge_tokens(doubts, calls, plan, health)
    _judge_cache(doubts, calls, plan, block_tokens)
    if resumed:
        doubts.validity = "suspect" if doubts.validity == "valid" else doubts.validity
    for doubt in call_doubts(calls, plan, interrupted=interrupted):
        doubts.say(doubt)
    _tell_of_connections(doubts, health)
    return doubts.validity, doubts.all()


def judge_so_far(
    statuses: Mapping[str, int],
    health: Health,
    gap_tail_s: float | None,
    *,
    calibration: Calibration | None = None,
) -> tuple[Validity, tuple[str, ...]]:
    """Return what can be told of a run that goes on: how the client does, what calls came to.

    `statuses` counts how they ended; `gap_tail_s` is the p99 of gaps between chunks. Arrivals,
    lengths and the server's cache are judged once all calls have ended.
    """
    doubts = Doubts()
    _judge_served(doubts, statuses)
    _judge_client(doubts, health, gap_tail_s, calibration)
    if failed := _told_failures(statuses):
        doubts.say(failed)
    _tell_of_connections(doubts, health)
    return doubts.validity, doubts.all()


def _statuses(calls: pl.DataFrame) -> dict[str, int]:
    """Count how calls ended, the commonest way first."""
    return dict(calls["status"].drop_nulls().value_counts(sort=True).iter_rows())


def _judge_served(doubts: Doubts, statuses: Mapping[str, int]) -> None:
    if statuses and not statuses.get(OK):
        doubts.say(
            "No call was served: there is nothing to measure; look into the server's log.",
            "invalid",
        )


def _told_failures(statuses: Mapping[str, int]) -> str | None:
    """Say how many calls failed and how, the commonest kind first; None if none did."""
    kinds = {status: count for status, count in statuses.items() if status != OK}
    if not kinds:
        return None
    listed = sorted(kinds.items(), key=lambda kind: kind[1], reverse=True)
    told = ", ".join(f"{count} {kind}" for kind, count in listed)
    return f"{sum(kinds.values())} of {sum(statuses.values())} calls failed ({told})."


def _tell_of_connections(doubts: Doubts, health: Health) -> None:
    connect = health.connect_p99_s
    if connect is not None and connect > LONG_CONNECT_S:
        doubts.say(
            f"Opening a connection took {connect * 1000:.0f} ms at p99: the due clock holds that"
            " time, the sent clock does not."
        )
    if health.uncounted:
        doubts.say(
            f"{health.uncounted} answers came without usage: their chunks are counted as tokens."
        )


def call_doubts(calls: pl.DataFrame, plan: pl.DataFrame, *, interrupted: bool) -> list[str]:
    """Say how far a run came, how many calls failed and how, and which gaps cannot be measured."""
    doubts = []
    if interrupted:
        ended = calls.filter(pl.col("status") != NOT_SENT).height
        doubts.append(
            f"The run was interrupted: {ended} of {plan.height} calls were sent and ended; the"
            " unsent rest of a program that had begun counts as failed."
        )
    if failed := _told_failures(_statuses(calls)):
        doubts.append(failed)
    served = calls.filter((pl.col("status") == OK) & (pl.col("output_tokens") > 1))
    chunks = served["chunk_s"].list.len()
    at_once = int((chunks == 1).sum())
    if at_once:
        doubts.append(
            f"{at_once} answers of several tokens came in one piece: no gap of theirs can be"
            " measured, and they miss every SLO on TPOT or stall."
        )
    if int((chunks != served["output_tokens"]).sum()) > at_once:
        doubts.append(
            "Some calls came in chunks of several tokens: TBT leaves them out, ICL and TPOT do not."
        )
    return doubts


def _judge_client(
    doubts: Doubts, health: Health, gap_tail_s: float | None, calibration: Calibration | None
) -> None:
    lag = health.lag_tail_s
    if lag is not None and lag > SUSPECT_LAG_S:
        doubts.say(
            f"The client sent its calls late, by {lag * 1000:.1f} ms in the tail;"
            " run it on an idle machine, or replay more slowly.",
            "invalid" if lag > INVALID_LAG_S else "suspect",
        )
    if health.stall_max_s > SUSPECT_STALL_S:
        doubts.say(
            f"The client stood still for up to {health.stall_max_s * 1000:.0f} ms: a gap that long"
            " may be its own; run it on an idle machine.",
            "suspect",
        )
    tail, late_s = gap_tail_s, health.late_p99_s
    if late_s is not None and tail and late_s > SUSPECT_STAMP * tail:
        doubts.say(
            f"Stamps of chunks are up to {late_s * 1000:.1f} ms late at p99, where gaps"
            f" between chunks are {tail * 1000:.1f} ms at p99; give the client more workers, or"
            " replay more slowly.",
            "invalid" if late_s > INVALID_STAMP * tail else "suspect",
        )
    if health.cpu_share > SUSPECT_CPU:
        doubts.say(
            f"A worker of the client used {health.cpu_share:.0%} of a core, so its stamps may be"
            " late; give it more workers, or replay more slowly.",
            "suspect",
        )
    if health.steal_share is not None and health.steal_share > SUSPECT_STEAL:
        doubts.say(
            f"Other guests of this host took {health.steal_share:.0%} of its processors: what"
            " looks like the server may be they; repeat the run.",
            "suspect",
        )
    if calibration is not None:
        _judge_load(doubts, health, calibration)


def _judge_load(doubts: Doubts, health: Health, calibration: Calibration) -> None:
    """Compare the load of a worker with what this machine was measured to do well."""
    good = calibration.sustained
    if health.tokens_per_s is None or good is None:
        return
    load, limit = health.tokens_per_s / max(1, len(health.workers)), good.token_rate
    limit /= calibration.workers
    if load > limit:
        error = calibration.error_at(load * calibration.workers)
        doubts.say(
            f"Each worker took {load:,.0f} tokens/s; this machine was calibrated to do"
            f" {limit:,.0f} well, and its tails are {error:.0%} off at such a rate: give the client"
            " more workers.",
            "suspect",
        )


def _gap_tail_s(calls: pl.DataFrame) -> float | None:
    # where all are null, polars forgets of what they are null
    gaps = calls.drop_nulls("chunk_s").select(
        pl.col("chunk_s").list.diff(null_behavior="drop").explode(empty_as_null=False)
    )
    tail: float | None = gaps.to_series().quantile(0.99)
    return tail


def _judge_arrivals(doubts: Doubts, arrivals: Arrivals) -> None:
    if abs(arrivals.rate_off) > SUSPECT_RATE:
        doubts.say(
            f"Calls were sent at a rate {arrivals.rate_off:+.1%} off the plan's; run the client on"
            " an idle machine, or replay more slowly.",
            "invalid" if abs(arrivals.rate_off) > INVALID_RATE else "suspect",
        )
    if arrivals.ks > SUSPECT_KS:
        doubts.say(
            f"The gaps between calls are not the plan's: their distributions differ by"
            f" {arrivals.ks:.2f} (Kolmogorov-Smirnov); run the client on an idle machine.",
            "invalid" if arrivals.ks > INVALID_KS else "suspect",
        )
    if arrivals.dispersion_off > SUSPECT_DISPERSION:
        doubts.say(
            f"Calls were {arrivals.dispersion_off:.0%} more or less bursty than planned, by their"
            " index of dispersion.",
            "suspect",
        )


def _judge_tokens(doubts: Doubts, calls: pl.DataFrame, plan: pl.DataFrame, health: Health) -> None:
    """Compare the tokens that the server counted with the tokens that were planned."""
    if health.uncounted:
        return
    both = calls.filter(pl.col("status") == OK).join(plan, on="call_id", suffix="_planned")
    for column, what in (("input_tokens", "prompts"), ("output_tokens", "answers")):
        planned, counted = int(both[f"{column}_planned"].sum()), int(both[column].sum())
        off = int((both[column] - both[f"{column}_planned"]).abs().sum())
        if planned and off > TOKENS_OFF * planned:
            doubts.say(
                f"The server counted {counted} tokens of {what} where {planned} were planned,"
                f" {off / planned:.1%} off call by call; its load was not that of the trace.",
                "suspect",
            )
    if health.inexact:
        doubts.say(
            f"{health.inexact} prompts could not be made as long as planned: what the server puts"
            " around them is longer, or no words of its vocabulary fit."
        )


def _judge_cache(
    doubts: Doubts, calls: pl.DataFrame, plan: pl.DataFrame, block_tokens: int | None
) -> None:
    """Compare what the server took from its cache with what the plan's prompts share."""
    cached = int(calls["cached_tokens"].sum())
    if not cached:
        return
    sent = calls.select("call_id", "dispatched_s", "cached_tokens").drop_nulls("dispatched_s")
    in_order = sent.join(plan, on="call_id").sort("dispatched_s")
    shared = int(shareable_tokens(in_order, block_tokens).sum())
    template = int((in_order["cached_tokens"] > 0).sum()) * TEMPLATE_TOKENS
    if cached > shared + template:
        doubts.say(
            f"The server took {cached} tokens of prompts from its cache where the plan shares at"
            f" most {shared}: it knew these prompts from before; restart it, empty its cache, or"
            " take another --seed.",
            "suspect",
        )
