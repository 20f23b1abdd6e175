"""A model drawn: calls in order of arrival, piece after piece, in memory that does not grow.

Every window of every stream has randomness of its own, so a piece is the same whoever draws it, and
whatever was drawn before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from servescope.analysis.models.drawing import Drawing, labels_of
from servescope.analysis.models.draws import Draws
from servescope.analysis.models.model import Model
from servescope.traces import writing
from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance
from servescope.traces.schema import SCHEMA
from servescope.traces.trace import Trace

PIECE = 100_000  # calls that a piece holds about
_TRIED = 50.0  # calls that are drawn of a model to see whether they can be
_NOT_REAL = "This is no real traffic: {name} was drawn from a model of {source}."


@dataclass(frozen=True)
class Synthesis:
    """The calls of a model in [start_s, start_s + duration_s), of a seed.

    A later or longer part of the same seed has the same calls where both are.
    """

    model: Model
    duration_s: float
    seed: int = 0
    start_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.duration_s < math.inf:
            raise InputError(
                f"A trace cannot last {self.duration_s:g} s.", "Give a duration above 0."
            )
        if self.model.rate_rps is None:
            raise InputError(
                f"The model {self.model.name} does not know when programs start.",
                "Give the rate that calls shall come at: --rate 2.",
            )
        if not self.model.rate_rps:
            raise InputError(f"The model {self.model.name} has the rate 0.", "Give one above 0.")

    @property
    def expected_calls(self) -> float:
        """How many calls there will be, about."""
        return (self.model.rate_rps or 0.0) * self.duration_s

    @cached_property
    def schema(self) -> pl.Schema:
        """Names and types of the columns of every piece."""
        names = ["call_id"]
        streams = self.model.streams
        if any(s.programs for s in streams):
            names += ["program_id", "turn", "parents", "delay_s", "delay_kind"]
        if any(s.client or s.clients for s in streams):
            names.append("client_id")
        kinds = [kind for s in streams if s.marks for kind in s.marks.kinds]
        labels = [label for s in streams for label in labels_of(s)]
        if any(kind.model for kind in kinds) or any(model for model, _ in labels):
            names.append("model")
        if any(kind.call_class for kind in kinds) or any(each for _, each in labels):
            names.append("call_class")
        if any(kind.status for kind in kinds) or any(s.failures for s in streams):
            names.append("status")
        names += ["arrival_s", "input_tokens", "output_tokens"]
        if any(s.prefixes for s in streams):
            names.append("prefix_blocks")
        return pl.Schema({name: SCHEMA[name] for name in SCHEMA if name in names})

    def pieces(self) -> Iterator[pl.DataFrame]:
        """Yield the calls in order of arrival, some 100,000 at a time: canonical columns."""
        streams = [
            Drawing(stream, Draws(self.seed, number), self.schema)
            for number, stream in enumerate(self.model.streams)
        ]
        end_s = self.start_s + self.duration_s
        width_s = max(
            PIECE / (self.model.rate_rps or 1.0),
            max(s.arrivals.schedule.window_s for s in self.model.streams if s.arrivals),
        )
        at = self.start_s
        for stream in streams:
            stream.begin(self.start_s)
        while at < end_s:
            upto = min(at + width_s, end_s)
            parts = [part for stream in streams if (part := stream.until(upto)).height]
            if len(parts) == 1:
                yield parts[0]
            elif parts:
                yield pl.concat(parts).sort("arrival_s", maintain_order=True)
            at = upto

    def trace(self) -> Trace:
        """Return the calls as a trace that is drawn while it is read."""
        return self._trace_of(self.pieces)

    def _trace_of(self, pieces: Callable[[], Iterator[pl.DataFrame]]) -> Trace:
        def drawn(
            columns: list[str] | None,
            predicate: pl.Expr | None,
            rows: int | None,
            batch: int | None,
        ) -> Iterator[pl.DataFrame]:
            left = rows
            for piece in pieces():
                if self.start_s:
                    piece = piece.with_columns(arrival_s=pl.col("arrival_s") - self.start_s)
                if predicate is not None:
                    piece = piece.filter(predicate)
                if left is not None:
                    piece = piece.head(left)
                    left -= piece.height
                yield piece.select(columns) if columns is not None else piece
                if left == 0:
                    return

        frame = register_io_source(drawn, schema=self.schema, is_pure=True)
        return Trace.of(frame, self.provenance, checked=True)

    def write(
        self,
        path: Path,
        *,
        overwrite: bool = False,
        jobs: int = 1,
        on_progress: Callable[[int], None] = lambda calls: None,
    ) -> int:
        """Write the trace as .parquet, .csv or .jsonl and return how many calls it has.

        `jobs` processes draw a part each; the calls are the same for any number of them.
        `on_progress` hears how many calls are drawn. Raises OutputExists and OutputFailed.
        """
        if jobs > 1 and not any(stream.prefixes for stream in self.model.streams):
            return self._write_parts(path, overwrite, jobs, on_progress)
        drawn = 0

        def counted() -> Iterator[pl.DataFrame]:
            nonlocal drawn
            for piece in self.pieces():
                drawn += piece.height
                on_progress(drawn)
                yield piece

        self._trace_of(counted).write(path, overwrite=overwrite)
        return drawn

    def _write_parts(
        self, path: Path, overwrite: bool, jobs: int, on_progress: Callable[[int], None]
    ) -> int:
        writing.refuse(path, overwrite=overwrite)  # rather now than after long work
        edges = self.start_s + np.linspace(0, self.duration_s, jobs + 1)
        parts = [
            replace(self, start_s=float(begin), duration_s=float(end - begin))
            for begin, end in pairwise(edges)
        ]
        with TemporaryDirectory(dir=path.parent if path.parent.is_dir() else None) as folder:
            files = [Path(folder) / f"{number}.parquet" for number in range(jobs)]
            calls = 0
            with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as workers:
                for count in workers.map(_write_part, parts, files):
                    calls += count
                    on_progress(calls)
            frame = pl.concat([pl.scan_parquet(file) for file in files])
            if self.start_s:
                frame = frame.with_columns(pl.col("arrival_s") - self.start_s)
            Trace.of(frame, self.provenance, checked=True).write(path, overwrite=overwrite)
        return calls

    @property
    def provenance(self) -> Provenance:
        """Where the trace comes from: the model, and what that comes from."""
        about = self.model.about
        blocks = next((s.blocks for s in self.model.streams if s.blocks), None)
        span = self.model.span_s
        doubts = [_NOT_REAL.format(name=self.model.name, source=about.source), *about.doubts]
        if span is not None and self.start_s + self.duration_s > span * 1.001:
            doubts.append(f"Rates are known for {span:,.0f} s, and begin again after that.")
        return Provenance(
            format="model",
            source=f"{self.model.name}, seed {self.seed}",
            kind="synthetic",
            licence=about.licence,
            attribution=about.attribution,
            clock="source",
            units="seconds",
            block_tokens=blocks.tokens if blocks else None,
            block_rule=blocks.rule if blocks else None,
            block_scope=blocks.scope if blocks else None,
            inferred=about.inferred,
            doubts=tuple(doubts),
            steps=about.edits,
        )


def lasting(model: Model, duration_s: float | None = None) -> float:
    """Return how long a draw lasts (s): as is asked for, or as the trace that was learnt from.

    Raises InputError where neither is known.
    """
    lasts = duration_s if duration_s is not None else model.about.span_s or model.span_s
    if lasts is None:
        raise InputError(
            f"The model {model.name} does not say how long to go on.", "Give --duration."
        )
    return lasts


def synthesize(
    model: Model, duration_s: float | None = None, seed: int = 0, start_s: float = 0.0
) -> Trace:
    """Draw a trace of a model, as long as the one that it was learnt from unless told otherwise.

    Raises InputError where it is not known when programs start, or how long to go on.
    """
    return Synthesis(model, lasting(model, duration_s), seed, start_s).trace()


def tried(model: Model) -> Model:
    """Return a model that a few calls could be drawn from.

    Raises InputError for one whose numbers were changed so that nothing can be.
    """
    try:
        known = model.at_rate(1.0) if model.rate_rps is None else model
        if known.rate_rps:
            next(Synthesis(known, min(_TRIED / known.rate_rps, 86_400.0)).pieces(), None)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"Nothing can be drawn from the model {model.name}: {error or type(error).__name__}.",
            "Undo what was changed in its file, or fit the trace again.",
        ) from error
    return model


def on_own_clocks(model: Model, programs: int, seed: int = 0) -> Trace:
    """Draw so many programs that each begin at 0 on a clock of their own, as some traces have them.

    Raises InputError for a model whose streams make single calls.
    """
    streams = [stream for stream in model.streams if stream.programs is not None]
    if len(streams) < len(model.streams) or programs < 1:
        raise InputError(
            f"The model {model.name} makes single calls, which have no clock of their own.",
            "Give a duration instead of a number of programs.",
        )
    even = model.at_rate(1.0) if model.rate_rps is None else model
    schema = Synthesis(even, 1.0, seed).schema
    parts = []
    for number, stream in enumerate(even.streams):
        drawn = Drawing(stream, Draws(seed, number), schema)
        share = programs // len(streams) + (number < programs % len(streams))
        parts.append(drawn.bodies(share))
    provenance = msgspec.structs.replace(
        Synthesis(even, 1.0, seed).provenance, arrival_basis="program"
    )
    return Trace.of(pl.concat(parts), provenance, checked=True)


def _write_part(part: Synthesis, path: Path) -> int:
    """Write a part of a synthesis in a process of its own; return how many calls it has."""
    pieces = part.pieces()
    frame = register_io_source(lambda *_: pieces, schema=part.schema)
    frame.sink_parquet(path)
    return int(pl.scan_parquet(path).select(pl.len()).collect().item())
