"""`servescope demo`: the whole road in one command, from a bundled trace to a verdict."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servescope.cli import console
from servescope.cli.conclude import conclude, refuse_invalid
from servescope.cli.options import Seed, run_directory

if TYPE_CHECKING:
    from servescope.loadgen.experiment import EngineSpec, Experiment

TRACE = "mooncake:sample"
SPAN_S = 80.0  # of the trace
TIME_SCALE = 0.4  # 32 s of real time
SYSTEMS = {"vllm_v0": {}, "sarathi": {"chunk_tokens": "2048"}}
MODEL, GPU, TP = "Llama-3.2-1B", "H100", 2
SLO = "ttft<2s,stall<100ms"
START_TIMEOUT_S = 30


def demo(
    simulate: Annotated[
        bool, typer.Option("--simulate", help="In virtual time: a few seconds instead of a minute.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to make; never overwritten.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Replay real traffic against two schedulers and say which one served it better.

    80 seconds of a Mooncake trace, with multi-turn programs, go at 2.5 times their speed to two
    embedded engines: prefill first, as vLLM did before version 1, and Sarathi-Serve's chunked
    prefill. No GPU and no network are needed.

    Example:  servescope demo --simulate
    """
    from servescope.analysis import SLO as Objective
    from servescope.loadgen import runner
    from servescope.loadgen import simulate as virtual
    from servescope.reports import story_of, write
    from servescope.traces.run import refuse_taken

    target = run_directory(out, "demo")
    refuse_taken(target)
    runs = []
    with ExitStack() as stack:
        servers = {} if simulate else {s: stack.enter_context(_serving(s)) for s in SYSTEMS}
        for system in SYSTEMS:
            if simulate:
                runs.append(virtual.simulate(_experiment(system, seed, None), target / system))
                continue
            with console.progress(f"replaying {TRACE} against {system}") as show:
                experiment = _experiment(system, seed, servers[system])
                runs.append(runner.replay(experiment, target / system, show))
            if runs[-1].info.interrupted:
                break
    if len(runs) < len(SYSTEMS) or any(run.info.interrupted for run in runs):
        conclude(runs[-1], as_json=False)
    story = story_of(runs, Objective.parse(SLO))
    page = target / "report.html"
    made = write(story, page)
    if story.refused:
        raise story.refused
    assert story.comparison is not None
    for run in runs:
        lag = run.info.client.get("lag_p99_s")
        told = "virtual time" if lag is None else f"client lag p99 {lag * 1000:.1f} ms"
        console.say(f"{run.info.name}: {run.info.planned_calls} calls, {told}, {run.info.validity}")
    console.doubts(made)
    console.verdict(story.comparison.verdict)
    console.out.print(f"Report: {page}", soft_wrap=True)
    refuse_invalid(runs)


def _experiment(system: str, seed: int, url: str | None) -> Experiment:
    from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec

    return Experiment(
        name=system,
        workload=WorkloadSpec(trace=TRACE, duration_s=SPAN_S, time_scale=TIME_SCALE),
        endpoint=EndpointSpec(base_url=url, model=MODEL) if url else None,
        engine=None if url else _engine(system),
        seed=seed,
        slo=SLO,
    )


def _engine(system: str) -> EngineSpec:
    from servescope.loadgen.experiment import EngineSpec

    return EngineSpec(system=system, params=SYSTEMS[system], model=MODEL, gpu=GPU, tp=TP)


@contextmanager
def _serving(system: str) -> Iterator[str]:
    """Run `servescope serve` in a process of its own; yields its URL and ends it by its id."""
    command = [sys.executable, "-m", "servescope.cli", "serve", "--system", system, "--port", "0"]
    command += ["--model", MODEL, "--gpu", GPU, "--tp", str(TP), "--end-with-stdin"]
    for key, value in SYSTEMS[system].items():
        command += ["--param", f"{key}={value}"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # it closes when this process ends, however that comes about
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the replay; the server ends after it
    )
    too_slow = threading.Timer(START_TIMEOUT_S, process.kill)
    too_slow.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        too_slow.cancel()
        found = re.search(r"http://\S+", line)
        if not found:
            from servescope.traces.errors import EndpointError

            assert process.stderr is not None
            raise EndpointError(
                f"The embedded engine did not start: {process.stderr.read().strip()[-300:]}",
                "Run `servescope serve` by itself to see why.",
            )
        yield found.group()
    finally:
        too_slow.cancel()
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
