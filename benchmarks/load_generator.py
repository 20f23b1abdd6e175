"""How right and how cheap the load generator is, against a server that logs the truth.

    python benchmarks/load_generator.py ../shared/bench cheap [rounds]
    python benchmarks/load_generator.py ../shared/bench right [rounds] [rate ...]

`cheap`: 2,000 unpaced requests of 64 tokens, 64 at a time; CPU of all our processes between the
first arrival and the last byte, beside the least that a Python client can do for the same work.
`right`: open loop at 100 and 200 requests/s, TTFT 50 ms, TBT 10 ms, 128 tokens; what the run says
beside what the server did. Server and client are pinned to one core each, the rounds alternate.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from servescope.traces import Run

MAGIC = 0x4D4F434B4C4F4731
SERVER_CORE, CLIENT_CORE = "0", "1"


def built(folder: Path, work: Path) -> Path:
    """Compile the mock server."""
    binary = work / "mockserver"
    subprocess.run(["cc", "-O2", "-o", binary, folder / "mockserver.c"], check=True)
    return binary


@contextmanager
def mock(binary: Path, truth: Path, *options: str) -> Iterator[int]:
    """Run the mock server on a free port; its log is written when the context ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["taskset", "-c", SERVER_CORE, binary, "--port", str(port), "--log", truth, *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    try:
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)


def truth_of(path: Path, tokens: int) -> list[tuple[int, np.ndarray]]:
    """Read the log: arrival of each request of `tokens` tokens, and when each was sent, in ns."""
    words = np.frombuffer(path.read_bytes(), dtype="<u8")
    place, found = 0, []
    while place < len(words):
        assert words[place] == MAGIC
        count = int(words[place + 9])
        if count == tokens:
            found.append(
                (int(words[place + 4]), words[place + 10 : place + 10 + count].astype("i8"))
            )
        place += 10 + count
    return found


def trace_of(path: Path, count: int, rate: float | None, tokens: int, seed: int = 1) -> Path:
    """Write a trace of Poisson arrivals, or of all at once."""
    rng, now = random.Random(seed), 0.0
    lines = ["arrived_at,num_prefill_tokens,num_decode_tokens"]
    for _ in range(count):
        now += rng.expovariate(rate) if rate else 0.0
        lines.append(f"{now:.9f},32,{tokens}")
    path.write_text("\n".join(lines) + "\n")
    return path


def ticks(pids: list[int]) -> float:
    """Return the CPU seconds that processes have used so far; those that are gone used none."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for one in found:
        children = Path(f"/proc/{one}/task/{one}/children")
        if children.exists():
            found += [int(child) for child in children.read_text().split()]
    return found


def measured(command: list[str], env: dict[str, str] | None = None) -> list[tuple[float, float]]:
    """Run a command on the client's core; returns (monotonic seconds, CPU seconds) as it went."""
    process = subprocess.Popen(
        ["taskset", "-c", CLIENT_CORE, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=env,
    )
    samples = []
    while process.poll() is None:
        samples.append((time.monotonic(), ticks(family(process.pid))))
        time.sleep(0.005)
    if process.returncode not in (0, 1):  # 1: an unpaced run has doubts, as it should
        raise SystemExit(f"{command} ended with {process.returncode}")
    return samples


def between(samples: list[tuple[float, float]], start_s: float, end_s: float) -> float:
    """Return the CPU seconds used between two moments."""
    moments, used = zip(*samples, strict=True)
    return float(np.interp(end_s, moments, used) - np.interp(start_s, moments, used))


def ours(port: int, trace: Path, out: Path, *options: str) -> list[str]:
    """Return the command of a replay."""
    return [
        str(Path(sys.executable).parent / "servescope"),
        *("replay", str(trace), "--base-url", f"http://127.0.0.1:{port}", "--sessions", "none"),
        *("--out", str(out), "--workers", "1", "--quiet", *options),
    ]


def cheap(bench: Path, work: Path, binary: Path, rounds: int) -> None:
    """Compare the CPU per 1,000 unpaced requests."""
    trace, used = trace_of(work / "flat.csv", 2000, None, 64), {"minimal": [], "ours": []}
    for turn in range(rounds):
        for name in used:
            truth, out = work / "truth.bin", work / f"run-{name}-{turn}"
            with mock(binary, truth) as port:
                command = ours(port, trace, out, "--max-concurrency", "64")
                if name == "minimal":
                    command = [sys.executable, str(bench / "raw_clients.py"), "--client", "aiohttp"]
                    command += ["--loop", "uvloop", "--parse", "orjson", "--port", str(port)]
                    command += ["--n", "2000", "--conc", "64", "--out-tokens", "64"]
                samples = measured(command)
            log = truth_of(truth, 64)
            first, last = min(a for a, _ in log), max(int(s[-1]) for _, s in log)
            assert len(log) == 2000
            used[name].append(between(samples, first / 1e9, last / 1e9) / 2)
    for name, values in used.items():
        print(f"{name:8} {told(values, 3)} CPU-s per 1,000 requests")
    ratios = [a / b for a, b in zip(used["ours"], used["minimal"], strict=True)]
    print(f"ratio    {told(ratios, 2)}")


def right(work: Path, binary: Path, rounds: int, rates: list[float]) -> None:
    """Compare what a run says with what the server did."""
    for rate in rates:
        rows = []
        for turn in range(rounds):
            count = int(rate * 20)
            trace = trace_of(work / "rate.csv", count, rate, 128, seed=turn)
            truth, out = work / "truth.bin", work / f"run-{rate:g}-{turn}"
            paced = ("--ttft-us", "50000", "--tbt-us", "10000")
            with mock(binary, truth, *paced) as port:
                pinned = ["taskset", "-c", CLIENT_CORE, *ours(port, trace, out)]
                subprocess.run(pinned, check=False, capture_output=True)
            rows.append(errors(Run.open(out), truth_of(truth, 128)))
        print(f"{rate:g} requests/s")
        for name in rows[0]:
            if name != "validity":
                print(f"  {name:24} {told([row[name] for row in rows], 3)}")
        print(f"  validity                 {' '.join(row['validity'] for row in rows)}")


def errors(run: Run, log: list[tuple[int, np.ndarray]]) -> dict[str, float]:
    """Return how far a run's numbers are from the truth, latencies in ms."""
    calls = run.trace.collect()
    said_ttft = (calls["first_token_s"] - calls["sent_s"]).to_numpy() * 1e3
    true_ttft = np.array([sent[0] - arrived for arrived, sent in log]) / 1e6
    said_gaps = calls["chunk_s"].list.diff(null_behavior="drop").explode().to_numpy() * 1e3
    true_gaps = np.concatenate([np.diff(sent) for _, sent in log]) / 1e6
    lag = (calls["dispatched_s"] - calls["due_s"]).to_numpy() * 1e3
    due_s, arrived_s = calls["due_s"].sort(), np.sort([arrived for arrived, _ in log]) / 1e9
    span = float(due_s[-1] - due_s[0])
    late = (arrived_s - run.info.zero_monotonic_s - due_s.to_numpy()) * 1e3
    p = np.quantile
    return {
        "TTFT p50 error ms": p(said_ttft, 0.5) - p(true_ttft, 0.5),
        "TTFT p99 error %": (p(said_ttft, 0.99) / p(true_ttft, 0.99) - 1) * 100,
        "ITL p99 error %": (p(said_gaps, 0.99) / p(true_gaps, 0.99) - 1) * 100,
        "rate error %": (span / float(arrived_s[-1] - arrived_s[0]) - 1) * 100,
        "send lag p99 ms": p(lag, 0.99),
        "lag at server p50 ms": p(late, 0.5),
        "lag at server p99 ms": p(late, 0.99),
        "failed": float((calls["status"] != "ok").sum()),
        "true TTFT p99 ms": p(true_ttft, 0.99),
        "true ITL p99 ms": p(true_gaps, 0.99),
        "late p99 ms": run.info.client["late_p99_s"] * 1e3,
        "client CPU share": run.info.client["cpu_share"],
        "validity": run.info.validity,
    }


def told(values: list[float], digits: int) -> str:
    """Return the median and the range."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} [{low:.{digits}f} to {high:.{digits}f}]"


def main() -> None:
    bench, mode, *rest = Path(sys.argv[1]), *sys.argv[2:]
    rounds = int(rest[0]) if rest else 5
    os.sched_setaffinity(0, {int(SERVER_CORE)})  # what samples must not disturb what is sampled
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        binary = built(bench, work)
        if mode == "cheap":
            cheap(bench, work, binary, rounds)
        else:
            right(work, binary, rounds, [float(rate) for rate in rest[1:]] or [100.0, 200.0])


if __name__ == "__main__":
    main()
