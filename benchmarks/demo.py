"""The main job: how long it takes and how late its client is. Goals: 90 s, and lag p99 under 5 ms.

python benchmarks/demo.py [RUNS]
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from servescope.traces import Run


def main(runs: int) -> None:
    walls, lags = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(runs):
            out = Path(folder, str(number))
            begun = time.perf_counter()
            command = [sys.executable, "-m", "servescope.cli", "demo", "--out", str(out)]
            subprocess.run(command, check=True, capture_output=True)
            walls.append(time.perf_counter() - begun)
            for run in (Run.open(path) for path in sorted(out.iterdir()) if path.is_dir()):
                lags.append(run.info.client["lag_p99_s"] * 1000)
                cpu = run.info.client["cpu_share"]
                print(
                    f"{run.info.name:8} lag p99 {lags[-1]:.2f} ms, client CPU {cpu:.0%} of a core"
                )
    print(f"wall   median {statistics.median(walls):.1f} s (max {max(walls):.1f}, {runs} runs)")
    print(f"lag    median p99 {statistics.median(lags):.2f} ms (max {max(lags):.2f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
