"""One stream of a model, drawn from one window to the next."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from servescope.analysis.models.cascade import Cascade
from servescope.analysis.models.clients import named
from servescope.analysis.models.draws import Draws
from servescope.analysis.models.model import Stream
from servescope.analysis.models.renewal import WindowedRenewal
from servescope.analysis.models.shapes import AnyShape
from servescope.analysis.sample import Floats, Ints

_SHARING = 2_000  # calls for which it is found out together what they share, at least
_AHEAD = 64  # windows drawn at a time before the begin
_BODIES = 1024  # programs whose calls are drawn together


def labels_of(stream: Stream) -> list[tuple[str | None, str | None]]:
    """Return model and class of the labels that calls of programs have."""
    labels = stream.programs.labels if stream.programs else ()
    return [(label.model, label.call_class) for label in labels]


class Drawing:
    """A stream that is drawn from one window to the next, with what is left for later windows.

    Pieces have the columns of `schema`.
    """

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
        labels = labels_of(self._stream)
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
