"""Simulate one plan on two schedulers and say which one served it better, and how sure that is."""

from pathlib import Path
from tempfile import TemporaryDirectory

from servescope.analysis import SLO, compare
from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.simulate import simulate
from servescope.traces import Run

WORKLOAD = WorkloadSpec(trace="mooncake:sample", duration_s=150)  # time_scale=0.5: twice as fast


def run(system: str, out: Path, **params: str) -> Run:
    """Simulate the workload on one system; the run is a directory like that of a real replay."""
    engine = EngineSpec(system=system, params=params, model="Llama-3.1-8B", gpu="H200", tp=4)
    return simulate(Experiment(name=system, workload=WORKLOAD, engine=engine), out)


with TemporaryDirectory() as folder:
    baseline = run("vllm_v0", Path(folder) / "baseline")
    challenger = run("sarathi", Path(folder) / "challenger", chunk_tokens="4096")
    comparison = compare([baseline, challenger], SLO.parse("ttft<5s, stall<200ms"))

print(comparison.verdict)
for row in comparison.challenges[0].differences:
    if row.ratio:
        ratio, low, high = row.ratio.estimate, row.ratio.low, row.ratio.high
        print(f"{row.label:18} x {ratio:.2g} ({low:.2g} to {high:.2g}): {row.verdict}")
