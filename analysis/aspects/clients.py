"""Clients: who asks how much, how burstily, and whose doing the burstiness of the whole is."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis import clock, tails
from servescope.analysis.aspects.arrivals import SEED
from servescope.analysis.clock import Audit
from servescope.analysis.concentration import Concentration
from servescope.analysis.counts import round_width
from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.sample import Floats

_WINDOWS = 2000
_NAMED = 100

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


def found(demand: Demand, audit: Audit, findings: Findings) -> None:
    """Describe clients, from calls or from a source's statistics of clients."""
    windows = demand.trace.tables.get("client_windows")
    if windows is not None:
        _of_windows(windows.collect(), findings)
        return
    if "client_id" not in demand.columns:
        findings.leave_out("clients", "no call names one")
        return
    _of_calls(demand, audit, findings)


def _of_calls(demand: Demand, audit: Audit, findings: Findings) -> None:
    calls = demand.placed if demand.timed else demand.calls
    calls = calls.filter(pl.col("client_id").is_not_null())
    sizes = calls["client_id"].value_counts(sort=True)
    names, number = sizes["client_id"].cast(pl.String).to_list(), sizes["count"].to_numpy()
    _skew(number.astype(np.float64), findings)
    cv = np.full(len(names), np.nan)
    share_of_variance = np.full(len(names), np.nan)
    active = np.full(len(names), np.nan)
    if demand.timed and audit.span_s > 0 and len(calls) >= 50:
        width = round_width(audit.span_s, _WINDOWS, max(1.0, audit.finest_s))
        order = pl.DataFrame({"client_id": sizes["client_id"], "rank": np.arange(len(names))})
        rank = calls.select("client_id").join(order, on="client_id", how="left")["rank"].to_numpy()
        at = calls["arrival_s"].to_numpy()
        if audit.tick:
            at = clock.deticked(at, audit.tick, np.random.default_rng(SEED))
        cv = _gap_cvs(at, rank, len(names))
        place = np.minimum((at - at[0]) / width, audit.span_s / width).astype(np.int64)
        place = np.maximum(place, 0)
        share_of_variance, active = _variances(
            place, rank, number.astype(np.float64), findings, f"{width:g} s"
        )
        half = rank[place <= place.max() // 2]
        _stability(
            np.bincount(half, minlength=len(names)).astype(np.float64),
            (number - np.bincount(half, minlength=len(names))).astype(np.float64),
            findings,
        )
        known = np.isfinite(cv)
        if known.any():
            findings.say(
                "client_cv_p50", _weighted_median(cv[known], number[known]), n=int(known.sum())
            )
            above = number[known][cv[known] > 1].sum() / number[known].sum()
            findings.say("load_above_cv_1", float(above), n=int(known.sum()))
    else:
        findings.leave_out("burstiness of clients", "no arrivals on one clock, or under 50")
    _table(names, number.astype(np.float64), cv, share_of_variance, active, findings)


def _gap_cvs(at: Floats, rank: Floats, clients: int) -> Floats:
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


def _variances(
    place: Floats, rank: Floats, number: Floats, findings: Findings, of: str
) -> tuple[Floats, Floats]:
    """Share out the variance of calls a window: each client's part, and how often it asks."""
    windows, clients = int(place.max()) + 1, len(number)
    total = np.bincount(place, minlength=windows).astype(np.float64)
    keys, counts = np.unique(rank * windows + place, return_counts=True)
    who, where = keys // windows, keys % windows
    number_of = counts.astype(np.float64)
    active = np.bincount(who, minlength=clients) / windows
    variance = float(total.var())
    if windows < 20 or variance <= 0:
        findings.leave_out("burstiness shared out among clients", "too few windows")
        return np.full(clients, np.nan), active
    # of a sum the variance is the sum of the covariances of its parts with it
    covariance = np.bincount(who, number_of * (total[where] - total.mean()), clients) / windows
    alone = np.bincount(who, number_of**2, clients) / windows - (number / windows) ** 2
    _decomposed(covariance / variance, alone.sum() / variance, number, findings, of)
    return covariance / variance, active


def _decomposed(shares: Floats, alone: float, number: Floats, findings: Findings, of: str) -> None:
    held = Concentration.of(number)
    if held is None:
        return
    top = np.argsort(-number, kind="stable")[: held.holders_of(0.9)]
    findings.say("variance_of_top", float(shares[top].sum()), of=of, n=len(number))
    findings.say("variance_alone", float(alone), of=of, n=len(number))


def _skew(number: Floats, findings: Findings) -> None:
    findings.say("clients", len(number))
    held = Concentration.of(number)
    if held is None:
        return
    findings.say("clients_for_90", held.holders_of(0.9), n=len(number))
    findings.say("top_client_share", float(held.upto[0]), n=len(number))
    findings.say("gini_calls", held.gini, n=len(number))
    zipf = tails.zipf(number, 0)
    if zipf:
        findings.say("client_zipf", zipf[0], n=len(number))
    many = np.unique(np.geomspace(1, len(number), min(100, len(number))).round().astype(int))
    findings.table(
        "client_concentration",
        pl.DataFrame({"clients": many, "calls_share": held.upto[many - 1]}),
    )


def _stability(first: Floats, second: Floats, findings: Findings) -> None:
    from scipy import stats

    if len(first) >= 5 and np.ptp(first) > 0 and np.ptp(second) > 0:
        found = stats.spearmanr(first, second)
        findings.say("rank_stability", float(found.statistic), n=len(first))


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
                "share": number[order] / number.sum() if number.sum() else number[order],
                "cv": cv[order],
                "variance_share": variance[order],
                "active": active[order],
            }
        ).with_columns(pl.col("cv", "variance_share", "active").fill_nan(None)),
    )


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    upto = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(upto, upto[-1] / 2)])


def _of_windows(windows: pl.DataFrame, findings: Findings) -> None:
    """Describe clients of which only rates and patterns a window are known (ServeGen)."""
    if windows.is_empty():
        findings.leave_out("clients", "no client has a file of rates")
        return
    windows = windows.with_columns(calls=pl.col("rate_rps") * pl.col("window_s"))
    pools = windows["client_id"].str.extract(r"^(.*)/[^/]*$").fill_null("")
    windows = windows.with_columns(pool=pools)
    several = windows["pool"].n_unique() > 1
    for (pool,), part in windows.group_by("pool", maintain_order=True):
        _pool(part, str(pool) if several else "", findings, tables=False)
    if not several:
        _pool_tables(windows, findings)
    else:
        # pools are different services: their clients stand side by side, their rates do not add up
        largest = windows.group_by("pool").agg(pl.col("calls").sum()).sort("calls")["pool"][-1]
        _pool_tables(windows.filter(pl.col("pool") == largest), findings)


def _pool(part: pl.DataFrame, pool: str, findings: Findings, *, tables: bool) -> None:
    by_client = part.group_by("client_id").agg(pl.col("calls").sum()).sort("calls", descending=True)
    number = by_client["calls"].to_numpy()
    held = Concentration.of(number)
    asked = part.filter(pl.col("rate_rps") > 0)
    if held is None or asked.is_empty():
        findings.leave_out(f"clients of {pool or 'the pool'}", "none of them asks")
        return
    findings.say("clients", by_client.height, of=pool)
    findings.say("clients_for_90", held.holders_of(0.9), of=pool, n=len(number))
    findings.say("top_client_share", float(held.upto[0]), of=pool, n=len(number))
    findings.say("gini_calls", held.gini, of=pool, n=len(number))
    zipf = tails.zipf(number, 0)
    if zipf:
        findings.say("client_zipf", zipf[0], of=pool, n=len(number))
    cv, weight = asked["cv"].to_numpy(), asked["calls"].to_numpy()
    findings.say("client_cv_p50", _weighted_median(cv, weight), of=pool, n=len(cv))
    findings.say("load_above_cv_1", float(weight[cv > 1].sum() / weight.sum()), of=pool, n=len(cv))
    gamma = float((asked["pattern"] == "Gamma").mean())  # type: ignore[arg-type]
    findings.say("gamma_windows", gamma, of=pool, n=len(cv))
    findings.say("active_windows", asked.height / part.height, of=pool, n=part.height)
    _, rates = _matrix(part)
    total = rates.sum(axis=0)
    findings.say("rate_rps", float(total.mean()), of=pool, n=rates.shape[1])
    findings.say("rate_max_rps", float(total.max()), of=pool, n=rates.shape[1])
    if rates.shape[1] >= 20 and total.var() > 0:
        shares, alone = _shared_out(rates)
        _decomposed(shares, alone, rates.sum(axis=1), findings, pool)
        half = rates.shape[1] // 2
        from scipy import stats

        a, b = rates[:, :half].sum(axis=1), rates[:, half:].sum(axis=1)
        if len(a) >= 5 and np.ptp(a) > 0 and np.ptp(b) > 0:
            stable = float(stats.spearmanr(a, b).statistic)
            findings.say("rank_stability", stable, of=pool, n=len(a))


def _matrix(part: pl.DataFrame) -> tuple[list[str], Floats]:
    """Return the rate of each client in each window: shape (clients, windows)."""
    wide = part.pivot("window_start_s", index="client_id", values="rate_rps", sort_columns=False)
    rates = wide.drop("client_id").fill_null(0.0).to_numpy()
    at = np.argsort([float(c) for c in wide.columns[1:]])
    return wide["client_id"].to_list(), rates[:, at]


def _shared_out(rates: Floats) -> tuple[Floats, float]:
    total = rates.sum(axis=0)
    off = total - total.mean()
    variance = float((off**2).mean())
    centred = rates - rates.mean(axis=1, keepdims=True)
    return centred @ off / len(off) / variance, float((centred**2).mean(axis=1).sum()) / variance


def _pool_tables(part: pl.DataFrame, findings: Findings) -> None:
    names, rates = _matrix(part)
    total = rates.sum(axis=0)
    window = float(part["window_s"][0])
    number = rates.sum(axis=1) * window
    shares = _shared_out(rates)[0] if total.var() > 0 else np.full(len(names), np.nan)
    weighed = {
        name: float(cv)
        for name, cv in part.filter(pl.col("cv").is_not_null())
        .group_by("client_id")
        .agg((pl.col("cv") * pl.col("calls")).sum() / pl.col("calls").sum())
        .iter_rows()
    }
    cv = np.array([weighed.get(name, np.nan) for name in names])
    _table(names, number, cv, shares, (rates > 0).mean(axis=1), findings)
    held = Concentration.of(number)
    if held is None:
        return
    many = np.unique(np.geomspace(1, len(number), min(100, len(number))).round().astype(int))
    findings.table(
        "client_concentration", pl.DataFrame({"clients": many, "calls_share": held.upto[many - 1]})
    )
    top = np.argsort(-number)[: held.holders_of(0.9)]
    starts = np.sort(part["window_start_s"].unique().to_numpy())
    findings.table(
        "total_rate",
        pl.DataFrame({"t_s": starts, "rate_rps": total, "top_rps": rates[top].sum(axis=0)}),
    )
