"""How far the real clock is from the virtual one: one plan, served over HTTP and simulated.

    python benchmarks/two_clocks.py [--rates 2 6] [--calls 150]

The client, the server and the network are loopback on this machine; every difference is theirs.
Goal: p50 of TTFT and TBT within 5 %.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from servescope.loadgen.experiment import ArrivalSpec, EngineSpec, SyntheticSpec
from servescope.loadgen.study import NamedWorkload, Study, SystemSpec
from servescope.loadgen.study_runner import run_study
from servescope.traces import Run

ENGINE = EngineSpec(system="sarathi", model="Llama-3.1-8B", gpu="A100-80G")
QUANTILES = (0.5, 0.9, 0.99)


def latencies(run: Run) -> dict[str, np.ndarray]:
    """Return TTFT of all calls and all gaps between their tokens (s)."""
    calls = run.trace.collect().filter(pl.col("status") == "ok")
    return {
        "TTFT": (calls["first_token_s"] - calls["due_s"]).to_numpy(),
        "TBT": np.concatenate([np.diff(moments) for moments in calls["chunk_s"].to_list()]),
    }


def main() -> None:
    """Run both, and print the quantiles of each and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", type=float, nargs="+", default=[2, 6])
    parser.add_argument("--calls", type=int, default=150)
    asked = parser.parse_args()
    study = Study(
        name="two clocks",
        systems=(
            SystemSpec(name="virtual", engine=ENGINE),
            SystemSpec(name="real", engine=ENGINE, real=True),
        ),
        workloads=(
            NamedWorkload(
                name="chat",
                synthetic=SyntheticSpec(input_tokens=800, output_tokens=120, range_ratio=0.8),
                calls=asked.calls,
                arrivals=ArrivalSpec(process="poisson"),
            ),
        ),
        rates=tuple(asked.rates),
    )
    with TemporaryDirectory() as folder:
        book = run_study(study, Path(folder) / "study")
        runs: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        for entry in book.runs:
            run = Run.open(Path(folder) / "study" / entry.cell.path)
            runs.setdefault(entry.cell.condition, {})[entry.cell.system] = latencies(run)
    for condition, both in runs.items():
        for metric in both["real"]:
            real, virtual = (
                np.quantile(both[clock][metric], QUANTILES) * 1000 for clock in ("real", "virtual")
            )
            print(f"{condition}, {metric}:", end="")
            for share, ours, theirs in zip(QUANTILES, real, virtual, strict=True):
                print(
                    f"  p{100 * share:g} {ours:.2f} / {theirs:.2f} ms = {ours / theirs:.3f}", end=""
                )
            print()


if __name__ == "__main__":
    main()
