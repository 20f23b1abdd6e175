"""Write a scheduler, plug it into the engine, and hold it against another one."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from msgspec import Meta

from servescope.analysis import SLO, compare
from servescope.engine import SYSTEMS, Batch, View
from servescope.engine.systems.vllm_v0 import VllmV0
from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.simulate import simulate
from servescope.traces import Run


@dataclass(frozen=True, slots=True)
class ShortestPromptFirst:
    """As vLLM did before version 1, but the shortest waiting prompt goes first."""

    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def plan(self, view: View) -> Batch:
        """Return what vllm_v0 would do with the queue in another order."""
        queue = sorted(view.waiting, key=lambda request: request.remaining)
        return VllmV0(max_num_seqs=self.max_num_seqs).plan(view._replace(waiting=queue))


# In a script. A package names it under the entry points "servescope.systems" instead.
SYSTEMS["shortest_prompt_first"] = ShortestPromptFirst


def run(system: str, out: Path) -> Run:
    """Simulate two minutes of long prompts, at 2.5 times their recorded pace, on eight GPUs."""
    workload = WorkloadSpec(trace="mooncake:sample", time_scale=0.4)
    engine = EngineSpec(system=system, model="Llama-3.1-8B", gpu="H100", tp=8)
    return simulate(Experiment(name=system, workload=workload, engine=engine), out)


with TemporaryDirectory() as folder:
    first_come = run("vllm_v0", Path(folder) / "first_come")
    shortest = run("shortest_prompt_first", Path(folder) / "shortest")
    comparison = compare([first_come, shortest], SLO.parse("ttft<2s"))

print(comparison.verdict)
for row in comparison.challenges[0].differences:
    if row.metric in ("ttft", "e2e"):
        print(f"{row.label}: {row.a * 1000:.0f} ms, then {row.b * 1000:.0f} ms: {row.verdict}")
