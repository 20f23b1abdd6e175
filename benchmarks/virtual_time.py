"""How much faster than real time the demo's workload is simulated. Goal: at least 200 times.

    python benchmarks/virtual_time.py

Timed is the simulation itself (arrivals, engine, records), neither reading the trace, which is
shown beside it, nor writing the run.
"""

import statistics
import time

from servescope.cli.demo import GPU, MODEL, SPAN_S, SYSTEMS, TIME_SCALE, TP, TRACE
from servescope.engine import virtual
from servescope.loadgen.experiment import EngineSpec, WorkloadSpec
from servescope.loadgen.simulate import Simulation, engine_of
from servescope.loadgen.workload import workload_of

RUNS = 15


def main() -> None:
    begun = time.perf_counter()
    spec = WorkloadSpec(trace=TRACE, duration_s=SPAN_S, time_scale=TIME_SCALE)
    workload = workload_of(spec)
    print(f"reading and planning: {time.perf_counter() - begun:.2f} s")
    for system, params in SYSTEMS.items():
        ratios = []
        for _ in range(RUNS):
            engine = engine_of(
                EngineSpec(system=system, params=params, model=MODEL, gpu=GPU, tp=TP)
            )
            simulation = Simulation(workload)
            begun = time.perf_counter()
            virtual.run(engine, simulation)
            took_s = time.perf_counter() - begun
            ends = [record.end_s for record in simulation.records if record.end_s is not None]
            ratios.append(max(ends) / took_s)
        steps = engine.counters.steps
        print(
            f"{system:8} median {statistics.median(ratios):,.0f} times real time"
            f"  (min {min(ratios):,.0f}, max {max(ratios):,.0f}, {RUNS} runs);"
            f" {len(simulation.records)} calls, {steps:,} steps, {max(ends):.1f} s"
        )


if __name__ == "__main__":
    main()
