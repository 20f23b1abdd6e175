"""Batches of rows: in memory while they are few, in temporary Parquet files when many."""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import polars as pl

from servescope.traces.errors import OutputFailed

MEMORY_BYTES = 128 << 20
SAMPLE_EVERY = 512


class Spool:
    """Takes batches in order and gives them back as one lazy table, however many there are.

    The files lie in the folder for temporary files and are removed when the program ends.
    """

    def __init__(self) -> None:
        self.height = 0
        self._held: list[pl.DataFrame] = []
        self._bytes = 0
        self._folder: Path | None = None
        self._parts: list[Path] = []

    def add(self, batch: pl.DataFrame) -> None:
        """Append a batch; all batches have the same columns."""
        self.height += batch.height
        if self._folder is not None:
            self._write(batch)
            return
        self._held.append(batch)
        self._bytes += int(batch.estimated_size())
        if self._bytes > MEMORY_BYTES:
            self._folder = _temporary_folder()
            for held in self._held:
                self._write(held)
            self._held.clear()

    def extend(self, batches: Iterable[pl.DataFrame]) -> Spool:
        """Append all batches."""
        for batch in batches:
            self.add(batch)
        return self

    def frame(self) -> pl.LazyFrame:
        """Return the table: of what is in memory, or a scan of the files."""
        if self._folder is not None:
            return pl.scan_parquet(self._parts, glob=False)
        return pl.concat(self._held).lazy() if self._held else pl.LazyFrame()

    def batches(self) -> Iterator[pl.DataFrame]:
        """Yield the batches again, one in memory at a time."""
        yield from self._held
        for part in self._parts:
            yield pl.read_parquet(part, glob=False)

    def sorted(self, by: str) -> Spool:
        """Return the rows in ascending order of a column, ties as they stood, nulls first.

        Rows on disk are sorted a range of values at a time, so memory stays that of a few batches.
        """
        ordered = Spool()
        if self._folder is None:
            return ordered.extend([pl.concat(self._held).sort(by, maintain_order=True)])
        sample = pl.concat([batch[by].gather_every(SAMPLE_EVERY) for batch in self.batches()])
        cuts = sample.drop_nulls().sort().gather_every(-(-len(sample) // len(self._parts)))
        edges = [None, *cuts.unique(maintain_order=True)[1:], None]
        for low, high in itertools.pairwise(edges):
            inside = pl.lit(True)
            if low is not None:
                inside &= pl.col(by) >= low
            if high is not None:
                inside &= pl.col(by) < high
            if low is None:
                inside |= pl.col(by).is_null()
            ordered.add(self.frame().filter(inside).collect().sort(by, maintain_order=True))
        return ordered

    def map(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Spool:
        """Return a new spool of every batch changed."""
        return Spool().extend(change(batch) for batch in self.batches())

    def _write(self, batch: pl.DataFrame) -> None:
        assert self._folder is not None
        part = self._folder / f"{len(self._parts):06}.parquet"
        try:
            batch.write_parquet(part, compression="lz4")
        except OSError as error:
            raise OutputFailed.of(part, error) from None
        self._parts.append(part)


def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="servescope-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
