"""The runs under a folder, and what is kept of them between one look and the next.

Nothing is opened by a path that came from a page: a page names a run, and only runs that were found
under the folder have names.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import polars as pl

from servescope.analysis.characterization import Characterization
from servescope.analysis.cut import Cut
from servescope.analysis.headline import Headline, headline
from servescope.analysis.progress import Progress
from servescope.analysis.slo import SLO
from servescope.analysis.thresholds import Thresholds
from servescope.reports import Story, story_of
from servescope.traces import BUNDLED, live, load
from servescope.traces.atomic import write_json
from servescope.traces.errors import InputError, NotARun, ServescopeError
from servescope.traces.formats.locate import find
from servescope.traces.run import Run, RunInfo

MOST_RUNS, DEEPEST = 5000, 6
TAGS = ".servescope-tags.json"
LONGEST_TAG = 40
_OF_A_RUN = {"calls", "server"}  # folders that a run itself holds
_STORIES, _PARTS, _TRACES, _FOLLOWED = 3, 12, 4, 4

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Kept(Generic[T]):
    """The few things that were last asked for; each is made once, however many ask at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry[T]] = OrderedDict()

    def of(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `key` stands for, made now if it is not there; an error is not kept."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
        with entry.lock:
            if not entry.made:
                entry.made.append(make())
            return entry.made[0]


@dataclass
class _Entry(Generic[T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: list[T] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Listed:
    """A run as the list shows it; `wrong` says in a sentence why it cannot be read."""

    name: str
    info: RunInfo | None = None
    headline: Headline | None = None
    live: bool = False
    tags: tuple[str, ...] = ()
    wrong: str | None = None


class Library:
    """The runs under `folder`, by their place in it, and the traces that the user named."""

    def __init__(self, folder: Path, traces: Sequence[str] = ()) -> None:
        if not folder.is_dir():
            raise InputError(
                f"{folder} is no folder.", "Name the folder that the runs are in, or one run."
            )
        for trace in traces:
            if trace not in BUNDLED:
                find(trace)  # one that is not there is said now
        self.folder = folder.resolve()
        self.traces = tuple(dict.fromkeys((*traces, *BUNDLED)))
        self._rows: Kept[tuple[RunInfo, Headline]] = Kept(MOST_RUNS)
        self._stories: Kept[Story] = Kept(_STORIES)
        self._parts: Kept[Story] = Kept(_PARTS)
        self._bounds: Kept[Thresholds] = Kept(_PARTS)
        self._followed: Kept[tuple[Progress, threading.Lock]] = Kept(_FOLLOWED)
        self._characters: Kept[Characterization] = Kept(_TRACES)
        self._tagging = threading.Lock()
        self._known: frozenset[str] = frozenset()

    def names(self) -> list[str]:
        """Return the names of all runs, those that began last first."""
        found: list[tuple[float, str]] = []
        for place, folders, files in os.walk(self.folder):
            here = Path(place)
            if "run.json" in files:
                folders.clear()
                found.append((_changed(here / "run.json"), self._name(here)))
                if len(found) == MOST_RUNS:
                    break
            elif len(here.relative_to(self.folder).parts) >= DEEPEST:
                folders.clear()
            else:
                folders[:] = sorted(n for n in folders if n[0] != "." and n not in _OF_A_RUN)
        self._known = frozenset(name for _, name in found)
        return [name for _, name in sorted(found, key=lambda each: (-each[0], each[1]))]

    def run(self, name: str) -> Run:
        """Open a run by its name.

        Raises InputError for a name that no run under the folder has, and NotARun for one that
        cannot be read, or that a link leads out of the folder.
        """
        if name not in self._known and name not in self.names():
            raise InputError(
                f"There is no run '{name}' here.", "Choose one of the list, or start anew."
            )
        path = self.folder / name
        self._refuse_links(path)
        return Run.open(path)

    def listed(self, names: Iterable[str] | None = None) -> list[Listed]:
        """Return what the list shows of runs, of all by default; one that fails says why."""
        tags = self.tags
        found = []
        for name in self.names() if names is None else names:
            try:
                info, numbers = self._row(name)
                said = live.read(self.folder / name) if info.ended is None else None
                alive = said is not None and said.alive()
                found.append(Listed(name, info, numbers, alive, tags.get(name, ())))
            except Exception as error:
                found.append(Listed(name, tags=tags.get(name, ()), wrong=sentence_of(error)))
        return found

    def _row(self, name: str) -> tuple[RunInfo, Headline]:
        path = self.folder / name

        def read() -> tuple[RunInfo, Headline]:
            self._refuse_links(path)
            run = Run.open(path)
            return run.info, headline(run, slo_of(run.info.slo))

        return self._rows.of((name, _mark(path)), read)

    def slo(self, names: Sequence[str], asked: str | None) -> SLO | None:
        """Return the SLO that was asked, else that of the first run that has one."""
        if asked:
            return SLO.parse(asked)
        return slo_of(next((s for n in names if (s := self.run(n).info.slo)), None))

    def story(self, names: Sequence[str], slo: str | None = None) -> Story:
        """Return the story of one run, or of several compared, the first being the baseline."""
        runs = [self.run(name) for name in names]
        return self._stories.of(self._key(names, slo), lambda: story_of(runs, self.slo(names, slo)))

    def part(self, names: Sequence[str], slo: str | None, cut: Cut) -> Story:
        """Return the story of a part of runs; an empty cut is all of them.

        Their files are read once for all parts, if a part is asked for before anything else is.
        """
        whole = self.story(names, slo)
        return self._parts.of((self._key(names, slo), cut), lambda: whole.cut(cut))

    def _key(self, names: Sequence[str], slo: str | None) -> Hashable:
        return (tuple((name, _mark(self.folder / name)) for name in names), slo)

    def bounds(self, name: str) -> Thresholds:
        """Return a run as the SLO explorer asks it."""
        (measured,) = self.story([name]).measured.values()
        return self._bounds.of((name, _mark(self.folder / name)), lambda: Thresholds.of(measured))

    @contextmanager
    def following(self, name: str) -> Iterator[Progress]:
        """Give what has come back of a run so far, read up to now; one looks at a time."""
        path = self.run(name).path
        progress, lock = self._followed.of(name, lambda: (Progress(path), threading.Lock()))
        with lock:
            progress.update()
            yield progress

    def characterized(self, trace: str) -> Characterization:
        """Return what a trace is like: a named one, or the demand of a run.

        Raises InputError for a trace that nobody named.
        """
        from servescope.analysis import characterize
        from servescope.analysis.demand import Demand

        if trace not in self.traces:
            run = self.run(trace)
            return self._characters.of(
                (trace, _mark(run.path)),
                lambda: characterize(Demand.of(load(run.path)), name=trace),
            )
        return self._characters.of(
            trace, lambda: characterize(Demand.of(load(trace)), name=Path(trace).name)
        )

    @property
    def tags(self) -> dict[str, tuple[str, ...]]:
        """The tags of runs by name; a file of tags that cannot be read has none."""
        try:
            kept = (self.folder / TAGS).read_bytes()
            return msgspec.json.decode(kept, type=dict[str, tuple[str, ...]])
        except (OSError, msgspec.DecodeError):
            return {}

    def tag(self, names: Iterable[str], tag: str, *, remove: bool = False) -> None:
        """Give runs a tag, or take it from them; raises InputError where it cannot be kept."""
        tag = " ".join(tag.split())[:LONGEST_TAG]
        if not tag:
            raise InputError("The tag is empty.", "Write a word.")
        known = set(self.names())
        with self._tagging:
            kept = self.tags
            for name in known.intersection(names):
                others = [each for each in kept.get(name, ()) if each != tag]
                kept[name] = tuple(others if remove else [*others, tag])
            try:
                write_json(self.folder / TAGS, {n: tags for n, tags in kept.items() if tags})
            except OSError as error:
                raise InputError(
                    f"Tags cannot be kept in {self.folder.name}: {error.strerror}.",
                    "Make the folder writable.",
                ) from None

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _refuse_links(self, path: Path) -> None:
        """Raise NotARun if a file of a run is a link that leads out of the folder."""
        for place, folders, files in os.walk(path):
            for name in (*folders, *files):
                each = Path(place, name)
                if each.is_symlink() and not each.resolve().is_relative_to(self.folder):
                    raise NotARun(
                        f"{name} of {self._name(path)} is a link that leads out of the folder.",
                        "Copy the file into the run.",
                    )


def slo_of(text: str | None) -> SLO | None:
    """Read an SLO, if there is one."""
    return SLO.parse(text) if text else None


def sentence_of(error: Exception) -> str:
    """Say in words what went wrong, and how to mend it; nothing of the files' contents."""
    if isinstance(error, ServescopeError):
        return str(error)
    if isinstance(error, pl.exceptions.PolarsError | OSError):
        first = str(error).split("\n")[0]
        return f"A file of it cannot be read: {first}. It was damaged, or is still being written."
    _log.debug("A fault, shown as a sentence", exc_info=error)
    return (
        f"It cannot be shown ({type(error).__name__}). It was made by another version, or this is"
        " a fault of servescope: `servescope --debug dashboard` prints where."
    )


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _mark(path: Path) -> tuple[Any, ...]:
    """Return what changes when a run does."""
    marks: list[Any] = []
    for name in ("run.json", "calls.parquet", "calls"):
        try:
            stat = (path / name).stat()
            marks.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            marks.append(None)
    return tuple(marks)
