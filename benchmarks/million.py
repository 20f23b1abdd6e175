"""A run of a million calls: what time and memory its metrics, its report, a comparison take.

    python benchmarks/million.py FOLDER [--calls 1000000] [--tokens 201] [--rounds 3]

Writes two runs of the same plan into FOLDER once (1.4 GB each with 200 gaps a call): programs of
four calls, lognormal waits and gaps, the second 10 % slower. Every measurement is a process of its
own: wall time and peak memory, medians with the least and the most.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import polars as pl

from servescope.traces.run import RUN_COLUMNS, RunInfo
from servescope.traces.schema import SCHEMA

ROWS = 20_000
METRICS = """
import sys
from pathlib import Path
from servescope.analysis import Measured
from servescope.traces import Run
print(Measured.of(Run.open(Path(sys.argv[1]))).summary.height)
"""
PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
sys.stderr.buffer.write(done.stderr[-2000:] if done.returncode else b"")
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def write_run(folder: Path, calls: int, tokens: int, own_seed: int, slower: float) -> None:
    """Write a run of so many calls, as an endpoint would have served them."""
    folder.mkdir(parents=True)
    shared, own = np.random.default_rng(1), np.random.default_rng(own_seed)
    due = np.cumsum(shared.exponential(0.1, calls))
    parts = []
    for first in range(0, calls, ROWS):
        count = min(ROWS, calls - first)
        numbers = range(first, first + count)
        planned = due[first : first + count]
        sent = planned + own.exponential(0.0005, count)
        wait = slower * shared.lognormal(-1.5, 0.5, count) * own.lognormal(0, 0.05, count)
        steps = np.concatenate(
            [(sent + wait)[:, None], own.lognormal(-4, 0.4, (count, tokens - 1))], axis=1
        )
        chunks = np.cumsum(steps, axis=1)
        known = pl.DataFrame(
            {
                "call_id": [f"c{n}" for n in numbers],
                "program_id": [f"p{n // 4}" for n in numbers],
                "turn": [n % 4 for n in numbers],
                "status": "ok",
                "due_s": planned,
                "admitted_s": planned,
                "dispatched_s": sent,
                "sent_s": sent,
                "first_token_s": chunks[:, 0],
                "first_answer_s": chunks[:, 0],
                "last_token_s": chunks[:, -1],
                "end_s": chunks[:, -1],
                "input_tokens": shared.integers(10, 4000, count),
                "output_tokens": tokens,
                "chunk_s": pl.Series(chunks).arr.to_list(),
            }
        )
        table = known.select(
            (pl.col(name) if name in known.columns else pl.lit(None)).cast(SCHEMA[name]).alias(name)
            for name in RUN_COLUMNS
        )
        part = folder / f"part-{first}.parquet"
        table.write_parquet(part)
        parts.append(part)
    seal(folder, parts, calls, "virtual")


def seal(
    folder: Path, parts: Sequence[Path], calls: int, clock: Literal["real", "virtual"]
) -> None:
    """Make one run of parts that hold its calls in their order, and remove them."""
    rows = pl.scan_parquet(parts)
    rows.sink_parquet(folder / "calls.parquet", row_group_size=ROWS)
    plan = ("call_id", "program_id", "turn", "parents", "delay_s", "input_tokens", "due_s")
    rows.select(plan).sink_parquet(folder / "plan.parquet")
    for part in parts:
        part.unlink()
    info = RunInfo(
        name=folder.name, system=folder.name, clock=clock, version="benchmark", started="",
        seed=0, plan_sha256="one plan", planned_calls=calls, validity="valid", ended="",
    )  # fmt: skip
    (folder / "run.json").write_bytes(msgspec.json.encode(info))
    (folder / "experiment.toml").write_text("")


def measured(command: list[str], rounds: int) -> str:
    """Run a command some times; returns its wall time and peak memory in words."""
    took, peak = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *command], check=True, capture_output=True, text=True
        )
        took.append(time.perf_counter() - begun)
        peak.append(int(done.stdout.split()[-1]) / 1000)
    return (
        f"{statistics.median(took):.1f} s ({min(took):.1f} to {max(took):.1f}), {max(peak):,.0f} MB"
    )


def main() -> None:
    """Write the runs if they are not there, and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=201)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    runs = [asked.folder / f"{name}-{asked.calls}-{asked.tokens}" for name in "ab"]
    for number, run in enumerate(runs):
        if not run.exists():
            write_run(run, asked.calls, asked.tokens, 2 + number, 1.0 + 0.1 * number)
    page = asked.folder / "report.html"
    verb = [sys.executable, "-m", "servescope.cli"]
    print("metrics ", measured([sys.executable, "-c", METRICS, str(runs[0])], asked.rounds))
    slo = ["--slo", "ttft<500ms,tpot<50ms,p99(tbt)<100ms"]
    report = [*verb, "report", str(runs[0]), *slo, "-o", str(page), "--overwrite"]
    print("report  ", measured(report, asked.rounds), f"{page.stat().st_size / 1e6:.2f} MB page")
    compare = [*verb, "compare", *map(str, runs), *slo, "--json"]
    print("compare ", measured(compare, asked.rounds))


if __name__ == "__main__":
    main()
