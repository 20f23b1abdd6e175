"""Ten million rows: `servescope analyze` with its page, of BurstGPT v1 and v3.

    python benchmarks/ten_million/analyze.py [RUNS] [ROWS]

Wall time and peak memory; the goal is less than 60 s and 2.5 GB on two cores.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from compare import measured
from generate import write


def main(runs: int, rows: int) -> None:
    folder = Path(tempfile.gettempdir()) / "servescope-ten-million"
    folder.mkdir(exist_ok=True)
    for version in (1, 3):
        path = folder / f"{rows}-v{version}.csv"
        if not path.exists():
            print(f"writing {path}")
            write(path, rows, version=version)
        page = folder / "page.html"
        command = ["analyze", str(path), "-o", str(page), "--overwrite", "--json"]
        program = [sys.executable, "-m", "servescope.cli", *command]
        results = [measured(program) for _ in range(runs)]
        walls, peaks, _ = zip(*results, strict=True)
        print(
            f"v{version}: {rows:,} rows, median {statistics.median(walls):.1f} s"
            f" ({min(walls):.1f} to {max(walls):.1f}), peak {max(peaks):.0f} MB"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 3, int(sys.argv[2]) if sys.argv[2:] else 10_310_000)
