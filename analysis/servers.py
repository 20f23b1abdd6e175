"""What servers said of themselves, as quantities over time and as totals, by replica.

A table of samples (`traces.server`) says what changed. Here every scrape becomes a row again, and
a scrape that failed a row of nulls: nothing is carried across a hole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from servescope.traces.server import COUNTERS, GAUGES, HOST, KNOWN, KNOWN_NAMES, live

Reals = npt.NDArray[np.float64]
_UP = "up"


@dataclass(frozen=True, slots=True)
class Summary:
    """What one replica said in a run; None where it did not say.

    Means are over time. Counts are what its counters grew by; a counter that falls began anew.
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


@dataclass(frozen=True, slots=True)
class Gpu:
    """What one GPU of the client's machine did: shares, bytes, watts, joules; None if unknown."""

    gpu: str
    utilisation_mean: float | None
    memory_peak_bytes: float | None
    power_mean_watts: float | None
    energy_joules: float | None


def over_time(samples: pl.DataFrame) -> pl.DataFrame:
    """Return a row a scrape: t_s, replica, and every quantity of `traces.server.KNOWN`.

    A quantity is null where the server does not say it or did not answer. Replicas that never say
    any are left out.
    """
    wanted = pl.col("name").is_in([*KNOWN_NAMES, _UP]) & (pl.col("replica") != HOST)
    rows: list[dict[str, float | str | None]] = []
    for (replica,), said in samples.filter(wanted).group_by("replica", maintain_order=True):
        series: dict[tuple[str, str], float | None] = {}
        mine: list[dict[str, float | str | None]] = []
        speaks = False
        for (t_s,), scrape in said.group_by("t_s", maintain_order=True):
            up = True
            for name, labels, value in scrape.select("name", "labels", "value").iter_rows():
                if name == _UP:
                    up = value == 1
                else:
                    series[name, labels] = value
            now = live(series) if up else {}
            mine.append({"t_s": t_s, "replica": replica, **{n: now.get(n) for n in KNOWN}})
            speaks = speaks or bool(now)
        if speaks:
            rows += mine
    schema = {"t_s": pl.Float64, "replica": pl.String, **dict.fromkeys(KNOWN, pl.Float64)}
    return pl.DataFrame(rows, schema=schema, orient="row")


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
    grew = {name: _growth(rows[name].drop_nulls().to_numpy()) for name in COUNTERS}
    queries, hits = grew["prefix_queries"], grew["prefix_hits"]
    silent = rows.select(pl.all_horizontal(pl.col(name).is_null() for name in KNOWN)).to_series()
    return Summary(
        replica=replica,
        scrapes=rows.height,
        unseen=float(silent.mean() or 0.0),  # type: ignore[arg-type]
        running_mean=_mean(moments, gauges["running"]),
        running_peak=_whole(_peak(gauges["running"])),
        waiting_mean=_mean(moments, gauges["waiting"]),
        waiting_peak=_whole(_peak(gauges["waiting"])),
        kv_usage_peak=_peak(gauges["kv_usage"]),
        prefix_hit_share=hits / queries if queries and hits is not None else None,
        preemptions=_whole(grew["preemptions"]),
        generation_tokens=_whole(grew["generation_tokens"]),
    )


def _whole(count: float | None) -> int | None:
    return None if count is None else round(count)


def _mean(
    moments: Reals,
    values: Reals,
) -> float | None:
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


def _growth(values: Reals) -> float | None:
    """Return what a counter grew by; one that falls began anew at 0, as its server did."""
    if not len(values):
        return None
    steps = np.diff(values)
    return float(np.where(steps < 0, values[1:], steps).sum())
