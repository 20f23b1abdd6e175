"""Lengths of prompts and answers: quantiles, body and tail, by model and class, over time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from servescope.analysis import goodness, mixtures, tails
from servescope.analysis.binned import quantiles_over
from servescope.analysis.clients import by_pool
from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf, written
from servescope.analysis.intervals import bounded, of_mean, of_quantiles
from servescope.analysis.sample import Floats, Ints, Sample, in_sections

SEED = 11
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
SECTIONS = 10
_FAMILIES = ("lognormal", "gamma", "weibull", "exponential", "pareto", "loglogistic")
_MOST_GROUPS = 8
_FEWEST = 50
_ATOM = 0.01
_ZIPF_UPTO = 5_000_000  # tokens
_PERIODS = 60
_SHUFFLES = 999
_SECTIONS = "sectioning over 10 sections of time, and the batch ratio of indicators: the wider"

STATISTICS = {
    "mean_tokens": Statistic(
        "mean length", "tokens", "mean", "means of 10 sections of time, Student's t"
    ),
    "cv_tokens": Statistic("CV of the lengths", "1", "standard deviation over mean"),
    "max_tokens": Statistic("longest", "tokens", "maximum"),
    "tail_exponent": Statistic(
        "exponent of the tail: the share above x falls like x^-exponent",
        "1",
        "Hill's, from where the KS distance of a power law is least",
        "of all calls together: 100 resamples of independent values, each with its own beginning",
        "Clauset, Shalizi and Newman, SIAM Review 51 (2009)",
    ),
    "tail_share": Statistic("calls in that tail", "share", "count"),
    "tail_against_lognormal_z": Statistic(
        "above 1.96 the tail is rather a power law, below -1.96 rather a log-normal's",
        "1",
        "Vuong's likelihood-ratio test",
        source="Clauset, Shalizi and Newman, SIAM Review 51 (2009)",
    ),
    "parts": Statistic(
        "humps of the distribution", "parts", "log-normal mixture of 1 to 3 parts, least BIC"
    ),
    "drift_ks": Statistic(
        "distance between the lengths of the first and the second half of the calls",
        "1",
        "Kolmogorov-Smirnov",
        "p by permuting 20 sections of time",
    ),
}
TABLES = {
    "length_quantiles": TableOf(
        "quantiles of lengths; null where a sample is too small to bound one",
        {
            "column": "name",
            "of": "name",
            "calls": "calls",
            "quantile": "share",
            "tokens": "tokens",
            "low": "tokens",
            "high": "tokens",
        },
        "order statistics",
        _SECTIONS,
        "Asmussen and Glynn, Stochastic Simulation (2007), chapter III",
    ),
    "length_fits": TableOf(
        "families fitted to lengths of 1 or more, best first",
        {
            "column": "name",
            "of": "name",
            "family": "name",
            "parameters": "by name",
            "distance": "1",
            "aic_above_best": "1",
        },
        "maximum likelihood on all values; KS distance. `zipf` is of whole numbers from 1 to the"
        " longest; `lognormal+pareto` is a log-normal body cut"
        " where the power-law tail begins; `mixture` is of log-normals",
    ),
    "length_parts": TableOf(
        "parts of the best mixture of log-normals",
        {"column": "name", "of": "name", "share": "share", "median": "tokens", "sigma": "1"},
        "EM, number by BIC",
        source="McLachlan and Peel, Finite Mixture Models (2000)",
    ),
    "length_atoms": TableOf(
        "lengths that more than a hundredth of the calls have: limits, templates",
        {"column": "name", "tokens": "tokens", "share": "share"},
        "count",
    ),
    "length_ccdf": TableOf(
        "share of calls longer than a length",
        {"column": "name", "of": "name", "tokens": "tokens", "share_above": "share"},
        "count",
    ),
    "length_drift": TableOf(
        "lengths in equal stretches of time that hold 29 calls or more; t_s is their mean arrival",
        {"column": "name", "t_s": "s", "calls": "calls", "p50": "tokens", "p90": "tokens"},
        "order statistics of the stretch",
    ),
}
COLUMNS = ("input_tokens", "output_tokens")


def found(demand: Demand, findings: Findings) -> None:
    """Describe the lengths of prompts and answers."""
    histograms = demand.trace.tables.get("client_lengths")
    if histograms is not None:
        _of_histograms(histograms, demand.trace.tables["client_windows"], findings)
        return
    calls = demand.calls
    quantiles, fits, parts, ccdfs, atoms = [], [], [], [], []
    for column in COLUMNS:
        if column not in calls.columns or not calls[column].count():
            findings.leave_out(column, "no call has them")
            continue
        for name, group in groups(demand):
            sample = sample_of(group[column], group["section"])
            if not len(sample):
                continue
            whole = _subject(column, name)
            if not name:
                findings.keep(column, sample)
            quantiles += _quantiles(sample, column, name)
            ccdfs += _ccdf(sample, column, name)
            findings.say("mean_tokens", of_mean(sample) or sample.mean(), of=whole, n=len(sample))
            mean, deviation = sample.mean(), sample.std(of_sample=True)
            findings.say("cv_tokens", deviation / mean if deviation and mean else None, of=whole)
            findings.say("max_tokens", sample.max(), of=whole)
            made = _shape(sample, column, name, findings)
            fits += made[0]
            parts += made[1]
        atoms += _atoms(calls[column], column)
    made_of = {
        "length_quantiles": quantiles,
        "length_fits": fits,
        "length_parts": parts,
        "length_atoms": atoms,
        "length_ccdf": ccdfs,
    }
    _frames(findings, made_of)
    _drift(demand, findings)


def _subject(column: str, name: str) -> str:
    return f"{column}, {name}" if name else column


def _of_histograms(histograms: pl.LazyFrame, windows: pl.LazyFrame, findings: Findings) -> None:
    """Describe lengths of which a source has only histograms of clients (ServeGen).

    Each histogram counts by the calls that its client made in its window; those of a client whose
    rates are not known count for nothing. Pools stand apart, for they are different services.
    """
    held = histograms.collect().filter(pl.col("field").str.ends_with("_tokens"))
    if held.is_empty():
        findings.leave_out("lengths", "no client has a file of lengths")
        return
    long = pl.col("window_start_s") - pl.col("window_start_s") % held["window_s"][0]
    made = (
        windows.group_by("client_id", long)
        .agg(calls=(pl.col("rate_rps") * pl.col("window_s")).sum())
        .collect()
    )
    weighed = by_pool(held.join(made, on=["client_id", "window_start_s"]))
    sums = (
        weighed.group_by("pool", "field", "value")
        .agg(weight=(pl.col("probability") * pl.col("calls")).sum())
        .filter(pl.col("weight") > 0)
        .sort("pool", "field", "value")
    )
    quantiles, ccdfs = [], []
    for (pool, field), group in sums.group_by("pool", "field", maintain_order=True):
        # whole calls: the weights are sums of shares of them
        weight = np.maximum(group["weight"].round().cast(pl.Int64).to_numpy(), 1)
        sample = Sample.of(group["value"].to_numpy(), weights=weight)
        name, column = str(pool), str(field)
        findings.say("mean_tokens", sample.mean(), of=_subject(column, name), n=len(sample))
        findings.say("max_tokens", sample.max(), of=_subject(column, name))
        quantiles += _quantiles(sample, column, name)
        ccdfs += _ccdf(sample, column, name)
    _frames(findings, {"length_quantiles": quantiles, "length_ccdf": ccdfs})
    findings.leave_out("intervals and families of lengths", "only histograms of clients are known")


def _frames(findings: Findings, tables: dict[str, list[dict[str, object]]]) -> None:
    for name, rows in tables.items():
        if rows:
            findings.table(name, pl.DataFrame(rows, infer_schema_length=None))


def groups(demand: Demand) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield all calls as "", those that did not fail, and those of each model and each class.

    Each has its lengths and the `section` of time it stands in, of SECTIONS. Failed calls stand in
    no group but the first. Of more than eight models or classes the largest stand alone.
    """
    kept = [c for c in (*COLUMNS, "model", "call_class") if c in demand.columns]
    calls = demand.calls.select(
        *kept, section=(pl.int_range(pl.len()) * SECTIONS // pl.len()).cast(pl.Int8)
    )
    yield "", calls
    failed = demand.failed
    if failed is not None and failed.any():
        calls = calls.filter(~failed.fill_null(False))
        yield "answered", calls
    for column, word in (("model", "model"), ("call_class", "class")):
        if column not in calls.columns:
            continue
        sizes = calls[column].drop_nulls().value_counts(sort=True)
        if sizes.height < 2:
            continue
        for value in sizes[column].head(_MOST_GROUPS).cast(pl.String):
            yield f"{word} {value}", calls.filter(pl.col(column) == value)


def sample_of(values: pl.Series, section: pl.Series) -> Sample:
    """Return token counts as distinct values with weights, by section of time."""
    known = values.is_not_null()
    number = values.filter(known).to_numpy().astype(np.int64)
    if not len(number):
        return Sample.of([])
    key = number * SECTIONS + section.filter(known).to_numpy()
    keys, weights = _counted(key)
    return Sample.of(keys // SECTIONS, keys % SECTIONS, SECTIONS, weights)


def _counted(values: Ints) -> tuple[Ints, Ints]:
    """Return distinct values and how often each is there."""
    if len(values) and values.max() < 20 * len(values) + 1_000_000:
        held = np.bincount(values)
        keys = np.flatnonzero(held)
        return keys, held[keys]
    return np.unique(values, return_counts=True)


def _quantiles(sample: Sample, column: str, name: str) -> list[dict[str, object]]:
    intervals = of_quantiles(sample, QUANTILES)
    rows = []
    for q, interval in zip(QUANTILES, intervals, strict=True):
        value = bounded(sample, q)
        rows.append(
            {
                "column": column,
                "of": name,
                "calls": len(sample),
                "quantile": q,
                "tokens": value,
                "low": interval.low if interval else None,
                "high": interval.high if interval else None,
            }
        )
    return rows


def _ccdf(sample: Sample, column: str, name: str) -> list[dict[str, object]]:
    values, place = np.unique(sample.values, return_inverse=True)
    weights = np.bincount(place, sample.weights)
    above = 1 - np.cumsum(weights) / weights.sum()
    if len(values) > 150:
        at = np.unique(np.searchsorted(-above, -np.concatenate(
            [np.linspace(0.99, 0.02, 80), np.geomspace(0.02, 1 / weights.sum(), 50)]
        )))  # fmt: skip
        at = np.unique(np.concatenate([[0], np.minimum(at, len(values) - 1)]))
        values, above = values[at], above[at]
    return [
        {"column": column, "of": name, "tokens": float(x), "share_above": float(share)}
        for x, share in zip(values, above, strict=True)
    ]


def distinct(sample: Sample) -> tuple[Floats, Floats]:
    """Return the distinct values above 0, ascending, and how often each is there."""
    values, place = np.unique(sample.values, return_inverse=True)
    weights = np.bincount(place, sample.weights).astype(np.float64)
    above = values > 0
    return values[above], weights[above]


def _shape(
    sample: Sample, column: str, name: str, findings: Findings
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Fit body, tail and humps of one group."""
    values, weights = distinct(sample)
    whole = _subject(column, name)
    if weights.sum() < _FEWEST or len(values) < 5:
        why = "all lengths are nearly alike" if len(values) < 5 else f"under {_FEWEST} calls"
        findings.leave_out(f"families of {whole}", why)
        return [], []
    made = [
        (fit.family, fit.parameters, fit.distance, fit.aic)
        for fit in goodness.fits(values, _FAMILIES, weights=weights)
    ]
    whole_numbers = bool((values % 1 == 0).all()) and values[-1] <= _ZIPF_UPTO
    if whole_numbers:
        exponent, apart, aic = tails.zipf_values(values, weights)
        made.append(("zipf", {"exponent": exponent}, apart, aic))
    tail = tails.power_law(values, weights, None if name else np.random.default_rng(SEED))
    if tail:
        steep = tail.exponent.estimate if name else tail.exponent
        findings.say("tail_exponent", steep, of=whole, n=int(tail.values))
        findings.say("tail_share", tail.share, of=whole)
        findings.say("tail_against_lognormal_z", tail.lognormal_z, of=whole)
        both = tails.spliced(values, weights, tail)
        if both:
            parameters = {
                "mu": both.mu,
                "sigma": both.sigma,
                "threshold": both.threshold,
                "exponent": both.exponent,
                "tail_share": both.tail_share,
            }
            made.append(("lognormal+pareto", parameters, both.distance, both.aic))
    mixed = mixtures.fit(values, weights)
    parts = []
    if mixed:
        best = mixed[0]
        count = 3 * len(best.shares) - 1
        parameters = {
            f"{key}{k}": value
            for k in range(len(best.shares))
            for key, value in zip(
                ("share", "mu", "sigma"),
                (best.shares[k], best.mus[k], best.sigmas[k]),
                strict=True,
            )
        }
        aic = best.bic - count * float(np.log(weights.sum())) + 2 * count
        made.append(("mixture", parameters, best.distance, aic))
        findings.say("parts", len(best.shares), of=whole, n=int(weights.sum()))
        parts = [
            {"column": column, "of": name, "share": share, "median": median, "sigma": sigma}
            for share, median, sigma in zip(best.shares, best.medians, best.sigmas, strict=True)
        ]
    made.sort(key=lambda fit: fit[3])
    rows = [
        {
            "column": column,
            "of": name,
            "family": family,
            "parameters": written(parameters),
            "distance": float(apart),
            "aic_above_best": float(aic - made[0][3]),
        }
        for family, parameters, apart, aic in made
    ]
    return rows, parts


def _atoms(values: pl.Series, column: str) -> list[dict[str, object]]:
    counts = values.drop_nulls().value_counts(sort=True).head(10)
    total = values.count()
    return [
        {"column": column, "tokens": int(value), "share": count / total}
        for value, count in counts.iter_rows()
        if count / total >= _ATOM and count >= 10
    ]


def _drift(demand: Demand, findings: Findings) -> None:
    calls = demand.placed
    if calls.height < 200 or demand.span_s <= 0:
        findings.leave_out("drift of lengths", f"{calls.height} calls on one clock are too few")
        return
    rng = np.random.default_rng(SEED)
    tables = []
    for column in COLUMNS:
        if column not in calls.columns:
            continue
        over = quantiles_over(calls, "arrival_s", column, bins=demand.stretches(_PERIODS))
        tables.append(
            over.drop_nulls("p90").select(
                pl.lit(column).alias("column"), t_s="x", calls="n", p50="p50", p90="p90"
            )
        )
        known = calls[column].drop_nulls()
        apart, p = halves(known.to_numpy(), rng)
        findings.say("drift_ks", apart, of=column, n=len(known), p=p)
    if tables:
        findings.table("length_drift", pl.concat(tables))


def halves(values: Ints, rng: np.random.Generator, sections: int = 20) -> tuple[float, float]:
    """Return the KS distance of the two halves of values in order of time, and its p-value.

    Neighbours are alike, so not values but `sections` of them are permuted.
    """
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 257)[1:-1]))
    cell = np.searchsorted(edges, values, side="left")
    section = in_sections(len(values), sections)
    held = np.bincount(section * (len(edges) + 1) + cell, minlength=sections * (len(edges) + 1))
    return between(held.reshape(sections, -1).astype(np.float64), sections // 2, rng)


def between(held: Floats, first: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the KS distance of the first sections to the rest, and its p by permuting sections.

    `held` are counts in cells of ascending values, shape (sections, cells).
    """

    def apart(order: Ints) -> float:
        a, b = held[order[:first]].sum(axis=0), held[order[first:]].sum(axis=0)
        return float(np.abs(np.cumsum(a) / a.sum() - np.cumsum(b) / b.sum()).max())

    seen = apart(np.arange(len(held)))
    beyond = sum(apart(rng.permutation(len(held))) >= seen - 1e-12 for _ in range(_SHUFFLES))
    return seen, (beyond + 1) / (_SHUFFLES + 1)
