"""The tables and figures of the literature, with any trace's numbers beside the published ones.

A published value stands here only where it is known, with where it is from; the rest are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from servescope.analysis import clock, dispersion, seasons
from servescope.analysis.aspects.arrivals import SEED, gap_windows
from servescope.analysis.characterization import Characterization
from servescope.analysis.counts import Counts
from servescope.analysis.demand import Demand
from servescope.traces.errors import InputError

Value = float | None
_CLIENTS: Final = "Clients"


@dataclass(frozen=True, slots=True)
class Row:
    """A quantity of a paper: what is published of it, and how it is found in a trace.

    `ours` returns None where the trace cannot say it.
    """

    quantity: str
    unit: str
    published: Value
    ours: Callable[[Study], Value]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a paper shows a workload: its tables of rows, and our tables that its figures draw.

    `figures` names tables of the characterisation, each with the title of the figure it recreates.
    `note` says where the published values are from, and what they are of.
    """

    title: str
    source: str
    note: str
    tables: Mapping[str, tuple[Row, ...]]
    figures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Study:
    """A trace with what is needed to fill a layout; of several pools of clients, one."""

    found: Characterization
    demand: Demand
    pool: str | None = None

    def calls(self, **wanted: str) -> pl.DataFrame:
        """Return the calls of a class or a model."""
        calls = self.demand.calls
        for column, value in wanted.items():
            if column not in calls.columns:
                return calls.head(0)
            calls = calls.filter(pl.col(column).cast(pl.String) == value)
        return calls


def recreate(layout: str, found: Characterization, demand: Demand) -> dict[str, pl.DataFrame]:
    """Fill the tables of a paper by their titles: quantity, unit, published, ours.

    Raises InputError for a paper that is not known.
    """
    if layout not in LAYOUTS:
        raise InputError(f"There is no layout '{layout}'.", f"Known: {', '.join(LAYOUTS)}.")
    pools = found.rows("clients", "clients")["subject"].to_list() or [None]
    made = {}
    with np.errstate(all="ignore"):
        for title, rows in LAYOUTS[layout].tables.items():
            # pools of clients are different services, and each has such a table
            for pool in pools if title == _CLIENTS else pools[:1]:
                name = f"{title}, {pool}" if pool and title == _CLIENTS else title
                made[name] = _filled(rows, Study(found, demand, pool))
    return made


def _filled(rows: tuple[Row, ...], study: Study) -> pl.DataFrame:
    kinds = {"quantity": pl.String, "unit": pl.String, "published": pl.Float64, "ours": pl.Float64}
    cells = [(row.quantity, row.unit, row.published, _finite(row.ours(study))) for row in rows]
    return pl.DataFrame(cells, schema=kinds, orient="row")


def _finite(value: Value) -> Value:
    return None if value is None or not np.isfinite(value) else float(value)


# --- ways to find a value ---------------------------------------------------------------------


def _count(**wanted: str) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        known = all(column in study.demand.columns for column in wanted)
        return float(study.calls(**wanted).height) if known else None

    return of


def _length(column: str, statistic: str, **wanted: str) -> Callable[[Study], Value]:
    """Return mean, max or a quantile (p50) of a length; failed calls are in, as published."""

    def of(study: Study) -> Value:
        if column not in study.demand.columns:
            return None
        values = study.calls(**wanted)[column].drop_nulls()
        if not len(values):
            return None
        if statistic in ("mean", "max"):
            return float(getattr(values, statistic)())
        return float(values.quantile(float(statistic[1:]) / 100, "equiprobable"))  # type: ignore[arg-type]

    return of


def _value(aspect: str, statistic: str, subject: str | None = None) -> Callable[[Study], Value]:
    return lambda study: study.found.value(aspect, statistic, subject)


def _failures(**wanted: str) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        calls = study.calls(**wanted)
        if "status" not in calls.columns or not calls.height:
            return None
        return float((calls["status"].cast(pl.String) != "ok").mean())  # type: ignore[arg-type]

    return of


def _ratio(**wanted: str) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        calls = study.calls(**wanted)
        if not {"input_tokens", "output_tokens"} <= set(calls.columns):
            return None
        asked, given = calls.select(
            pl.col("input_tokens", "output_tokens").cast(pl.Int64).sum()
        ).row(0)
        return asked / given if given else None

    return of


def _correlation(**wanted: str) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        calls = study.calls(**wanted)
        if not {"input_tokens", "output_tokens"} <= set(calls.columns) or calls.height < 3:
            return None
        return calls.select(pl.corr("input_tokens", "output_tokens")).item()  # type: ignore[no-any-return]

    return of


def _rate(**wanted: str) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        span = study.demand.span_s
        return study.calls(**wanted).height / span if span else None

    return of


def _window_cv(statistic: str, **wanted: str) -> Callable[[Study], Value]:
    """Return a summary of the CV of the gaps in windows of five minutes with 20 of them or more."""

    def of(study: Study) -> Value:
        calls = study.calls(**wanted)
        if not study.demand.timed or calls.height < 50:
            return None
        at = calls["arrival_s"].drop_nulls().to_numpy()
        tick = study.found.audit.tick
        drawn = clock.draws_of(at, tick, SEED)[0]
        cv = gap_windows(drawn, 300.0, fewest=20)["cv"]
        if not len(cv):
            return None
        if statistic == "above 1":
            return float((cv > 1).mean())  # type: ignore[arg-type]
        if statistic == "mean":
            return float(cv.mean())  # type: ignore[arg-type]
        return float(cv.quantile(float(statistic[1:]) / 100, "equiprobable"))  # type: ignore[arg-type]

    return of


def _peak_to_trough(**wanted: str) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        calls = study.calls(**wanted)
        if not study.demand.timed or study.demand.span_s < seasons.DAY_S or not calls.height:
            return None
        at = calls["arrival_s"].drop_nulls().to_numpy()
        zero = (study.demand.about.t0_ns or 0) / 1e9
        hours = np.floor((at + zero) % seasons.DAY_S / seasons.HOUR_S).astype(np.int64)
        counts = np.bincount(hours, minlength=24)
        return float(counts.max() / counts.min()) if counts.min() else None

    return of


def _session(of: str, statistic: str) -> Callable[[Study], Value]:
    def value(study: Study) -> Value:
        table = study.found.tables.get("session_quantiles")
        row = pl.DataFrame() if table is None else table.filter(pl.col("of") == of)
        return row[statistic][0] if row.height else None

    return value


def _turn_share(turns: int, *, at_most: bool = False) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        table = study.found.tables.get("turns")
        if table is None:
            return None
        chosen = pl.col("turns") <= turns if at_most else pl.col("turns") == turns
        return float(table.filter(chosen)["share"].sum())

    return of


def _turns(q: float) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        sample = study.found.samples.get("turns")
        return sample.quantile(q) if sample is not None else None

    return of


def _pauses_below(limit_s: float) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        if "delay_s" not in study.demand.columns:
            return None
        pauses = study.demand.calls["delay_s"].drop_nulls()
        return float((pauses < limit_s).mean()) if len(pauses) else None  # type: ignore[arg-type]

    return of


def _dispersion(scale_s: float) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        at = study.demand.arrivals
        finest = study.found.audit.finest_s
        if len(at) < 2 or scale_s < finest or study.demand.span_s < 10 * scale_s:
            return None
        series = Counts.of(at, scale_s).dense()
        return float(series.var(ddof=1) / series.mean())

    return of


def _silence(limit_s: float, column: str) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        at = study.demand.arrivals
        table = dispersion.silences(at, study.found.audit.finest_s)
        row = table.filter(pl.col("longer_than_s") == limit_s)
        return float(row[column][0]) if row.height else None

    return of


def _curve_at(tokens: float) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        table = study.found.tables.get("hit_curve")
        if table is None or not table["cache_tokens"].count():
            return None
        return float(np.interp(tokens, table["cache_tokens"], table["hit_rate"]))

    return of


def _pool(statistic: str) -> Callable[[Study], Value]:
    """Return a number of the clients of a pool; what it is of may be the width of a window."""

    def of(study: Study) -> Value:
        return study.found.value("clients", statistic, study.pool or None)

    return of


def _pool_length(column: str) -> Callable[[Study], Value]:
    def of(study: Study) -> Value:
        subject = f"{column}, {study.pool}" if study.pool else column
        return study.found.value("lengths", "mean_tokens", subject)

    return of


# --- the papers -------------------------------------------------------------------------------

_IN, _OUT = "input_tokens", "output_tokens"


def _rows_of_class(name: str, values: Mapping[str, Value]) -> tuple[Row, ...]:
    """Return the rows of one class of BurstGPT v3."""
    of = {"call_class": name}
    made: list[tuple[str, str, Callable[[Study], Value]]] = [
        ("calls", "calls", _count(**of)),
        ("failures", "share", _failures(**of)),
        ("rate", "calls/s", _rate(**of)),
    ]
    for column, word in ((_IN, "request"), (_OUT, "response")):
        made += [
            (f"{word} {statistic}", "tokens", _length(column, statistic, **of))
            for statistic in ("mean", "p50", "p90", "p99", "max")
        ]
    made += [
        ("correlation of request and response", "1", _correlation(**of)),
        ("request tokens for a token of response", "1", _ratio(**of)),
    ]
    made += [
        (f"CV of gaps in 5-minute windows, {s}", "1", _window_cv(s, **of))
        for s in ("p10", "p50", "mean", "p90")
    ]
    made += [
        ("windows with a CV above 1", "share", _window_cv("above 1", **of)),
        ("busiest hour over quietest", "1", _peak_to_trough(**of)),
    ]
    return tuple(Row(q, unit, values.get(q), ours) for q, unit, ours in made)


_API: Final[dict[str, Value]] = {
    "calls": 5_110_404,
    "failures": 0.0756,
    "rate": 0.54,
    "request mean": 457,
    "request p50": 326,
    "request p90": 794,
    "request p99": 3141,
    "request max": 125_591,
    "response mean": 68.9,
    "response p50": 14,
    "response p90": 111,
    "response p99": 804,
    "correlation of request and response": 0.183,
    "request tokens for a token of response": 6.6,
    "CV of gaps in 5-minute windows, p10": 0.67,
    "CV of gaps in 5-minute windows, p50": 1.50,
    "CV of gaps in 5-minute windows, mean": 2.54,
    "CV of gaps in 5-minute windows, p90": 5.22,
    "windows with a CV above 1": 0.725,
    "busiest hour over quietest": 3.01,
}
_CONVERSATION: Final[dict[str, Value]] = {
    "calls": 233_617,
    "failures": 0.0079,
    "rate": 0.025,
    "request mean": 953,
    "request p50": 517,
    "request p90": 2354,
    "request p99": 5630,
    "request max": 71_197,
    "response mean": 272,
    "response p50": 187,
    "response p90": 669,
    "response p99": 1067,
    "correlation of request and response": 0.438,
    "request tokens for a token of response": 3.5,
    "CV of gaps in 5-minute windows, p10": 0.77,
    "CV of gaps in 5-minute windows, p50": 0.92,
    "CV of gaps in 5-minute windows, mean": 0.94,
    "CV of gaps in 5-minute windows, p90": 1.12,
    "busiest hour over quietest": 34.8,
}
_SHARES: Final = (0.355, 0.204, 0.119, 0.076, 0.051, 0.037, 0.028, 0.021, 0.018, 0.013)
_SESSIONS: Final = (
    Row("sessions", "programs", 55_920, _value("sessions", "programs")),
    Row("turns, mean", "calls", 4.18, _value("sessions", "turns_mean")),
    *(
        Row(f"turns, p{100 * q:g}", "calls", value, _turns(q))
        for q, value in ((0.5, 2), (0.75, 4), (0.9, 9), (0.99, 31), (1.0, 436))
    ),
    *(Row(f"sessions of {k}", "share", v, _turn_share(k)) for k, v in enumerate(_SHARES, 1)),
    Row(
        "calls that go on with a session", "share", 0.761, _value("sessions", "continuation_share")
    ),
    Row("pauses", "pauses", 177_697, _session("pause_s", "n")),
    Row("pause, mean", "s", 5709, _session("pause_s", "mean")),
    *(
        Row(f"pause, p{q}", "s", value, _session("pause_s", f"p{q}"))
        for q, value in ((10, 20), (25, 42), (50, 131), (75, 533), (90, 2340), (99, 78_903))
    ),
    *(
        Row(f"pauses below {limit} s", "share", value, _pauses_below(limit))
        for limit, value in ((60, 0.327), (300, 0.660), (3600, 0.924))
    ),
    *(
        Row(f"session duration, p{q}", "s", value, _session("duration_s", f"p{q}"))
        for q, value in ((50, 866), (90, 20_371), (99, 597_295))
    ),
    Row("growth of the prompt a turn, mean", "tokens", 187, _session("growth_tokens", "mean")),
    *(
        Row(f"growth of the prompt a turn, p{q}", "tokens", v, _session("growth_tokens", f"p{q}"))
        for q, v in ((10, -124), (50, 125), (90, 642))
    ),
)

LAYOUTS: Final[dict[str, Layout]] = {
    "burstgpt": Layout(
        "BurstGPT",
        "Wang et al., BurstGPT, KDD 2025 (arXiv 2401.17644)",
        "Published values are those of the whole file v3 (5,344,021 rows), as two independent"
        " measurements give them; the paper's own printed tables were not seen, so nothing of them"
        " stands here. A cut of the file, or another trace, need not agree.",
        {
            "The whole": (
                Row("calls", "calls", 5_344_021, _count()),
                Row("GPT-4", "calls", 790_239, _count(model="GPT-4")),
                Row("ChatGPT", "calls", 4_553_782, _count(model="ChatGPT")),
                Row("failures", "share", 0.0726, _failures()),
            ),
            "API": _rows_of_class("api", _API),
            "Conversation": _rows_of_class("conversation", _CONVERSATION),
            "Sessions": _SESSIONS,
        },
        {
            "rate": "Requests over time",
            "gap_windows": "Gamma(alpha, beta) of the gaps, interval by interval",
            "length_ccdf": "Request and response tokens, by model and class",
            "turns": "Turns of a conversation",
            "failures_over_time": "Failures over time",
        },
    ),
    "servegen": Layout(
        "ServeGen",
        "Xiang et al., ServeGen, 2025 (arXiv 2505.09999)",
        "The paper gives few numbers of its own; values beside ours would be of pools of clients"
        " that are published only in part. Multi-turn values are of its reasoning workload.",
        {
            _CLIENTS: (
                Row("clients", "clients", None, _pool("clients")),
                Row("clients with 90 % of the calls", "clients", None, _pool("clients_for_90")),
                Row("calls of the largest client", "share", None, _pool("top_client_share")),
                Row("mean rate", "calls/s", None, _pool("rate_rps")),
                Row("greatest rate of a window", "calls/s", None, _pool("rate_max_rps")),
                Row("windows with a Gamma fit", "share", None, _pool("gamma_windows")),
                Row("CV of the gaps, median by calls", "1", None, _pool("client_cv_p50")),
                Row("calls at a CV above 1", "share", None, _pool("load_above_cv_1")),
                Row("windows in which a client asks", "share", None, _pool("active_windows")),
                Row("swings of the rate by those with 90 %", "share", None,
                    _pool("variance_of_top")),
                Row("input tokens, mean", "tokens", None, _pool_length(_IN)),
                Row("output tokens, mean", "tokens", None, _pool_length(_OUT)),
            ),
            "Requests": (
                Row("CV of the gaps", "1", None, _value("arrivals", "gap_cv_deticked")),
                Row("windows with a CV above 1", "share", None,
                    _value("arrivals", "windows_above_1")),
                Row("correlation of input and output", "1", None, _correlation()),
            ),
            "Conversations": (
                Row("turns, mean", "calls", 3.5, _value("sessions", "turns_mean")),
                Row("time between turns, median", "s", 100, _session("gap_s", "p50")),
            ),
        },
        {
            "client_concentration": "How few clients make most of the load",
            "clients": "The largest clients: rate and burstiness",
            "total_rate": "The rate of all clients and of the largest",
            "gap_windows": "CV of the gaps over time",
            "length_ccdf": "Input and output tokens",
            "length_drift": "Lengths over time",
        },
    ),
    "mooncake": Layout(
        "Mooncake",
        "Qin et al., Mooncake, FAST 2025",
        "Published values are those of the paper's table of its three traces; they stand beside"
        " whatever trace is read, so look at the one that is yours. Its cache ratio may count"
        " partial blocks in another way.",
        {
            "Conversation": (
                Row("requests", "calls", 12_031, _count()),
                Row("input length, mean", "tokens", 12_035, _length(_IN, "mean")),
                Row("output length, mean", "tokens", 343, _length(_OUT, "mean")),
                Row("cache ratio", "share", 0.40, _value("prefixes", "hit_rate")),
            ),
            "Tool and agent": (
                Row("requests", "calls", 23_608, _count()),
                Row("input length, mean", "tokens", 8596, _length(_IN, "mean")),
                Row("output length, mean", "tokens", 182, _length(_OUT, "mean")),
                Row("cache ratio", "share", 0.59, _value("prefixes", "hit_rate")),
            ),
            "Synthetic": (
                Row("requests", "calls", 3993, _count()),
                Row("input length, mean", "tokens", 15_325, _length(_IN, "mean")),
                Row("output length, mean", "tokens", 149, _length(_OUT, "mean")),
                Row("cache ratio", "share", 0.66, _value("prefixes", "hit_rate")),
            ),
            "Cache": (
                *(
                    Row(f"hit rate with {n:,.0f} tokens", "share", None, _curve_at(n))
                    for n in (1e5, 1e6, 3e6, 1e7, 5e7)
                ),
                Row("blocks asked for once only", "share", None,
                    lambda s: None if (v := s.found.value("prefixes", "shared_blocks")) is None
                    else 1 - v),
            ),
        },
        {
            "length_ccdf": "Input and output lengths",
            "hit_curve": "Hit rate against the size of the cache",
            "reuse_quantiles": "How soon a prefix is used again",
        },
    ),
    "azure": Layout(
        "Azure LLM inference 2023",
        "Patel et al., Splitwise, ISCA 2024",
        "Published values are the medians that the paper names for its two services; read the"
        " trace of one service at a time.",
        {
            "Coding": (
                Row("prompt, median", "tokens", 1500, _length(_IN, "p50")),
                Row("generated, median", "tokens", 13, _length(_OUT, "p50")),
            ),
            "Conversation": (
                Row("prompt, median", "tokens", 1020, _length(_IN, "p50")),
                Row("generated, median", "tokens", 129, _length(_OUT, "p50")),
            ),
            "Arrivals": (
                Row("calls", "calls", None, _count()),
                Row("rate", "calls/s", None, _rate()),
                Row("CV of the gaps", "1", None, _value("arrivals", "gap_cv")),
                *(
                    Row(f"index of dispersion at {w:g} s", "1", None, _dispersion(w))
                    for w in (1.0, 10.0, 60.0, 300.0)
                ),
                Row("silences over 20 s", "silences", None, _silence(20.0, "silences")),
                Row("time that they hold", "share", None, _silence(20.0, "share")),
            ),
        },
        {
            "length_ccdf": "Prompt and generated tokens",
            "rate": "Requests over time",
            "conditional_output": "Generated tokens against the prompt",
        },
    ),
}  # fmt: skip
