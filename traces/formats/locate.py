"""Where the files of a trace are: one file, a folder, a glob pattern, or standard input."""

from __future__ import annotations

import atexit
import glob
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO

from servescope.traces.errors import InputError, OutputFailed
from servescope.traces.formats.source import File

STDIN = "-"
_STDIN_NAME = "standard input"
_PATTERN = frozenset("*?[")


def find(text: str, stdin: IO[bytes] | None = None) -> tuple[File, ...]:
    """Return the files that `text` names, in order of their names; hidden ones are left out.

    `-` is standard input, which is first put into a temporary file since it is read twice. Raises
    InputError where nothing is there, or only an empty file.
    """
    if text == STDIN:
        return (_kept(stdin or sys.stdin.buffer),)
    path = Path(text).expanduser()
    if path.is_dir():
        found = [file for file in path.rglob("*") if _is_shown(file, path)]
        missing = f"{path} is a folder without files."
    elif not path.exists() and _PATTERN & set(text):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        found = [file for file in found if file.is_file()]
        missing = f"No file is called {text}."
    else:
        return (_one(path),)
    if not found:
        raise InputError(missing, "Check the path.")
    return tuple(File(file, str(file)) for file in sorted(found))


def _one(path: Path) -> File:
    if not path.exists():
        raise InputError(
            f"{path} does not exist.",
            "Check the path; `servescope traces list` shows what is bundled.",
        )
    if path.is_file() and not path.stat().st_size:
        raise InputError(f"{path} is empty.", "Give a file with at least one call in it.")
    return File(path, str(path))


def _is_shown(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.is_file()


def _kept(stream: IO[bytes]) -> File:
    folder = Path(tempfile.mkdtemp(prefix="servescope-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    kept = folder / "stdin"
    try:
        with kept.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    except OSError as error:
        raise OutputFailed.of(kept, error) from None
    if not kept.stat().st_size:
        raise InputError("Standard input is empty.", "Pipe a trace into it, or name a file.")
    return File(kept, _STDIN_NAME)
