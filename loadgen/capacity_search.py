"""Searches for capacity: makes one probe after the other, each a run at a load of its own.

capacity.json   what is searched for, and every probe that was asked for
NN/             a probe: a study of one run, which is resumed, launched and warmed up as any other

A search that was stopped goes on with the probes that it has, and one with a larger budget too.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from servescope.analysis import capacity
from servescope.analysis.burn import Burn, burns_of
from servescope.analysis.capacity import Ask, Capacity, Probe, Stage
from servescope.analysis.measured import Measured
from servescope.analysis.slo import SLO
from servescope.analysis.steady_state import trim_of
from servescope.loadgen.conductor import Progress, Tally
from servescope.loadgen.experiment import WorkloadSpec
from servescope.loadgen.ledger import read as read_book
from servescope.loadgen.study import NamedWorkload, Study, SystemSpec
from servescope.loadgen.study import read as read_study
from servescope.loadgen.study_runner import Step, run_study
from servescope.loadgen.workload import workload_of
from servescope.traces.atomic import write_json
from servescope.traces.errors import EndpointError, GateFailed, InputError, OutputFailed
from servescope.traces.run import Run, refuse_taken

FILE = "capacity.json"
# A probe that has missed so many times more than it may in all its length has failed for certain:
# the rest would only fill the server with what it cannot serve.
CERTAIN = 3.0
FEWEST_PROGRAMS = 20  # of a probe
SPARE = 1.3  # programs for starts that are drawn, over those expected
LONG_PROGRAMS = 0.25  # of a probe: longer programs are never all in flight as they would be in time

Over = Literal["rate", "speed-up"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is searched for: the highest load at which a system meets an SLO.

    The load is a rate of programs (1/s), pauses as they are, or how many times as fast as recorded.
    The share `attainment` of calls (or programs) must meet what the SLO asks of each.
    """

    system: SystemSpec
    workload: NamedWorkload
    slo: str
    over: Over = "rate"
    attainment: Annotated[float, Meta(gt=0, lt=1)] = 0.9
    seed: Annotated[int, Meta(ge=0, lt=2**60)] = 0
    warmup_calls: Annotated[int, Meta(ge=0, le=1000)] = 4
    pause_s: Annotated[float, Meta(ge=0, le=1e5)] = 0.0

    def __post_init__(self) -> None:
        SLO.parse(self.slo)
        if self.over == "speed-up" and self.workload.drawn:
            raise InputError(
                "Starts that are drawn have a rate and no speed-up.", "Search over the rate."
            )

    @property
    def digest(self) -> str:
        """The SHA-256 of what is searched for; budgets and where it begins do not change it."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A probe that was asked for, and the places of the programs of a trace that it sends."""

    load: float
    seconds: float
    stage: Stage
    first: int = 0
    end: int = 0


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """What capacity.json holds."""

    digest: str
    wanted: Wanted
    probes: tuple[Asked, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A probe and the run that it is of."""

    probe: Probe
    run: Run


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to; `capacity` is None if no load passed, or none failed.

    `natural_rps` is the rate of programs (1/s) at a speed-up of 1, None where starts are drawn.
    """

    capacity: Capacity | None
    made: tuple[Made, ...]
    natural_rps: float | None
    doubts: tuple[str, ...]

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The probes in the order in which they were made."""
        return tuple(made.probe for made in self.made)


class _Supply:
    """The programs that probes are cut from, stretch after stretch, over again when they end."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        spec = wanted.workload.spec
        self.natural_rps: float | None = None
        self._starts: list[float] = []
        if spec.trace is None:
            return
        plain = msgspec.structs.replace(spec, arrivals=None, rate_rps=None, time_scale=1.0)
        programs = workload_of(plain, wanted.seed, closed=True).programs
        self._starts = [program.start_s for program in programs]
        if not spec.drawn:
            span_s = self._starts[-1] - self._starts[0]
            if not span_s > 0:
                raise InputError(
                    f"All programs of {spec.trace} start at once, so they have no rate.",
                    "Draw their starts: --arrivals poisson.",
                )
            self.natural_rps = (len(self._starts) - 1) / span_s

    def next_of(self, ask: Ask, before: Sequence[Asked]) -> Asked:
        """Return a probe of the programs that follow those of the one before, if enough do."""
        first = before[-1].end if before else 0
        end = self._end(first, ask)
        if end > len(self._starts):
            first, end = 0, min(self._end(0, ask), len(self._starts))
        return Asked(load=ask.load, seconds=ask.seconds, stage=ask.stage, first=first, end=end)

    def rate_rps(self, load: float) -> float:
        """Return how many programs a second a load starts on average."""
        if self._wanted.over == "rate":
            return load
        assert self.natural_rps is not None
        return load * self.natural_rps

    def _end(self, first: int, ask: Ask) -> int:
        """Return the place after the last program of a probe, beyond all if they do not suffice."""
        if not self._starts:
            return 0
        if self.natural_rps is None:
            return first + math.ceil(SPARE * ask.load * ask.seconds) + 10
        if first >= len(self._starts):
            return first + 1
        until_s = self._starts[first] + ask.seconds * self._speed_up(ask.load)
        end = bisect.bisect_left(self._starts, until_s)
        return end if until_s <= self._starts[-1] else len(self._starts) + 1

    def _speed_up(self, load: float) -> float:
        """Return how many times as fast as recorded a load is."""
        assert self.natural_rps is not None
        return load if self._wanted.over == "speed-up" else load / self.natural_rps

    def workload(self, asked: Asked) -> NamedWorkload:
        """Return the stretch of the workload that a probe sends, at its load."""
        whole = self._wanted.workload
        programs = (asked.first, asked.end) if asked.end else None
        if self.natural_rps is None:
            return msgspec.structs.replace(
                whole.at_rate(asked.load), duration_s=asked.seconds, programs=programs
            )
        # stretched by one factor alike, so that a stretch that was busier stays so
        paced = self._wanted.over == "speed-up" or whole.delays == "none"
        return msgspec.structs.replace(
            whole,
            programs=programs,
            rate_rps=None,
            time_scale=1 / self._speed_up(asked.load),
            delays=whole.delays if paced else "recorded",
        )

    def repeated(self, asked: Sequence[Asked]) -> bool:
        """Whether probes sent the same programs again."""
        return sum(each.first == 0 for each in asked) > 1 and bool(self._starts)


def search(
    wanted: Wanted,
    out: Path,
    *,
    begin: float | None = None,
    budget_s: float = 3600.0,
    most: float = float("inf"),
    reuse: Sequence[Path] = (),
    on_step: Callable[[str, Step], None] = lambda probe, step: None,
    on_progress: Progress = lambda tally: None,
    on_probe: Callable[[Probe], None] = lambda probe: None,
) -> Found:
    """Search until probes of `budget_s` seconds in all are made, beginning at the load `begin`.

    No load is above `most`. The runs of studies and sweeps in `reuse` count as probes that cost
    nothing, if they are of the same system and workload. Ctrl-C raises KeyboardInterrupt; the same
    call on the same folder goes on. Raises EndpointError where a probe fails, GateFailed where the
    client could not keep up, and InputError for a folder that holds another search.
    """
    supply = _Supply(wanted)
    slo = SLO.parse(wanted.slo)
    book = _opened(wanted, out)
    if begin is None:
        begin = 1.0 if wanted.over == "speed-up" else supply.natural_rps or 1.0
    made = [each for folder in reuse for each in _reused(wanted, slo, folder)]
    for number, asked in enumerate(book.probes):
        made.append(_probe(wanted, supply, slo, asked, number, out, on_step, on_progress))
    while ask := capacity.next_ask([each.probe for each in made], begin, budget_s, most):
        number = len(book.probes)
        _refuse_few(supply.rate_rps(ask.load), ask, number)
        asked = supply.next_of(ask, book.probes)
        book = msgspec.structs.replace(book, probes=(*book.probes, asked))
        _write(book, out)
        made.append(_probe(wanted, supply, slo, asked, number, out, on_step, on_progress))
        on_probe(made[-1].probe)
    return Found(
        capacity=capacity.capacity_of([each.probe for each in made]),
        made=tuple(made),
        natural_rps=supply.natural_rps,
        doubts=tuple(_doubts(made, supply, book.probes)),
    )


def _probe(
    wanted: Wanted,
    supply: _Supply,
    slo: SLO,
    asked: Asked,
    number: int,
    out: Path,
    on_step: Callable[[str, Step], None],
    on_progress: Progress,
) -> Made:
    """Make a probe, or take it as it is if it was made before, and read what it burned."""
    name = f"probe {number + 1} at {asked.load:.4g}"
    study = Study(
        name=name,
        systems=(wanted.system,),
        workloads=(supply.workload(asked),),
        slo=wanted.slo,
        seed=wanted.seed + number,
        warmup_calls=wanted.warmup_calls,
        pause_s=wanted.pause_s,
    )
    folder = out / f"{number + 1:02d}"
    enough = _failed_for_certain(slo, wanted.attainment) if slo.of_each else None
    if wanted.pause_s and number and not (folder / "study.json").exists():
        time.sleep(wanted.pause_s)
    kept = run_study(study, folder, partial(on_step, name), on_progress, enough)
    for entry in kept.in_state("failed"):
        raise EndpointError(
            f"Probe {number + 1}, at a load of {asked.load:.4g}, failed: {entry.why}",
            "What was measured is kept; mend it and give the same command with the same --out.",
        )
    run = Run.open(folder / kept.runs[0].path)
    if run.info.validity == "invalid":
        raise GateFailed(
            f"{run.path} is invalid at a load of {asked.load:.4g}: its numbers say more of the"
            " client than of the server.",
            "The doubts in its run.json say how to mend it.",
        )
    burns = _burns(run, slo, wanted.attainment)
    return Made(Probe(asked.load, asked.seconds, burns, asked.stage), run)


def _burns(run: Run, slo: SLO, attainment: float) -> tuple[Burn, ...]:
    """Return what a run burned once its server was no longer empty."""
    trim = trim_of(Measured.of(run).calls, mser=False)
    since_s = run.info.warmup_s if trim is None else max(trim.from_s, run.info.warmup_s)
    return burns_of(Measured(run.rows, since_s), slo, attainment)


def _reused(wanted: Wanted, slo: SLO, folder: Path) -> Iterator[Made]:
    """Yield the runs of a study that are of the same system and workload, as probes.

    Raises InputError if there are none.
    """
    study, book = read_study(folder / "study.toml"), read_book(folder)
    found = 0
    for entry in book.in_state("done"):
        cell = entry.cell
        load = cell.load.speed_up if wanted.over == "speed-up" else cell.load.rate_rps
        same = _plain(study.workload(cell.workload)) == _plain(wanted.workload)
        if load is None or not same or not _same(study.system(cell.system), wanted.system):
            continue
        run = Run.open(folder / entry.path)
        seconds = run.plan["due_s"].max()
        if run.info.validity != "invalid" and isinstance(seconds, float) and seconds > 0:
            found += 1
            burns = _burns(run, slo, wanted.attainment)
            yield Made(Probe(load, seconds, burns, reused=True), run)
    if not found:
        raise InputError(
            f"{folder} holds no run of this system and workload at a {wanted.over}.",
            "Leave --reuse out, or ask for what was swept there.",
        )


def _plain(workload: NamedWorkload) -> WorkloadSpec:
    """Return what a workload sends, without its name, how much of it, and how fast."""
    drawn = workload.arrivals and msgspec.structs.replace(workload.arrivals, rate_rps=None)
    return msgspec.structs.replace(
        workload.spec, arrivals=drawn, rate_rps=None, time_scale=1.0, start_s=0.0,
        duration_s=None, calls=None, programs=None,
    )  # fmt: skip


def _same(one: SystemSpec, other: SystemSpec) -> bool:
    return msgspec.structs.replace(one, name="a") == msgspec.structs.replace(other, name="a")


def _refuse_few(rate_rps: float, ask: Ask, number: int) -> None:
    """Raise InputError for a probe that would start too few programs to say anything."""
    if rate_rps * ask.seconds >= FEWEST_PROGRAMS:
        return
    needed_s = math.ceil(FEWEST_PROGRAMS / rate_rps / capacity.BRACKETING)
    raise InputError(
        f"At a load of {ask.load:.4g} a probe of {ask.seconds:.3g} s starts"
        f" {rate_rps * ask.seconds:.2g} programs: too few to judge.",
        f"Give --budget {needed_s} or more" + (", and the same --out." if number else "."),
    )


def _failed_for_certain(slo: SLO, attainment: float) -> Callable[[Tally], bool]:
    per_program = slo.per == "programs"

    def enough(tally: Tally) -> bool:
        if per_program:  # planned calls are no programs, and a program is judged when it has ended
            return False
        return tally.judged - tally.met > CERTAIN * (1 - attainment) * tally.planned

    return enough


def _doubts(made: Sequence[Made], supply: _Supply, asked: Sequence[Asked]) -> list[str]:
    doubts = []
    if supply.repeated(asked):
        doubts.append(
            "The workload is shorter than the search: probes sent the same programs again, so the"
            " bound knows less of other traffic than it says."
        )
    long = [each for each in made if _longest_s(each.run) > LONG_PROGRAMS * each.probe.seconds]
    if long:
        doubts.append(
            f"In {len(long)} of {len(made)} probes a program in ten lasted longer than a quarter of"
            " the probe: fewer were in flight than would be in time. Give a larger --budget."
        )
    if pair := capacity.torn([each.probe for each in made]):
        failed, passed = pair
        doubts.append(
            f"A probe at {failed.load:.4g} burned {failed.rate:.3g} times what the SLO allows, and"
            f" one at {passed.load:.4g}, a higher load, {passed.rate:.2g} times: which stretch of"
            " the workload they held decided more than the load. Give a larger --budget, so that"
            " each holds more."
        )
    suspect = [each.run.path.name for each in made if each.run.info.validity == "suspect"]
    if suspect:
        doubts.append(f"{len(suspect)} of {len(made)} probes are suspect; their doubts say why.")
    return doubts


def _longest_s(run: Run) -> float:
    """Return how long the longest tenth of the programs took at least (s); 0 of none."""
    took = Measured.of(run).programs["jct"].drop_nulls()
    ninth = took.quantile(0.9)
    return float(ninth) if ninth is not None else 0.0


def _opened(wanted: Wanted, out: Path) -> Book:
    """Return what was asked so far; raises InputError if the folder holds another search."""
    path = out / FILE
    if not path.exists():
        refuse_taken(out)
        book = Book(digest=wanted.digest, wanted=wanted)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputFailed.of(out, error) from None
        _write(book, out)
        return book
    try:
        book = msgspec.json.decode(path.read_bytes(), type=Book)
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path} cannot be read: {error}.", "Choose another --out, and search anew."
        ) from None
    if book.digest != wanted.digest:
        raise InputError(
            f"{out} holds another search: another system, workload, SLO or seed.",
            "Choose another --out.",
        )
    return book


def _write(book: Book, out: Path) -> None:
    try:
        write_json(out / FILE, book)
    except OSError as error:
        raise OutputFailed.of(out / FILE, error) from None
