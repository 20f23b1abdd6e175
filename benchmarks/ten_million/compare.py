"""Ten million rows: servescope against hand-written pandas and polars, wall time and peak memory.

    python benchmarks/ten_million/compare.py [RUNS] [ROWS]

Goals: at most 1.2 times the wall time and 0.6 times the peak memory of the best script by hand; to
canonical Parquet in less than 700 MB. Every round runs each program once, so that a slow hour is
slow for all. pandas must be installed for its part.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROWS = 10_310_000
SCRIPTS = ("by_hand_pandas", "by_hand_polars", "by_hand_streaming", "ours")


def measured(command: list[str]) -> tuple[float, float, str]:
    """Return wall time in seconds, peak resident memory in MB, and what the command printed."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{command} ended with {process.returncode}")
        out.seek(0)
        return time.perf_counter() - begun, usage.ru_maxrss / 1000, out.read()


def main(runs: int, rows: int) -> None:
    folder = Path(tempfile.gettempdir()) / "servescope-ten-million"
    folder.mkdir(exist_ok=True)
    path = folder / f"{rows}.csv"
    if not path.exists():
        print(f"writing {path}")
        subprocess.run(
            [sys.executable, str(HERE / "generate.py"), str(path), str(rows)], check=True
        )
    print(f"{rows:,} rows, {path.stat().st_size / 1e6:.0f} MB")
    commands = {name: [sys.executable, str(HERE / f"{name}.py"), str(path)] for name in SCRIPTS}
    parquet = folder / "out.parquet"
    convert = ["traces", "convert", str(path), "-o", str(parquet), "--overwrite"]
    commands["convert"] = [sys.executable, "-m", "servescope.cli", *convert]
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    found = {}
    for _ in range(runs):
        for name, command in commands.items():
            wall_s, peak_mb, said = measured(command)
            seen[name].append((wall_s, peak_mb))
            if name in SCRIPTS:
                found[name] = json.loads(said)
    for name, results in seen.items():
        walls, peaks = zip(*results, strict=True)
        print(
            f"{name:18} median {statistics.median(walls):6.2f} s"
            f" ({min(walls):.2f} to {max(walls):.2f}), peak {max(peaks):6.0f} MB"
        )
    ours = found["ours"]
    for name in SCRIPTS[:-1]:
        same = all(_near(found[name][key], ours[key]) for key in ("peak", "cv", "fits", "lengths"))
        print(f"{name} finds {'the same' if same else 'something else'}")
    parquet.unlink()


def _near(one: object, other: object) -> bool:
    """Say whether two results are the same but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_near, one, other))
    assert isinstance(one, int | float)
    assert isinstance(other, int | float)
    return abs(one - other) <= 1e-6 * max(abs(one), abs(other))


if __name__ == "__main__":
    main(*map(int, [*sys.argv[1:], *("3", str(ROWS))[len(sys.argv) - 1 :]]))
