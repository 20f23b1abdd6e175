"""A run in progress, second by second: read little by little, in memory that does not grow with it.

Calls stand in the second in which they were sent or ended, and their latencies in that in which
they ended. Durations are counted in buckets, so that quantiles are right to 1.2 %; of few values
p99 is the greatest. After an hour seconds become pairs of seconds, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from polars import col

from servescope.analysis.buckets import BUCKETS, bucket_of, quantile_of
from servescope.analysis.metrics import METRICS, QUANTILES, of_call
from servescope.analysis.sample import Floats, Ints
from servescope.analysis.servers import Scrapes, by_replica
from servescope.traces import live, sent_log, server
from servescope.traces.errors import NotARun
from servescope.traces.live import Live
from servescope.traces.run import Run, segment
from servescope.traces.schema import SCHEMA
from servescope.traces.server import GAUGES
from servescope.traces.status import OK

MOST_BINS = 3600
MOST_SCRAPES = 7200  # rows of a replica
WINDOW_S = 10.0
SETTLE_S = 0.6  # what has ended is on the disk after so long
BATCH_CALLS = 10_000
ROLLING = ("ttft", "tbt", "tpot", "lag")
_COUNTED = ("followed", "sent", "landed", "done", "failed")
_NEEDED = (
    "call_id", "status", "parents", "due_s", "admitted_s", "dispatched_s", "sent_s",
    "first_token_s", "last_token_s", "end_s", "chunk_s", "chunk_tokens", "output_tokens",
)  # fmt: skip


class Progress:
    """What has come back of the run in a folder; `update` reads what is new since the last time.

    `live` is what the run says of itself, None if nothing that can be read. Raises NotARun for a
    folder that is none, or holds files that cannot be read. A run that is sealed, killed or taken
    up again meanwhile is read on.
    """

    def __init__(self, path: Path) -> None:
        self._run = Run.open(path)
        self.live: Live | None = None
        self._mark: object = None
        self._begin()

    def _begin(self) -> None:
        """Know nothing of the run."""
        self.sealed = False
        self._bins = _Bins()
        self._seen_s = 0.0
        self._segments: set[Path] = set()
        self._logs: dict[Path, int] = {}
        self._server_segments: set[Path] = set()
        self._replicas: dict[str, _Replica] = {}
        self._plan: _Plan | None = None
        self._logged: set[int] = set()

    def update(self) -> None:
        """Read what was written since the last update."""
        path = self._run.path
        try:
            self.live = live.read(path)
        except NotARun:
            self.live = None
        run = Run.open(path)  # run.json changes when a run is sealed, or goes on
        sealed = (path / "calls.parquet").exists()
        mark = sealed, run.info.resumed_s
        gone = not sealed and not self._segments <= set(run.segments)
        if mark != self._mark or gone:
            self._run, self._mark = run, mark
            self._begin()
        if self.sealed:
            return
        if self._plan is None:
            self._plan = _Plan(run)
        if sealed:
            self._read_sealed()
        else:
            self._read_new(run)
        self._bins.reach(self.now_s)

    def _read_sealed(self) -> None:
        self._take_all(self._run.rows, sent=True)
        samples = server.read(self._run.path)
        if samples is not None:
            self._take_samples(samples)
        self.sealed = True

    def _read_new(self, run: Run) -> None:
        try:
            # a call is in its log before it is in a segment: in this order, none is missed
            fresh = [path for path in run.segments if path not in self._segments]
            for log in sent_log.logs_of(run.path):
                self._read_log(log)
            if fresh:
                self._take_all(pl.concat([segment(path) for path in fresh]), sent=False)
            self._segments.update(fresh)
            for path in server.segments_of(run.path):
                if path not in self._server_segments:
                    self._take_samples(server.read_file(path))
                    self._server_segments.add(path)
        except (NotARun, OSError, pl.exceptions.PolarsError):
            # sealed or taken up again just now, it is read anew next time
            if not (run.path / "calls.parquet").exists() and self._segments <= set(run.segments):
                raise

    def _read_log(self, log: Path) -> None:
        begin, size = self._logs.get(log, 0), sent_log.ENTRY.size
        with log.open("rb") as file:
            file.seek(begin)
            data = file.read()
        data = data[: len(data) // size * size]
        self._logs[log] = begin + len(data)
        entries = list(sent_log.ENTRY.iter_unpack(data))
        self._count("sent", np.array([at_s for _, at_s in entries]))
        if self._run.info.resumed_s:
            self._logged.update(number for number, _ in entries)

    def _take_all(self, rows: pl.LazyFrame, *, sent: bool) -> None:
        for batch in _needed(rows).collect_batches(chunk_size=BATCH_CALLS, maintain_order=False):
            self._take(batch, sent=sent)

    def _take(self, rows: pl.DataFrame, *, sent: bool) -> None:
        """Count calls that have ended; `sent` says that no log holds when they were sent."""
        assert self._plan is not None
        done_s = pl.coalesce("end_s", "dispatched_s")  # a call that was lost has no end
        self._count("done", _known(rows, done_s))
        self._count("failed", _known(rows.filter(col("status") != OK), done_s))
        self._count("landed", _known(rows.drop_nulls("dispatched_s"), done_s))
        self._count("followed", _known(self._plan.unplaced(rows), col("due_s")))
        if not sent and self._run.info.resumed_s:
            rows_before = self._plan.unlogged(rows, self._logged)
            self._count("sent", _known(rows_before, col("dispatched_s")))
        elif sent:
            self._count("sent", _known(rows, col("dispatched_s")))
        made = rows.select(done_s.alias("end_s"), *(of_call(METRICS[name]) for name in ROLLING))
        for name in ROLLING:
            values = made.select("end_s", name).drop_nulls()
            if METRICS[name].per == "gap":
                values = values.explode(name, empty_as_null=False).drop_nulls()
            self._bins.time(name, values["end_s"].to_numpy(), values[name].to_numpy())

    def _count(self, name: str, moments: Floats) -> None:
        if len(moments):
            self._bins.count(name, moments)
            self._seen_s = max(self._seen_s, float(moments.max()))

    def _take_samples(self, samples: pl.DataFrame) -> None:
        for replica, said in by_replica(samples):
            self._replicas.setdefault(replica, _Replica()).take(said)
        if samples.height:
            self._seen_s = max(self._seen_s, float(samples["t_s"].max()))  # type: ignore[arg-type]

    @property
    def now_s(self) -> float:
        """The second of the run that is known of."""
        return max(self._seen_s, self.live.now_s if self.live and not self.sealed else 0.0)

    @property
    def seconds(self) -> pl.DataFrame:
        """One row a second (or several, `t_s` is where it begins) up to the last that is whole.

        `planned`, `sent`, `done` and `failed` are calls a second, `in_flight` is how many were at
        its end; `ttft_p50_s` and so on are of the calls that ended in the last `WINDOW_S`, null
        where none did.
        """
        bins = self._bins
        going = self.live is not None and not self.sealed and self.live.alive()
        until_s = self.now_s - SETTLE_S if going else self.now_s + bins.width_s
        many = max(0, min(int(until_s // bins.width_s), MOST_BINS))
        if not going and not bins.used:
            many = 0
        counts = {name: bins.counts(name, many) for name in _COUNTED}
        edges = np.arange(many + 1, dtype=np.float64) * bins.width_s
        planned = counts["followed"] + (self._plan.between(edges) if self._plan and many else 0)
        return pl.DataFrame(
            {
                "t_s": edges[:-1],
                "planned": planned / bins.width_s,
                **{name: counts[name] / bins.width_s for name in ("sent", "done", "failed")},
                "in_flight": np.cumsum(counts["sent"]) - np.cumsum(counts["landed"]),
                **{
                    f"{name}_{label}_s": pl.Series(values).fill_nan(None)
                    for name in ROLLING
                    for label, values in zip(QUANTILES, bins.rolling(name, many).T, strict=True)
                },
            }
        )

    @property
    def servers(self) -> pl.DataFrame:
        """One row a scrape: t_s, replica, running, waiting, kv_usage; nulls where it failed.

        Of a replica that was asked very often the greatest of neighbouring scrapes are kept.
        """
        tables = [
            replica.table.select(pl.lit(name).alias("replica"), "t_s", *GAUGES)
            for name, replica in self._replicas.items()
            if replica.known
        ]
        schema = {"t_s": pl.Float64, "replica": pl.String, **dict.fromkeys(GAUGES, pl.Float64)}
        return pl.concat(tables).select(list(schema)) if tables else pl.DataFrame(schema=schema)


def _needed(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the columns that are looked at; null where the run holds none."""
    names = rows.collect_schema().names()
    return rows.select(
        col(name) if name in names else pl.lit(None, SCHEMA[name]).alias(name) for name in _NEEDED
    )


def _known(rows: pl.DataFrame, moment: pl.Expr) -> Floats:
    return rows.select(moment).to_series().drop_nulls().to_numpy()


class _Plan:
    """When calls are to be sent: those that the plan places, and those that follow another."""

    def __init__(self, run: Run) -> None:
        self._due_s = run.planned("due_s")["due_s"].drop_nulls().sort().to_numpy()
        self._closed = not len(self._due_s)  # nothing but slots says when a program begins
        self._numbers: dict[str, int] = {}
        if run.info.resumed_s:
            self._numbers = {
                call: number for number, call in enumerate(run.planned("call_id")["call_id"])
            }

    def between(self, edges: Floats) -> Ints:
        """Return how many calls the plan places between edges: shape (edges - 1,)."""
        return np.diff(np.searchsorted(self._due_s, edges, side="left"))

    def unplaced(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of calls that the plan places nowhere."""
        return rows if self._closed else rows.filter(col("parents").list.len() > 0)

    def unlogged(self, rows: pl.DataFrame, logged: set[int]) -> pl.DataFrame:
        """Return the rows of calls that no log holds: sent before the run went on."""
        held = [self._numbers[call] in logged for call in rows["call_id"]]
        return rows.filter(~pl.Series(held, dtype=pl.Boolean))


class _Bins:
    """Counts and durations by time, in at most `MOST_BINS` bins that grow wider as time goes on."""

    def __init__(self) -> None:
        self.width_s = 1.0
        self.used = 0
        self._counts = {name: np.zeros(64, dtype=np.int64) for name in _COUNTED}
        self._times = {name: np.zeros((64, BUCKETS), dtype=np.uint32) for name in ROLLING}
        self._quantiles = {name: np.full((64, len(QUANTILES)), np.nan) for name in ROLLING}
        self._stale = dict.fromkeys(ROLLING, 0)  # the first bin whose quantiles are not right

    def reach(self, moment_s: float) -> None:
        """Make bins so wide that a moment has one."""
        while moment_s >= MOST_BINS * self.width_s:
            self._widen()

    def count(self, name: str, moments: Floats) -> None:
        """Count what happened at moments (s)."""
        place = self._place(moments)
        self._counts[name][: self.used] += np.bincount(place, minlength=self.used)

    def time(self, name: str, moments: Floats, values_s: npt.NDArray[Any]) -> None:
        """Count durations of what ended at moments (s)."""
        if not len(moments):
            return
        place = self._place(moments)
        first, last = int(place.min()), int(place.max())
        key = (place - first) * BUCKETS + bucket_of(values_s.astype(np.float64, copy=False))
        counted = np.bincount(key, minlength=(last - first + 1) * BUCKETS)
        part = self._times[name][first : last + 1]
        part += counted.reshape(-1, BUCKETS).astype(np.uint32)
        self._stale[name] = min(self._stale[name], first)

    def counts(self, name: str, many: int) -> Ints:
        """Return how often something happened in each of the first bins: shape (many,)."""
        return _first(self._counts[name], many)

    def rolling(self, name: str, many: int) -> Floats:
        """Return quantiles over the window that each bin ends: shape (many, quantiles)."""
        if many > len(self._quantiles[name]):
            self._grow(many)
        window = max(1, round(WINDOW_S / self.width_s))
        found, stale = self._quantiles[name], self._stale[name]
        for begin in range(stale, many, 256):  # a stretch at a time keeps what is summed small
            end = min(begin + 256, many)
            before = max(0, begin - window)
            up_to = np.cumsum(self._times[name][before:end], axis=0, dtype=np.int64)
            at = np.arange(begin, end) - before
            windows = up_to[at]
            earlier = at >= window
            windows[earlier] -= up_to[at[earlier] - window]
            for place, share in enumerate(QUANTILES.values()):
                found[begin:end, place] = quantile_of(windows, share)
        # the window of what comes next in a bin reaches into those after it alone
        self._stale[name] = max(stale, many)
        return found[:many]

    def _place(self, moments: Floats) -> Ints:
        """Return the bin of each moment, with room for it."""
        self.reach(float(moments.max()))
        place = np.maximum(moments // self.width_s, 0).astype(np.int64)
        self.used = max(self.used, int(place.max()) + 1)
        if self.used > len(self._counts["done"]):
            self._grow(self.used)
        return place

    def _grow(self, many: int) -> None:
        room = min(MOST_BINS, max(many, 2 * len(self._counts["done"])))
        self._counts = {name: _first(each, room) for name, each in self._counts.items()}
        self._times = {name: _first(each, room) for name, each in self._times.items()}
        wider = {name: np.full((room, len(QUANTILES)), np.nan) for name in ROLLING}
        for name, each in self._quantiles.items():
            wider[name][: len(each)] = each
        self._quantiles = wider

    def _widen(self) -> None:
        """Put every two bins together."""
        self.width_s *= 2
        self.used = (self.used + 1) // 2
        self._counts = {name: _paired(each) for name, each in self._counts.items()}
        self._times = {name: _paired(each) for name, each in self._times.items()}
        self._stale = dict.fromkeys(ROLLING, 0)


Counted = npt.NDArray[Any]


def _first(counts: Counted, many: int) -> Counted:
    """Return the first rows, with zeros where there are fewer."""
    if many <= len(counts):
        return counts[:many]
    missing = np.zeros((many - len(counts), *counts.shape[1:]), dtype=counts.dtype)
    return np.concatenate([counts, missing])


def _paired(counts: Counted) -> Counted:
    """Add every two rows up, and leave room for as many as before."""
    return _first(
        np.add.reduceat(counts, np.arange(0, len(counts), 2), axis=0, dtype=counts.dtype),
        len(counts),
    )


class _Replica:
    """What one server said: its scrapes so far, and what it takes to read on."""

    def __init__(self) -> None:
        self.known = False
        self.table = pl.DataFrame(schema=dict.fromkeys(("t_s", *GAUGES), pl.Float64))
        self._scrapes = Scrapes()

    def take(self, said: pl.DataFrame) -> None:
        """Take samples in the order in which they come."""
        rows = list(self._rows(said))
        fresh = pl.DataFrame(rows, self.table.schema, orient="row")
        self.table = pl.concat([self.table, fresh])
        while self.table.height > MOST_SCRAPES:
            pair = pl.int_range(pl.len()) // 2
            self.table = (
                self.table.group_by(pair.alias("pair"), maintain_order=True)
                .agg(col("t_s").first(), *(col(name).max() for name in GAUGES))
                .drop("pair")
            )

    def _rows(self, said: pl.DataFrame) -> Iterator[tuple[float | None, ...]]:
        for t_s, _, known in self._scrapes.take(said):
            self.known = self.known or bool(known)
            yield t_s, *(known.get(name) for name in GAUGES)
