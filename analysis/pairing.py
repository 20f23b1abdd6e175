"""Which programs of several runs can be compared, in which sections, and with what doubts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from servescope.analysis import evidence, intervals
from servescope.analysis.measured import Measured
from servescope.analysis.sample import Sample
from servescope.analysis.totals import Whole
from servescope.traces.errors import InputError
from servescope.traces.results import requests
from servescope.traces.run import Run
from servescope.traces.status import CANCELLED, LOST, NOT_SENT

CACHED_APART = 0.05  # shares of prompt tokens
TOKENS_APART = 0.01
FEW_PROGRAMS = 500
DUE_APART = 0.1  # of the mean gap between programs


@dataclass(frozen=True, eq=False)
class Arm:
    """One system: its runs, which are repeats, and what was measured of each."""

    runs: tuple[Run, ...]
    measured: tuple[Measured, ...]

    @classmethod
    def of(cls, system: Run | Sequence[Run]) -> Arm:
        """Take a run, or the repeats of one."""
        runs = (system,) if isinstance(system, Run) else tuple(system)
        return cls(runs, tuple(map(Measured.of, runs)))

    @property
    def first(self) -> Whole:
        """The first repeat as a whole."""
        return Whole(self.measured[0], self.runs[0])

    def samples(self, names: Collection[str], pairing: Pairing) -> dict[str, Sample]:
        """Return the values of metrics over all repeats, in the sections of the pairing."""
        each = [
            measured.samples(names, owners, pairing.each)
            for measured, owners in zip(self.measured, pairing.owners, strict=True)
        ]
        return {name: evidence.merged([samples[name] for samples in each]) for name in names}

    def share(self, of: Callable[[Measured], pl.DataFrame], pairing: Pairing) -> Sample:
        """Return the column `met` of a table of programs or calls, over all repeats."""
        tables = [
            of(measured).join(owners, on="program_id", maintain_order="left")
            for measured, owners in zip(self.measured, pairing.owners, strict=True)
        ]
        return evidence.merged(
            [
                Sample.of(
                    table["met"].cast(pl.Float64).to_numpy(),
                    table["block"].to_numpy(),
                    pairing.each,
                )
                for table in tables
            ]
        )


@dataclass(frozen=True, eq=False)
class Pairing:
    """The programs that every system holds whole, repeat by repeat, each with its section.

    `owners` has a table of program_id and block for each repeat; `each` is the number of sections
    of one repeat, `sections` of all, None if there are too few programs for any.
    """

    owners: tuple[pl.DataFrame, ...]
    each: int
    sections: int | None
    programs: int
    calls: int
    doubts: tuple[str, ...]


def names_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the runs' names, or their folders' where two have the same one."""
    names = tuple(run.info.name for run in runs)
    return names if len(set(names)) == len(names) else tuple(str(run.path) for run in runs)


def pair(arms: Sequence[Arm], names: Sequence[str]) -> Pairing:
    """Pair the programs of several systems; raises InputError if their plans differ."""
    if len(arms) < 2:
        raise InputError("There is nothing to compare a single run with.", "Name two or more.")
    places = [run.path.resolve() for arm in arms for run in arm.runs]
    for place in places:
        if places.count(place) > 1:
            raise InputError(
                f"{place} is named twice, and no run differs from itself.",
                "Name two runs; for an A/A test, replay the same plan again.",
            )
    repeats = len(arms[0].runs)
    for arm in arms[1:]:
        if len(arm.runs) != repeats:
            raise InputError(
                f"{arms[0].runs[0].path} has {repeats} repeats and {arm.runs[0].path} has"
                f" {len(arm.runs)}.",
                "Compare as many of each.",
            )
        for ours, theirs in zip(arms[0].runs, arm.runs, strict=True):
            if ours.info.imported or theirs.info.imported:
                requests.refuse_unlike(ours, theirs)
            elif ours.info.plan_sha256 != theirs.info.plan_sha256:
                raise InputError(
                    f"{ours.path} and {theirs.path} did not run the same plan, so their calls"
                    " cannot be paired.",
                    "Replay both with the same trace, options and --seed.",
                )
    each = -(-intervals.SECTIONS // repeats)
    owners, pairs, left_out = [], 0, 0
    for repeat in range(repeats):
        whole, calls, cut = _whole(arms, repeat)
        owners.append(whole)
        pairs += calls
        left_out += cut
    blocks = [intervals.sections_of(table["start"].to_numpy(), each) for table in owners]
    enough = all(block is not None for block in blocks) and each * repeats > 1
    tables = tuple(
        table.select("program_id", block=pl.Series(block if enough else np.zeros(len(table), int)))
        for table, block in zip(owners, blocks, strict=True)
    )
    programs = sum(table.height for table in tables)
    sections = each * repeats if enough else None
    return Pairing(
        owners=tables,
        each=each if enough else 1,
        sections=sections,
        programs=programs,
        calls=pairs,
        doubts=tuple(_doubts(arms, names, programs, left_out, sections)),
    )


def differences(a: Measured, b: Measured, metric: str) -> pl.DataFrame:
    """Return a row a call that both runs answered: call_id, due_s, input_tokens, difference.

    `difference` is a metric of calls in `b` less the same in `a`, in its unit; due_s and
    input_tokens are those of `a`. A call that one of them failed has none and is left out.
    """
    theirs = b.calls.select("call_id", theirs=metric)
    return (
        a.calls.select("call_id", "due_s", "input_tokens", metric)
        .join(theirs, on="call_id", maintain_order="left")
        .select("call_id", "due_s", "input_tokens", difference=pl.col("theirs") - pl.col(metric))
        .drop_nulls("difference")
    )


def _whole(arms: Sequence[Arm], repeat: int) -> tuple[pl.DataFrame, int, int]:
    """Return the programs of which all arms hold the same calls, with when they first began.

    And how many calls those have, and how many programs were left out.
    """
    tables = [
        arm.measured[repeat].asked.select("program_id", "call_id", "due_s", "status")
        for arm in arms
    ]
    together = pl.concat(tables)
    counted = together.group_by("call_id").agg(pl.len(), pl.col("program_id").first())
    alone = counted.filter(pl.col("len") < len(arms))
    # what the user stopped, in flight or before it was due, is no failure of the server
    stopped = pl.col("status").is_in((CANCELLED, LOST)) | (
        (pl.col("status") == NOT_SENT) & pl.col("due_s").is_null()
    )
    cut = pl.concat([alone.select("program_id"), together.filter(stopped).select("program_id")])
    whole = together.join(cut, on="program_id", how="anti")
    owners = whole.group_by("program_id").agg(start=pl.col("due_s").min())
    if owners.is_empty():
        paths = " and ".join(str(arm.runs[repeat].path) for arm in arms)
        raise InputError(
            f"{paths} have no program in common that all hold whole.", "Let them run to their end."
        )
    left_out = together["program_id"].n_unique() - owners.height
    return owners.sort("start", "program_id"), whole.height // len(arms), left_out


def _doubts(
    arms: Sequence[Arm],
    names: Sequence[str],
    programs: int,
    left_out: int,
    sections: int | None,
) -> Iterable[str]:
    for name, arm in zip(names, arms, strict=True):
        for doubt in dict.fromkeys(doubt for run in arm.runs for doubt in run.info.doubts):
            yield f"{name}: {doubt}"
    for name, arm in zip(names[1:], arms[1:], strict=True):
        yield from _between(names[0], name, arms[0], arm)
    if left_out:
        yield (
            f"{left_out} programs are not whole in all runs and are left out of the comparison;"
            " let them run to their end."
        )
    if sections is None:
        yield (
            f"{programs} programs are too few for an interval; replay at least"
            f" {intervals.FEWEST_PROGRAMS}."
        )
    elif programs < FEW_PROGRAMS:
        yield (
            f"{programs} programs are few: where calls queue for long, intervals of so few come out"
            f" too narrow; replay {FEW_PROGRAMS} or more."
        )


def _between(first: str, second: str, a: Arm, b: Arm) -> Iterable[str]:
    """Say what else than the system differs."""
    ours, theirs = a.runs[0].info, b.runs[0].info
    if ours.clock != theirs.clock:
        yield f"{first} ran in {ours.clock} time and {second} in {theirs.clock} time."
    elif ours.asked != theirs.asked:
        keys = dict.fromkeys((*ours.asked, *theirs.asked))
        differing = ", ".join(k for k in keys if ours.asked.get(k) != theirs.asked.get(k))
        yield f"The two runs asked differently ({differing}): they were not sent the same bytes."
    if ours.model != theirs.model:
        yield f"{first} served {ours.model} and {second} {theirs.model}: two models are compared."
    able = [
        what
        for key, what in _CAPABILITIES.items()
        if ours.probe.get(key) != theirs.probe.get(key) and ours.probe and theirs.probe
    ]
    if able:
        yield f"The endpoints of {first} and {second} differ in {', '.join(able)}."
    if ours.imported and theirs.imported:
        yield from _between_imported(first, second, a, b)
    tokens = [sum(map(_tokens, arm.measured)) for arm in (a, b)]
    if abs(tokens[0] - tokens[1]) > TOKENS_APART * max(tokens):
        yield (
            f"{first} counted {tokens[0]:,} tokens of prompts and answers and {second}"
            f" {tokens[1]:,} of the same calls: they did not do the same work."
        )
    cached = [_cached_share(arm.measured[0]) for arm in (a, b)]
    if abs(cached[0] - cached[1]) > CACHED_APART:
        yield (
            f"{first} took {cached[0]:.0%} of the prompts from its cache and {second}"
            f" {cached[1]:.0%}: if one was warm from an earlier run, restart it or change --seed in"
            " both."
        )


def _between_imported(first: str, second: str, a: Arm, b: Arm) -> Iterable[str]:
    """Say what an equal plan would rule out: requests that are not known, another timetable."""
    hidden = sum(requests.unknown(*runs) for runs in zip(a.runs, b.runs, strict=True))
    if hidden:
        yield (
            f"What {hidden} calls were sent is not in the files of both {first} and {second},"
            " mostly because they failed: they are taken for the same."
        )
    starts = [
        arm.measured[0].asked.group_by("program_id").agg(pl.col("due_s").min()) for arm in (a, b)
    ]
    both = starts[0].join(starts[1], on="program_id", suffix="_b").drop_nulls()
    span_s = both["due_s"].max()
    if both.height < 2 or not isinstance(span_s, float):
        return
    apart_s = both.select((pl.col("due_s") - pl.col("due_s_b")).abs().median()).item()
    if apart_s > DUE_APART * span_s / (both.height - 1):
        yield (
            f"{first} and {second} were sent their requests at other moments, half of them more"
            f" than {apart_s:.3g} s apart: they had the same rate or concurrency, and not the same"
            " timetable."
        )


_CAPABILITIES = {
    "streams": "whether answers come in pieces",
    "reuse": "whether connections outlive a call",
    "refused": "which fields of a request they refuse",
    "each": "whether every chunk says its tokens",
}


def _tokens(measured: Measured) -> int:
    served = measured.asked.filter(pl.col("status") == "ok")
    return int(served["input_tokens"].sum()) + int(served["output_tokens"].sum())


def _cached_share(measured: Measured) -> float:
    """Return the share of prompt tokens that the server took from its cache, as far as it says."""
    calls = measured.asked
    return int(calls["cached_tokens"].sum()) / max(1, int(calls["input_tokens"].sum()))
