"""Clients: who asks how much, how burstily, and whose doing the burstiness of the whole is."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis import clock, tails
from servescope.analysis.clients import by_pool, shared_out
from servescope.analysis.concentration import Concentration
from servescope.analysis.counts import round_width
from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.sample import Floats, Ints

_WINDOWS = 2000
_NAMED = 100
_SEED = 7
_FEWEST_WINDOWS = 20

STATISTICS = {
    "clients": Statistic("different clients", "clients", "count"),
    "clients_for_90": Statistic("fewest clients with 90 % of the calls", "clients", "sorted sums"),
    "top_client_share": Statistic("calls of the largest client", "share", "count"),
    "gini_calls": Statistic("Gini coefficient of calls over clients", "1", "sorted sums"),
    "client_zipf": Statistic(
        "Zipf exponent of the calls of clients by rank", "1", "maximum likelihood"
    ),
    "variance_of_top": Statistic(
        "share of the variance of all calls a window that the largest clients bring, as few as have"
        " 90 % of the calls",
        "share",
        "sum of Cov(N_client, N) over Var(N)",
        source="ServeGen (arXiv 2505.09999), burstiness comes from few clients",
    ),
    "variance_alone": Statistic(
        "share of that variance that clients bring each by itself; the rest is that they rise and"
        " fall together",
        "share",
        "sum of Var(N_client) over Var(N)",
    ),
    "rank_stability": Statistic(
        "rank correlation of the calls of clients in the first and the second half",
        "1",
        "Spearman's",
    ),
    "client_cv_p50": Statistic(
        "median CV of the gaps of a client, weighed by its calls", "1", "weighted median"
    ),
    "load_above_cv_1": Statistic(
        "calls of clients, or of their windows, with a CV of gaps above 1", "share", "sum of calls"
    ),
    "gamma_windows": Statistic(
        "windows whose gaps the source fitted by a Gamma law, not a Weibull", "share", "count"
    ),
    "active_windows": Statistic("windows of a client in which it asks", "share", "count"),
    "rate_rps": Statistic("calls a second of all clients", "calls/s", "sum of rates"),
    "rate_max_rps": Statistic("greatest rate of a window", "calls/s", "maximum"),
}
TABLES = {
    "clients": TableOf(
        "the largest clients",
        {
            "client": "name",
            "calls": "calls",
            "share": "share",
            "cv": "1",
            "variance_share": "share",
            "active": "share",
        },
        "CV of its gaps (of the source's windows, by calls, where there are only those);"
        " variance_share = Cov(N_client, N) / Var(N) of calls a window",
    ),
    "client_concentration": TableOf(
        "calls held by the largest clients",
        {"clients": "clients", "calls_share": "share"},
        "sorted sums",
    ),
    "total_rate": TableOf(
        "rate of all clients window by window",
        {"t_s": "s", "rate_rps": "calls/s", "top_rps": "calls/s"},
        "sum of rates; top: of the clients with 90 % of the calls",
    ),
}


def found(demand: Demand, findings: Findings) -> None:
    """Describe clients, from calls or from a source's statistics of clients."""
    windows = demand.trace.tables.get("client_windows")
    if windows is not None:
        _of_windows(windows.collect(), findings)
    elif "client_id" not in demand.columns:
        findings.leave_out("clients", "no call names one")
    else:
        _of_calls(demand, findings)


# --- from calls -----------------------------------------------------------------------------------


def _of_calls(demand: Demand, findings: Findings) -> None:
    calls = demand.placed if demand.timed else demand.calls
    calls = calls.filter(pl.col("client_id").is_not_null())
    sizes = calls["client_id"].value_counts(sort=True)
    names = sizes["client_id"].cast(pl.String).to_list()
    number = sizes["count"].to_numpy().astype(np.float64)
    _skew(number, findings)
    _concentration(number, findings)
    cv, variance, active = (np.full(len(names), np.nan) for _ in range(3))
    if demand.span_s > 0 and calls.height >= 50:
        order = pl.DataFrame({"client_id": sizes["client_id"], "rank": np.arange(len(names))})
        rank = calls.select("client_id").join(order, on="client_id", how="left")["rank"].to_numpy()
        at = calls["arrival_s"].to_numpy()
        if demand.audit.tick:
            at = clock.deticked(at, demand.audit.tick, np.random.default_rng(_SEED))
        cv = _gap_cvs(at, rank, len(names))
        known = np.isfinite(cv)
        if known.any():
            _burstiness(cv[known], number[known], findings)
        width = round_width(demand.span_s, _WINDOWS, max(1.0, demand.finest_s))
        place = np.maximum((at - at[0]) / width, 0).astype(np.int64)
        windows = int(place.max()) + 1
        pairs, counts = np.unique(rank * windows + place, return_counts=True)
        who, where = np.divmod(pairs, windows)
        active = np.bincount(who, minlength=len(names)) / windows
        swings = (who, where, counts.astype(np.float64), windows)
        parts = _swings(*swings, number, findings, f"{width:g} s")
        variance = parts if parts is not None else variance
        half = np.bincount(rank[place <= place.max() // 2], minlength=len(names))
        _stability(half.astype(np.float64), number - half, findings)
    else:
        findings.leave_out("burstiness of clients", "no arrivals on one clock, or under 50")
    _table(names, number, cv, variance, active, findings)


def _gap_cvs(at: Floats, rank: Ints, clients: int) -> Floats:
    """Return the CV of the gaps of each client; not a number for fewer than 30 of them."""
    order = np.lexsort((at, rank))
    who, gaps = rank[order], np.diff(at[order], prepend=np.nan)
    same = np.concatenate(([False], who[1:] == who[:-1]))
    who, gaps = who[same], gaps[same]
    n = np.bincount(who, minlength=clients)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(who, gaps, clients) / n
        variance = np.bincount(who, gaps**2, clients) / n - mean**2
        return np.where(n >= 30, np.sqrt(np.maximum(variance, 0) * n / (n - 1)) / mean, np.nan)


# --- from statistics of clients (ServeGen) --------------------------------------------------------


def _of_windows(windows: pl.DataFrame, findings: Findings) -> None:
    """Describe clients of which only rates and patterns a window are known, pool by pool.

    The tables are of the pool with most calls.
    """
    if windows.is_empty():
        findings.leave_out("clients", "no client has a file of rates")
        return
    rows = by_pool(windows.with_columns(calls=pl.col("rate_rps") * pl.col("window_s")))
    pools = rows.group_by("pool", maintain_order=True).agg(pl.col("calls").sum())
    largest = pools.sort("calls")["pool"][-1]
    for pool in pools["pool"]:
        _pool(rows.filter(pl.col("pool") == pool), pool, findings, tables=pool == largest)


def _pool(part: pl.DataFrame, pool: str, findings: Findings, *, tables: bool) -> None:
    asked = part.filter(pl.col("rate_rps") > 0)
    if asked.is_empty():
        findings.leave_out(f"clients of {pool or 'the pool'}", "none of them asks")
        return
    names = part["client_id"].unique(maintain_order=True)
    starts = np.sort(part["window_start_s"].unique().to_numpy())
    who = asked["client_id"].replace_strict(names, np.arange(len(names))).to_numpy()
    where = np.searchsorted(starts, asked["window_start_s"].to_numpy())
    rate, calls = asked["rate_rps"].to_numpy(), asked["calls"].to_numpy()
    number = np.bincount(who, calls, len(names)).astype(np.float64)
    _skew(number, findings, pool)
    _burstiness(asked["cv"].to_numpy(), calls, findings, pool)
    gamma = int((asked["pattern"] == "Gamma").sum()) / asked.height
    findings.say("gamma_windows", gamma, of=pool, n=asked.height)
    findings.say("active_windows", asked.height / part.height, of=pool, n=part.height)
    total = np.bincount(where, rate, len(starts))
    findings.say("rate_rps", float(total.mean()), of=pool, n=len(starts))
    findings.say("rate_max_rps", float(total.max()), of=pool, n=len(starts))
    parts = _swings(who, where, rate, len(starts), number, findings, pool)
    first = where < len(starts) // 2
    half = np.bincount(who[first], calls[first], len(names)).astype(np.float64)
    _stability(half, number - half, findings, pool)
    if not tables:
        return
    _concentration(number, findings)
    blank = np.full(len(names), np.nan)
    with np.errstate(invalid="ignore"):
        cv = np.bincount(who, asked["cv"].to_numpy() * calls, len(names)) / number
    active = np.bincount(who, minlength=len(names)) / len(starts)
    _table(names.to_list(), number, cv, blank if parts is None else parts, active, findings)
    top = _top(number)[who]
    findings.table(
        "total_rate",
        pl.DataFrame(
            {
                "t_s": starts,
                "rate_rps": total,
                "top_rps": np.bincount(where[top], rate[top], len(starts)),
            }
        ),
    )


# --- what both say --------------------------------------------------------------------------------


def _top(number: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Mark the largest clients, as few as have 90 % of the calls."""
    held = Concentration.of(number)
    chosen = np.zeros(len(number), np.bool_)
    if held:
        chosen[np.argsort(-number, kind="stable")[: held.holders_of(0.9)]] = True
    return chosen


def _skew(number: Floats, findings: Findings, of: str = "") -> None:
    findings.say("clients", len(number), of=of)
    held = Concentration.of(number)
    if held is None:
        return
    findings.say("clients_for_90", held.holders_of(0.9), of=of, n=len(number))
    findings.say("top_client_share", float(held.upto[0]), of=of, n=len(number))
    findings.say("gini_calls", held.gini, of=of, n=len(number))
    zipf = tails.zipf(number, 0)
    if zipf:
        findings.say("client_zipf", zipf[0], of=of, n=len(number))


def _concentration(number: Floats, findings: Findings) -> None:
    held = Concentration.of(number)
    if held:
        shares, calls = held.curve()
        clients = np.rint(shares * len(number)).astype(np.int64)
        findings.table(
            "client_concentration", pl.DataFrame({"clients": clients, "calls_share": calls})
        )


def _burstiness(cv: Floats, calls: Floats, findings: Findings, of: str = "") -> None:
    """Say how bursty clients are, or their windows, each weighed by its calls."""
    order = np.argsort(cv)
    upto = np.cumsum(calls[order])
    middle = float(cv[order][np.searchsorted(upto, upto[-1] / 2)])
    findings.say("client_cv_p50", middle, of=of, n=len(cv))
    above = float(calls[cv > 1].sum() / calls.sum())
    findings.say("load_above_cv_1", above, of=of, n=len(cv))


def _swings(
    who: Ints, where: Ints, number: Floats, windows: int, calls: Floats, findings: Findings, of: str
) -> Floats | None:
    """Say whose doing the swings of the total are; return each client's part."""
    parts = shared_out(who, where, number, len(calls), windows)
    if parts is None or windows < _FEWEST_WINDOWS:
        findings.leave_out("swings shared out among clients", "too few windows, or all alike")
        return None
    shares, alone = parts
    findings.say("variance_of_top", float(shares[_top(calls)].sum()), of=of, n=len(calls))
    findings.say("variance_alone", alone, of=of, n=len(calls))
    return shares


def _stability(first: Floats, second: Floats, findings: Findings, of: str = "") -> None:
    from scipy import stats

    if len(first) >= 5 and np.ptp(first) > 0 and np.ptp(second) > 0:
        found = stats.spearmanr(first, second)
        findings.say("rank_stability", float(found.statistic), of=of, n=len(first))


def _table(
    names: list[str],
    number: Floats,
    cv: Floats,
    variance: Floats,
    active: Floats,
    findings: Findings,
) -> None:
    order = np.argsort(-number, kind="stable")[:_NAMED]
    findings.table(
        "clients",
        pl.DataFrame(
            {
                "client": [names[k] for k in order],
                "calls": number[order],
                "share": number[order] / number.sum(),
                "cv": cv[order],
                "variance_share": variance[order],
                "active": active[order],
            }
        ).with_columns(pl.col("cv", "variance_share", "active").fill_nan(None)),
    )
