"""Two runs of one plan, paired: how much one differs from the other, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from servescope.analysis import intervals
from servescope.analysis.attainment import judged
from servescope.analysis.intervals import Counts, Floats, Interval, Ints
from servescope.analysis.measured import Measured
from servescope.analysis.metrics import METRICS, QUANTILES
from servescope.analysis.sample import Sample
from servescope.analysis.slo import SLO
from servescope.traces.errors import InputError
from servescope.traces.run import Run
from servescope.traces.status import CANCELLED, LOST, NOT_SENT

Verdict = Literal["better", "worse", "indistinguishable", "unknown"]

STATISTICS = (
    ("ttft", "p50"), ("ttft", "p99"), ("ttft_due", "p99"),
    ("tbt", "p50"), ("tbt", "p99"), ("icl", "p99"), ("stall", "p99"),
    ("tpot", "p50"), ("tpot", "p99"),
    ("e2e", "p50"), ("e2e", "p99"),
    ("jct", "mean"), ("jct", "p99"),
)  # fmt: skip
DECIDING_WITHOUT_SLO = ("jct", "mean")
CACHED_APART = 0.05  # shares of prompt tokens
# Two runs are never quite alike, and a long replay is sure of a thousandth: no finding for anybody.
SMALLEST_RATIO, SMALLEST_SHARE = 0.01, 0.005
WORTH_SAYING = 1.05  # a smaller factor is no price, however sure it is
FEW_PROGRAMS = 200


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
        return _verdict(self.ratio, 1.0, SMALLEST_RATIO, larger_is_better=False)

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
        return _verdict(self.difference, 0.0, SMALLEST_SHARE, larger_is_better=True)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs A and B of one plan, statistic by statistic, and the verdict in words.

    Only programs that both hold whole are compared: `pairs` counts their calls, `blocks` the blocks
    of time behind the intervals (None if there were too few programs for any).
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

    The share of calls within the SLO decides; without an SLO mean JCT does, unless the faster run
    failed more programs. That one question is tested at 95 %; the other rows describe. Raises
    InputError if the runs are not of one plan, or have no program in common.
    """
    if a.info.plan_sha256 != b.info.plan_sha256:
        raise InputError(
            f"{a.path} and {b.path} did not run the same plan, so their calls cannot be paired.",
            "Replay both with the same trace, options and --seed.",
        )
    arms = (a, b)
    measured = tuple(map(Measured.of, arms))
    names = (names_of(arms)[0], names_of(arms)[1])
    owners, pairs, left_out = _paired(arms, measured)
    counts = intervals.resampled_counts(seed) if "block" in owners.columns else None
    failed = _share_difference([_failures(m) for m in measured], owners, counts)
    by_slo = None
    if slo:
        met = _share_difference([judged(m, slo) for m in measured], owners, counts)
        by_slo = SLODifference(slo, *met)
    rows = tuple(_differences(measured, owners, counts))
    return Comparison(
        a=names[0],
        b=names[1],
        pairs=pairs,
        blocks=None if counts is None else intervals.BLOCKS,
        slo=by_slo,
        differences=rows,
        verdict=_believed(arms, names, _in_words(*names, by_slo, rows, failed)),
        doubts=tuple(_doubts(arms, measured, names, owners.height, left_out, failed)),
    )


def _believed(arms: tuple[Run, Run], names: tuple[str, str], sentence: str) -> str:
    """Take a verdict back where a run is invalid: it says more of the client than of the server."""
    invalid = [n for n, run in zip(names, arms, strict=True) if run.info.validity == "invalid"]
    if not invalid:
        return sentence
    told = f"{invalid[0]} is" if len(invalid) == 1 else "both runs are"
    return f"No verdict: {told} invalid. What the numbers say: {sentence}"


def names_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the runs' names, or their folders' where two have the same one."""
    names = tuple(run.info.name for run in runs)
    return names if len(set(names)) == len(names) else tuple(str(run.path) for run in runs)


def _paired(arms: tuple[Run, Run], measured: tuple[Measured, ...]) -> tuple[pl.DataFrame, int, int]:
    """Return the programs of which both runs hold the same calls, and count those calls.

    Each program has its block, by its first due time in either run, if there are programs enough
    for blocks. The last number counts the programs that are left out.
    """
    a, b = (m.calls.select("program_id", "call_id", "due_s", "status") for m in measured)
    both = pl.concat((a, b))
    alone = pl.concat((a.join(b, on="call_id", how="anti"), b.join(a, on="call_id", how="anti")))
    # what the user stopped, in flight or before it was due, is no failure of the server
    stopped = pl.col("status").is_in((CANCELLED, LOST)) | (
        (pl.col("status") == NOT_SENT) & pl.col("due_s").is_null()
    )
    cut = pl.concat((alone, both.filter(stopped)))
    whole = both.join(cut, on="program_id", how="anti")
    owners = whole.group_by("program_id").agg(start=pl.col("due_s").min())
    if owners.is_empty():
        raise InputError(
            f"{arms[0].path} and {arms[1].path} have no program in common that both hold whole.",
            "Let both run to their end.",
        )
    owners = owners.sort("start", "program_id")
    block = intervals.blocks_of(owners["start"].to_numpy())
    if block is not None:
        owners = owners.with_columns(block=pl.Series(block))
    left_out = both["program_id"].n_unique() - owners.height
    return owners.drop("start"), whole.height // 2, left_out


def _failures(measured: Measured) -> pl.DataFrame:
    """Return one row a program: whether any of its calls failed."""
    return measured.programs.select("program_id", met=pl.col("failed") > 0)


def _cached_share(measured: Measured) -> float:
    """Return the share of prompt tokens that the server took from its cache, as far as it says."""
    calls = measured.calls
    return int(calls["cached_tokens"].sum()) / max(1, int(calls["input_tokens"].sum()))


def _doubts(
    arms: tuple[Run, Run],
    measured: tuple[Measured, ...],
    names: tuple[str, str],
    programs: int,
    left_out: int,
    failed: _Shares,
) -> Iterable[str]:
    for name, run in zip(names, arms, strict=True):
        yield from (f"{name}: {doubt}" for doubt in run.info.doubts)
    a, b = (run.info for run in arms)
    if a.clock != b.clock:
        yield f"{names[0]} ran in {a.clock} time and {names[1]} in {b.clock} time."
    elif a.asked != b.asked:
        differing = ", ".join(key for key in a.asked if a.asked[key] != b.asked.get(key))
        yield f"The two runs asked differently ({differing}): they were not sent the same bytes."
    if a.model != b.model:
        yield f"{names[0]} served {a.model} and {names[1]} {b.model}: two models are compared."
    cached = [_cached_share(m) for m in measured]
    if abs(cached[0] - cached[1]) > CACHED_APART:
        yield (
            f"{names[0]} took {cached[0]:.0%} of the prompts from its cache and {names[1]}"
            f" {cached[1]:.0%}: if one was warm from an earlier run, restart it or change --seed in"
            " both."
        )
    if left_out:
        yield (
            f"{left_out} programs are not whole in both runs and are left out of the comparison;"
            " let both run to their end."
        )
    if programs < intervals.FEWEST_PROGRAMS:
        yield (
            f"{programs} programs are too few for an interval; replay at least"
            f" {intervals.FEWEST_PROGRAMS}."
        )
    elif programs < FEW_PROGRAMS:
        yield (
            f"{programs} programs are few: where calls queue for long, intervals of so few come out"
            f" too narrow; replay {FEW_PROGRAMS} or more."
        )
    if failed.a != failed.b:
        yield (
            f"{names[0]} failed {failed.a:.1%} of programs and {names[1]} {failed.b:.1%}: latencies"
            " are of answered calls alone, so the one that failed more looks faster than it was."
        )


@dataclass(frozen=True, slots=True)
class _Sample:
    """Values of one run and the block of each; all in one block where there are no blocks."""

    values: Floats
    block: Ints

    @classmethod
    def of(cls, table: pl.DataFrame, column: str, owners: pl.DataFrame) -> _Sample:
        owned = table.join(owners, on="program_id", maintain_order="left")
        values = owned[column].cast(pl.Float64).to_numpy()
        if "block" not in owned.columns:
            return cls(values, np.zeros(len(values), dtype=np.intp))
        return cls(values, owned["block"].to_numpy())

    @classmethod
    def of_sample(cls, sample: Sample) -> _Sample:
        return cls(sample.values.repeat(sample.weights), sample.block.repeat(sample.weights))

    def resampled(self, statistic: str, counts: Counts) -> Floats:
        if statistic == "mean":
            return intervals.means(self.values, self.block, counts)
        return intervals.quantiles(self.values, self.block, counts, QUANTILES[statistic])

    def estimate(self, statistic: str) -> float:
        once = np.ones((1, int(self.block.max()) + 1), dtype=np.int64)
        return float(self.resampled(statistic, once)[0])


def _differences(
    measured: tuple[Measured, ...], owners: pl.DataFrame, counts: Counts | None
) -> Iterable[Difference]:
    names = tuple(dict.fromkeys(metric for metric, _ in STATISTICS))
    blocked, blocks = owners, intervals.BLOCKS
    if counts is None:
        blocked, blocks = owners.with_columns(block=pl.lit(0)), 1
    found_a, found_b = (m.samples(names, blocked, blocks) for m in measured)
    samples = {
        name: (_Sample.of_sample(found_a[name]), _Sample.of_sample(found_b[name])) for name in names
    }
    for metric, statistic in STATISTICS:
        a, b = samples[metric]
        if not len(a.values) or not len(b.values):
            continue
        if metric == "icl" and len(samples["tbt"][0].values) and len(samples["tbt"][1].values):
            continue  # every chunk is a token: TBT says it already
        at, bt = a.estimate(statistic), b.estimate(statistic)
        ratio = None
        if counts is not None:
            of_a, of_b = a.resampled(statistic, counts), b.resampled(statistic, counts)
            ratio = intervals.ratio(at, bt, of_a, of_b)
        yield Difference(metric, statistic, at, bt, ratio)


class _Shares(NamedTuple):
    """A share in both runs, and B less A with its interval."""

    a: float
    b: float
    difference: Interval | None


def _share_difference(
    tables: Iterable[pl.DataFrame], owners: pl.DataFrame, counts: Counts | None
) -> _Shares:
    a, b = (_Sample.of(table, "met", owners) for table in tables)
    at, bt = float(a.values.mean()), float(b.values.mean())
    if counts is None:
        return _Shares(at, bt, None)
    less = b.resampled("mean", counts) - a.resampled("mean", counts)
    found = intervals.around(bt - at, less)
    if found is None:
        return _Shares(at, bt, None)
    # Shares that never varied are not certain: of n programs without an exception, up to 3 / n of
    # all may be one (the rule of three, at 95 %).
    floor = 3 / owners.height
    low, high = min(found.low, bt - at - floor), max(found.high, bt - at + floor)
    return _Shares(at, bt, Interval(bt - at, max(low, -1.0), min(high, 1.0)))


def _verdict(
    interval: Interval | None, neutral: float, smallest: float, *, larger_is_better: bool
) -> Verdict:
    """Say what an interval says, where its estimate is at least `smallest` away from `neutral`."""
    if interval is None:
        return "unknown"
    if not interval.excludes(neutral) or abs(interval.estimate - neutral) < smallest:
        return "indistinguishable"
    return "better" if (interval.estimate > neutral) == larger_is_better else "worse"


def _in_words(
    a: str, b: str, slo: SLODifference | None, rows: tuple[Difference, ...], failed: _Shares
) -> str:
    jct = next((r for r in rows if (r.metric, r.statistic) == DECIDING_WITHOUT_SLO), None)
    if slo:
        sentence, decided = _slo_sentence(a, b, slo), slo.verdict
    elif jct:
        sentence, decided = _jct_sentence(a, b, jct, failed)
    else:
        return "No mean JCT can be compared: in one of the runs no program was served whole."
    if decided not in ("better", "worse"):
        return sentence
    b_won = decided == "better"
    price: dict[str, tuple[float, str]] = {}  # of each metric the statistic that suffered most
    for row in rows:
        factor = row.b / row.a if b_won else row.a / row.b
        if row.verdict == ("worse" if b_won else "better") and factor >= WORTH_SAYING:
            metric = row.metric.removesuffix("_due")
            if factor > price.get(metric, (0.0, ""))[0]:
                price[metric] = (factor, row.label)
    if price:
        told = ", ".join(f"{label} x {factor:.2f}" for factor, label in price.values())
        sentence += f" The price: {told}."
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


def _jct_sentence(a: str, b: str, jct: Difference, failed: _Shares) -> tuple[str, Verdict]:
    if jct.ratio is None:
        told = f"{b}'s mean JCT is {jct.b:.3g} s, {a}'s {jct.a:.3g} s"
        return f"{told}; too few programs to say how sure.", "unknown"
    low, high = jct.ratio.low, jct.ratio.high
    # which run failed more programs, if one surely did
    failures = _verdict(failed.difference, 0.0, SMALLEST_SHARE, larger_is_better=False)
    more = f"failed {max(failed[:2]):.1%} of programs against {min(failed[:2]):.1%}"
    if jct.verdict == "indistinguishable":
        told = f"{a} and {b} cannot be told apart: ratio of mean JCT {low:.2f} to {high:.2f}, 95 %."
        if failures in ("better", "worse"):
            told += f" But {a if failures == 'better' else b} {more}."
        return told, "indistinguishable"
    winner, loser, ratio = b, a, jct.ratio.estimate
    if jct.verdict == "worse":
        winner, loser, ratio, low, high = a, b, 1 / ratio, 1 / high, 1 / low
    told = f"its mean JCT is {ratio:.2f} of {loser}'s ({low:.2f} to {high:.2f}, 95 %)"
    if failures in ("better", "worse") and failures != jct.verdict:
        told = f"{winner} was faster where it answered: {told}. But it {more} for {loser};"
        return f"{told} give an SLO to say which served it better.", "unknown"
    return f"{winner} served it better: {told}.", jct.verdict
