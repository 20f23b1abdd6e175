"""How long `servescope --help` takes, as a whole process. Goal: under 0.4 s on an idle core.

    python benchmarks/help_time.py

Beside it stands the same for an empty Python program, so that a slow machine is seen as such.
"""

import statistics
import subprocess
import sys
import time

RUNS = 15


def seconds(command: list[str]) -> list[float]:
    """Wall times of a command after one warm-up."""
    times = []
    for _ in range(RUNS + 1):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return times[1:]


def main() -> None:
    commands = {
        "servescope --help": [sys.executable, "-m", "servescope.cli", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    for name, command in commands.items():
        times = seconds(command)
        print(
            f"{name:20} median {statistics.median(times):.3f} s"
            f"  (min {min(times):.3f}, max {max(times):.3f}, {RUNS} runs)"
        )


if __name__ == "__main__":
    main()
