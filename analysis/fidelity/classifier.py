"""Whether anything at all tells the traces apart: a classifier that looks at calls in a row."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from servescope.analysis.fidelity.scores import Found, LeftOut, Measure, Score
from servescope.analysis.fidelity.sides import Side
from servescope.analysis.sample import Floats, Ints

WINDOW = 32  # calls in a row
FOLDS = 5
_STRIDE = 8
_MOST = 2000  # windows of a side: of more calls the stride is longer
_FEWEST = 20  # windows that do not overlap
_QUANTILES = (0, 3, 8, 15, 23, 28, 31)  # of 32 values in order
_TRIED = 300  # windows whose nearest one is looked for
_MOST_NEAR = 20_000
_NEAR = 0.01

MEASURES = {
    "auc": Measure(
        "chance that a classifier ranks a synthetic window of 32 calls above a real one",
        "1",
        "mean area under the ROC curve over 5 stretches of time, each judged by boosted trees that"
        " learned from the other four: quantiles, means, spreads and correlations of log gaps,"
        " prompts and answers in the window. Interval: Student's t over the stretches",
        "classifier two-sample test: Lopez-Paz and Oquab, ICLR 2017",
        ideal=0.5,
        bar=0.53,
    ),
    "copies": Measure(
        "synthetic windows nearer to a real one than 99 of 100 real ones are to another",
        "share",
        "nearest of the real windows at every call, by the standardised features of the classifier",
        ideal=_NEAR,
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows of calls in a row: features, shape (windows, features), and their first calls."""

    features: Floats
    first: Ints
    calls: int

    def folds(self) -> Ints:
        """Return the stretch of time that each window is in; -1 for one that is in two."""
        fold = self.first * FOLDS // self.calls
        return np.where(fold == (self.first + WINDOW - 1) * FOLDS // self.calls, fold, -1)


def scores(real: Side, other: Side) -> Found:
    """Let a classifier tell the traces apart, and look for windows that were copied."""
    if importlib.util.find_spec("sklearn") is None:
        yield LeftOut("classifier", "needs scikit-learn: pip install 'servescope[stats]'")
        return
    fewest = WINDOW * _FEWEST
    if min(real.lengths.height, other.lengths.height) <= fewest:
        yield LeftOut("classifier", f"{fewest} calls or fewer have both lengths")
        return
    gaps = real.timed and other.timed
    least_s = max(real.finest_s / 2, 1e-4 / real.rate_rps) if gaps else 0.0
    a, b = (_series(side, least_s) if gaps else _series(side, None) for side in (real, other))
    yield _told_apart(*(_windows(each, _stride_of(each)) for each in (a, b)))
    yield Score("copies", _copies(a, b))


def _series(side: Side, least_s: float | None) -> Floats:
    """Return log prompts and answers, and log gaps where calls are timed: shape (3 or 2, calls)."""
    calls = side.lengths
    made = [np.log1p(calls[c].to_numpy()) for c in ("input_tokens", "output_tokens")]
    if least_s is None:
        return np.stack(made)
    gaps = np.diff(calls["arrival_s"].to_numpy())
    return np.stack([*(each[1:] for each in made), np.log(gaps + least_s)])


def _stride_of(series: Floats) -> int:
    return max(_STRIDE, int(series.shape[1]) // _MOST)


def _windows(series: Floats, stride: int) -> Windows:
    """Return the features of a window at every `stride` calls."""
    calls = series.shape[1]
    first = np.arange(0, calls - WINDOW + 1, stride)
    view = np.lib.stride_tricks.sliding_window_view(series, WINDOW, axis=1)[:, ::stride]
    columns = []
    off = view - view.mean(axis=2, keepdims=True)
    spread = np.sqrt((off**2).mean(axis=2))
    safe = np.where(spread > 1e-9, spread, np.inf)
    for k in range(len(series)):
        columns += [np.sort(view[k], axis=1)[:, list(_QUANTILES)].T, view[k].mean(axis=1)[None]]
        columns += [
            spread[k][None],
            ((off[k, :, 1:] * off[k, :, :-1]).mean(1) / safe[k] ** 2)[None],
        ]
        for j in range(k):
            columns.append(((off[k] * off[j]).mean(axis=1) / safe[k] / safe[j])[None])
    return Windows(np.concatenate(columns).T, first, calls)


def _told_apart(real: Windows, other: Windows) -> Score:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    x = np.concatenate([real.features, other.features])
    label = np.repeat([0, 1], [len(real.first), len(other.first)])
    fold = np.concatenate([real.folds(), other.folds()])
    found = []
    with threadpool_limits(1):  # many threads make small fits many times slower
        for k in range(FOLDS):
            learn, judge = (fold != k) & (fold >= 0), fold == k
            model = HistGradientBoostingClassifier(
                max_iter=80,
                learning_rate=0.1,
                max_leaf_nodes=8,
                min_samples_leaf=20,
                l2_regularization=1.0,
                early_stopping=False,
                random_state=0,
            ).fit(x[learn], label[learn])
            found.append(area(model.decision_function(x[judge]), label[judge]))
    mean = float(np.mean(found))
    reach = float(stats.t.ppf(0.975, FOLDS - 1) * np.std(found, ddof=1) / math.sqrt(FOLDS))
    return Score("auc", mean, low=max(0.0, mean - reach), high=min(1.0, mean + reach))


def area(score: Floats, label: Ints) -> float:
    """Return the chance that a score of label 1 is above one of label 0, ties counting half."""
    ones = int(label.sum())
    ranks = stats.rankdata(score)
    return float((ranks[label == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(label) - ones)))


def _copies(real: Floats, other: Floats) -> float:
    """Return the share of synthetic windows that are nearer to a real one than real ones are."""
    held = _windows(real, max(1, real.shape[1] // _MOST_NEAR))
    spread = held.features.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    tried = [_windows(each, WINDOW) for each in (real, other)]
    among_real, from_other = (
        _nearest(each, held, scale, away=own)
        for each, own in zip(tried, (True, False), strict=True)
    )
    return float((from_other < np.quantile(among_real, _NEAR)).mean())


def _nearest(windows: Windows, held: Windows, scale: Floats, *, away: bool) -> Floats:
    """Return how far each window is from the nearest held one; `away`: that shares no call."""
    chosen = np.linspace(0, len(windows.first) - 1, min(_TRIED, len(windows.first))).astype(int)
    x, y = windows.features[chosen] / scale, held.features / scale
    square = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    if away:
        near = np.abs(windows.first[chosen][:, None] - held.first) < WINDOW
        square = np.where(near, np.inf, square)
    return np.asarray(np.sqrt(np.maximum(square, 0).min(axis=1)))


def curves(real: Side, side: Side) -> dict[str, pl.DataFrame]:
    """Return nothing: a classifier's features are drawn by the other aspects."""
    return {}
