"""How often intervals hold the truth, and claims are right: simulated queues, many times over.

    python benchmarks/coverage.py [--replicates 500] [--out coverage.json]

Five experiments on a queue with one server (tests/servers/queues.py): coverage of the intervals of
one run; false claims in comparisons of equal servers, over all statistics after correction; how
often a true difference of 10 % is found at the length that a pilot names; how often a steady run is
said to drift; and how far searches for capacity are off, beside plain bisection. Prints each row as
it is known. Seeds differ from those of the tests.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "servers"))

import queues

from servescope.analysis import capacity, evidence, intervals
from servescope.analysis.burn import Burn
from servescope.analysis.sample import Sample
from servescope.analysis.steady_state import stationarity_of

REGIMES = (
    (0.30, "poisson"),
    (0.40, "bursty"),
    (0.55, "poisson"),
    (0.65, "bursty"),
    (0.75, "poisson"),
    (0.85, "poisson"),
)
CALLS = 36_000  # an hour at 10 calls a second
QUANTILES = (0.5, 0.9, 0.99)
STATISTICS: tuple[evidence.Statistic, ...] = ("mean", 0.5, 0.9, 0.99)
PILOT, DIFFERENCE = 3_000, 0.1  # five minutes, and a tenth of mean latency


def in_sections(values: queues.Floats) -> Sample:
    """Cut values that stand in order of time into the sections of a run."""
    count = len(values)
    section = np.arange(count) * intervals.SECTIONS // count
    return Sample.of(values, section, intervals.SECTIONS)


def truth(load: float, kind: str) -> list[float]:
    """Return the quantiles of 20 million calls."""
    parts = [
        queues.latencies(np.random.default_rng([11, part]), 2_000_000, load, kind)
        for part in range(10)
    ]
    return np.quantile(np.concatenate(parts), QUANTILES).tolist()


def coverage(replicates: int) -> Iterator[dict[str, Any]]:
    """Count how often the interval of each quantile holds the truth."""
    for number, (load, kind) in enumerate(REGIMES):
        true = truth(load, kind)
        held, width = np.zeros(len(QUANTILES)), np.zeros(len(QUANTILES))
        for replicate in range(replicates):
            rng = np.random.default_rng([12, number, replicate])
            sample = in_sections(queues.latencies(rng, CALLS, load, kind))
            for place, q in enumerate(QUANTILES):
                found = intervals.of_quantile(sample, q)
                assert found is not None
                held[place] += not found.excludes(true[place])
                width[place] += (found.high - found.low) / found.estimate
        for place, q in enumerate(QUANTILES):
            yield {
                "experiment": "coverage",
                "load": load,
                "arrivals": kind,
                "quantile": q,
                "held": held[place] / replicates,
                "width": width[place] / replicates,
            }


def false_claims(replicates: int) -> Iterator[dict[str, Any]]:
    """Count comparisons of equal servers in which anything is called a difference."""
    for calls in (300, 3_000, CALLS):
        for number, (load, kind) in enumerate(REGIMES):
            any_claim, single = 0, 0.0
            for replicate in range(replicates):
                rng = np.random.default_rng([13, number, calls, replicate])
                a, b = queues.pair(rng, calls, load, kind)
                p_values = []
                for name in a:
                    samples = in_sections(a[name]), in_sections(b[name])
                    for statistic in STATISTICS:
                        found = evidence.paired(*samples, statistic)
                        assert found is not None
                        p_values.append(found.p_value)
                any_claim += min(evidence.holm(p_values)) < evidence.ALPHA
                single += float(np.mean(np.array(p_values) < evidence.ALPHA))
            yield {
                "experiment": "false claims",
                "calls": calls,
                "load": load,
                "arrivals": kind,
                "any": any_claim / replicates,
                "single": single / replicates,
            }


def speed_for(load: float, kind: str, ratio: float) -> float:
    """Return how much of the service time makes mean latency `ratio` of what it was."""
    low, high = 0.5, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        a, b = queues.pair(np.random.default_rng(14), 2_000_000, load, kind, middle)
        if b["e2e"].mean() / a["e2e"].mean() > ratio:
            high = middle
        else:
            low = middle
    return (low + high) / 2


def power(replicates: int) -> Iterator[dict[str, Any]]:
    """Count how often a true difference is found at the length that a pilot names."""
    for number, (load, kind) in enumerate(REGIMES):
        faster = speed_for(load, kind, 1 - DIFFERENCE)
        found, lengths = 0, []
        for replicate in range(replicates):
            rng = np.random.default_rng([15, number, replicate])
            pilot = [in_sections(arm["e2e"]) for arm in queues.pair(rng, PILOT, load, kind, faster)]
            first = evidence.paired(pilot[0], pilot[1], "mean")
            assert first is not None
            # B is a tenth faster: A is as much slower as times_longer takes it
            longer = evidence.times_longer(first, 1 / (1 - DIFFERENCE) - 1)
            calls = max(10 * intervals.PROGRAMS_A_SECTION, math.ceil(PILOT * longer))
            lengths.append(calls)
            arms = [in_sections(arm["e2e"]) for arm in queues.pair(rng, calls, load, kind, faster)]
            second = evidence.paired(arms[0], arms[1], "mean")
            assert second is not None
            found += second.p_value < evidence.ALPHA and second.effect.estimate < 0
        yield {
            "experiment": "power",
            "load": load,
            "arrivals": kind,
            "found": found / replicates,
            "calls": float(np.median(lengths)),
        }


def drift(replicates: int) -> Iterator[dict[str, Any]]:
    """Count steady runs that are said to drift."""
    for number, (load, kind) in enumerate(REGIMES):
        said = 0
        for replicate in range(replicates):
            rng = np.random.default_rng([16, number, replicate])
            values = queues.latencies(rng, CALLS, load, kind)
            steady = stationarity_of(np.arange(CALLS), values)
            said += steady is not None and not steady.stationary
        yield {"experiment": "drift", "load": load, "arrivals": kind, "said": said / replicates}


@dataclass(frozen=True)
class Limit:
    """A share of calls that may take longer than a bound (s), of a server of 11.8 calls/s."""

    kind: str
    bound_s: float
    allowed: float

    def took(self, rng: np.random.Generator, load: float, count: int) -> tuple[Any, Any]:
        """Return when calls came and how long they took, from an empty queue."""
        between = queues.gaps(rng, count, self.kind) * queues.RATE / load
        service = queues.demands(rng, count, SERVICE_S * queues.RATE)
        return np.cumsum(between), queues.served(between, service) + service

    def truth(self) -> float:
        """Return the load at which just so many calls are late, of 4 million."""
        low, high = 0.05 / SERVICE_S, 0.999 / SERVICE_S
        for _ in range(20):
            load = (low + high) / 2
            _, took = self.took(np.random.default_rng(17), load, 4_000_000)
            low, high = (load, high) if self.late(took[20_000:]) < 1 else (low, load)
        return (low + high) / 2

    def late(self, took: Any) -> float:
        """Return the share that is late over the share that may be."""
        return float((took >= self.bound_s).mean()) / self.allowed

    def probe(self, rng: np.random.Generator, ask: capacity.Ask) -> capacity.Probe:
        """Run the queue as asked; twice the longest call is left out, as in a search."""
        came, took = self.took(rng, ask.load, max(50, int(ask.load * ask.seconds)))
        rest = took[came >= min(2 * np.quantile(took, 0.99), ask.seconds / 2)]
        rest = rest if len(rest) >= intervals.SECTIONS else took
        section = np.arange(len(rest)) * intervals.SECTIONS // len(rest)
        sizes = np.bincount(section).astype(np.float64)
        rates = np.bincount(section, rest >= self.bound_s) / sizes / self.allowed
        burn = Burn("late", "share", self.allowed, sizes, rates)
        return capacity.Probe(ask.load, ask.seconds, (burn,), ask.stage)


SERVICE_S = 0.085
LIMITS = (
    Limit("poisson", 0.3, 0.1),
    Limit("bursty", 0.5, 0.1),
    Limit("poisson", 1.0, 0.01),
    Limit("bursty", 1.5, 0.01),
    Limit("bursty", 5.0, 0.01),
    Limit("poisson", 3.0, 0.01),
)


def searches(replicates: int) -> Iterator[dict[str, Any]]:
    """Count how far off the capacity is that a search finds, and how often its bound holds."""
    for hours in (1, 4):
        for number, limit in enumerate(LIMITS):
            true = limit.truth()
            found, bounds, halved = [], [], []
            for replicate in range(replicates):
                rng = np.random.default_rng([18, number, hours, replicate])
                begin = true * math.exp(rng.uniform(-1.5, 1.5))
                probes: list[capacity.Probe] = []
                while ask := capacity.next_ask(probes, begin, 3600 * hours):
                    probes.append(limit.probe(rng, ask))
                answer = capacity.capacity_of(probes)
                assert answer is not None
                found.append(answer.load / true - 1)
                bounds.append(answer.low <= true)
                halved.append(bisected(limit, rng, true, 3600 * hours / 8) / true - 1)
            yield {
                "experiment": "capacity",
                "hours": hours,
                "arrivals": limit.kind,
                "bound_s": limit.bound_s,
                "allowed": limit.allowed,
                "busy": true * SERVICE_S,
                "bias": float(np.mean(found)),
                "p95": float(np.quantile(np.abs(found), 0.95)),
                "held": float(np.mean(bounds)),
                "bisection_bias": float(np.mean(halved)),
                "bisection_p95": float(np.quantile(np.abs(halved), 0.95)),
            }


def bisected(limit: Limit, rng: np.random.Generator, true: float, seconds: float) -> float:
    """Halve the range from half to twice the truth eight times, by pass and fail."""
    low, high = true / 2, true * 2
    for _ in range(8):
        load = math.sqrt(low * high)
        _, took = limit.took(rng, load, max(50, int(load * seconds)))
        low, high = (load, high) if limit.late(took) < 1 else (low, load)
    return math.sqrt(low * high)


EXPERIMENTS = {
    "coverage": coverage,
    "false": false_claims,
    "power": power,
    "drift": drift,
    "capacity": searches,
}


def main() -> None:
    """Run the experiments that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=EXPERIMENTS, action="append")
    asked = parser.parse_args()
    rows = []
    begun = time.perf_counter()
    for name in asked.only or EXPERIMENTS:
        for row in EXPERIMENTS[name](asked.replicates):
            rows.append(row)
            told = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
            print(f"{time.perf_counter() - begun:6.0f} s  {', '.join(told)}", flush=True)
            if asked.out:
                asked.out.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
