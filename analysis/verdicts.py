"""What a comparison comes to, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from servescope.analysis import evidence
from servescope.analysis.evidence import ALPHA, Evidence

if TYPE_CHECKING:
    from servescope.analysis.comparison import Difference, ShareDifference

Verdict = Literal["better", "worse", "equivalent", "cannot tell", "unknown"]
WORTH_SAYING = 1.05  # a smaller factor is no price, however sure it is
SMALLEST_RATIO = 0.01


def in_words(
    a: str,
    b: str,
    asked: str,
    slo: ShareDifference | None,
    failures: ShareDifference,
    rows: Sequence[Difference],
    deciding: Evidence | None,
    margin: float,
    longer: float | None,
) -> tuple[str, Verdict]:
    """Return the verdict on B against A in words, and in one word.

    The share within the SLO (`asked`) decides, or else mean JCT. What was better has its price
    named, and what could not be told apart how much longer to run.
    """
    jct = next((row for row in rows if (row.metric, row.statistic) == ("jct", "mean")), None)
    if slo:
        sentence, decided = _by_slo(a, b, asked, slo, margin)
    elif jct:
        sentence, decided = _by_jct(a, b, jct, deciding, failures, margin)
    else:
        return "No mean JCT can be compared: in one run no program was served whole.", "unknown"
    if decided == "cannot tell" and longer is not None:
        effect = 0.0
        if slo and slo.difference:
            effect = slo.difference.estimate
        elif deciding:
            effect = deciding.effect.estimate
        sentence += _how_long(longer, margin, effect, points=slo is not None)
    if decided in ("better", "worse"):
        sentence += _price(rows, b_won=decided == "better")
    return sentence, decided


def _how_long(longer: float, margin: float, effect: float, *, points: bool) -> str:
    """Say how long to run to find the margin, and to find an effect that looks larger than it."""
    what = f"{margin * 100:g} points" if points else f"{margin:.0%}"
    smallest = margin if points else math.log1p(margin)
    if longer <= 1:
        return f" These runs are long enough to find a difference of {what} four times in five."
    told = ""
    if abs(effect) > smallest:
        seen = longer * (smallest / abs(effect)) ** 2
        told = f" If it is as large as it looks, {_times(seen)} will find it four times in five."
    return f"{told} To find a difference of {what} so takes {_times(longer)}."


def _times(longer: float) -> str:
    if longer <= 1:
        return "another run as long as this"
    times = f"{longer:.1f}" if longer < 10 else f"{longer:.0f}"
    return f"{times} times as long, or {max(2, math.ceil(longer))} repeats"


def _price(rows: Sequence[Difference], *, b_won: bool) -> str:
    worst: dict[str, tuple[float, str]] = {}  # of each metric the statistic that suffered most
    for row in rows:
        if row.verdict != ("worse" if b_won else "better") or not row.a or not row.b:
            continue
        factor = row.b / row.a if b_won else row.a / row.b
        metric = row.metric.removesuffix("_due")
        if factor >= WORTH_SAYING and factor > worst.get(metric, (0.0, ""))[0]:
            worst[metric] = (factor, row.label)
    if not worst:
        return ""
    return (
        f" The price: {', '.join(f'{label} x {factor:.2f}' for factor, label in worst.values())}."
    )


def _by_slo(a: str, b: str, asked: str, slo: ShareDifference, margin: float) -> tuple[str, Verdict]:
    what = f"{slo.per} within {asked}"
    if slo.difference is None:
        told = f"{b} has {slo.b:.1%} of {what}, {a} {slo.a:.1%}"
        return f"{told}; too few programs to say how sure.", "unknown"
    low, high = slo.difference.low * 100, slo.difference.high * 100
    if slo.verdict == "equivalent":
        return (
            f"{a} and {b} are equivalent within {margin * 100:g} points: {slo.a:.1%} and"
            f" {slo.b:.1%} of {what} (difference {low:+.1f} to {high:+.1f} points, 95 %).",
            "equivalent",
        )
    if slo.verdict == "cannot tell":
        return (
            f"{a} and {b} cannot be told apart: {slo.a:.1%} and {slo.b:.1%} of {what}"
            f" (difference {low:+.1f} to {high:+.1f} points, 95 %).",
            "cannot tell",
        )
    (winner, most), (loser, least) = sorted(((a, slo.a), (b, slo.b)), key=lambda arm: -arm[1])
    if winner == a:
        low, high = -high, -low
    return (
        f"{winner} served it better: {most:.1%} of {what} against {least:.1%} for {loser}"
        f" ({low:+.1f} to {high:+.1f} points, 95 %).",
        slo.verdict,
    )


def _by_jct(
    a: str,
    b: str,
    jct: Difference,
    deciding: Evidence | None,
    failures: ShareDifference,
    margin: float,
) -> tuple[str, Verdict]:
    if jct.ratio is None or deciding is None:
        told = f"{b}'s mean JCT is {jct.b:.3g} s, {a}'s {jct.a:.3g} s"
        return f"{told}; too few programs to say how sure.", "unknown"
    low, high, ratio = jct.ratio.low, jct.ratio.high, jct.ratio.estimate
    # which system failed more programs, if one surely did: a larger share is worse here
    more = f"failed {max(failures.a, failures.b):.1%} of programs against"
    more += f" {min(failures.a, failures.b):.1%}"
    failed_more = {"better": b, "worse": a}.get(failures.verdict)
    if deciding.p_value >= ALPHA or abs(ratio - 1) < SMALLEST_RATIO:
        within = evidence.equivalence(deciding, margin) < ALPHA
        told = f"are equivalent within {margin:.0%}" if within else "cannot be told apart"
        sentence = f"{a} and {b} {told}: ratio of mean JCT {low:.2f} to {high:.2f}, 95 %."
        if failed_more:
            sentence += f" But {failed_more} {more}."
        return sentence, "equivalent" if within else "cannot tell"
    decided: Verdict = "better" if ratio < 1 else "worse"
    winner, loser = b, a
    if decided == "worse":
        winner, loser, ratio, low, high = a, b, 1 / ratio, 1 / high, 1 / low
    told = f"its mean JCT is {ratio:.2f} of {loser}'s ({low:.2f} to {high:.2f}, 95 %)"
    if failed_more == winner:
        return (
            f"{winner} was faster where it answered: {told}. But it {more} for {loser}; give an SLO"
            " to say which served it better.",
            "unknown",
        )
    return f"{winner} served it better: {told}.", decided
