"""What servers said of themselves, as quantities over time and as totals, by replica.

A table of samples (`traces.server`) says what changed. Here every scrape becomes a row again, and
a scrape that failed a row of nulls: nothing is carried across a hole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import polars as pl

from servescope.traces.server import COUNTERS, GAUGES, HOST, KNOWN, KNOWN_NAMES, live

Reals = npt.NDArray[np.float64]
_UP = "up"
_COUNTED = {part for each in COUNTERS for name in KNOWN[each].names for part in name.split("+")}


@dataclass(frozen=True, slots=True)
class Summary:
    """What one replica said in a run; None where it did not say.

    Means are over time. Counts are what its counters grew by from its first answer to its last.
    `prefix_hit_share` is of the tokens of prompts. `unseen` is the share of scrapes that failed.
    """

    replica: str
    scrapes: int
    unseen: float
    running_mean: float | None
    running_peak: int | None
    waiting_mean: float | None
    waiting_peak: int | None
    kv_usage_peak: float | None
    prefix_hit_share: float | None
    preemptions: int | None
    generation_tokens: int | None
    queue_mean_s: float | None = None
    queued: int | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """What one GPU of the client's machine did: shares, bytes, watts, joules; None if unknown."""

    gpu: str
    utilisation_mean: float | None
    memory_peak_bytes: float | None
    power_mean_watts: float | None
    energy_joules: float | None


def over_time(samples: pl.DataFrame) -> pl.DataFrame:
    """Return a row a scrape: t_s, replica, up, and every quantity of `traces.server.KNOWN`.

    Counters are what they grew by since the replica's first answer. A quantity is null where the
    server does not say it or did not answer. Replicas that never say any are left out.
    """
    rows: list[tuple[float | str | bool | None, ...]] = []
    for replica, said in by_replica(samples):
        scrapes = list(Scrapes().take(said))
        if any(known for _, _, known in scrapes):
            rows += [
                (t_s, replica, up, *(known.get(name) for name in KNOWN))
                for t_s, up, known in scrapes
            ]
    schema = {"t_s": pl.Float64, "replica": pl.String, "up": pl.Boolean}
    return pl.DataFrame(rows, {**schema, **dict.fromkeys(KNOWN, pl.Float64)}, orient="row")


def by_replica(samples: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each replica of a table of samples, with those that `Scrapes` takes."""
    wanted = pl.col("name").is_in([*KNOWN_NAMES, _UP]) & (pl.col("replica") != HOST)
    for (replica,), said in samples.filter(wanted).group_by("replica", maintain_order=True):
        yield str(replica), said


class Scrapes:
    """The scrapes of one replica, made of its samples in the order in which they come.

    Every series is counted by itself: one that falls began anew at 0, as its server did, and one
    that was not there at the first answer began at 0 too, since servers show no counter before they
    use it. One that goes and comes back goes on.
    """

    def __init__(self) -> None:
        self._now: dict[tuple[str, str], float | None] = {}
        self._last: dict[tuple[str, str], float] = {}
        self._answered = False

    def take(self, said: pl.DataFrame) -> Iterator[tuple[float, bool, dict[str, float]]]:
        """Yield when each scrape was, whether it answered, and what is known then.

        Samples of one scrape must be taken at once.
        """
        now, last = self._now, self._last
        samples = said.select("t_s", "name", "labels", "value").iter_rows()
        for t_s, scrape in groupby(samples, itemgetter(0)):
            up = True
            for _, name, labels, value in scrape:
                series = name, labels
                if name == _UP:
                    up = value == 1
                elif name not in _COUNTED:
                    now[series] = value
                elif value is not None:
                    before = last.get(series, 0.0 if self._answered else value)
                    grew = value - before if value >= before else value
                    now[series] = (now.get(series) or 0.0) + grew
                    last[series] = value
            yield t_s, up, live(now) if up else {}
            self._answered = self._answered or up


def summaries(series: pl.DataFrame) -> list[Summary]:
    """Return the summary of every replica of an `over_time` table, in order of appearance."""
    return [
        _summary(str(replica), rows)
        for (replica,), rows in series.group_by("replica", maintain_order=True)
    ]


def gpus(samples: pl.DataFrame) -> list[Gpu]:
    """Return what each GPU of the client's machine did."""
    ours = samples.filter((pl.col("replica") == HOST) & pl.col("name").str.starts_with("gpu_"))
    found = []
    for (labels,), rows in ours.group_by("labels", maintain_order=True):
        by_name = {
            str(name): (part["t_s"].to_numpy(), part["value"].to_numpy())
            for (name,), part in rows.drop_nulls("value").group_by("name", maintain_order=True)
        }
        memory = by_name.get("gpu_memory_used_bytes")
        energy = by_name.get("gpu_energy_joules_total")
        found.append(
            Gpu(
                gpu=str(labels),
                utilisation_mean=_mean(*by_name.get("gpu_utilisation_ratio", _NOTHING)),
                memory_peak_bytes=float(memory[1].max()) if memory else None,
                power_mean_watts=_mean(*by_name.get("gpu_power_watts", _NOTHING)),
                energy_joules=_growth(energy[1]) if energy else None,
            )
        )
    return found


_NOTHING = np.empty(0), np.empty(0)


def _summary(replica: str, rows: pl.DataFrame) -> Summary:
    moments = rows["t_s"].to_numpy()
    gauges = {name: rows[name].to_numpy() for name in GAUGES}  # nulls become NaN
    grew = rows.select(pl.col(*COUNTERS).max()).row(0, named=True)
    queries, hits = grew["prefix_queries"], grew["prefix_hits"]
    queue_s, queued = grew["queue_s"], grew["queued"]
    return Summary(
        replica=replica,
        scrapes=rows.height,
        unseen=int((~rows["up"]).sum()) / rows.height,
        running_mean=_mean(moments, gauges["running"]),
        running_peak=_whole(_peak(gauges["running"])),
        waiting_mean=_mean(moments, gauges["waiting"]),
        waiting_peak=_whole(_peak(gauges["waiting"])),
        kv_usage_peak=_peak(gauges["kv_usage"]),
        prefix_hit_share=hits / queries if queries and hits is not None else None,
        preemptions=_whole(grew["preemptions"]),
        generation_tokens=_whole(grew["generation_tokens"]),
        queue_mean_s=queue_s / queued if queued and queue_s is not None else None,
        queued=_whole(queued),
    )


def _whole(count: float | None) -> int | None:
    return None if count is None else round(count)


def _mean(moments: Reals, values: Reals) -> float | None:
    """Return the mean over time of a value that stays as it was said until it is said again."""
    known = ~np.isnan(values)
    if not known.any():
        return None
    spans = np.append(np.diff(moments), 0.0)
    if not spans[known].sum():
        return float(values[known].mean())
    return float(np.average(values[known], weights=spans[known]))


def _peak(values: Reals) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else None


def _growth(values: Reals) -> float:
    """Return what a counter grew by; one that falls began anew at 0."""
    steps = np.diff(values)
    return float(np.where(steps < 0, values[1:], steps).sum())
