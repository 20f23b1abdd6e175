"""What has become of each run of a study, kept in its folder and replaced at once or not at all.

study.toml     what was asked
study.json     its digest, and each run: pending, running, done, or failed and why
SYSTEM/WORKLOAD-LOAD-REPEAT/      a run directory each
SYSTEM/WORKLOAD-LOAD-REPEAT.log   what a launched server said
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Literal

import msgspec
import tomli_w

from servescope.loadgen.schedule import Cell, schedule
from servescope.loadgen.study import Study, digest, to_toml
from servescope.traces.atomic import write_json
from servescope.traces.errors import InputError, NotARun, OutputFailed
from servescope.traces.run import refuse_taken

FILE = "study.json"
State = Literal["pending", "running", "done", "failed"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a study and what has become of it; `why` says how it failed."""

    cell: Cell
    path: str
    state: State = "pending"
    why: str | None = None
    started: str | None = None
    ended: str | None = None


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """What study.json holds."""

    name: str
    version: str
    digest: str
    slo: str | None
    runs: tuple[Entry, ...]

    def in_state(self, *states: State) -> list[Entry]:
        """Return the runs in one of some states, in their order."""
        return [entry for entry in self.runs if entry.state in states]


class Ledger:
    """The runs of a study, written down whenever one begins or ends; one process at a time."""

    def __init__(self, folder: Path, book: Book) -> None:
        self.folder = folder
        self.book = book
        self._lock: IO[bytes] | None = None

    @classmethod
    def of(cls, study: Study, folder: Path) -> Ledger:
        """Begin a study in a new folder, or go on with it in that where it began.

        Raises OutputExists if the folder holds something else, and InputError if it holds another
        study, or if another process is at work in it.
        """
        ledger = cls(folder, _new(study))
        known = (folder / FILE).exists()
        if not known:
            refuse_taken(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            ledger._take()
            if known:
                ledger.book = _gone_on(read(folder), ledger.book, folder)
            ledger.write()
            (folder / "study.toml").write_text(tomli_w.dumps(to_toml(study)))
        except OSError as error:
            ledger.close()
            raise OutputFailed.of(folder, error) from None
        except BaseException:
            ledger.close()
            raise
        return ledger

    def _take(self) -> None:
        """Let no other process work in this folder; the system gives it back however we end."""
        import fcntl

        self._lock = (self.folder / ".lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise InputError(
                f"Another experiment is at work in {self.folder}.",
                "Wait for its end, or choose another --out.",
            ) from None

    def begin(self, entry: Entry) -> Path:
        """Note that a run begins and return its directory; an earlier try is moved away."""
        path = self.folder / entry.path
        try:
            _move_away(path)
        except OSError as error:
            raise OutputFailed.of(path, error) from None
        self._note(entry.path, state="running", why=None, started=_now(), ended=None)
        return path

    def end(self, entry: Entry, state: State, why: str | None = None) -> None:
        """Note how a run ended."""
        self._note(entry.path, state=state, why=why, ended=_now() if state != "pending" else None)

    def _note(self, path: str, **what: str | None) -> None:
        runs = (
            msgspec.structs.replace(entry, **what) if entry.path == path else entry
            for entry in self.book.runs
        )
        self.book = msgspec.structs.replace(self.book, runs=tuple(runs))
        try:
            self.write()
        except OSError as error:
            raise OutputFailed.of(self.folder / FILE, error) from None

    def write(self) -> None:
        """Replace study.json at once or not at all."""
        write_json(self.folder / FILE, self.book)

    def close(self) -> None:
        """Let others work in the folder."""
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(folder: Path) -> Book:
    """Read what has become of a study; raises NotARun if the folder holds none."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Book)
    except (FileNotFoundError, NotADirectoryError):
        raise NotARun(
            f"{folder} holds no study.", "Give the --out folder of `servescope experiment run`."
        ) from None
    except msgspec.DecodeError as error:
        raise NotARun(
            f"{path} cannot be read: {error}.",
            "It was damaged or written by another version; run the experiment into a new folder.",
        ) from None


def _new(study: Study) -> Book:
    cells = schedule(study)
    return Book(
        name=study.name,
        version=version("servescope"),
        digest=digest(study),
        slo=study.slo,
        runs=tuple(Entry(cell=cell, path=cell.path) for cell in cells),
    )


def _gone_on(kept: Book, asked: Book, folder: Path) -> Book:
    """Return the book that was kept, if it is of the study that is asked for."""
    if kept.digest != asked.digest:
        raise InputError(
            f"{folder} holds another study, or this one before its file was changed.",
            "Choose another --out, or restore the file; study.toml there is what was asked.",
        )
    return kept


def _move_away(path: Path) -> None:
    """Give an unfinished run another name, so that nothing that was measured is lost."""
    if not path.exists():
        return
    number = 1
    while (aside := path.with_name(f"{path.name}.unfinished-{number}")).exists():
        number += 1
    path.rename(aside)


def left(entries: Iterable[Entry]) -> list[Entry]:
    """Return the runs that are not done."""
    return [entry for entry in entries if entry.state != "done"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
