"""How the client itself did in a run: what its own numbers and those of its host say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from servescope.analysis.buckets import Buckets
from servescope.loadgen.counts import Counts
from servescope.loadgen.messages import Beat

FEW_ARRIVALS = 50  # below that, nothing is said of the arrival process
_TOLERANCE_S = 0.001
_TOLERANCE_OF_GAP = 0.05
_PER_WINDOW = 10  # arrivals that a window of the index of dispersion holds on average

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Planned against achieved arrivals of the calls that the plan itself placed in time.

    `rate_off` is the relative error of the mean rate. `ks` is the greatest difference between the
    distributions of gaps (Kolmogorov and Smirnov), where gaps that differ by less than 1 ms or 5 %
    of the mean gap count as equal: otherwise a plan of constant gaps would fail by a microsecond.
    `dispersion_off` is the relative error of the index of dispersion of counts, in windows of ten
    arrivals on average, with moments that are off by no more than that taken as planned.
    """

    count: int
    rate_off: float
    ks: float
    dispersion_off: float

    @classmethod
    def of(cls, planned_s: Reals, achieved_s: Reals) -> Arrivals | None:
        """Compare sorted moments; None if they are too few or all at once."""
        span = planned_s[-1] - planned_s[0] if len(planned_s) >= FEW_ARRIVALS else 0.0
        if span <= 0:
            return None
        achieved = achieved_s[-1] - achieved_s[0]
        window = span / len(planned_s) * _PER_WINDOW
        wanted = _dispersion(planned_s, window)
        # calls planned for one moment, at the edge of a window, must not be counted as a burst torn
        near = np.abs(achieved_s - planned_s) <= _slack_s(np.diff(planned_s))
        counted = np.where(near, planned_s, achieved_s)
        return cls(
            count=len(planned_s),
            rate_off=float(span / achieved - 1) if achieved > 0 else float("inf"),
            ks=_distance(np.diff(planned_s), np.diff(achieved_s)),
            dispersion_off=abs(_dispersion(counted, window) - wanted) / max(wanted, 0.1),
        )


def _distance(planned: Reals, achieved: Reals) -> float:
    """Return the KS distance of two samples of gaps that forgives small differences."""
    slack = _slack_s(planned)
    a, b = np.sort(planned), np.sort(achieved)
    points = np.concatenate([a, b])

    def share(values: Reals, at: Reals) -> Reals:
        return np.searchsorted(values, at, side="right") / len(values)

    above = share(a, points - slack) - share(b, points)
    below = share(b, points - slack) - share(a, points)
    return float(max(0.0, above.max(), below.max()))


def _slack_s(planned: Reals) -> float:
    """Return by how much gaps, or moments, may differ from planned ones and still be equal."""
    return max(_TOLERANCE_S, _TOLERANCE_OF_GAP * float(planned.mean()))


def _dispersion(moments: Reals, window_s: float) -> float:
    """Return variance over mean of the counts in windows."""
    bins = max(1, int((moments[-1] - moments[0]) / window_s))
    counts = np.histogram(moments, bins=bins, range=(moments[0], moments[0] + bins * window_s))[0]
    return float(counts.var() / counts.mean())


@dataclass(frozen=True, slots=True)
class Health:
    """How the client did; times in seconds.

    `lag` is from when a call might be sent to when it was picked up; its tail is p99, and in short
    runs what two calls exceed. `wait` is from due until a slot of --max-concurrency was free.
    `connect` is from picking up to a connection that can be written to. `late` is how much too late
    the workers' loops came to a timer, many times a second: a chunk that arrives meanwhile is
    stamped too late by as much. `cpu_share` is the busiest worker's part of a core, `steal_share`
    what the host's other guests took. `uncounted` answers came without usage, so that their chunks
    were counted as tokens; `reconnects` requests met a connection that the server had closed.
    `inexact` prompts could not be made as long as planned.
    """

    lag_p50_s: float | None
    lag_p99_s: float | None
    lag_tail_s: float | None
    lag_max_s: float | None
    wait_p50_s: float | None
    wait_p99_s: float | None
    connect_p99_s: float | None
    late_p50_s: float | None
    late_p99_s: float | None
    stall_max_s: float
    cpu_share: float
    rss_bytes: int = 0
    steal_share: float | None = None
    uncounted: int = 0
    reconnects: int = 0
    inexact: int = 0
    tokens_per_s: float | None = None
    calls_per_s: float | None = None
    arrivals: Arrivals | None = None
    workers: tuple[dict[str, float], ...] = field(default=())

    @classmethod
    def of(
        cls,
        calls: pl.DataFrame,
        beats: Mapping[int, Beat],
        late_s: Mapping[int, Sequence[float]],
        uncounted: int = 0,
        steal_share: float | None = None,
    ) -> Health:
        """Read lag and arrivals off the calls that were sent; the rest is what the workers said."""
        lag = calls["dispatched_s"] - calls["admitted_s"]
        late = pl.Series([s for each in late_s.values() for s in each], dtype=pl.Float64)
        tokens, rate = _busiest(calls)
        return cls(
            lag_p50_s=_quantile(lag, 0.5),
            lag_p99_s=_quantile(lag, 0.99),
            lag_tail_s=_quantile(lag, _tail(lag.count())),
            lag_max_s=_quantile(lag, 1.0),
            wait_p50_s=_quantile(calls["admitted_s"] - calls["due_s"], 0.5),
            wait_p99_s=_quantile(calls["admitted_s"] - calls["due_s"], 0.99),
            connect_p99_s=_quantile(calls["sent_s"] - calls["dispatched_s"], 0.99),
            late_p50_s=_quantile(late, 0.5),
            late_p99_s=_quantile(late, 0.99),
            stall_max_s=max(late, default=0.0),
            steal_share=steal_share,
            uncounted=uncounted,
            tokens_per_s=tokens,
            calls_per_s=rate,
            arrivals=_arrivals(calls),
            **_of_workers(beats),
        )

    @classmethod
    def so_far(
        cls,
        counts: Counts,
        beats: Mapping[int, Beat],
        late: Buckets,
        uncounted: int = 0,
        steal_share: float | None = None,
    ) -> Health:
        """Read what can be told of a run that goes on off its counts, right to 1.2 %.

        Waits, calls a second and arrivals are not among it.
        """
        lag, connect = counts.times["lag"], counts.times["connect"]
        return cls(
            lag_p50_s=lag.quantile(0.5),
            lag_p99_s=lag.quantile(0.99),
            lag_tail_s=lag.quantile(_tail(len(lag))),
            lag_max_s=lag.longest_s if len(lag) else None,
            wait_p50_s=None,
            wait_p99_s=None,
            connect_p99_s=connect.quantile(0.99),
            late_p50_s=late.quantile(0.5),
            late_p99_s=late.quantile(0.99),
            stall_max_s=late.longest_s,
            steal_share=steal_share,
            uncounted=uncounted,
            tokens_per_s=counts.tokens_per_s,
            **_of_workers(beats),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return asdict(self)


def _of_workers(beats: Mapping[int, Beat]) -> dict[str, Any]:
    """Return what the workers said last of themselves, by the fields of Health."""
    workers = tuple(
        {
            "worker": number,
            "cpu_share": beat.cpu_s / beat.wall_s if beat.wall_s > 0 else 0.0,
            "rss_bytes": beat.rss_bytes,
            "calls": beat.sent,
        }
        for number, beat in sorted(beats.items())
    )
    return {
        "cpu_share": max((w["cpu_share"] for w in workers), default=0.0),
        "rss_bytes": max((beat.rss_bytes for beat in beats.values()), default=0),
        "reconnects": sum(beat.reconnects for beat in beats.values()),
        "inexact": sum(beat.inexact for beat in beats.values()),
        "workers": workers,
    }


def _tail(count: int) -> float:
    """Return the share below the tail of so many lags: p99, or all but two in short runs."""
    return min(0.99, max(0.0, 1 - 2 / max(1, count)))


def _arrivals(calls: pl.DataFrame) -> Arrivals | None:
    """Compare the arrivals of the calls that wait for no other, which the plan alone places."""
    roots = calls.filter(
        (pl.col("parents").list.len() == 0)
        & pl.col("dispatched_s").is_not_null()
        & (pl.col("admitted_s") == pl.col("due_s"))
    )
    return Arrivals.of(roots["due_s"].sort().to_numpy(), roots["dispatched_s"].sort().to_numpy())


def _busiest(calls: pl.DataFrame) -> tuple[float | None, float | None]:
    """Return tokens and calls a second over the time in which calls were in flight."""
    sent = calls.filter(pl.col("sent_s").is_not_null() & pl.col("end_s").is_not_null())
    if sent.is_empty():
        return None, None
    span = float(sent["end_s"].max()) - float(sent["sent_s"].min())  # type: ignore[arg-type]
    if span <= 0:
        return None, None
    return float(sent["output_tokens"].sum()) / span, sent.height / span


def _quantile(values: pl.Series, share: float) -> float | None:
    known = values.drop_nulls().to_numpy()
    return float(np.quantile(known, share, method="inverted_cdf")) if len(known) else None


class HostClock:
    """What the host's processors did between its making and `steal_share`; Linux alone says so."""

    def __init__(self) -> None:
        self._before = _processor_time()

    def steal_share(self) -> float | None:
        """Return the share of time that other guests of the host took, or None if unknown."""
        now = _processor_time()
        if self._before is None or now is None:
            return None
        spent = [after - before for before, after in zip(self._before, now, strict=True)]
        return spent[7] / sum(spent[:8]) if sum(spent[:8]) else 0.0


def _processor_time() -> list[int] | None:
    """Read user, nice, system, idle, iowait, irq, softirq, steal, ... of all processors."""
    try:
        line = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    return [int(field) for field in line[1:]] if len(line) > 8 else None
