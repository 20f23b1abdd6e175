"""What was asked for: one experiment, as a TOML file holds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    start_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    duration_s: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    calls: Annotated[int, Meta(gt=0)] | None = None
    time_scale: Annotated[float, Meta(ge=1e-6, le=1e6)] = 1.0
    sessions: Literal["auto", "none"] = "auto"


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to send and how: base URLs of replicas, and the dialect spoken there.

    Secrets are named, never held: `api_key_env` is an environment variable, and a header's value
    `$NAME` is one too, `@PATH` is a file. `max_concurrency` bounds the calls in flight of an open
    loop; `users` make the loop closed. `usage_each` asks for usage in every chunk. `scrape_s` is
    how often the servers' metrics are read, 0 never. `workers` 0 chooses their number.
    """

    base_url: str | tuple[str, ...]
    backend: str = "openai"
    path: str | None = None
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    headers: dict[str, str] = {}
    timeout_s: Annotated[float, Meta(gt=0, le=1e6)] = 600.0
    idle_s: Annotated[float, Meta(gt=0, le=1e6)] = 300.0
    retries: Annotated[int, Meta(ge=0, le=20)] = 0
    ignore_eos: bool = True
    min_tokens: bool = False
    usage_each: bool = False
    extra_body: dict[str, Any] = {}
    tokenizer: str | None = None
    history: Literal["planned", "generated"] = "planned"
    max_concurrency: Annotated[int, Meta(ge=1)] | None = None
    users: Annotated[int, Meta(ge=1)] | None = None
    dispatch: str = "round-robin"
    dispatch_params: dict[str, str] = {}
    priority: str = "none"
    priority_params: dict[str, str] = {}
    scrape_s: Annotated[float, Meta(ge=0, le=1e6)] = 1.0
    workers: Annotated[int, Meta(ge=0, le=256)] = 0

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs of all replicas."""
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded engine: a scheduling system and its parameters, a model, and GPUs."""

    system: str = "sarathi"
    params: dict[str, str] = {}
    model: str = "Llama-3.1-8B"
    gpu: str = "H100"
    tp: Annotated[int, Meta(ge=1)] = 1


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workload sent to an endpoint (real time) or given to the embedded engine (virtual time).

    Programs that begin before `warmup_s` are sent like all others and left out of every number.
    """

    name: Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+$")]
    workload: WorkloadSpec
    endpoint: EndpointSpec | None = None
    engine: EngineSpec | None = None
    seed: Annotated[int, Meta(ge=0, lt=2**62)] = 0
    slo: str | None = None
    warmup_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0


SECRET = re.compile(r"api.?key|secret|passw|authori[sz]ation|bearer|(access|auth).?token", re.I)


def refuse_unwritable(extra_body: dict[str, Any]) -> None:
    """Raise InputError if extra fields hold what a run directory must not or cannot hold.

    They are written into experiment.toml, so a key in them would leak, and TOML has no null.
    """
    for name, value in _leaves(extra_body):
        if SECRET.search(name):
            raise InputError(
                f"The extra field '{name}' looks like a secret and would be written into the run.",
                "Give keys by the environment variable that --api-key-env names.",
            )
        if value is None:
            raise InputError(
                f"The extra field '{name}' is null, which an experiment file cannot hold.",
                "Leave the field out.",
            )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    else:
        yield name, value


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
