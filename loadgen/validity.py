"""Whether a run can be believed: how the client did, and whether the endpoint did as asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from servescope.loadgen.messages import Beat
from servescope.traces.run import Validity
from servescope.traces.status import NOT_SENT, OK

SUSPECT_LAG_S = 0.005
INVALID_LAG_S = 0.1
SUSPECT_STALL_S = 0.05
SUSPECT_CPU = 0.9
LONG_CONNECT_S = 0.05
TOKENS_OFF = 0.01


@dataclass(frozen=True, slots=True)
class Health:
    """How the client itself did, in seconds.

    `lag` is from due to dispatched; its tail is p99, and in short runs what two calls exceed.
    `connect` is from there to a connection that can be written to, `stall_max_s` the longest time
    that the client's loop stood still, `cpu_share` its share of one core. `uncounted` answers came
    without usage, so that their chunks were counted as tokens.
    """

    lag_p50_s: float | None
    lag_p99_s: float | None
    lag_tail_s: float | None
    lag_max_s: float | None
    connect_p99_s: float | None
    stall_max_s: float
    cpu_share: float
    uncounted: int = 0

    @classmethod
    def of(
        cls,
        calls: pl.DataFrame,
        beats: Mapping[int, Beat],
        late_s: Mapping[int, Sequence[float]],
        uncounted: int = 0,
    ) -> Health:
        """Read the lag off the calls that were sent; the rest is what the workers said."""
        lag = calls["dispatched_s"] - calls["admitted_s"]
        cpu_share = max((b.cpu_s / b.wall_s for b in beats.values() if b.wall_s > 0), default=0.0)
        return cls(
            lag_p50_s=_quantile(lag, 0.5),
            lag_p99_s=_quantile(lag, 0.99),
            lag_tail_s=_quantile(lag, min(0.99, max(0.0, 1 - 2 / max(1, lag.count())))),
            lag_max_s=_quantile(lag, 1.0),
            connect_p99_s=_quantile(calls["sent_s"] - calls["dispatched_s"], 0.99),
            stall_max_s=max((s for each in late_s.values() for s in each), default=0.0),
            cpu_share=cpu_share,
            uncounted=uncounted,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return asdict(self)


def judge(
    calls: pl.DataFrame,
    plan: pl.DataFrame,
    health: Health,
    *,
    interrupted: bool,
    resumed: bool = False,
) -> tuple[Validity, tuple[str, ...]]:
    """Return whether a run is valid, suspect or invalid, and every doubt with its mend."""
    grave = _client_doubts(health) + _token_doubts(calls, plan, health)
    minor = call_doubts(calls, plan, interrupted=interrupted)
    connect = health.connect_p99_s
    if connect is not None and connect > LONG_CONNECT_S:
        minor.append(
            f"Opening a connection took {connect * 1000:.0f} ms at p99: the due clock holds that"
            " time, the sent clock does not."
        )
    if health.uncounted:
        minor.append(
            f"{health.uncounted} answers came without usage: their chunks are counted as tokens."
        )
    validity: Validity = "suspect" if grave or resumed else "valid"
    if health.lag_tail_s is not None and health.lag_tail_s > INVALID_LAG_S:
        validity = "invalid"
    if calls.height and not (calls["status"] == OK).any():
        validity = "invalid"
        grave.append("No call was served: there is nothing to measure; look into the server's log.")
    return validity, (*grave, *minor)


def call_doubts(calls: pl.DataFrame, plan: pl.DataFrame, *, interrupted: bool) -> list[str]:
    """Say how far a run came, how many calls failed and how, and which gaps cannot be measured."""
    doubts = []
    if interrupted:
        ended = calls.filter(pl.col("status") != NOT_SENT).height
        doubts.append(
            f"The run was interrupted: {ended} of {plan.height} calls were sent and ended; the"
            " unsent rest of a program that had begun counts as failed."
        )
    kinds = calls.filter(pl.col("status") != OK)["status"].value_counts(sort=True)
    if not kinds.is_empty():
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.iter_rows())
        doubts.append(f"{kinds['count'].sum()} of {calls.height} calls failed ({listed}).")
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


def _client_doubts(health: Health) -> list[str]:
    doubts = []
    if health.lag_tail_s is not None and health.lag_tail_s > SUSPECT_LAG_S:
        doubts.append(
            f"The client sent its calls late, by {health.lag_tail_s * 1000:.1f} ms in the tail;"
            " run it on an idle machine, or replay more slowly."
        )
    if health.stall_max_s > SUSPECT_STALL_S:
        doubts.append(
            f"The client stood still for up to {health.stall_max_s * 1000:.0f} ms: a gap that long"
            " may be its own; run it on an idle machine."
        )
    if health.cpu_share > SUSPECT_CPU:
        doubts.append(
            f"The client used {health.cpu_share:.0%} of a core, so its stamps may be late;"
            " replay more slowly."
        )
    return doubts


def _token_doubts(calls: pl.DataFrame, plan: pl.DataFrame, health: Health) -> list[str]:
    """Compare the tokens that the server counted with the tokens that were planned."""
    if health.uncounted:
        return []
    both = calls.filter(pl.col("status") == OK).join(plan, on="call_id", suffix="_planned")
    doubts = []
    for column, what in (("input_tokens", "prompts"), ("output_tokens", "answers")):
        planned, counted = int(both[f"{column}_planned"].sum()), int(both[column].sum())
        if planned and abs(counted - planned) > TOKENS_OFF * planned:
            doubts.append(
                f"The server counted {counted} tokens of {what} where {planned} were planned;"
                " its load was not that of the trace."
            )
    return doubts


def _quantile(values: pl.Series, share: float) -> float | None:
    known = values.drop_nulls().to_numpy()
    return float(np.quantile(known, share, method="inverted_cdf")) if len(known) else None
