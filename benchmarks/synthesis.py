"""How fast models draw: calls a second of one core, and memory, into Parquet.

    POLARS_MAX_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/synthesis.py

Each model is drawn for about so many calls in a process of its own.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from subprocess import run

from servescope.analysis.models.presets import load_preset
from servescope.analysis.models.synthesis import Synthesis

DRAWN = {
    "azure-code": (None, 3_000_000),
    "azure-code at 1,000/s": (1000.0, 3_000_000),
    "sharegpt-lengths": (10.0, 3_000_000),
    "burstgpt-v3": (None, 500_000),
    "weka-agentic": (1.0, 20_000),
    "mooncake-synthetic": (None, 200_000),
    "ragpulse": (None, 100_000),
}


def one(name: str) -> None:
    """Draw one model and print how long that took."""
    rate, calls = DRAWN[name]
    model = load_preset(name.split()[0])
    if rate is not None:
        model = model.at_rate(rate)
    assert model.rate_rps is not None
    synthesis = Synthesis(model, calls / model.rate_rps, 1)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        made = synthesis.write(Path(folder) / "calls.parquet")
        took_s = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {name} | {made:,} | {made / took_s:,.0f} | {memory:.0f} MB |", flush=True)


def main() -> None:
    if len(sys.argv) > 1:
        one(sys.argv[1])
        return
    print("| model | calls | calls a CPU-second | peak memory |\n|---|--:|--:|--:|", flush=True)
    for name in DRAWN:
        run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
