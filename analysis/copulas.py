"""How the length of an answer depends on that of its prompt, whatever the lengths are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import polars as pl
from scipy import optimize, special, stats

from servescope.analysis.intervals import Interval, of_sums
from servescope.analysis.sample import Floats, Ints, in_sections, sums_in

SECTIONS = 20
MOST = 20_000  # pairs of which more are thinned, evenly, for Kendall's tau and the copulas


@dataclass(frozen=True, slots=True)
class Copula:
    """A fitted copula: its parameter, the rank correlation it means, tails that go together, AIC.

    `lower` and `upper` are the chances that one is extreme given that the other is.
    """

    family: str
    parameter: float
    tau: float
    lower: float
    upper: float
    aic: float


def mid_ranks(values: Ints) -> Floats:
    """Return ranks in (0, 1), ties sharing their middle: shape (n,)."""
    whole = np.issubdtype(values.dtype, np.integer)
    if whole and len(values) and values.min() >= 0 and values.max() < 4 * len(values) + 100_000:
        place, counts = values, np.bincount(values)  # far faster than a sort
    else:
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    upto = np.cumsum(counts)
    return ((upto - (counts - 1) / 2.0 - 0.5) / len(values))[place]


def correlation(x: Floats, y: Floats) -> Interval | None:
    """Return the linear correlation of values in order of time, with its interval over sections.

    Of mid-ranks that is Spearman's. None of constant values.
    """
    if len(x) < 2 or not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return None
    many = min(SECTIONS, len(x))
    section = in_sections(len(x), many)
    a, b = x - x.mean(), y - y.mean()
    sums = sums_in(section, many, np.ones(len(x)), a, b, a * a, b * b, a * b)
    return of_sums(sums, _correlation, "fisher")


def _correlation(sums: Floats) -> Floats:
    n, a, b, aa, bb, ab = (sums[..., i] for i in range(6))
    return np.asarray(
        (ab / n - a * b / n**2) / np.sqrt((aa / n - (a / n) ** 2) * (bb / n - (b / n) ** 2))
    )


def thinned(*columns: Floats) -> tuple[Floats, ...]:
    """Return at most MOST rows of columns, evenly spread."""
    count = len(columns[0])
    if count <= MOST:
        return columns
    at = np.linspace(0, count - 1, MOST).astype(np.int64)
    return tuple(column[at] for column in columns)


def fit(u: Floats, v: Floats) -> list[Copula]:
    """Fit five copulas to mid-ranks by maximum likelihood, best by AIC first.

    Gaussian, Student's t of 4 degrees, Clayton, Gumbel and Frank, beside independence; a family
    that only knows positive dependence is left out where there is none. At most MOST pairs are
    looked at.
    """
    u, v = thinned(np.clip(u, 1e-6, 1 - 1e-6), np.clip(v, 1e-6, 1 - 1e-6))
    made = [Copula("independence", 0.0, 0.0, 0.0, 0.0, 0.0)]
    for name, (density, bounds, tau, tails) in _COPULAS.items():
        with np.errstate(all="ignore"):
            loss_of = partial(_loss, density, u, v)
            found = optimize.minimize_scalar(loss_of, bounds=bounds, method="bounded")
            parameter, loss = float(found.x), float(found.fun)
            if loss < 0 or name in ("gaussian", "t4", "frank"):
                made.append(
                    Copula(name, parameter, tau(parameter), *tails(parameter), 2 + 2 * loss)
                )
    return sorted(made, key=lambda copula: copula.aic)


def _loss(
    log_density: Callable[[Floats, Floats, float], Floats], u: Floats, v: Floats, parameter: float
) -> float:
    total = -float(log_density(u, v, parameter).sum())
    return total if math.isfinite(total) else 1e300


def _gaussian(u: Floats, v: Floats, r: float) -> Floats:
    x, y = special.ndtri(u), special.ndtri(v)
    return np.asarray(
        -0.5 * math.log(1 - r * r) - (r * r * (x * x + y * y) - 2 * r * x * y) / (2 * (1 - r * r))
    )


def _student(u: Floats, v: Floats, r: float) -> Floats:
    df = 4.0
    x, y = special.stdtrit(df, u), special.stdtrit(df, v)
    joint = -(df + 2) / 2 * np.log1p((x * x + y * y - 2 * r * x * y) / (df * (1 - r * r)))
    alone = -(df + 1) / 2 * (np.log1p(x * x / df) + np.log1p(y * y / df))
    constant = (
        special.gammaln((df + 2) / 2)
        + special.gammaln(df / 2)
        - 2 * special.gammaln((df + 1) / 2)
        - 0.5 * math.log(1 - r * r)
    )
    return np.asarray(joint - alone + constant)


def _clayton(u: Floats, v: Floats, p: float) -> Floats:
    return np.asarray(
        math.log1p(p) - (p + 1) * (np.log(u) + np.log(v)) - (2 + 1 / p) * np.log(u**-p + v**-p - 1)
    )


def _gumbel(u: Floats, v: Floats, p: float) -> Floats:
    x, y = -np.log(u), -np.log(v)
    s = x**p + y**p
    root = s ** (1 / p)
    return np.asarray(
        -root + x + y + (p - 1) * (np.log(x) + np.log(y)) + (1 / p - 2) * np.log(s)
        + np.log(root + p - 1)
    )  # fmt: skip


def _frank(u: Floats, v: Floats, p: float) -> Floats:
    if abs(p) < 1e-6:
        return np.zeros(len(u))
    full = -np.expm1(-p)
    below = full - np.expm1(-p * u) * np.expm1(-p * v)
    return np.asarray(np.log(abs(p * full)) - p * (u + v) - 2 * np.log(np.abs(below)))


def _tau_of_elliptic(r: float) -> float:
    return 2 / math.pi * math.asin(r)


def _tau_of_frank(p: float) -> float:
    if abs(p) < 1e-6:
        return 0.0
    from scipy import integrate

    debye, _ = integrate.quad(lambda t: t / math.expm1(t) if t else 1.0, 0, p)
    return 1 - 4 / p * (1 - debye / p)


def _both(r: float) -> tuple[float, float]:
    tail = 2 * float(stats.t.cdf(-math.sqrt(5 * (1 - r) / (1 + r)), 5))
    return tail, tail


# Log density, bounds of the parameter, Kendall's tau and tail dependence it means.
_COPULAS: Final[
    dict[
        str,
        tuple[
            Callable[[Floats, Floats, float], Floats],
            tuple[float, float],
            Callable[[float], float],
            Callable[[float], tuple[float, float]],
        ],
    ]
] = {
    "gaussian": (_gaussian, (-0.999, 0.999), _tau_of_elliptic, lambda r: (0.0, 0.0)),
    "t4": (_student, (-0.999, 0.999), _tau_of_elliptic, _both),
    "clayton": (_clayton, (1e-3, 30.0), lambda p: p / (p + 2), lambda p: (2 ** (-1 / p), 0.0)),
    "gumbel": (_gumbel, (1.0005, 30.0), lambda p: 1 - 1 / p, lambda p: (0.0, 2 - 2 ** (1 / p))),
    "frank": (_frank, (-40.0, 40.0), _tau_of_frank, lambda p: (0.0, 0.0)),
}


def conditional(inputs: Ints, outputs: Ints, groups: int = 10) -> pl.DataFrame:
    """Return quantiles of answers given the length of the prompt, in groups of as many calls.

    Columns: input_from, input_to, calls, mean, p10, p50, p90; equal prompts are in one group.
    """
    frame = pl.DataFrame({"x": inputs, "y": outputs})
    shares = np.linspace(0, 1, groups + 1)[1:-1]
    edges = sorted(set(np.quantile(inputs, shares, method="inverted_cdf").tolist()))
    return (
        frame.with_columns(
            pl.lit(np.searchsorted(np.array(edges), inputs, side="left")).alias("group")
        )
        .group_by("group")
        .agg(
            input_from=pl.col("x").min(),
            input_to=pl.col("x").max(),
            calls=pl.len(),
            mean=pl.col("y").mean(),
            **{f"p{q}": pl.col("y").quantile(q / 100, "equiprobable") for q in (10, 50, 90)},
        )
        .sort("group")
        .drop("group")
    )
