"""How sure a difference between two runs of one plan is: paired section by section.

Both runs met the same arrivals, so the difference in each section of time is free of what the
traffic did then. Two tests must agree before anything is called a difference: Student's t on the
sections, and the exact permutation test that flips their signs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from servescope.analysis.intervals import LEVEL, Interval, alikeness, error_of
from servescope.analysis.sample import Floats, Sample

Statistic = float | Literal["mean"]

ALPHA = 1 - LEVEL
POWER = 0.8
MOST_EXACT = 12  # sections whose signs are flipped in every way; of more, so many ways at random:
FLIPS = 20_000
PILOT_CONFIDENCE = 0.9  # that the spread of a pilot is not underestimated


@dataclass(frozen=True, slots=True)
class Evidence:
    """A statistic in both runs, and what speaks for a difference.

    `effect` is log(B / A), or B less A where that cannot be; `ratio` is None then. `p_value` is the
    larger one of the t-test and the sign-flip test, `wilcoxon` that of the signed-rank test.
    `superiority` is the share of sections in which B is smaller, ties counting half.
    """

    a: float
    b: float
    effect: Interval
    ratio: Interval | None
    error: float
    p_value: float
    wilcoxon: float
    superiority: float
    sections: int

    @property
    def cliffs_delta(self) -> float:
        """Share of sections in which B is smaller, less that in which A is: in [-1, 1]."""
        return 2 * self.superiority - 1


def paired(a: Sample, b: Sample, statistic: Statistic) -> Evidence | None:
    """Compare a statistic of two runs; the blocks of both samples are the same sections.

    None if a section is empty in either run, or there are fewer than two.
    """
    if a.blocks != b.blocks or a.blocks < 2:
        return None
    whole = _of(a, statistic), _of(b, statistic)
    sections = _of_blocks(a, statistic), _of_blocks(b, statistic)
    if whole[0] is None or whole[1] is None or not np.isfinite(np.array(sections)).all():
        return None
    return of_sections(whole[0], whole[1], *sections)


def of_sections(a: float, b: float, of_a: Floats, of_b: Floats, *, logs: bool = True) -> Evidence:
    """Make the evidence from a statistic of the whole runs and of their sections: shape (n,).

    `logs` compares by the log of the ratio where everything is above 0.
    """
    logs = logs and a > 0 and b > 0 and bool((of_a > 0).all() and (of_b > 0).all())
    differences = np.log(of_b / of_a) if logs else of_b - of_a
    effect = math.log(b / a) if logs else b - a
    error = error_of(differences - effect) * alikeness(differences)
    reach = _t(1 - ALPHA / 2, len(differences)) * error
    around = Interval(effect, effect - reach, effect + reach)
    return Evidence(
        a=a,
        b=b,
        effect=around,
        ratio=Interval(b / a, math.exp(around.low), math.exp(around.high)) if logs else None,
        error=error,
        p_value=max(_t_test(effect, error, len(differences)), sign_flip(differences)),
        wilcoxon=_wilcoxon(differences),
        superiority=float((differences < 0).mean() + (differences == 0).mean() / 2),
        sections=len(differences),
    )


def sign_flip(differences: Floats) -> float:
    """Return the p-value of the permutation test that flips signs (Fisher 1935).

    If the runs are alike, each section might as well have come out the other way round.
    """
    count = len(differences)
    if count <= MOST_EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), size=(FLIPS, count))
        signs[0] = 1.0
    observed = abs(float(differences.sum()))
    return float((np.abs(signs @ differences) >= observed * (1 - 1e-12)).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values for which the chance of any false claim stays at their level (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return [float(p) for p in adjusted]


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values for which the share of false claims stays at their level (BH 1995)."""
    from scipy import stats

    if not p_values:
        return []
    return [float(p) for p in stats.false_discovery_control(p_values)]


def equivalence(evidence: Evidence, margin: float) -> float:
    """Return the p-value of two one-sided tests (Schuirmann 1987) that the effect is within margin.

    `margin` is a share for ratios (0.05: B is between A / 1.05 and 1.05 A), else a difference.
    """
    allowed = math.log1p(margin) if evidence.ratio else margin
    if evidence.error == 0:
        return 0.0 if abs(evidence.effect.estimate) < allowed else 1.0
    from scipy import stats

    nearest = (allowed - abs(evidence.effect.estimate)) / evidence.error
    return float(stats.t.sf(nearest, evidence.sections - 1))


def times_longer(evidence: Evidence, difference: float) -> float:
    """Return how many times as long to run, or how many repeats, to tell a difference with power.

    With 80 % power at 5 %, from the spread of the sections: it falls with the square root of their
    length. The spread is taken as large as nine pilots in ten would find it. `difference` is a
    share for ratios, else a difference; less than 1 says that the run was long enough.
    """
    from scipy import stats

    freedom = evidence.sections - 1
    unsure = math.sqrt(freedom / float(stats.chi2.ppf(1 - PILOT_CONFIDENCE, freedom)))
    wanted = math.log1p(difference) if evidence.ratio else difference
    both = _t(1 - ALPHA / 2, evidence.sections) + _t(POWER, evidence.sections)
    return (both * evidence.error * unsure / wanted) ** 2


def merged(samples: Sequence[Sample]) -> Sample:
    """Put the samples of several repeats side by side: their blocks are numbered through."""
    blocks = np.cumsum([0, *(sample.blocks for sample in samples)])
    return Sample.of(
        np.concatenate([sample.values for sample in samples]),
        np.concatenate([s.block + first for s, first in zip(samples, blocks, strict=False)]),
        int(blocks[-1]),
        np.concatenate([sample.weights for sample in samples]),
    )


def _of(sample: Sample, statistic: Statistic) -> float | None:
    return sample.mean() if statistic == "mean" else sample.quantile(float(statistic))


def _of_blocks(sample: Sample, statistic: Statistic) -> Floats:
    if statistic == "mean":
        return sample.block_means()
    return np.asarray(sample.block_quantiles(float(statistic))[0], dtype=np.float64)


def _t(level: float, sections: int) -> float:
    from scipy import stats  # takes a third of a second to load

    return float(stats.t.ppf(level, sections - 1))


def _t_test(effect: float, error: float, sections: int) -> float:
    from scipy import stats

    if error == 0:
        return 1.0 if effect == 0 else 0.0
    return 2 * float(stats.t.sf(abs(effect) / error, sections - 1))


def _wilcoxon(differences: Floats) -> float:
    from scipy import stats

    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="zsplit", method="auto").pvalue)
