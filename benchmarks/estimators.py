"""How far off estimators are, how often their intervals hold the truth, how often tests cry wolf.

    python benchmarks/estimators.py [--replicates 400] [--only fgn]

Every replicate is drawn from a law whose truth is known; where theory gives none, it is that of one
run a thousand times as long. Goals: 93 to 97 % coverage of nominal 95 %, 4 to 6 % size at 5 %.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing import get_context

import numpy as np
import polars as pl
from scipy import stats

from servescope.analysis import copulas, dispersion, memory, poisson_tests, tails
from servescope.analysis.arrivals import process
from servescope.analysis.aspects.lengths import SECTIONS, distinct, halves, sample_of
from servescope.analysis.families import FAMILIES
from servescope.analysis.goodness import bootstrap_p
from servescope.analysis.intervals import of_mean, of_quantiles
from servescope.analysis.rescaling import rescaled

ARRIVALS = {
    "Poisson": ("poisson", {"rate_rps": 5.0}),
    "Gamma renewal, CV 2": ("gamma", {"rate_rps": 5.0, "burstiness": 0.25}),
    "MMPP": ("mmpp", {"rates_rps": (20.0, 1.0), "hold_s": (5.0, 15.0)}),
}
CALLS = 20_000
SCALES = (0.8, 12.8, 102.4)
PARAMETERS = {
    "exponential": [2.0],
    "gamma": [0.4, 3.0],
    "weibull": [0.6, 2.0],
    "lognormal": [1.0, 1.4],
    "pareto": [1.5, 2.0],
    "loglogistic": [2.0, 1.7],
    "inverse_gaussian": [2.0, 3.0],
    "power_law": [1.3, 2.0],
}
_TRUTHS: dict[tuple[str, str], float] = {}


def drawn(name: str, rng: np.random.Generator, calls: int) -> np.ndarray:
    kind, parameters = ARRIVALS[name]
    return process(kind, **parameters).sample(rng, count=calls)


def truth(name: str, what: str) -> float:
    """Return a truth: of a Poisson process 1, of others that of a run of ten million calls."""
    if name == "Poisson":
        return 1.0
    if (name, what) not in _TRUTHS:
        at = drawn(name, np.random.default_rng(12345), 10_000_000)
        gaps = np.diff(at)
        _TRUTHS[name, "CV of gaps"] = float(gaps.std() / gaps.mean())
        table = dispersion.of_counts(at, 0.1)
        for scale in SCALES:
            row = table.filter((pl.col("scale_s") - scale).abs() < 1e-9).row(0, named=True)
            _TRUTHS[name, f"index of dispersion, {scale:g} s"] = row["idc"]
            _TRUTHS[name, f"Allan factor, {scale:g} s"] = row["allan"]
    return _TRUTHS[name, what]


def arrivals(seed: int) -> Iterator[tuple[str, str, float, float, float, float]]:
    for number, name in enumerate(ARRIVALS):
        at = drawn(name, np.random.default_rng((seed, number)), CALLS)
        cv = dispersion.cv_of(np.diff(at))
        yield name, "CV of gaps", truth(name, "CV of gaps"), cv.estimate, cv.low, cv.high
        table = dispersion.of_counts(at, 0.1)
        for scale in SCALES:
            row = table.filter((pl.col("scale_s") - scale).abs() < 1e-9).row(0, named=True)
            for key, word in (("idc", "index of dispersion"), ("allan", "Allan factor")):
                what = f"{word}, {scale:g} s"
                ends = (row[f"{key}_low"], row[f"{key}_high"])
                yield name, what, truth(name, what), row[key], *ends


def fgn(seed: int) -> Iterator[tuple[str, str, float, float, float, float]]:
    for h in (0.5, 0.6, 0.75, 0.9):
        rng = np.random.default_rng((seed, int(100 * h)))
        series = memory.fractional_noise(rng, h, 4096)[0]
        for each in memory.hurst(series, rng):
            name = f"fractional noise, H = {h:g}"
            yield name, f"Hurst, {each.estimator}", h, each.h.estimate, each.h.low, each.h.high


def lengths(seed: int) -> Iterator[tuple[str, str, float, float, float, float]]:
    rng = np.random.default_rng((seed, 7))
    n = 5000
    section = pl.Series(np.arange(n) * SECTIONS // n)
    mu, sigma = 6.0, 1.0
    values = pl.Series(np.rint(rng.lognormal(mu, sigma, n)).astype(np.int64))
    sample = sample_of(values, section)
    mean = of_mean(sample)
    true_mean = math.exp(mu + sigma**2 / 2)
    yield "log-normal lengths", "mean", true_mean, mean.estimate, mean.low, mean.high
    for q, found in zip((0.5, 0.9, 0.99), of_quantiles(sample, (0.5, 0.9, 0.99)), strict=True):
        # of whole tokens the quantile is one of them
        true = round(math.exp(mu + sigma * stats.norm.ppf(q)))
        yield "log-normal lengths", f"p{100 * q:g}", true, found.estimate, found.low, found.high
    threshold, exponent, share = 800.0, 1.6, 0.08
    tail = threshold * (1 - rng.random(int(share * 20_000))) ** (-1 / exponent)
    body = rng.lognormal(5, 0.8, 40_000)
    body = body[body < threshold][: 20_000 - len(tail)]
    both = pl.Series(np.rint(rng.permutation(np.concatenate([body, tail]))).astype(np.int64))
    together = distinct(sample_of(both, pl.Series(np.zeros(len(both), int))))
    spliced = tails.power_law(*together, rng)
    e = spliced.exponent
    yield "spliced lengths", "tail exponent", exponent, e.estimate, e.low, e.high


def copula(seed: int) -> Iterator[tuple[str, str, float, float, float, float]]:
    for r in (0.0, 0.3, 0.8):
        rng = np.random.default_rng((seed, int(10 * r) + 90))
        z = rng.multivariate_normal([0, 0], [[1, r], [r, 1]], 5000)
        u, v = (copulas.mid_ranks(np.rint(np.exp(6 + z[:, k])).astype(np.int64)) for k in (0, 1))
        found = copulas.correlation(u, v)
        true = 6 / math.pi * math.asin(r / 2)
        name = f"Gaussian copula, r = {r:g}"
        yield name, "Spearman's rank correlation", true, found.estimate, found.low, found.high


def sizes(seed: int) -> Iterator[tuple[str, float]]:
    rng = np.random.default_rng((seed, 55))
    for name, family in FAMILIES.items():
        drawn_from = family.sample(rng, np.array(PARAMETERS[name]), 500)
        yield f"KS of a fitted {name}, refitted draws", bootstrap_p(drawn_from, family, rng)
        ranked = np.sort(drawn_from)
        p = family.fit(ranked)
        naive = stats.kstest(ranked, lambda x, family=family, p=p: family.cdf(x, p)).pvalue
        yield f"KS of a fitted {name}, naive", float(naive)
    at = drawn("Poisson", rng, 5000)
    table = poisson_tests.dyadic(at, 0.1)
    for scale in (0.1, 1.6, 12.8):
        row = table.filter((pl.col("scale_s") - scale).abs() < 1e-9).row(0, named=True)
        yield f"Poisson split at {scale:g} s, z", float(2 * stats.norm.sf(abs(row["z"])))
        yield f"Poisson split at {scale:g} s, likelihood ratio", row["p_value"]
    for family in ("exponential", "gamma"):
        gaps = FAMILIES[family].sample(
            rng, np.array([0.2] if family == "exponential" else [0.5, 0.4]), 2000
        )
        found = rescaled(np.cumsum(gaps), 60.0, family, rng)
        yield f"time-rescaled {family} renewal", found.p_value
        yield f"time-rescaled {family} renewal, neighbours", found.serial_p
    values = np.rint(rng.lognormal(5, 1, 5000)).astype(np.int64)
    yield "drift of lengths", halves(values, rng)[1]
    noise = memory.fractional_noise(rng, 0.5, 2048)[0]
    yield "memory against shuffles", memory.shuffled_p(noise, rng)


CASES = {"arrivals": arrivals, "fgn": fgn, "lengths": lengths, "copula": copula}


def one(job: tuple[str, int]) -> tuple[str, list[tuple]]:
    kind, seed = job
    with np.errstate(all="ignore"):
        return kind, list((CASES | {"sizes": sizes})[kind](seed))


def know(truths: dict[tuple[str, str], float]) -> None:
    _TRUTHS.update(truths)


def main(replicates: int, only: str | None) -> None:
    kinds = [only] if only else [*CASES, "sizes"]
    jobs = [(kind, seed) for kind in kinds for seed in range(replicates)]
    held: dict[tuple[str, str], list[tuple[float, float, float, float]]] = defaultdict(list)
    p_values: dict[str, list[float]] = defaultdict(list)
    if "arrivals" in kinds:
        for name in ARRIVALS:
            truth(name, "CV of gaps")  # once, for all workers
    # polars has threads, which no fork survives
    with get_context("spawn").Pool(initializer=know, initargs=(_TRUTHS,)) as pool:
        for kind, rows in pool.imap_unordered(one, jobs, chunksize=4):
            for row in rows:
                if kind == "sizes":
                    p_values[row[0]].append(row[1])
                else:
                    held[row[0], row[1]].append(row[2:])
    if held:
        print("| drawn from | estimate | truth | bias | coverage of 95 % |\n|---|---|--:|--:|--:|")
        for (law, what), values in held.items():
            true, estimate, low, high = np.array(values, np.float64).T
            bias = estimate.mean() - true[0]
            said = f"{bias / true[0]:+.1%}" if true[0] else f"{bias:+.3f}"
            inside = ((low <= true) & (true <= high)).mean()
            print(f"| {law} | {what} | {true[0]:.4g} | {said} | {inside:.1%} |")
    if p_values:
        print("\n| test, the null being true | rejected at 5 % |\n|---|--:|")
        for what, values in p_values.items():
            print(f"| {what} | {np.mean(np.array(values) <= 0.05):.1%} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=400)
    parser.add_argument("--only", choices=[*CASES, "sizes"])
    given = parser.parse_args()
    main(given.replicates, given.only)
