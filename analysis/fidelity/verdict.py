"""What a comparison says, in sentences a reader who knows no statistics can use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

import polars as pl

from servescope.analysis.fidelity.comparison import Fidelity
from servescope.analysis.summary import Sentence

_GUESSING = 0.53  # an AUC up to which a classifier is said to guess
_COPIED = 0.05  # share of windows from which copies are said


def sentences(found: Fidelity) -> list[Sentence]:
    """Return what matters, what a server would notice first; what is not known is not in it."""
    return [Sentence(aspect, text) for aspect, tell in _TOLD.items() for text in tell(found)]


def _share(value: float) -> str:
    if value >= 10:
        return f"{value:,.0f} times"
    return f"{100 * value:.0f} %" if value >= 0.1 else f"{100 * value:.1f} %"


def _floor(row: dict[str, float | None], write: Callable[[float], str]) -> str:
    """Say what the two parts of the real trace show, where it is known."""
    return (
        ""
        if row["floor"] is None
        else f"; between two parts of the real trace: {write(row['floor'])}"
    )


def _row(found: Fidelity, measure: str, subject: str | None = None) -> dict[str, float] | None:
    rows = found.table.filter(pl.col("measure") == measure)
    if subject is not None:
        rows = rows.filter(pl.col("subject") == subject)
    return rows.row(0, named=True) if rows.height else None


_NOTICED = {
    "ttft_p99": "The 99th percentile of the time to first token",
    "tbt_p99": "The 99th percentile of the time between tokens",
    "jct_p99": "The 99th percentile of the time of a program",
    "queue_mean": "The mean number of calls that wait",
}


def _serving(found: Fidelity) -> Iterator[str]:
    for measure, name in _NOTICED.items():
        rows = found.table.filter((pl.col("aspect") == "serving") & (pl.col("measure") == measure))
        if rows.is_empty():
            continue
        values, floors = rows["value"].to_list(), rows["floor"].drop_nulls().to_list()
        loads = ", ".join(s.removeprefix("load ") for s in rows["subject"])
        at = f"load {loads}" if len(values) == 1 else f"loads {loads}"
        worst = "" if len(values) == 1 else f", at worst by {_share(max(values))}"
        floor = f"; between two parts of the real trace: {_share(sum(floors) / len(floors))}"
        yield (
            f"{name} is off by {_share(sum(values) / len(values))} at {at}{worst}"
            f"{floor if floors else ''}."
        )
    inside, of = found.inside
    if of:
        yield (
            f"{inside} of {of} real numbers ({_share(inside / of)}) lie within the band of the"
            f" {len(found.synthetic)} synthetic traces, of a perfect model 90 %."
        )


def _classifier(found: Fidelity) -> Iterator[str]:
    row = _row(found, "auc")
    if row is not None:
        sure = "" if row["low"] is None else f" ({row['low']:.2f} to {row['high']:.2f})"
        how = (
            "guesses" if abs(row["value"] - 0.5) <= _GUESSING - 0.5
            else "can tell" if row["value"] > 0.5
            else "is misled"
        )  # fmt: skip
        yield (
            f"A classifier that sees 32 calls in a row {how}: AUC {row['value']:.2f}{sure}, where"
            f" 0.5 is guessing{_floor(dict(row), lambda v: f'{v:.2f}')}."
        )
    copied = _row(found, "copies")
    if copied is not None and copied["value"] > max(_COPIED, 2 * (copied["floor"] or 0.0)):
        yield (
            f"{_share(copied['value'])} of the synthetic windows are nearer to a real one than real"
            " ones are to each other: stretches of the real trace may have been copied."
        )


def _temporal(found: Fidelity) -> Iterator[str]:
    row = _row(found, "idc_mean_curve") or _row(found, "idc")
    if row is not None:
        yield (
            f"Burstiness is off by a factor of {math.exp(row['value']):.3g} on average over time"
            f" scales{_floor(dict(row), lambda v: f'{math.exp(v):.3g}')}."
        )


def _marginals(found: Fidelity) -> Iterator[str]:
    names = {"gap_s": "gaps", "input_tokens": "prompts", "output_tokens": "answers"}
    rows = {name: _row(found, "ks", subject) for subject, name in names.items()}
    known = {name: row for name, row in rows.items() if row is not None}
    if known:
        told = ", ".join(f"{name} {row['value']:.3f}" for name, row in known.items())
        floors = [row["floor"] for row in known.values() if row["floor"] is not None]
        floor = f"; between two parts of the real trace up to {max(floors):.3f}" if floors else ""
        yield f"Distributions are apart by at most (KS): {told}{floor}."


def _joint(found: Fidelity) -> Iterator[str]:
    row = _row(found, "spearman")
    if row is not None:
        yield (
            f"Prompt and answer have a rank correlation of {row['synthetic']:.2f} instead of"
            f" {row['real']:.2f}."
        )


def _sessions(found: Fidelity) -> Iterator[str]:
    row = _row(found, "turns")
    if row is not None:
        yield (
            f"Programs have {row['synthetic']:.3g} calls on average instead of {row['real']:.3g}"
            f" (KS {row['value']:.3f})."
        )


def _prefixes(found: Fidelity) -> Iterator[str]:
    row = _row(found, "hit_curve")
    if row is not None:
        yield (
            f"A prefix cache of some size finds {row['value']:.1f} points more or less than it"
            f" would{_floor(dict(row), lambda v: f'{v:.1f} points')}."
        )


_TOLD: Final[dict[str, Callable[[Fidelity], Iterator[str]]]] = {
    "serving": _serving,
    "classifier": _classifier,
    "temporal": _temporal,
    "marginals": _marginals,
    "joint": _joint,
    "sessions": _sessions,
    "prefixes": _prefixes,
}
