"""Two runs of one plan, paired: how much one differs from the other, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from servescope.analysis import intervals, metrics
from servescope.analysis.intervals import Interval
from servescope.analysis.metrics import METRICS
from servescope.analysis.slo import SLO, judged
from servescope.traces.errors import InputError
from servescope.traces.run import Run
from servescope.traces.trace import Trace

Verdict = Literal["better", "worse", "indistinguishable", "unknown"]

STATISTICS = (
    ("ttft", "p50"), ("ttft", "p99"), ("ttft_due", "p99"), ("tbt", "p50"), ("tbt", "p99"),
    ("tpot", "p50"), ("tpot", "p99"), ("stall", "p99"), ("e2e", "p50"), ("e2e", "p99"),
    ("jct", "mean"), ("jct", "p99"),
)  # fmt: skip
TBT_FALLBACK = "icl"


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
        if self.ratio is None:
            return "unknown"
        if not self.ratio.excludes(1.0):
            return "indistinguishable"
        return "better" if self.ratio.estimate < 1 else "worse"

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
        if self.difference is None:
            return "unknown"
        if not self.difference.excludes(0.0):
            return "indistinguishable"
        return "better" if self.difference.estimate > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs A and B of one plan, statistic by statistic, and the verdict in words."""

    a: str
    b: str
    pairs: int
    blocks: int | None
    slo: SLODifference | None
    differences: tuple[Difference, ...]
    verdict: str
    doubts: tuple[str, ...] = field(default=())


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
    doubts = [f"{run.info.name}: {doubt}" for run in (a, b) for doubt in run.info.doubts]
    starts = _starts(a.trace, b.trace)
    block_of = intervals.blocks_of(starts["start"].to_list())
    blocks = None if block_of is None else int(block_of.max()) + 1
    if block_of is None:
        doubts.append(
            f"{starts.height} programs are too few for an interval; replay at least"
            f" {5 * intervals.FEWEST_BLOCKS}."
        )
        block_of = np.zeros(starts.height, dtype=np.intp)
    owners = starts.select("program_id", block=pl.Series(block_of))
    counts = intervals.resampled_counts(blocks, seed) if blocks else None

    by_slo = _slo_difference(a.trace, b.trace, slo, owners, counts) if slo else None
    rows = tuple(
        row
        for metric, statistic in STATISTICS
        if (row := _difference(a.trace, b.trace, metric, statistic, owners, counts))
    )
    return Comparison(
        a=a.info.name,
        b=b.info.name,
        pairs=_pairs(a.trace, b.trace),
        blocks=blocks,
        slo=by_slo,
        differences=rows,
        verdict=_in_words(a.info.name, b.info.name, by_slo, rows),
        doubts=tuple(doubts),
    )


def _starts(a: Trace, b: Trace) -> pl.DataFrame:
    """Return when each program starts: the earliest due time in either run (roots are alike)."""
    both = pl.concat(run.collect().select("program_id", "due_s") for run in (a, b))
    grouped = both.group_by("program_id").agg(start=pl.col("due_s").min())
    return grouped.sort("start", "program_id")


def _pairs(a: Trace, b: Trace) -> int:
    return a.collect().join(b.collect(), on="call_id", how="semi").height


def _difference(
    a: Trace, b: Trace, metric: str, statistic: str, owners: pl.DataFrame, counts: _Counts
) -> Difference | None:
    found = []
    for run in (a, b):
        table = metrics.values(run, metric).join(owners, on="program_id", maintain_order="left")
        values, block = table["value"].to_numpy(), table["block"].to_numpy()
        if not len(values):
            return None
        everything = np.ones((1, int(block.max()) + 1), dtype=np.int64)
        found.append((_statistic(statistic, values, block, everything)[0], values, block))
    (at, *a_rest), (bt, *b_rest) = found
    ratio = None
    if counts is not None and at > 0 and bt > 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(_statistic(statistic, *b_rest, counts)) - np.log(
                _statistic(statistic, *a_rest, counts)
            )
        inside = intervals.around(math.log(bt / at), logs, counts.shape[1])
        if inside:
            ratio = Interval(bt / at, math.exp(inside.low), math.exp(inside.high))
    return Difference(metric, statistic, float(at), float(bt), ratio)


def _statistic(
    statistic: str, values: intervals.Floats, block: intervals.Ints, counts: np.ndarray
) -> intervals.Floats:
    if statistic == "mean":
        return intervals.means(values, block, counts)
    return intervals.quantiles(values, block, counts, metrics.QUANTILES[statistic])


def _slo_difference(
    a: Trace, b: Trace, slo: SLO, owners: pl.DataFrame, counts: _Counts
) -> SLODifference:
    shares, resampled = [], []
    for run in (a, b):
        table = judged(run, slo).join(owners, on="program_id", maintain_order="left")
        met = table["met"].cast(pl.Float64).to_numpy()
        shares.append(float(met.mean()))
        if counts is not None:
            resampled.append(intervals.means(met, table["block"].to_numpy(), counts))
    difference = None
    if counts is not None:
        difference = intervals.around(
            shares[1] - shares[0], resampled[1] - resampled[0], counts.shape[1]
        )
    return SLODifference(slo, *shares, difference)


def _in_words(a: str, b: str, slo: SLODifference | None, rows: tuple[Difference, ...]) -> str:
    if slo is not None:
        sentence = _slo_sentence(a, b, slo)
        winner = {"better": b, "worse": a}.get(slo.verdict)
    else:
        jct = next((r for r in rows if (r.metric, r.statistic) == ("jct", "mean")), None)
        if jct is None:
            return "No program finished in both runs, so nothing can be said of which is better."
        sentence = _jct_sentence(a, b, jct)
        winner = {"better": b, "worse": a}.get(jct.verdict)
    prices = [
        f"{row.label} x {_factor(row, winner == b)}"
        for row in rows
        if winner and row.verdict == ("worse" if winner == b else "better")
    ]
    if prices:
        sentence += f" The price: {', '.join(prices[:3])}."
    return sentence


def _slo_sentence(a: str, b: str, slo: SLODifference) -> str:
    within = f"{slo.b:.1%} of calls within {slo.slo} against {slo.a:.1%}"
    if slo.difference is None:
        return f"{b} has {within}; too few programs to say how sure that is."
    points = f"{slo.difference.low * 100:+.1f} to {slo.difference.high * 100:+.1f} points, 95 %"
    match slo.verdict:
        case "better":
            return f"{b} served it better: {within} for {a} ({points})."
        case "worse":
            turned = f"{slo.a:.1%} of calls within {slo.slo} against {slo.b:.1%}"
            points = f"{-slo.difference.high * 100:+.1f} to {-slo.difference.low * 100:+.1f} points, 95 %"
            return f"{a} served it better: {turned} for {b} ({points})."
        case _:
            return f"{a} and {b} cannot be told apart: {b} has {within} ({points})."


def _jct_sentence(a: str, b: str, jct: Difference) -> str:
    if jct.ratio is None:
        return f"{b}'s mean JCT is {jct.b / jct.a:.2f} of {a}'s; too few programs to say how sure."
    bounds = f"[{jct.ratio.low:.2f}, {jct.ratio.high:.2f}], 95 %"
    match jct.verdict:
        case "better":
            return (
                f"{b} served it better: its mean JCT is {jct.ratio.estimate:.2f} of {a}'s {bounds}."
            )
        case "worse":
            return f"{a} served it better: {b}'s mean JCT is {jct.ratio.estimate:.2f} of its own {bounds}."
        case _:
            return f"{a} and {b} cannot be told apart: mean JCT ratio {jct.ratio.estimate:.2f} {bounds}."


def _factor(row: Difference, b_won: bool) -> str:
    return f"{row.b / row.a:.2f}" if b_won else f"{row.a / row.b:.2f}"


_Counts = np.ndarray | None
