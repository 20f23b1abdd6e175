"""Systems that served one plan: how much each differs from the first, how sure that is, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import polars as pl

from servescope.analysis import evidence, intervals
from servescope.analysis.attainment import judged
from servescope.analysis.evidence import ALPHA, Evidence, Statistic
from servescope.analysis.explanation import explain
from servescope.analysis.intervals import Interval
from servescope.analysis.measured import Measured
from servescope.analysis.metrics import METRICS
from servescope.analysis.pairing import Arm, Pairing, names_of, pair
from servescope.analysis.sample import Sample
from servescope.analysis.slo import SLO, Per
from servescope.analysis.verdicts import Verdict, in_words
from servescope.traces.run import Run

# What is compared: a quantile of the values, or their mean.
STATISTICS: tuple[tuple[str, Statistic], ...] = (
    ("ttft", 0.5), ("ttft", 0.99), ("ttft_due", 0.99),
    ("tbt", 0.5), ("tbt", 0.99), ("icl", 0.99), ("stall", 0.99),
    ("tpot", 0.5), ("tpot", 0.99),
    ("e2e", 0.5), ("e2e", 0.99),
    ("jct", "mean"), ("jct", 0.99), ("slowdown", "mean"),
)  # fmt: skip
DECIDING_WITHOUT_SLO = ("jct", "mean")
MARGIN = 0.05
# Two runs are never quite alike, and a long replay is sure of a thousandth: no finding for anybody.
SMALLEST_RATIO, SMALLEST_SHARE = 0.01, 0.005


@dataclass(frozen=True, slots=True)
class Difference:
    """One statistic of two systems. `ratio` is B over A with its interval; below 1, B is faster.

    `holm` is the p-value corrected for all statistics of all challengers, `bh` the one that bounds
    the share of false findings. Without enough programs all but `a` and `b` is None.
    """

    metric: str
    statistic: str
    a: float
    b: float
    ratio: Interval | None = None
    p_value: float | None = None
    holm: float | None = None
    bh: float | None = None
    wilcoxon: float | None = None
    cliffs_delta: float | None = None
    equivalence: float | None = None

    @property
    def verdict(self) -> Verdict:
        """What B is against A: every metric here is better when smaller."""
        if self.ratio is None or self.holm is None or self.equivalence is None:
            return "unknown"
        if self.holm < ALPHA and abs(self.ratio.estimate - 1) >= SMALLEST_RATIO:
            return "better" if self.ratio.estimate < 1 else "worse"
        return "equivalent" if self.equivalence < ALPHA else "cannot tell"

    @property
    def label(self) -> str:
        """Name for a person, such as TTFT p99."""
        return f"{METRICS[self.metric].label} {self.statistic}"


@dataclass(frozen=True, slots=True)
class ShareDifference:
    """A share of calls (or programs) of two systems, and B less A with its interval and p-value."""

    per: Per
    a: float
    b: float
    difference: Interval | None = None
    p_value: float | None = None
    equivalence: float | None = None
    times_longer: float | None = None

    @property
    def verdict(self) -> Verdict:
        """What B is against A, if a larger share is better."""
        if self.difference is None or self.p_value is None or self.equivalence is None:
            return "unknown"
        sure = self.p_value < ALPHA and self.difference.excludes(0.0)
        if sure and abs(self.difference.estimate) >= SMALLEST_SHARE:
            return "better" if self.difference.estimate > 0 else "worse"
        return "equivalent" if self.equivalence < ALPHA else "cannot tell"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One system against the baseline: every statistic, the verdict in words, and what explains it.

    `decided` is the answer to the one question that was asked beforehand: the share within the SLO,
    or without an SLO mean JCT. `times_longer` says how much longer to run to tell a difference of
    `margin`, where the runs could not.
    """

    name: str
    slo: ShareDifference | None
    failures: ShareDifference
    differences: tuple[Difference, ...]
    decided: Verdict
    verdict: str
    explanations: tuple[str, ...]
    times_longer: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Systems that ran one plan; the first is the baseline that all others are compared with.

    Only programs that all runs hold whole are compared: `pairs` counts their calls, `sections` the
    sections of time behind the intervals (None if there were too few programs for any).
    """

    baseline: str
    challenges: tuple[Challenge, ...]
    pairs: int
    sections: int | None
    repeats: int
    margin: float
    slo: str | None
    doubts: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The baseline and its challengers."""
        return (self.baseline, *(each.name for each in self.challenges))

    @property
    def verdict(self) -> str:
        """The verdicts of all challengers, a sentence or some each."""
        return " ".join(each.verdict for each in self.challenges)


def compare(
    systems: Sequence[Run | Sequence[Run]], slo: SLO | None = None, *, margin: float = MARGIN
) -> Comparison:
    """Compare systems with the first one, paired by program, section of time by section.

    A system is a run, or its repeats: repeat i of every system ran the same plan. The share of
    calls within the SLO decides; without an SLO mean JCT does, unless the faster system failed more
    programs. That one question is tested at 5 %; the other rows are corrected for their number. A
    difference below `margin` (a share) is none that matters. Raises InputError if plans differ or
    no program is whole in all runs.
    """
    arms = [Arm.of(system) for system in systems]
    names = names_of([arm.runs[0] for arm in arms])
    pairing = pair(arms, names)
    drafts = [
        _Draft.of(name, arms[0], arm, pairing, slo, margin)
        for name, arm in zip(names[1:], arms[1:], strict=True)
    ]
    corrected = _corrected([draft.differences for draft in drafts])
    challenges = tuple(
        _challenge(draft, rows, arms[0], names[0], slo, margin)
        for draft, rows in zip(drafts, corrected, strict=True)
    )
    return Comparison(
        baseline=names[0],
        challenges=challenges,
        pairs=pairing.calls,
        sections=pairing.sections,
        repeats=len(arms[0].runs),
        margin=margin,
        slo=str(slo) if slo else None,
        doubts=pairing.doubts + tuple(_of_failures(names[0], challenges)),
    )


def _of_failures(baseline: str, challenges: Iterable[Challenge]) -> Iterable[str]:
    for each in challenges:
        if each.failures.a != each.failures.b:
            yield (
                f"{baseline} failed {each.failures.a:.1%} of programs and {each.name}"
                f" {each.failures.b:.1%}: latencies are of answered calls alone, so the one that"
                " failed more looks faster than it was."
            )


@dataclass(frozen=True, slots=True)
class _Draft:
    """What is known of a challenger before the rows are corrected for their number."""

    name: str
    arm: Arm
    slo: ShareDifference | None
    failures: ShareDifference
    differences: tuple[Difference, ...]
    deciding: Evidence | None

    @classmethod
    def of(
        cls, name: str, a: Arm, b: Arm, pairing: Pairing, slo: SLO | None, margin: float
    ) -> _Draft:
        rows, deciding = [], None
        samples = [
            arm.samples(tuple(dict.fromkeys(m for m, _ in STATISTICS)), pairing) for arm in (a, b)
        ]
        for metric, statistic in STATISTICS:
            of_a, of_b = samples[0][metric], samples[1][metric]
            if not _holds(of_a, statistic) or not _holds(of_b, statistic):
                continue
            if metric == "icl" and len(samples[0]["tbt"]) and len(samples[1]["tbt"]):
                continue  # every chunk is a token: TBT says it already
            found = evidence.paired(of_a, of_b, statistic) if pairing.sections else None
            rows.append(_difference(metric, statistic, of_a, of_b, found, margin))
            if (metric, statistic) == DECIDING_WITHOUT_SLO:
                deciding = found
        return cls(
            name=name,
            arm=b,
            slo=_share(a, b, pairing, lambda m: judged(m, slo), margin, slo.per)
            if slo and slo.of_each
            else None,
            failures=_share(a, b, pairing, _failed, margin, "programs"),
            differences=tuple(rows),
            deciding=deciding,
        )


def _holds(sample: Sample, statistic: Statistic) -> bool:
    return len(sample) >= (1 if statistic == "mean" else intervals.fewest(float(statistic)))


def _difference(
    metric: str, statistic: Statistic, a: Sample, b: Sample, found: Evidence | None, margin: float
) -> Difference:
    name = "mean" if statistic == "mean" else f"p{float(statistic) * 100:g}"
    of_a, of_b = (s.mean() if statistic == "mean" else s.quantile(float(statistic)) for s in (a, b))
    row = Difference(metric, name, of_a or 0.0, of_b or 0.0)
    if found is None or found.ratio is None:
        return row
    return replace(
        row,
        ratio=found.ratio,
        p_value=found.p_value,
        wilcoxon=found.wilcoxon,
        cliffs_delta=found.cliffs_delta,
        equivalence=evidence.equivalence(found, margin),
    )


def _corrected(drafts: Sequence[tuple[Difference, ...]]) -> list[tuple[Difference, ...]]:
    """Correct the p-values of all rows of all challengers for their number."""
    p_values = [row.p_value for rows in drafts for row in rows if row.p_value is not None]
    pairs = iter(
        list(zip(evidence.holm(p_values), evidence.benjamini_hochberg(p_values), strict=True))
    )
    corrected = []
    for rows in drafts:
        made = []
        for row in rows:
            if row.p_value is None:
                made.append(row)
            else:
                holm, bh = next(pairs)
                made.append(replace(row, holm=holm, bh=bh))
        corrected.append(tuple(made))
    return corrected


def _share(
    a: Arm,
    b: Arm,
    pairing: Pairing,
    of: Callable[[Measured], pl.DataFrame],
    margin: float,
    per: Per,
) -> ShareDifference:
    """Compare a share of yes and no, as `of(measured)` has it in its column `met`."""
    samples = [arm.share(of, pairing) for arm in (a, b)]
    at, bt = (sample.mean() or 0.0 for sample in samples)
    if not pairing.sections:
        return ShareDifference(per, at, bt)
    of_a, of_b = (sample.block_means() for sample in samples)
    found = evidence.of_sections(at, bt, of_a, of_b, logs=False)
    # Shares that never varied are not certain: of n programs without an exception, up to 3 / n of
    # all may be one (the rule of three, at 95 %).
    floor = 3 / pairing.programs
    low = min(found.effect.low, bt - at - floor)
    high = max(found.effect.high, bt - at + floor)
    return ShareDifference(
        per,
        at,
        bt,
        Interval(bt - at, max(low, -1.0), min(high, 1.0)),
        found.p_value,
        evidence.equivalence(found, margin) if max(abs(low), abs(high)) < 1 else 1.0,
        evidence.times_longer(found, margin),
    )


def _failed(measured: Measured) -> pl.DataFrame:
    return measured.programs.select("program_id", met=pl.col("failed") > 0)


def _challenge(
    draft: _Draft,
    rows: tuple[Difference, ...],
    baseline: Arm,
    name: str,
    slo: SLO | None,
    margin: float,
) -> Challenge:
    longer: float | None = None
    if draft.slo:
        longer = draft.slo.times_longer
    elif draft.deciding:
        longer = evidence.times_longer(draft.deciding, margin)
    if longer is not None and not math.isfinite(longer):
        longer = None
    sentence, decided = in_words(
        name, draft.name, str(slo) if slo else "", draft.slo, draft.failures, rows, draft.deciding,
        margin, longer,
    )  # fmt: skip
    invalid = [
        each
        for each, arm in ((name, baseline), (draft.name, draft.arm))
        if any(run.info.validity == "invalid" for run in arm.runs)
    ]
    if invalid:  # it says more of the client than of the server
        told = f"{invalid[0]} is" if len(invalid) == 1 else "both runs are"
        sentence = f"No verdict: {told} invalid. What the numbers say: {sentence}"
    return Challenge(
        name=draft.name,
        slo=draft.slo,
        failures=draft.failures,
        differences=rows,
        decided=decided,
        verdict=sentence,
        explanations=explain((name, draft.name), (baseline.first, draft.arm.first)),
        times_longer=longer if decided in ("cannot tell", "unknown") else None,
    )
