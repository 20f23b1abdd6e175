"""Two runs of one plan, paired: how much one differs from the other, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from servescope.analysis import intervals, metrics
from servescope.analysis.intervals import Counts, Floats, Interval, Ints
from servescope.analysis.metrics import METRICS
from servescope.analysis.slo import SLO, judged
from servescope.traces.errors import InputError
from servescope.traces.run import Run

Verdict = Literal["better", "worse", "indistinguishable", "unknown"]

STATISTICS = (
    ("ttft", "p50"), ("ttft", "p99"), ("ttft_due", "p99"),
    ("tbt", "p50"), ("tbt", "p99"), ("icl", "p99"), ("stall", "p99"),
    ("tpot", "p50"), ("tpot", "p99"),
    ("e2e", "p50"), ("e2e", "p99"),
    ("jct", "mean"), ("jct", "p99"),
)  # fmt: skip
DECIDING_WITHOUT_SLO = ("jct", "mean")


@dataclass(frozen=True, slots=True)
class Difference:
    """One statistic in both runs. `ratio` is B over A with its interval; below 1, B is faster."""

    metric: str
    statistic: str
    a: float
    b: float
    ratio: Interval | None

    @property
    def verdict(self) -> Verdict:
        """What B is against A: every metric here is better when smaller."""
        return _verdict(self.ratio, neutral=1.0, larger_is_better=False)

    @property
    def label(self) -> str:
        """Name for a person, such as TTFT p99."""
        return f"{METRICS[self.metric].label} {self.statistic}"


@dataclass(frozen=True, slots=True)
class SLODifference:
    """Share of calls (or programs) within the SLO in both runs, and B less A with its interval."""

    slo: SLO
    a: float
    b: float
    difference: Interval | None

    @property
    def verdict(self) -> Verdict:
        """What B is against A: a larger share is better."""
        return _verdict(self.difference, neutral=0.0, larger_is_better=True)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs A and B of one plan, statistic by statistic, and the verdict in words.

    `pairs` counts the calls that both hold, `blocks` the blocks of time behind the intervals (None
    if there were too few programs for any).
    """

    a: str
    b: str
    pairs: int
    blocks: int | None
    slo: SLODifference | None
    differences: tuple[Difference, ...]
    verdict: str
    doubts: tuple[str, ...]


def compare(a: Run, b: Run, slo: SLO | None = None, *, seed: int = 0) -> Comparison:
    """Compare run B with run A, paired by program.

    The share of calls within the SLO decides; without an SLO mean JCT does. That one question is
    tested at 95 %; the other rows describe. Raises InputError if the runs are not of one plan.
    """
    if a.info.plan_sha256 != b.info.plan_sha256:
        raise InputError(
            f"{a.path} and {b.path} did not run the same plan, so their calls cannot be paired.",
            "Replay both with the same trace, options and --seed.",
        )
    arms = (a, b)
    names = _names(arms)
    doubts = [f"{name}: {doubt}" for name, run in zip(names, arms, strict=True)
              for doubt in run.info.doubts]  # fmt: skip
    owners, blocks = _blocks(arms)
    if blocks is None:
        doubts.append(
            f"{owners.height} programs are too few for an interval; replay at least"
            f" {intervals.FEWEST_PROGRAMS}."
        )
    counts = None if blocks is None else intervals.resampled_counts(blocks, seed)
    by_slo = _slo_difference(arms, slo, owners, counts) if slo else None
    rows = tuple(_differences(arms, owners, counts))
    return Comparison(
        a=names[0],
        b=names[1],
        pairs=a.trace.collect().join(b.trace.collect(), on="call_id", how="semi").height,
        blocks=blocks,
        slo=by_slo,
        differences=rows,
        verdict=_in_words(*names, by_slo, rows),
        doubts=tuple(doubts),
    )


def _names(arms: tuple[Run, Run]) -> tuple[str, str]:
    """Return the runs' names, or their folders' where both have the same one."""
    a, b = (run.info.name for run in arms)
    return (a, b) if a != b else (str(arms[0].path), str(arms[1].path))


def _blocks(arms: tuple[Run, Run]) -> tuple[pl.DataFrame, int | None]:
    """Return the block of every program, by its first due time in either run, and their number."""
    both = pl.concat(run.trace.collect().select("program_id", "due_s") for run in arms)
    starts = both.group_by("program_id").agg(start=pl.col("due_s").min())
    starts = starts.sort("start", "program_id")
    block = intervals.blocks_of(starts["start"].to_numpy())
    if block is None:
        return starts.select("program_id", block=pl.lit(0, pl.Int64)), None
    return starts.select("program_id", block=pl.Series(block)), int(block.max()) + 1


@dataclass(frozen=True, slots=True)
class _Sample:
    """Values of one run and the block of each."""

    values: Floats
    block: Ints

    @classmethod
    def of(cls, table: pl.DataFrame, column: str, owners: pl.DataFrame) -> _Sample:
        owned = table.join(owners, on="program_id", maintain_order="left")
        return cls(owned[column].cast(pl.Float64).to_numpy(), owned["block"].to_numpy())

    def resampled(self, statistic: str, counts: Counts) -> Floats:
        if statistic == "mean":
            return intervals.means(self.values, self.block, counts)
        return intervals.quantiles(self.values, self.block, counts, metrics.QUANTILES[statistic])

    def estimate(self, statistic: str) -> float:
        once = np.ones((1, int(self.block.max()) + 1), dtype=np.int64)
        return float(self.resampled(statistic, once)[0])


def _differences(
    arms: tuple[Run, Run], owners: pl.DataFrame, counts: Counts | None
) -> Iterable[Difference]:
    samples = {
        metric: [_Sample.of(metrics.values(run.trace, metric), "value", owners) for run in arms]
        for metric in dict.fromkeys(metric for metric, _ in STATISTICS)
    }
    for metric, statistic in STATISTICS:
        a, b = samples[metric]
        if not len(a.values) or not len(b.values):
            continue
        if metric == "icl" and len(samples["tbt"][0].values) and len(samples["tbt"][1].values):
            continue  # every chunk is a token: TBT says it already
        at, bt = a.estimate(statistic), b.estimate(statistic)
        ratio = None
        if counts is not None and at > 0 and bt > 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                logs = np.log(b.resampled(statistic, counts) / a.resampled(statistic, counts))
            inside = intervals.around(math.log(bt / at), logs, counts.shape[1])
            ratio = inside and Interval(bt / at, math.exp(inside.low), math.exp(inside.high))
        yield Difference(metric, statistic, at, bt, ratio)


def _slo_difference(
    arms: tuple[Run, Run], slo: SLO, owners: pl.DataFrame, counts: Counts | None
) -> SLODifference:
    a, b = (_Sample.of(judged(run.trace, slo), "met", owners) for run in arms)
    at, bt = float(a.values.mean()), float(b.values.mean())
    difference = None
    if counts is not None:
        less = b.resampled("mean", counts) - a.resampled("mean", counts)
        difference = intervals.around(bt - at, less, counts.shape[1])
    return SLODifference(slo, at, bt, difference)


def _verdict(interval: Interval | None, *, neutral: float, larger_is_better: bool) -> Verdict:
    if interval is None:
        return "unknown"
    if not interval.excludes(neutral):
        return "indistinguishable"
    return "better" if (interval.estimate > neutral) == larger_is_better else "worse"


def _in_words(a: str, b: str, slo: SLODifference | None, rows: tuple[Difference, ...]) -> str:
    jct = next((r for r in rows if (r.metric, r.statistic) == DECIDING_WITHOUT_SLO), None)
    decides = slo or jct
    if decides is None:
        return "No program finished in both runs, so nothing can be said of which is better."
    sentence = _slo_sentence(a, b, slo) if slo else _jct_sentence(a, b, jct) if jct else ""
    if decides.verdict not in ("better", "worse"):
        return sentence
    b_won = decides.verdict == "better"
    price: dict[str, str] = {}  # one statistic a metric: the first that got worse
    for row in rows:
        if row.verdict == ("worse" if b_won else "better"):
            factor = row.b / row.a if b_won else row.a / row.b
            price.setdefault(row.metric.removesuffix("_due"), f"{row.label} x {factor:.2f}")
    if price:
        sentence += f" The price: {', '.join(price.values())}."
    return sentence


def _slo_sentence(a: str, b: str, slo: SLODifference) -> str:
    what = f"{slo.slo.per} within {slo.slo}"
    if slo.difference is None:
        return f"{b} has {slo.b:.1%} of {what}, {a} {slo.a:.1%}; too few programs to say how sure."
    low, high = slo.difference.low * 100, slo.difference.high * 100
    if slo.verdict == "indistinguishable":
        return (
            f"{a} and {b} cannot be told apart: {slo.a:.1%} and {slo.b:.1%} of {what}"
            f" (difference {low:+.1f} to {high:+.1f} points, 95 %)."
        )
    (winner, most), (loser, least) = sorted(((a, slo.a), (b, slo.b)), key=lambda arm: -arm[1])
    if winner == a:
        low, high = -high, -low
    return (
        f"{winner} served it better: {most:.1%} of {what} against {least:.1%} for {loser}"
        f" ({low:+.1f} to {high:+.1f} points, 95 %)."
    )


def _jct_sentence(a: str, b: str, jct: Difference) -> str:
    if jct.ratio is None:
        return f"{b}'s mean JCT is {jct.b / jct.a:.2f} of {a}'s; too few programs to say how sure."
    low, high = jct.ratio.low, jct.ratio.high
    if jct.verdict == "indistinguishable":
        return f"{a} and {b} cannot be told apart: ratio of mean JCT {low:.2f} to {high:.2f}, 95 %."
    winner, loser, ratio = b, a, jct.ratio.estimate
    if jct.verdict == "worse":
        winner, loser, ratio, low, high = a, b, 1 / ratio, 1 / high, 1 / low
    return (
        f"{winner} served it better: its mean JCT is {ratio:.2f} of {loser}'s"
        f" ({low:.2f} to {high:.2f}, 95 %)."
    )
