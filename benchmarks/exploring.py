"""How long it takes to look at a part of a run of a million calls.

    python benchmarks/exploring.py [FOLDER] [--calls 1000000] [--cuts 60]

Writes the run into FOLDER once (by default into the system's temporary folder; 0.7 GB): programs of
several turns of four classes and fifty clients, 30 to 100 chunks a call, two replicas that say what
waits. Then it cuts windows, classes and clients out of it at random and prints what every section
of the report takes of such a part, and what loading the run took in time and memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from million import ROWS, seal

from servescope.analysis.cut import Cut
from servescope.analysis.headline import headline, headline_of, rate_of
from servescope.analysis.slo import SLO
from servescope.analysis.thresholds import Bounds, Thresholds
from servescope.reports.sections import SECTIONS
from servescope.reports.story import Story
from servescope.traces.run import RUN_COLUMNS, Run
from servescope.traces.schema import SCHEMA
from servescope.traces.server import SCHEMA as SERVER_SCHEMA

RATE_RPS = 70.0
CLASSES = np.array(["chat", "code", "agent", "batch"])
SHARES = (0.5, 0.25, 0.15, 0.1)
CLIENTS = 50
REPLICAS = ("http://a:8000", "http://b:8000")
QUICK = SLO.parse("ttft<1s,tpot<50ms")
ASKED = SLO.parse("ttft<1s,tpot<50ms,stall<300ms")
SHOWN = (
    "pictures", "programs", "objectives", "groups", "latencies", "service", "server", "workload",
)  # fmt: skip


def write_run(folder: Path, calls: int) -> None:
    """Write a run of so many calls, as a replay would have left it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(9)
    planned = _planned(rng, calls)
    parts = []
    for first in range(0, calls, ROWS):
        part = folder / f"part-{first:08}.parquet"
        _served(rng, planned[first : first + ROWS]).write_parquet(part)
        parts.append(part)
    _said(rng, float(planned["due_s"].max())).write_parquet(folder / "server.parquet")  # type: ignore[arg-type]
    seal(folder, parts, calls, "real")


def _planned(rng: np.random.Generator, calls: int) -> pl.DataFrame:
    """Return the calls of programs of one to some twelve turns, in the order of their due times."""
    turns = rng.geometric(0.35, calls).clip(1, 12)
    turns = turns[: int(np.searchsorted(np.cumsum(turns), calls)) + 1]
    count = len(turns)
    program = np.repeat(np.arange(count), turns)[:calls]
    turn = (np.arange(len(program)) - np.repeat(np.cumsum(turns) - turns, turns)[:calls]).astype(
        int
    )
    chunks = rng.integers(30, 101, calls)
    tpot = rng.lognormal(-4, 0.3, calls)
    wait = rng.lognormal(-1.5, 0.6, calls)
    # the next turn comes when this one has ended, and somebody has thought
    took = wait + chunks * tpot * 1.5 + rng.exponential(15.0, calls)
    before = np.cumsum(took) - took
    start = np.cumsum(rng.exponential(1 / RATE_RPS * calls / count, count))
    due = start[program] + before - before[np.flatnonzero(turn == 0)][program]
    klass = rng.choice(len(CLASSES), count, p=SHARES)
    client = (rng.power(0.4, count) * CLIENTS).astype(int)
    frame = pl.DataFrame(
        {
            "call_id": pl.Series(np.arange(calls)).cast(pl.String),
            "program_id": pl.Series(program).cast(pl.String),
            "turn": turn,
            "client_id": pl.Series(client[program]).cast(pl.String),
            "call_class": CLASSES[klass][program],
            "chunks": chunks,
            "tpot": tpot,
            "wait": wait,
            "due_s": due,
            "input_tokens": (rng.lognormal(6, 1, calls) * (1 + turn)).astype(int) + 10,
        }
    )
    parent = pl.concat_list(pl.col("call_id").shift(1))
    nobody = pl.lit([], dtype=pl.List(pl.String))
    return frame.with_columns(
        program_id="p" + pl.col("program_id"),
        client_id="client-" + pl.col("client_id"),
        parents=pl.when(pl.col("turn") > 0).then(parent).otherwise(nobody),
    ).sort("due_s")


def _served(rng: np.random.Generator, planned: pl.DataFrame) -> pl.DataFrame:
    """Return what an endpoint would have made of some calls: one in a hundred fails."""
    count = planned.height
    chunks = planned["chunks"].to_numpy()
    failed = rng.random(count) < 0.01
    sent = planned["due_s"].to_numpy() + rng.exponential(0.0005, count)
    steps = np.repeat(planned["tpot"].to_numpy(), chunks) * rng.lognormal(0, 0.4, chunks.sum())
    begins = np.cumsum(chunks) - chunks
    steps[begins] = planned["wait"].to_numpy()
    upto = np.cumsum(steps)
    moments = upto - np.repeat(upto[begins] - steps[begins], chunks) + np.repeat(sent, chunks)
    lists = (
        pl.DataFrame({"row": np.repeat(np.arange(count), chunks), "chunk_s": moments})
        .group_by("row", maintain_order=True)
        .agg("chunk_s")["chunk_s"]
    )
    known = planned.with_columns(
        status=pl.Series(np.where(failed, "http_503", "ok")),
        arrival_s="due_s",
        admitted_s="due_s",
        dispatched_s=pl.Series(sent),
        sent_s=pl.Series(sent),
        chunk_s=lists,
        output_tokens=pl.Series(chunks),
        model=pl.lit("one"),
        replica=pl.Series(np.array(REPLICAS)[rng.integers(0, len(REPLICAS), count)]),
        end_s=lists.list.last(),
    ).with_columns(
        first_token_s=pl.col("chunk_s").list.first(),
        first_answer_s=pl.col("chunk_s").list.first(),
        last_token_s=pl.col("chunk_s").list.last(),
    )
    answer = ("chunk_s", "output_tokens", "first_token_s", "first_answer_s", "last_token_s")
    known = known.with_columns(pl.when(pl.col("status") == "ok").then(pl.col(*answer)))
    return known.select(
        (pl.col(name) if name in known.columns else pl.lit(None)).cast(SCHEMA[name]).alias(name)
        for name in RUN_COLUMNS
    )


def _said(rng: np.random.Generator, until_s: float) -> pl.DataFrame:
    """Return what two servers said each second of what they compute and what waits."""
    moments = np.arange(0.0, until_s, 1.0)
    parts = [
        pl.DataFrame({"t_s": moments, "value": values.astype(float)}).with_columns(
            replica=pl.lit(replica), name=pl.lit(name), labels=pl.lit("")
        )
        for replica in REPLICAS
        for name, values in (
            ("up", np.ones(len(moments))),
            ("vllm:num_requests_running", rng.poisson(30, len(moments))),
            ("vllm:num_requests_waiting", rng.poisson(3, len(moments))),
        )
    ]
    return pl.concat(parts).sort("t_s", "replica").select(*SERVER_SCHEMA)


def a_cut(rng: np.random.Generator, until_s: float) -> Cut:
    """Return a part as somebody might choose it: a window, a class, a client, or two of these."""
    share = rng.uniform(0.01, 1.0)
    begin = rng.uniform(0.0, 1.0 - share)
    window = (begin * until_s, (begin + share) * until_s)
    asked = (("class", str(rng.choice(CLASSES))), ("client", f"client-{rng.integers(CLIENTS)}"))
    return (
        Cut(*window),
        Cut(where=asked[:1]),
        Cut(where=asked[1:]),
        Cut(*window, where=asked[:1]),
    )[int(rng.integers(4))]


class Took(NamedTuple):
    """Seconds by the clock, and of all cores together: on a busy machine they come apart."""

    wall_s: float
    busy_s: float


def seconds(work: Callable[[], object]) -> Took:
    """Return how long something takes."""
    begun, busy = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - begun, time.process_time() - busy)


def told(took: Sequence[float]) -> str:
    """Return the median and the 95th percentile of times (s), in milliseconds."""
    return " ".join(f"{1000 * float(np.quantile(took, q)):8.0f}" for q in (0.5, 0.95))


def main() -> None:
    """Write the run if it is not there, load it, and look at parts of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path(tempfile.gettempdir()))
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--cuts", type=int, default=60)
    asked = parser.parse_args()
    path = asked.folder / f"servescope-exploring-{asked.calls}"
    if not path.exists():
        write_run(path, asked.calls)

    headlines = [seconds(lambda: headline(Run.open(path), QUICK)) for _ in range(10)]
    took: dict[str, list[Took]] = {"headline of the file": headlines}

    story = Story((Run.open(path),), ASKED)
    loaded = seconds(lambda: story.cut(Cut()).measured[path.name].cut(Cut()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"loading {loaded.wall_s:.1f} s ({loaded.busy_s:.1f} of cores), at most {peak:.2f} GB")
    first = seconds(lambda: [SECTIONS[name](story) for name in SHOWN])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"all sections of all of it {first.wall_s:.1f} s, at most {peak:.2f} GB")

    rng = np.random.default_rng(4)
    until_s = float(story.calls[path.name]["due_s"].max())  # type: ignore[arg-type]
    for _ in range(asked.cuts):
        cut = a_cut(rng, until_s)
        click = seconds(lambda cut=cut: look(story.cut(cut)))  # type: ignore[misc]
        took.setdefault("pictures, programs, head", []).append(click)
        for name in SHOWN:
            part = story.cut(cut)  # nothing that another section has worked out
            made = seconds(lambda part=part, name=name: SECTIONS[name](part))  # type: ignore[misc]
            took.setdefault(name, []).append(made)

    thresholds = Thresholds.of(story.measured[path.name])
    over = ("ttft", "stall", "tpot", "jct")
    for number in range(-len(over), asked.cuts):
        ttft, stall, tpot = rng.uniform((0.1, 0.05, 0.01), (2.0, 0.5, 0.1)).tolist()
        bounds = Bounds(ttft, stall, tpot, None if number % 2 else 60.0)
        moved = seconds(
            lambda bounds=bounds, number=number: (  # type: ignore[misc]
                thresholds.attained(bounds),
                thresholds.curve(bounds, over[number % 4]),
            )
        )
        if number >= 0:  # before that everything is asked for the first time
            took.setdefault("bounds moved", []).append(moved)
    print(f"{'ms':24}     p50      p95 of cores: p50      p95")
    for name, times in took.items():
        wall, busy = zip(*times, strict=True)
        print(f"{name:24}{told(wall)}      {told(busy)}")


def look(part: Story) -> None:
    """Make what the page of a run shows first of a part."""
    SECTIONS["pictures"](part)
    SECTIONS["programs"](part)
    for measured in part.measured.values():
        headline_of(measured, part.slo, rate_of(measured.starts))


if __name__ == "__main__":
    main()
