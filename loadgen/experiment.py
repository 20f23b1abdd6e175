"""What was asked for: one experiment, as a TOML file holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from servescope.traces.errors import InputError


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which calls: a trace, a window of it in its own seconds, and how much faster or slower.

    `time_scale` stretches every arrival and pause: 0.5 replays twice as fast.
    """

    trace: str
    format: str | None = None
    start_s: Annotated[float, Meta(ge=0)] = 0.0
    duration_s: Annotated[float, Meta(gt=0)] | None = None
    calls: Annotated[int, Meta(gt=0)] | None = None
    time_scale: Annotated[float, Meta(gt=0)] = 1.0
    sessions: Literal["auto", "none"] = "auto"


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to send: a base URL and the dialect spoken there. Keys are named, never held."""

    base_url: str
    backend: str = "openai"
    path: str | None = None
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    timeout_s: Annotated[float, Meta(gt=0)] = 600.0
    ignore_eos: bool = True
    extra_body: dict[str, Any] = {}


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded engine: a scheduling system and its parameters, a model, and GPUs."""

    system: str = "sarathi"
    params: dict[str, str] = {}
    model: str = "Llama-3.1-8B"
    gpu: str = "H100"
    tp: Annotated[int, Meta(ge=1)] = 1


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workload sent to an endpoint (real time) or given to the embedded engine (virtual time)."""

    name: str
    workload: WorkloadSpec
    endpoint: EndpointSpec | None = None
    engine: EngineSpec | None = None
    seed: int = 0
    slo: str | None = None


def read(path: Path) -> Experiment:
    """Read an experiment file; raises InputError that names the path of a mistake."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Experiment)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.", "Check the path.") from None
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path} is not an experiment: {error}.",
            "docs/reference/experiment.md shows every key.",
        ) from None


def to_toml(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as TOML has it: plain tables without the keys that are not set."""
    return _without_nulls(msgspec.to_builtins(experiment))


def _without_nulls(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }
