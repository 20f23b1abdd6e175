"""The bytes of a trace, wherever and however packed they lie."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from servescope.traces.errors import InputError

HEAD_BYTES = 65_536


@dataclass(frozen=True)
class Source:
    """A file on disk, unpacked if it is gzipped."""

    path: Path
    name: str

    @classmethod
    def at(cls, path: Path) -> "Source":
        """Open a file; raises InputError for a missing file, a folder, or an empty file."""
        if not path.exists():
            raise InputError(
                f"{path} does not exist.",
                "Check the path; `servescope traces list` shows what is bundled.",
            )
        if path.is_dir():
            raise InputError(
                f"{path} is a folder and no run directory.", "Give a trace file or a run directory."
            )
        if not path.stat().st_size:
            raise InputError(f"{path} is empty.", "Give a file with at least one call in it.")
        return cls(path, str(path))

    @cached_property
    def content(self) -> bytes:
        """The whole file, unpacked."""
        raw = self.path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw

    @property
    def head(self) -> bytes:
        """The first 64 KiB, unpacked: enough for a format to recognise itself."""
        with self.path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        opener = gzip.open if packed else open
        with opener(self.path, "rb") as file:
            return bytes(file.read(HEAD_BYTES))

    @property
    def sha256(self) -> str:
        """Digest of the unpacked bytes, in hex."""
        return hashlib.sha256(self.content).hexdigest()
