"""The bytes of a trace, wherever and however packed they lie."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from servescope.traces.errors import BadRow, InputError

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
        return self._read(-1)

    @property
    def head(self) -> bytes:
        """The first 64 KiB, unpacked: enough for a format to recognise itself."""
        return self._read(HEAD_BYTES)

    @property
    def sha256(self) -> str:
        """Digest of the unpacked bytes, in hex."""
        return hashlib.sha256(self.content).hexdigest()

    def _read(self, size: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                packed = file.peek(2)[:2] == b"\x1f\x8b"
                return gzip.GzipFile(fileobj=file).read(size) if packed else file.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise BadRow(
                f"{self.name} is a damaged gzip file: {error}.", "Copy or download it again."
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.name} cannot be read: {error.strerror}.", "Check the file and its rights."
            ) from None
