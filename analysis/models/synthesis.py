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

from servescope.analysis.models.cascade import Cascade
from servescope.analysis.models.clients import named
from servescope.analysis.models.draws import Draws
from servescope.analysis.models.model import Model, Stream
from servescope.analysis.models.renewal import WindowedRenewal
from servescope.analysis.models.shapes import AnyShape
from servescope.analysis.sample import Floats, Ints
from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance
from servescope.traces.schema import SCHEMA
from servescope.traces.trace import Trace

PIECE = 100_000  # calls that a piece holds about
_TRIED = 50.0  # calls that are drawn of a model to see whether they can be
_SHARING = 2_000  # calls for which it is found out together what they share, at least
_AHEAD = 64  # windows drawn at a time before the begin
_BODIES = 1024  # programs whose calls are drawn together
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
        labels = [label for s in streams for label in _labels(s)]
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
            _Drawn(stream, Draws(self.seed, number), self.schema)
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
        drawn = _Drawn(stream, Draws(seed, number), schema)
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


def _labels(stream: Stream) -> list[tuple[str | None, str | None]]:
    labels = stream.programs.labels if stream.programs else ()
    return [(label.model, label.call_class) for label in labels]


class _Drawn:
    """A stream that is drawn from one window to the next, with what is left for later windows."""

    def __init__(self, stream: Stream, draws: Draws, schema: pl.Schema) -> None:
        assert stream.arrivals is not None
        self._stream, self._draws, self._schema = stream, draws, schema
        self._schedule, self._shape = stream.arrivals.schedule, stream.arrivals.shape
        self._prefixes = stream.prefixes.begin(draws) if stream.prefixes else None
        self._single = stream.marks is not None
        # windows are drawn so many at a time that what they share is found out for many calls
        expected = max((stream.rate_rps or 1.0) * self._schedule.window_s, 1e-9)
        self._step = math.ceil(_SHARING / expected) if stream.prefixes else 1
        self._next = 0  # window
        self._programs = 0  # that started in the windows before
        self._bodies: dict[int, pl.DataFrame] = {}
        self._calls = pl.DataFrame()  # drawn, and not yet due

    def begin(self, start_s: float) -> None:
        """Go to a moment: what was drawn before it counts only as far as it lasts."""
        if start_s <= 0:
            return
        first = int(start_s / self._schedule.window_s)
        if self._prefixes is not None:
            first_needed = 0  # what may be shared begins with the first call of all
        elif self._single:
            first_needed = first
        else:
            assert self._stream.programs is not None
            longest = self._stream.programs.longest_s
            back = math.ceil((longest or start_s) / self._schedule.window_s)
            first_needed = max(0, first - back)
        if not self._single and first_needed:
            self._programs = self._started(np.arange(first_needed))
        self._next = first_needed
        while self._next * self._schedule.window_s < start_s:
            self.until(min(start_s, (self._next + _AHEAD) * self._schedule.window_s))

    def until(self, end_s: float) -> pl.DataFrame:
        """Return the calls that arrive before a moment and were not returned yet, in order."""
        width = self._schedule.window_s
        upto = math.ceil(end_s / width - 1e-9)
        upto = -(-upto // self._step) * self._step
        if upto > self._next:
            windows = np.arange(self._next, upto)
            self._next = upto
            fresh = self._singles(windows) if self._single else self._of_programs(windows)
            if self._prefixes is not None and self._single:
                fresh = self._shared(fresh, windows)
            self._calls = pl.concat([self._calls, fresh]) if self._calls.height else fresh
            if not self._single:
                self._calls = self._calls.sort("arrival_s", maintain_order=True)
                ready = int(self._calls["arrival_s"].search_sorted(upto * width))
                now, later = self._calls[:ready], self._calls[ready:]
                if self._prefixes is not None:
                    known = "prefix_blocks"
                    done = now.filter(pl.col(known).is_not_null())
                    due = self._shared(now.filter(pl.col(known).is_null()), windows)
                    now = pl.concat([done, due]).sort("arrival_s", maintain_order=True)
                self._calls = pl.concat([now, later])
        if not self._calls.height:
            return pl.DataFrame(schema=self._schema)
        ready = int(self._calls["arrival_s"].search_sorted(end_s))
        out, self._calls = self._calls[:ready], self._calls[ready:]
        return out.select(self._schema.names())

    def _counts(self, windows: Ints) -> Ints:
        if self._schedule.exact:
            return self._schedule.counts(windows, [])
        rngs = [self._draws.rng("count", window) for window in windows.tolist()]
        return self._schedule.counts(windows, rngs)

    def _started(self, windows: Ints) -> int:
        """Return how many programs start in windows."""
        if isinstance(self._shape, Cascade):
            return int(self._counts(windows).sum())
        return len(self._starts(windows)[1])  # other shapes say how many when they are drawn

    def _starts(self, windows: Ints) -> tuple[Ints, Floats]:
        """Return the place in `windows` and the moment (s) of every program that starts in them."""
        width = self._schedule.window_s
        if isinstance(self._shape, Cascade):
            keys = np.array([self._draws.key("starts", w) for w in windows.tolist()], np.uint64)
            place, times = self._shape.placed(keys, self._counts(windows))
            return place, windows[place] * width + times
        rates = self._schedule.rates(windows).tolist()
        shapes: list[AnyShape] = [self._shape] * len(windows)
        if isinstance(self._shape, WindowedRenewal) and self._shape.windows == len(
            self._schedule.rates_rps
        ):  # windows keep the law that they have in the trace
            shapes = [*self._shape.each(self._schedule.place(windows))]
        found = [
            shape.sample(self._draws.rng("starts", window), rate, width)
            for shape, window, rate in zip(shapes, windows.tolist(), rates, strict=True)
        ]
        place = np.repeat(np.arange(len(windows)), [len(times) for times in found])
        within: Floats = np.concatenate(found)
        return place, windows[place] * width + within

    def _singles(self, windows: Ints) -> pl.DataFrame:
        """Return the calls of windows, each a program of its own."""
        marks = self._stream.marks
        assert marks is not None
        place, at = self._starts(windows)
        counts = np.bincount(place, minlength=len(windows))
        rngs = [self._draws.rng("marks", window) for window in windows.tolist()]
        recorded = self._schedule.place(windows)
        kind, inputs, outputs = marks.sample(rngs, recorded, counts)
        first = np.cumsum(counts) - counts
        number = np.arange(len(at)) - first[place]
        columns = {
            "call_id": _named(self._draws.stream, windows[place], number),
            "arrival_s": pl.Series(at),
            "input_tokens": pl.Series(inputs.astype(np.int64)),
            "output_tokens": pl.Series(outputs.astype(np.int64)),
        }
        for name in ("model", "call_class", "status"):
            if name in self._schema:
                said = [getattr(each, name) for each in marks.kinds]
                columns[name] = pl.Series(said, dtype=pl.String).gather(kind)
        if "client_id" in self._schema:
            columns["client_id"] = self._clients(len(at), windows, counts)
        frame = pl.DataFrame(columns)
        return self._filled(frame)

    def _filled(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return a frame with the columns of the trace, in order, and the program's number."""
        kept = [pl.col("program")] if "program" in frame.columns else []
        return frame.select(
            *(
                pl.col(name).cast(kind) if name in frame.columns else pl.lit(None, kind).alias(name)
                for name, kind in self._schema.items()
            ),
            *kept,
        )

    def _of_programs(self, windows: Ints) -> pl.DataFrame:
        """Return the calls of the programs that start in windows, in no order of time."""
        _, at = self._starts(windows)
        first, self._programs = self._programs, self._programs + len(at)
        parts = []
        for block in range(first // _BODIES, -(-self._programs // _BODIES)):
            body = self._body(block)
            low, high = block * _BODIES, (block + 1) * _BODIES
            begin, end = max(first, low), min(self._programs, high)
            part = body.filter(pl.col("program").is_between(begin - low, end - low - 1))
            starts = at[begin - first : end - first]
            place = part["program"].to_numpy() - (begin - low)
            parts.append(
                part.with_columns(
                    program=pl.col("program").cast(pl.Int64) + low,
                    arrival_s=pl.Series(starts[place] + part["offset_s"].to_numpy()),
                )
            )
        self._bodies = {n: b for n, b in self._bodies.items() if n >= self._programs // _BODIES}
        if not parts:
            return pl.DataFrame(schema={**self._schema, "program": pl.Int64})
        return self._written(pl.concat(parts))

    def bodies(self, programs: int) -> pl.DataFrame:
        """Return the calls of the first programs, each from its own begin."""
        parts = [
            self._body(block).with_columns(
                program=pl.col("program").cast(pl.Int64) + block * _BODIES
            )
            for block in range(-(-programs // _BODIES))
        ]
        calls = pl.concat(parts).filter(pl.col("program") < programs)
        calls = self._written(calls.with_columns(arrival_s=pl.col("offset_s")))
        if self._prefixes is not None:
            seen = calls.select("arrival_s", "input_tokens", "output_tokens", "program", "turn")
            blocks = self._prefixes.window(0, seen).cast(pl.List(pl.UInt64))
            calls = calls.with_columns(prefix_blocks=blocks)
        return calls.select(self._schema.names())

    def _body(self, block: int) -> pl.DataFrame:
        """Return the calls of a block of programs, counted from the first of all."""
        if block not in self._bodies:
            assert self._stream.programs is not None
            body = self._stream.programs.sample(self._draws.rng("programs", block), _BODIES)
            if self._stream.failures is not None:
                body = self._stream.failures.mark(self._draws.rng("failures", block), body)
            self._bodies[block] = body
        return self._bodies[block]

    def _written(self, calls: pl.DataFrame) -> pl.DataFrame:
        """Return the calls of programs with canonical columns, and the program's number."""
        stem = f"{self._draws.stream}p" if self._draws.stream else "p"
        said = calls.with_columns(program_id=stem + pl.col("program").cast(pl.String))
        said = said.with_columns(call_id=_turn_of(pl.col("turn")))
        if "parents" in calls.columns:
            said = said.with_row_index("row")
            waited = (
                said.select("row", "program_id", "parents")
                .explode("parents")
                .drop_nulls("parents")
                .group_by("row")
                .agg(_turn_of(pl.col("parents")).alias("parents"))
            )
            said = said.drop("parents").join(waited, "row", "left", maintain_order="left")
            said = said.with_columns(pl.col("parents").fill_null(pl.lit([], pl.List(pl.String))))
        labels = _labels(self._stream)
        if labels and "label" in calls.columns:
            for column, each in zip(
                ("model", "call_class"), zip(*labels, strict=True), strict=True
            ):
                if column in self._schema:
                    names = pl.Series(each, dtype=pl.String)
                    said = said.with_columns(names.gather(calls["label"]).alias(column))
        if self._stream.client:
            said = said.with_columns(client_id=pl.lit(self._stream.client))
        return self._filled(said)

    def _shared(self, calls: pl.DataFrame, windows: Ints) -> pl.DataFrame:
        """Return calls, in order of arrival, with the blocks that their prompts begin with."""
        assert self._prefixes is not None
        wanted = ("arrival_s", "input_tokens", "output_tokens", "program", "turn")
        seen = calls.select(name for name in wanted if name in calls.columns)
        first = windows[:: self._step]
        edges = calls["arrival_s"].search_sorted(first * self._schedule.window_s).to_list()
        parts = [
            self._prefixes.window(window // self._step, seen[begin:end])
            for window, begin, end in zip(
                first.tolist(), edges, [*edges[1:], calls.height], strict=True
            )
        ]
        return calls.with_columns(prefix_blocks=pl.concat(parts).cast(pl.List(pl.UInt64)))

    def _clients(self, calls: int, windows: Ints, counts: Ints) -> pl.Series:
        """Return who asks: the stream's client, or clients by rank drawn by their shares."""
        clients = self._stream.clients
        if clients is None:
            return pl.Series([self._stream.client], dtype=pl.String).new_from_index(0, calls)
        drawn = [
            clients.sample(self._draws.rng("clients", window), count)
            for window, count in zip(windows.tolist(), counts.tolist(), strict=True)
        ]
        return named(np.concatenate(drawn), self._draws.stream)


def _turn_of(turn: pl.Expr) -> pl.Expr:
    """Return the id of the call of a turn of the row's program."""
    return pl.col("program_id") + "-" + turn.cast(pl.String)


def _named(stream: int, window: Ints, number: Ints) -> pl.Series:
    """Return names of calls: the stream's number unless 0, the window, the place in it."""
    stem = f"{stream}s" if stream else ""
    names = stem + pl.lit(pl.Series(window)).cast(pl.String) + "-"
    return pl.select(names + pl.lit(pl.Series(number)).cast(pl.String)).to_series()
