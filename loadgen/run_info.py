"""What run.json says of a run, before its first call and after its last."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal

import msgspec
import polars as pl

from servescope.loadgen.experiment import EndpointSpec, Experiment
from servescope.loadgen.workload import Workload, digest
from servescope.traces.run import RunInfo


def begun(
    experiment: Experiment,
    workload: Workload,
    plan: pl.DataFrame,
    *,
    clock: Literal["real", "virtual"],
    system: str,
    model: str | None = None,
) -> RunInfo:
    """Return what is known of a run before its first call, and before its endpoint is known."""
    return RunInfo(
        name=experiment.name,
        system=system,
        model=model,
        system_sha256=_source_sha256(experiment),
        clock=clock,
        version=version("servescope"),
        started=_now(),
        seed=experiment.seed,
        slo=experiment.slo,
        warmup_s=experiment.warmup_s,
        plan_sha256=plan_sha256(experiment, workload, plan),
        planned_calls=plan.height,
        trace=msgspec.to_builtins(workload.provenance),
        asked=_asked(experiment),
        host=_host(),
        workload={
            "programs": len(workload.programs),
            "multi_turn_programs": sum(len(p.calls) > 1 for p in workload.programs),
            "left_out": workload.left_out,
        },
        doubts=workload.doubts,
    )


def plan_sha256(experiment: Experiment, workload: Workload, plan: pl.DataFrame) -> str:
    """Return the digest of a plan; raises InputError for a tokenizer that cannot be used."""
    prompts = _made_with(experiment.endpoint) if experiment.endpoint else ()
    return digest(plan, experiment.seed, workload.block_tokens, prompts)


def ended(info: RunInfo, calls: pl.DataFrame) -> RunInfo:
    """Return the info with when the run ended and how long its calls took."""
    return msgspec.structs.replace(info, ended=_now(), duration_s=calls["end_s"].max())


def _source_sha256(experiment: Experiment) -> str | None:
    """Return the digest of the file that defines the system, if a file does."""
    file = experiment.engine.file if experiment.engine and not experiment.endpoint else None
    return file.sha256 if file else None


def _asked(experiment: Experiment) -> dict[str, Any]:
    """Return what shapes a request beside the plan."""
    endpoint = experiment.endpoint
    if endpoint is None:
        return {}
    return {
        "backend": endpoint.backend,
        "path": endpoint.path,
        "ignore_eos": endpoint.ignore_eos,
        "extra_body": endpoint.extra_body,
    }


def _made_with(endpoint: EndpointSpec) -> tuple[str, ...]:
    """Say what makes the texts of a plan's prompts, beside the plan and the seed."""
    found: tuple[str, ...] = ()
    if endpoint.tokenizer is not None:
        from servescope.loadgen.chat_tokenizer import ChatTokenizer

        found += (ChatTokenizer.load(endpoint.tokenizer).digest,)
    if endpoint.history != "planned":
        found += (endpoint.history,)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _host() -> dict[str, Any]:
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_1m": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
