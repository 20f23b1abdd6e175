"""How fast virtual time passes: the demo's workload, and many calls on one replica near saturation.

    python benchmarks/virtual_time.py [--calls 100000] [--rounds 3]

Timed is the simulation itself (arrivals, engine, records), neither reading the trace nor writing
the run. The many calls are BurstGPT-like: Poisson, lognormal lengths of 500 and 200 tokens on
average. Goals: the demo at 200 times real time, 100,000 calls in 20 s, a million in 4 minutes.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Iterator

import numpy as np

from servescope.cli.demo import GPU, MODEL, SPAN_S, SYSTEMS, TIME_SCALE, TP, TRACE
from servescope.engine import Cluster, Refused, Request, emulate, make_system, virtual
from servescope.loadgen.experiment import EngineSpec, WorkloadSpec
from servescope.loadgen.simulate import Simulation, cluster_of
from servescope.loadgen.workload import workload_of

RATE_RPS = 33.0  # of 37 that an H100 serves of Llama-3.1-8B
SIGMA = 0.9
BATCH = 10_000


class Stream:
    """Calls that are drawn as they are needed, so that memory is that of those that live."""

    def __init__(self, calls: int) -> None:
        self._left = calls
        self._rng = np.random.default_rng(0)
        self._due: Iterator[tuple[float, int, int]] = iter(())
        self._last_s = 0.0
        self._next = self._draw()
        self.first_token_s: list[float] = []

    def _draw(self) -> tuple[float, int, int] | None:
        known = next(self._due, None)
        if known is None and self._left:
            count = min(BATCH, self._left)
            self._left -= count
            at = self._last_s + np.cumsum(self._rng.exponential(1 / RATE_RPS, count))
            self._last_s = float(at[-1])
            lengths = [
                np.maximum(1, self._rng.lognormal(np.log(mean) - SIGMA**2 / 2, SIGMA, count))
                for mean in (500, 200)
            ]
            inputs, outputs = (each.astype(int).tolist() for each in lengths)
            self._due = iter(list(zip(at.tolist(), inputs, outputs, strict=True)))
            known = next(self._due)
        return known

    def next_due_s(self) -> float | None:
        """Return when the next call is due."""
        return self._next[0] if self._next else None

    def take(self, now: float) -> Iterator[Request]:
        """Return the calls that are due."""
        while self._next and self._next[0] <= now:
            due_s, prompt, output = self._next
            self._next = self._draw()
            yield Request(f"{due_s:.9f}", prompt, output, due_s)

    def refused(self, request: Request, error: Refused, now: float) -> None:
        """Count for nothing."""

    def finished(self, request: Request, now: float) -> None:
        """Keep when the first token came."""
        self.first_token_s.append(request.token_s[0] - request.arrival_s)


def demo(rounds: int) -> None:
    """Simulate the demo's workload over and over."""
    spec = WorkloadSpec(trace=TRACE, duration_s=SPAN_S, time_scale=TIME_SCALE)
    workload = workload_of(spec, 0)
    for system, params in SYSTEMS.items():
        ratios = []
        for _ in range(rounds):
            cluster = cluster_of(
                EngineSpec(system=system, params=params, model=MODEL, gpu=GPU, tp=TP)
            )
            simulation = Simulation(workload)
            begun = time.perf_counter()
            virtual.run(cluster, simulation)
            took_s = time.perf_counter() - begun
            ends = [record.end_s for record in simulation.records if record.end_s is not None]
            ratios.append(max(ends) / took_s)
        print(
            f"demo, {system}: median {statistics.median(ratios):,.0f} times real time"
            f" ({min(ratios):,.0f} to {max(ratios):,.0f}, {rounds} runs)"
        )


def many(system: str, calls: int, rounds: int) -> None:
    """Simulate a long stream of calls near saturation."""
    times = []
    for _ in range(rounds):
        stream, engine = Stream(calls), emulate(make_system(system), "Llama-3.1-8B", "H100")
        begun = time.perf_counter()
        virtual.run(Cluster.of(engine), stream)
        times.append(time.perf_counter() - begun)
    p50, p99 = np.quantile(stream.first_token_s, (0.5, 0.99))
    print(
        f"{calls:,} calls, {system}: median {statistics.median(times):.1f} s ({min(times):.1f} to"
        f" {max(times):.1f}, {rounds} runs), {engine.counters.steps:,} steps,"
        f" TTFT p50 {p50:.3f} s and p99 {p99:.2f} s;"
        f" peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB"
    )


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for system in ("vllm_v0", "vllm_v1", "sarathi"):
        many(system, asked.calls, asked.rounds)
    demo(15)


if __name__ == "__main__":
    main()
