"""Whether a run can be believed: how the client did, and whether the endpoint did as asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from servescope.traces.run import Validity
from servescope.traces.schema import OK

SUSPECT_LAG_S = 0.005
INVALID_LAG_S = 0.1
SUSPECT_CPU = 0.9


@dataclass(frozen=True, slots=True)
class Health:
    """How the client itself did: lag from due to sent in seconds, and its share of one core."""

    lag_p50_s: float | None
    lag_p99_s: float | None
    lag_max_s: float | None
    cpu_share: float

    @classmethod
    def of(cls, calls: pl.DataFrame, cpu_share: float) -> Health:
        """Read the lag off the calls that were sent."""
        lag = (calls["sent_s"] - calls["due_s"]).drop_nulls()
        p50, p99 = (lag.quantile(q, "equiprobable") if len(lag) else None for q in (0.5, 0.99))
        return cls(p50, p99, lag.max() if len(lag) else None, cpu_share)  # type: ignore[arg-type]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return asdict(self)


def judge(
    calls: pl.DataFrame, plan: pl.DataFrame, health: Health, *, interrupted: bool
) -> tuple[Validity, tuple[str, ...]]:
    """Return whether a run is valid, suspect or invalid, and every doubt with its mend."""
    doubts: list[str] = []
    validity: Validity = "valid"
    lag = health.lag_p99_s
    if lag is not None and lag > SUSPECT_LAG_S:
        validity = "invalid" if lag > INVALID_LAG_S else "suspect"
        doubts.append(
            f"The client sent its calls late, by {lag * 1000:.1f} ms at p99;"
            " run it on an idle machine, or replay more slowly."
        )
    if health.cpu_share > SUSPECT_CPU:
        validity = "suspect" if validity == "valid" else validity
        doubts.append(
            f"The client used {health.cpu_share:.0%} of a core, so its stamps may be late;"
            " replay more slowly."
        )
    if interrupted:
        doubts.append(f"The run was interrupted: {calls.height} of {plan.height} calls are in it.")
    doubts += failure_doubts(calls)
    served = calls.filter(pl.col("status") == OK)
    tokens = _token_doubts(served, plan)
    if tokens:
        validity = "suspect" if validity == "valid" else validity
        doubts += tokens
    if served.height and not (served["chunk_s"].list.len() == served["output_tokens"]).all():
        doubts.append(
            "Some calls came in chunks of several tokens: TBT leaves them out, ICL and TPOT do not."
        )
    return validity, tuple(doubts)


def failure_doubts(calls: pl.DataFrame) -> list[str]:
    """Say how many calls failed and how, if any did."""
    kinds = calls.filter(pl.col("status") != OK)["status"].value_counts(sort=True)
    if kinds.is_empty():
        return []
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.iter_rows())
    return [f"{kinds['count'].sum()} of {calls.height} calls failed ({listed})."]


def _token_doubts(served: pl.DataFrame, plan: pl.DataFrame) -> list[str]:
    """Compare the tokens that were counted with the tokens that were planned."""
    both = served.join(plan, on="call_id", suffix="_planned")
    doubts = []
    for column, what in (("input_tokens", "prompts"), ("output_tokens", "answers")):
        planned, counted = int(both[f"{column}_planned"].sum()), int(both[column].sum())
        if planned and abs(counted - planned) > 0.01 * planned:
            doubts.append(
                f"The server counted {counted} tokens of {what} where {planned} were planned;"
                " its load was not that of the trace."
            )
    return doubts
