"""Ways in which a row of a paper's table is found in a trace: each returns a function of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from servescope.analysis import clock
from servescope.analysis.aspects.arrivals import gap_windows
from servescope.analysis.counts import Counts
from servescope.analysis.dispersion import index_of
from servescope.analysis.literature.layout import Reading, Value
from servescope.analysis.sample import Floats
from servescope.analysis.seasons import DAY_S
from servescope.analysis.silences import silences
from servescope.traces.status import OK

_SEED = 7


def _summary(values: Floats, statistic: str) -> float:
    """Return the mean, the maximum, or a quantile such as p50; of a yes or no its share."""
    if statistic == "max":
        return float(values.max())
    if statistic.startswith("p"):
        share = float(statistic[1:]) / 100
        return float(np.quantile(values, share, method="inverted_cdf"))
    return float(values.mean())


def count(**wanted: str) -> Callable[[Reading], Value]:
    """Count the calls of a class or a model."""

    def of(reading: Reading) -> Value:
        known = all(column in reading.demand.columns for column in wanted)
        return float(reading.calls(**wanted).height) if known else None

    return of


def length(column: str, statistic: str, **wanted: str) -> Callable[[Reading], Value]:
    """Return mean, max or a quantile (p50) of a length; failed calls are in, as published."""

    def of(reading: Reading) -> Value:
        if column not in reading.demand.columns:
            return None
        values = reading.calls(**wanted)[column].drop_nulls().to_numpy()
        return _summary(values, statistic) if len(values) else None

    return of


def value(aspect: str, statistic: str, subject: str | None = None) -> Callable[[Reading], Value]:
    """Return a number of the characterisation."""
    return lambda reading: reading.found.value(aspect, statistic, subject)


def failures(**wanted: str) -> Callable[[Reading], Value]:
    """Return the share of calls that failed."""

    def of(reading: Reading) -> Value:
        calls = reading.calls(**wanted)
        if "status" not in calls.columns or not calls.height:
            return None
        return int((calls["status"].cast(pl.String) != OK).sum()) / calls.height

    return of


def ratio(**wanted: str) -> Callable[[Reading], Value]:
    """Return prompt tokens for a token of answer."""

    def of(reading: Reading) -> Value:
        calls = reading.calls(**wanted)
        if not {"input_tokens", "output_tokens"} <= set(calls.columns):
            return None
        asked, given = calls.select(
            pl.col("input_tokens", "output_tokens").cast(pl.Int64).sum()
        ).row(0)
        return asked / given if given else None

    return of


def correlation(**wanted: str) -> Callable[[Reading], Value]:
    """Return the linear correlation of prompt and answer."""

    def of(reading: Reading) -> Value:
        calls = reading.calls(**wanted)
        if not {"input_tokens", "output_tokens"} <= set(calls.columns) or calls.height < 3:
            return None
        return float(calls.select(pl.corr("input_tokens", "output_tokens")).item())

    return of


def rate(**wanted: str) -> Callable[[Reading], Value]:
    """Return calls a second over the whole span."""

    def of(reading: Reading) -> Value:
        span = reading.demand.span_s
        return reading.calls(**wanted).height / span if span else None

    return of


def window_cv(statistic: str, **wanted: str) -> Callable[[Reading], Value]:
    """Return a summary of the CV of the gaps in windows of five minutes with 20 of them or more."""

    def of(reading: Reading) -> Value:
        calls = reading.calls(**wanted)
        if not reading.demand.timed or calls.height < 50:
            return None
        at = calls["arrival_s"].drop_nulls().to_numpy()
        tick = reading.demand.audit.tick
        if tick:
            at = clock.deticked(at, tick, np.random.default_rng(_SEED))
        cv = gap_windows(at, 300.0, fewest=20)["cv"].to_numpy()
        if not len(cv):
            return None
        return _summary((cv > 1).astype(np.float64) if statistic == "above 1" else cv, statistic)

    return of


def peak_to_trough(**wanted: str) -> Callable[[Reading], Value]:
    """Return the calls of the busiest hour of the day over those of the quietest."""

    def of(reading: Reading) -> Value:
        calls = reading.calls(**wanted)
        if reading.demand.span_s < DAY_S or not calls.height:
            return None
        hours = reading.demand.hours(calls["arrival_s"].drop_nulls().to_numpy())
        counts = np.bincount(hours, minlength=24)
        return float(counts.max() / counts.min()) if counts.min() else None

    return of


def session(of: str, statistic: str) -> Callable[[Reading], Value]:
    """Return a cell of the quantiles of sessions."""

    def value(reading: Reading) -> Value:
        table = reading.found.tables.get("session_quantiles")
        row = pl.DataFrame() if table is None else table.filter(pl.col("of") == of)
        return row[statistic][0] if row.height else None

    return value


def turn_share(turns: int, *, at_most: bool = False) -> Callable[[Reading], Value]:
    """Return the share of sessions of so many turns, or of at most as many."""

    def of(reading: Reading) -> Value:
        table = reading.found.tables.get("turns")
        if table is None:
            return None
        chosen = pl.col("turns") <= turns if at_most else pl.col("turns") == turns
        return float(table.filter(chosen)["share"].sum())

    return of


def turns(q: float) -> Callable[[Reading], Value]:
    """Return a quantile of the turns of sessions."""

    def of(reading: Reading) -> Value:
        sample = reading.found.samples.get("turns")
        return sample.quantile(q) if sample is not None else None

    return of


def pauses_below(limit_s: float) -> Callable[[Reading], Value]:
    """Return the share of pauses shorter than a limit."""

    def of(reading: Reading) -> Value:
        if "delay_s" not in reading.demand.columns:
            return None
        pauses = reading.demand.calls["delay_s"].drop_nulls()
        return int((pauses < limit_s).sum()) / len(pauses) if len(pauses) else None

    return of


def dispersion(scale_s: float) -> Callable[[Reading], Value]:
    """Return the index of dispersion of counts at a scale."""

    def of(reading: Reading) -> Value:
        at = reading.demand.arrivals
        finest = reading.found.audit.finest_s
        if len(at) < 2 or scale_s < finest or reading.demand.span_s < 10 * scale_s:
            return None
        return index_of(Counts.of(at, scale_s))[0]

    return of


def silence(limit_s: float, column: str) -> Callable[[Reading], Value]:
    """Return a cell of the table of silences."""

    def of(reading: Reading) -> Value:
        at = reading.demand.arrivals
        table = silences(at, reading.found.audit.finest_s)
        row = table.filter(pl.col("longer_than_s") == limit_s)
        return float(row[column][0]) if row.height else None

    return of


def curve_at(tokens: float) -> Callable[[Reading], Value]:
    """Return the hit rate of an LRU cache of so many tokens."""

    def of(reading: Reading) -> Value:
        table = reading.found.tables.get("hit_curve")
        if table is None or not table["cache_tokens"].count():
            return None
        return float(np.interp(tokens, table["cache_tokens"], table["hit_rate"]))

    return of


def pool(statistic: str) -> Callable[[Reading], Value]:
    """Return a number of the clients of a pool; what it is of may be the width of a window."""

    def of(reading: Reading) -> Value:
        return reading.found.value("clients", statistic, reading.pool or None)

    return of


def pool_length(column: str) -> Callable[[Reading], Value]:
    """Return the mean length of a pool of clients."""

    def of(reading: Reading) -> Value:
        subject = f"{column}, {reading.pool}" if reading.pool else column
        return reading.found.value("lengths", "mean_tokens", subject)

    return of
