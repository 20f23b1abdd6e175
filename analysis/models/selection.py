"""Which arrival shape a trace has: by what it says of arrivals that it was not fitted to.

The rates of the windows are given to all, so that shapes are judged and not rates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from scipy import special

from servescope.analysis.goodness import ks
from servescope.analysis.models.cascade import Cascade
from servescope.analysis.models.quantiles import rounded
from servescope.analysis.models.renewal import Poisson, Renewal
from servescope.analysis.models.shapes import SHAPES, AnyShape, Fit
from servescope.analysis.models.stretches import FEWEST, WINDOW_S, wide_enough
from servescope.analysis.sample import Floats, Ints
from servescope.traces.errors import InputError

FOLDS = 3
RESAMPLES = 99
LEVEL = 0.05  # at and below which a shape is rejected
_NEARLY = 0.1  # of the best gain over Poisson: what is behind by less is as good
_FEWEST_WINDOWS = 12  # that the span is cut into
_SCORED = 20_000  # arrivals that a score looks at
_TESTED = 2_000  # and a test of goodness of fit
_TESTED_WINDOWS = 24
_SAME = 1e-6  # of the mean gap: gaps that differ by less are alike


@dataclass(frozen=True)
class Choice:
    """The shape that was chosen, why, and how all candidates did.

    `table` has a row a candidate, the best first: family, parameters, aic and bic (in sample),
    score (nats an arrival, held out), gain over Poisson with low and high (95 %, from the windows),
    p_value of the goodness of fit, and a verdict in words. What could not be fitted or was not
    tested has nulls. `doubt` says what speaks against the choice, if anything does.
    """

    family: str
    shape: AnyShape
    reason: str
    doubt: str | None
    table: pl.DataFrame

    @property
    def tried(self) -> bool:
        """Whether shapes were fitted at all; if not, there was too little to fit them to."""
        return self.table.height > 1


@dataclass(frozen=True)
class _Judged:
    """A candidate, fitted to all arrivals, and the log-likelihood of each held-out window."""

    family: str
    shape: AnyShape
    scores: Floats
    aic: float
    bic: float

    def total(self) -> float:
        return float(self.scores.sum()) if np.isfinite(self.scores).all() else -math.inf


@dataclass(frozen=True)
class _Windows:
    """Equal windows, as bounds of the arrivals in each: `upto` has an entry more than windows."""

    arrivals: Floats
    width_s: float
    upto: Ints

    @classmethod
    def of(cls, arrivals: Floats, span_s: float, window_s: float) -> _Windows:
        """Cut the span into windows of `window_s`.

        They are longer if they would hold too few arrivals, and shorter if they would be too few.
        """
        width_s = min(wide_enough(arrivals, span_s, window_s), span_s / _FEWEST_WINDOWS)
        # six digits, never more than there is
        width_s = rounded(width_s) if rounded(width_s) <= width_s else rounded(width_s * (1 - 2e-6))
        edges = np.arange(int(span_s / width_s + 1e-9) + 1) * width_s
        return cls(arrivals, width_s, np.searchsorted(arrivals, edges))

    def __len__(self) -> int:
        return len(self.upto) - 1

    def counts(self) -> Ints:
        return np.diff(self.upto)

    def at(self, window: int) -> Floats:
        """Return the arrivals of a window, from its begin."""
        within = self.arrivals[self.upto[window] : self.upto[window + 1]] - window * self.width_s
        return np.clip(within, 0.0, np.nextafter(self.width_s, 0))

    def joined(self, windows: Ints) -> tuple[Floats, float]:
        """Return the arrivals of windows as if these followed each other, and their span."""
        parts = [self.at(window) + k * self.width_s for k, window in enumerate(windows.tolist())]
        return np.concatenate(parts) if parts else np.empty(0), len(windows) * self.width_s

    def spread(self, windows: Ints, most: int) -> Ints:
        """Return windows with arrivals, evenly spread, that hold about `most` of them at most."""
        counts = self.counts()[windows]
        held = windows[counts > 0]
        if not len(held) or counts.sum() <= most:
            return held
        keep = max(1, int(len(held) * most / counts.sum()))
        return held[np.linspace(0, len(held) - 1, keep).astype(np.int64)]

    def score(self, shape: AnyShape, windows: Ints) -> Floats:
        """Return the log-likelihood of each window at its own rate."""
        return np.array(
            [
                shape.log_score(at, self.width_s, len(at) / self.width_s)
                for at in map(self.at, windows.tolist())
            ]
        )


def choose(
    arrivals: Floats,
    span_s: float,
    candidates: Mapping[str, Fit] = SHAPES,
    seed: int = 0,
    *,
    window_s: float = WINDOW_S,
    folds: int = FOLDS,
    resamples: int = RESAMPLES,
    test_all: bool = False,
) -> Choice:
    """Choose the shape of arrivals: sorted times (s) in [0, span_s), without ticks.

    Each candidate is fitted to the first half of the windows and scored on the next ones, then to
    more and scored on those after, `folds` times. The best score counts among the shapes that
    `goodness` does not reject. As good as it are those within one standard error of it, and those
    that gain nearly as much over Poisson. If Poisson is one of them, it wins, for there is nothing
    to model; else the cascade does, which alone keeps to the counts of windows and matches the
    dispersion of counts at all scales, on which queues depend. Only shapes that may win are tested,
    unless `test_all`; without `resamples` none is, and the best score wins. Too few or constant
    arrivals get the simplest shape, with the reason.
    """
    simple = _simplest(arrivals, span_s)
    if simple is not None:
        return simple
    cut = _Windows.of(arrivals, span_s, window_s)
    judged: list[_Judged] = []
    failed: dict[str, str] = {}
    for family, fit in candidates.items():
        try:
            shape = fit(arrivals, span_s, cut.width_s)
            judged.append(
                _Judged(family, shape, _held_out(fit, cut, folds), *_in_sample(shape, cut))
            )
        except InputError as error:
            failed[family] = str(error)
    judged.sort(key=_Judged.total, reverse=True)
    tested: dict[str, float] = {}

    def passes(each: _Judged) -> bool:
        if resamples and each.family not in tested:
            rng = np.random.default_rng((seed, list(candidates).index(each.family)))
            tested[each.family] = _goodness(candidates[each.family], cut, rng, resamples)
        return tested.get(each.family, 1.0) > LEVEL

    if test_all:
        for each in judged:
            passes(each)
    poisson = _poisson(cut, folds)
    best = next(filter(passes, judged), None)
    chosen = best
    if best is not None:
        near = {each.family: each for each in judged if _as_good(each, best, poisson)}
        for family in (poisson.family, "cascade"):
            if resamples and family in near and passes(near[family]):
                chosen = near[family]
                break
    return _choice(cut, judged, failed, tested, best, chosen, folds)


def _poisson(cut: _Windows, folds: int) -> _Judged:
    return _Judged("poisson", Poisson(), _held_out(Poisson.fit, cut, folds), 0.0, 0.0)


def _as_good(one: _Judged, best: _Judged, poisson: _Judged) -> bool:
    """Say whether a shape predicts about as well as the best one."""
    behind, error = _difference(best, one)
    return behind <= max(error, _NEARLY * _difference(best, poisson)[0])


def _simplest(arrivals: Floats, span_s: float) -> Choice | None:
    """Return what is chosen of arrivals that say too little, if they do."""
    gaps = np.diff(arrivals)
    shape: AnyShape = Poisson()
    family = "poisson"
    if len(arrivals) < 2 * FEWEST:
        reason = (
            f"{len(arrivals)} arrivals are too few to fit shapes and to judge them by others: "
            f"{2 * FEWEST} are needed"
        )
    elif not arrivals[-1] > arrivals[0] or not span_s > 0:
        reason = "all arrivals come at one instant, which says nothing of their gaps"
    elif np.ptp(gaps) <= _SAME * gaps.mean():
        family, shape = "gamma renewal", Renewal(gaps="gamma", shape=1e4)
        reason = "all gaps are alike: they are drawn with a CV of 1 %"
    else:
        return None
    row = {"family": family, "parameters": shape.parameters, "verdict": f"chosen: {reason}"}
    return Choice(family, shape, reason, "No other shape was tried.", _table([row]))


def _folds(cut: _Windows, folds: int) -> list[tuple[int, Ints]]:
    """Return how many windows each fold fits, and the windows after them that it scores."""
    ends = np.linspace(len(cut) // 2, len(cut), folds + 1).astype(np.int64).tolist()
    return [
        (begin, cut.spread(np.arange(begin, end), _SCORED // folds))
        for begin, end in pairwise(ends)
    ]


def _held_out(fit: Fit, cut: _Windows, folds: int) -> Floats:
    """Return the log-likelihood of every window that the folds score."""
    found = []
    for seen, after in _folds(cut, folds):
        shape = fit(cut.arrivals[: cut.upto[seen]], seen * cut.width_s, cut.width_s)
        found.append(cut.score(shape, after))
    return np.concatenate(found)


def _in_sample(shape: AnyShape, cut: _Windows) -> tuple[float, float]:
    """Return AIC and BIC; where not all windows are looked at, those stand for the rest."""
    windows = cut.spread(np.arange(len(cut)), _SCORED)
    seen, count = int(cut.counts()[windows].sum()), int(cut.upto[-1])
    score = float(cut.score(shape, windows).sum()) * count / max(seen, 1)
    many = shape.parameters
    return 2 * many - 2 * score, many * math.log(max(count, 1)) - 2 * score


def _difference(one: _Judged, other: _Judged) -> tuple[float, float]:
    """Return by how much the first scores better in all, and the standard error of that."""
    if not math.isfinite(other.total()):
        return math.inf, 0.0
    apart = one.scores - other.scores
    error = float(apart.std(ddof=1)) * math.sqrt(len(apart)) if len(apart) > 1 else 0.0
    return float(apart.sum()), error


def goodness(
    fit: Fit, arrivals: Floats, span_s: float, rng: np.random.Generator,
    window_s: float = WINDOW_S, resamples: int = RESAMPLES,
) -> float:  # fmt: skip
    """Return the p-value of a parametric bootstrap: whether a shape draws what other windows show.

    Some windows are set aside, with 2,000 arrivals at most; the shape is fitted to the others and
    draws those again at their rates, `resamples` times. So no draw needs a fit of its own: what is
    tested was not fitted. Two statistics are compared with those of the draws: the KS distance of
    gaps, over the mean gap of their window, to those of all draws; and how far the dispersion of
    counts is off that of the draws, in deviations at every octave. The smaller p counts twice.
    """
    return _goodness(fit, _Windows.of(arrivals, span_s, window_s), rng, resamples)


def _goodness(fit: Fit, cut: _Windows, rng: np.random.Generator, resamples: int) -> float:
    every = np.arange(len(cut))
    aside = cut.spread(every[1 :: max(2, len(cut) // _TESTED_WINDOWS)], _TESTED)
    shape = fit(*cut.joined(np.setdiff1d(every, aside)), cut.width_s)
    rates = cut.counts()[aside] / cut.width_s
    octaves = max(1, int(math.log2(max(2.0, 2 * float(rates.mean()) * cut.width_s))))
    drawn = [
        _statistics(_drawn(shape, rng, rates, cut.width_s), cut.width_s, octaves)
        for _ in range(resamples)
    ]
    seen = _statistics([cut.at(window) for window in aside], cut.width_s, octaves)
    pooled = np.sort(np.concatenate([gaps for gaps, _ in drawn]))
    apart = np.array([_distance(gaps, pooled) for gaps, _ in (seen, *drawn)])
    curves = np.array([curve for _, curve in (seen, *drawn)])
    deviations = np.maximum(curves[1:].std(axis=0), 1e-9)
    off = (((curves - curves[1:].mean(axis=0)) / deviations) ** 2).mean(axis=1)
    p = [(1 + (each[1:] >= each[0]).sum()) / (resamples + 1) for each in (apart, off)]
    return min(1.0, 2 * float(min(p)))


def _drawn(
    shape: AnyShape, rng: np.random.Generator, rates: Floats, width_s: float
) -> list[Floats]:
    """Draw windows of some rates; those of a cascade all at once, which is much faster."""
    if not isinstance(shape, Cascade):
        return [shape.sample(rng, rate, width_s) for rate in rates]
    keys = rng.integers(0, 2**64, len(rates), np.uint64)
    window, at = shape.placed(keys, rng.poisson(rates * width_s))
    return np.split(at, np.searchsorted(window, np.arange(1, len(rates))))


def _statistics(windows: list[Floats], width_s: float, octaves: int) -> tuple[Floats, Floats]:
    """Return gaps over their window's mean, and the log dispersion at each octave of its width.

    That is how much the counts of cells vary within windows, over what independent arrivals would.
    """
    gaps = np.concatenate([np.diff(at) * (len(at) / width_s) for at in windows])
    counts = np.array([len(at) for at in windows])
    window = np.repeat(np.arange(len(windows)), counts)
    place = np.concatenate(windows) / width_s
    curve = np.zeros(octaves)
    for octave in range(1, octaves + 1):
        cells = 2**octave
        cell = np.minimum((place * cells).astype(np.int64), cells - 1) + window * cells
        each = np.unique(cell, return_counts=True)[1].astype(np.float64)
        # of cells that hold nothing, too: the sum of squares less that of the mean
        squares = float(each @ each) - float((counts.astype(np.float64) ** 2).sum()) / cells
        curve[octave - 1] = math.log(max(squares, 1e-9) / max(counts.sum() * (1 - 1 / cells), 1.0))
    return np.sort(gaps), curve


def _distance(gaps: Floats, pooled: Floats) -> float:
    """Return the KS distance of gaps to a large sample of them."""
    if not len(gaps) or not len(pooled):
        return 1.0
    return float(ks(np.searchsorted(pooled, gaps) / len(pooled)))


def _choice(
    cut: _Windows,
    judged: list[_Judged],
    failed: dict[str, str],
    tested: dict[str, float],
    best: _Judged | None,
    chosen: _Judged | None,
    folds: int,
) -> Choice:
    """Put the choice and its reasons into words; without `best` all shapes were rejected."""
    rows: list[dict[str, object]] = []
    poisson = _poisson(cut, folds)
    number = sum(int(cut.counts()[after].sum()) for _, after in _folds(cut, folds))
    chosen = chosen or (judged[0] if judged else poisson)
    for each in judged:
        p = tested.get(each.family)
        behind = _difference(judged[0], each)[0] / number
        said = (
            "best held-out score" if each is judged[0] else f"{behind:.3g} nats an arrival behind"
        )
        if p is not None and p <= LEVEL:
            said += f"; rejected, p = {p:.2g}"
        gain, error = (value / number for value in _difference(each, poisson))
        reach = error * float(special.stdtrit(max(1, len(each.scores) - 1), 0.975))
        rows.append(
            {
                "family": each.family,
                "parameters": each.shape.parameters,
                "aic": each.aic,
                "bic": each.bic,
                "score": each.total() / number,
                "gain": gain,
                "gain_low": gain - reach,
                "gain_high": gain + reach,
                "p_value": p,
                "verdict": f"chosen: {said}" if each is chosen else said,
            }
        )
    rows += [
        {"family": family, "verdict": f"cannot be fitted: {why}"} for family, why in failed.items()
    ]
    doubt = None
    if not judged:
        reason = "no other shape can be fitted"
    elif best is None:
        reason = "it has the best held-out score"
        doubt = (
            f"Every shape is rejected (p = {tested[chosen.family]:.2g}): none draws what other "
            "windows show."
        )
    else:
        reason = "it has the best held-out score"
        if best is not judged[0]:
            reason += " of those that goodness of fit does not reject"
            doubt = f"{judged[0].family} has a better held-out score, but is rejected."
        if chosen is not best:
            reason = (
                f"it predicts about as well as {best.family}, which has the best held-out score"
            )
            reason += (
                ", and is simpler"
                if chosen.family == poisson.family
                else ", and keeps to the counts of windows and their dispersion at all scales"
            )
        if chosen.family not in tested:
            doubt = doubt or "Its goodness of fit was not tested."
    return Choice(chosen.family, chosen.shape, reason, doubt, _table(rows))


def _table(rows: list[dict[str, object]]) -> pl.DataFrame:
    schema = {
        "family": pl.String, "parameters": pl.Int64, "aic": pl.Float64, "bic": pl.Float64,
        "score": pl.Float64, "gain": pl.Float64, "gain_low": pl.Float64, "gain_high": pl.Float64,
        "p_value": pl.Float64, "verdict": pl.String,
    }  # fmt: skip
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
