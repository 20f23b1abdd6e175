"""The bytes of a trace, wherever and however packed they lie, and where in them a row stands."""

from __future__ import annotations

import bisect
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
import zstandard

from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats.rejects import Rejects

HEAD_BYTES = 65_536
CHUNK_BYTES = 8 << 20
LONGEST_LINE = 64 << 20
LARGEST_DOCUMENT = 1 << 30
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PACKED_BYTES = 1 << 17
_BOM = b"\xef\xbb\xbf"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file does not say of itself and the user does; None leaves it to the format.

    `unit` is that of times written as bare numbers. `columns` gives a canonical column the name
    of the source's column. `tokenizer` is a tokenizer.json, or "estimate" for 4 bytes a token.
    """

    unit: Literal["s", "ms", "us", "ns"] | None = None
    block_tokens: int | None = None
    block_rule: Literal["ceil", "floor"] | None = None
    columns: dict[str, str] = {}
    tokenizer: str | None = None


_NOTHING_SAID = Options()


@dataclass
class File:
    """One file, unpacked if it is gzip or zstd."""

    path: Path
    name: str
    _digest: str | None = field(default=None, repr=False)

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """The first bytes, unpacked, without a byte order mark."""
        with self._opened() as stream:
            return stream.read(size).removeprefix(_BOM)

    @property
    def content(self) -> bytes:
        """The whole file without a byte order mark, read anew; raises BadRow above 1 GiB."""
        pieces, size = [], 0
        for piece in self.chunks():
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST_DOCUMENT:
                raise BadRow(
                    f"{self.name} is one document of more than {LARGEST_DOCUMENT >> 20} MiB.",
                    "Write it as JSON lines, one record a line, or split it.",
                )
        return b"".join(pieces).removeprefix(_BOM)

    @property
    def sha256(self) -> str:
        """Digest of the unpacked bytes, in hex; known once `chunks` has come to the end."""
        if self._digest is None:
            for _ in self.chunks():
                pass
        assert self._digest is not None
        return self._digest

    def chunks(self) -> Iterator[bytes]:
        """Yield the unpacked bytes in pieces of 8 MiB."""
        digest = hashlib.sha256()
        with self._opened() as stream:
            while piece := stream.read(CHUNK_BYTES):
                digest.update(piece)
                yield piece
        self._digest = digest.hexdigest()

    def blocks(self, rejects: Rejects, *, quoted: bool = False) -> Iterator[tuple[int, bytes]]:
        """Yield whole lines in pieces of some MiB, each with the number of its first line.

        With `quoted`, a line end between double quotes does not count. A line of more than 64 MiB
        is rejected.
        """
        rest, line, inside = b"", 1, False
        for piece in self.chunks():
            rest = rest + piece if rest else piece.removeprefix(_BOM) if line == 1 else piece
            if inside:  # a line that is too long: forget it up to its end
                end = rest.find(b"\n") + 1
                rest, inside = rest[end:] if end else b"", not end
            cut = _last_line_end(rest, quoted)
            if cut:
                yield line, rest[:cut]
                line += rest.count(b"\n", 0, cut)
                rest = rest[cut:]
            if len(rest) > LONGEST_LINE:
                rejects.add(
                    f"{self.name}, line {line}",
                    f"it is longer than {LONGEST_LINE >> 20} MiB.",
                    "Give a file with a line end after every record.",
                    reason="line too long",
                    row=rest,
                )
                rest, inside, line = b"", True, line + 1
        if rest:
            yield line, rest

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes] | gzip.GzipFile]:
        packing = "gzip"
        try:
            with self.path.open("rb") as file:
                magic = file.peek(4)[:4]
                if magic[:2] == _GZIP:
                    with gzip.GzipFile(fileobj=file) as unpacked:
                        yield unpacked
                elif magic == _ZSTD:
                    packing = "zstd"
                    with io.BufferedReader(_Zstd(file), _PACKED_BYTES) as unpacked:
                        yield unpacked
                else:
                    yield file
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise BadRow(
                f"{self.name} is a damaged {packing} file: {error}.", "Copy or download it again."
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.name} cannot be read: {error.strerror}.", "Check the file and its rights."
            ) from None


class _Zstd(io.RawIOBase):
    """A zstd stream, frame after frame, that says so where it is cut off."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._frame: Any = None
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            left = self._frame.unused_data if self._frame and self._frame.eof else b""
            piece = left or self._packed.read(_PACKED_BYTES)
            if not piece:
                if self._frame and not self._frame.eof:
                    raise EOFError("it ends inside a frame")
                return 0
            if self._frame is None or self._frame.eof:
                self._frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            self._ready = self._frame.decompress(piece)
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def lines_in(block: bytes) -> int:
    """Return how many lines a block has; the last may lack its end."""
    return block.count(b"\n") + (not block.endswith(b"\n") and bool(block))


def _last_line_end(text: bytes, quoted: bool) -> int:
    """Return where the last whole line ends, 0 if none does."""
    cut = text.rfind(b"\n") + 1
    if not quoted or not cut or b'"' not in text:
        return cut
    while cut and text.count(b'"', 0, cut) % 2:  # inside quotes: go back before they were opened
        cut = text.rfind(b"\n", 0, text.rfind(b'"', 0, cut)) + 1
    return cut


@dataclass
class Source:
    """The files that are one trace, what the user says of them, and the rows that they refuse.

    Rows are numbered from 1 through all files; `where` turns such a number back into a place.
    """

    files: tuple[File, ...]
    name: str
    options: Options = _NOTHING_SAID
    rejects: Rejects = field(default_factory=Rejects)
    _starts: list[int] = field(default_factory=list, repr=False)
    _places: list[tuple[str, str, int]] = field(default_factory=list, repr=False)

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """The first bytes of the first file, unpacked: enough for a format to recognise itself."""
        return self.files[0].head(size)

    @property
    def sha256(self) -> str:
        """Digest of the unpacked bytes; of several files, of what `sha256sum` prints for them."""
        if len(self.files) == 1:
            return self.files[0].sha256
        listed = "".join(f"{file.sha256}  {file.name}\n" for file in self.files)
        return hashlib.sha256(listed.encode()).hexdigest()

    def begin(self, file: File, row: int, *, unit: str = "line", first: int = 1) -> None:
        """Note that row `row` is the `first` line (or whatever `unit` is) of `file`."""
        self._starts.append(row)
        self._places.append((file.name, unit, first - row))

    def where(self, row: int) -> str:
        """Name the file and the line of a row."""
        if not self._starts:
            return f"{self.name}, row {row}"
        name, unit, offset = self._places[bisect.bisect_right(self._starts, row) - 1]
        return f"{name}, {unit} {row + offset}"

    def reject(self, row: int, problem: str, mend: str, *, reason: str, shown: bytes = b"") -> None:
        """Refuse a row: raises BadRow, or puts the row aside if the user wants that."""
        self.rejects.add(self.where(row), problem, mend, reason=reason, row=shown)
