"""What was asked for: one experiment, as a TOML file holds it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta
from msgspec.structs import fields

from servescope.traces.errors import InputError
from servescope.traces.plugin_file import PluginFile


class ArrivalSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When programs start: an arrival process by name, its mean rate where it has one, the rest.

    A ramp without `duration_s` among its `params` lasts as long as the workload.
    """

    process: str = "poisson"
    rate_rps: Annotated[float, Meta(gt=0)] | None = None
    params: dict[str, float | str | list[float]] = {}


class SyntheticSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls that no trace holds: lengths drawn evenly within a share of their mean.

    `prefix_tokens` come on top, the same in all calls. A program has `turns`, `think_s` after each
    other, whose prompts hold all that was said before. `programs` None makes as many as the
    workload's `calls` or `duration_s` ask for.
    """

    input_tokens: Annotated[int, Meta(gt=0, le=10**8)] = 1024
    output_tokens: Annotated[int, Meta(gt=0, le=10**8)] = 128
    range_ratio: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    prefix_tokens: Annotated[int, Meta(ge=0, le=10**8)] = 0
    turns: Annotated[int, Meta(gt=0, le=10**6)] = 1
    think_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    programs: Annotated[int, Meta(gt=0, le=10**8)] | None = None


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which calls, of a trace or synthetic ones, and when: as recorded, stretched, or drawn.

    A `generator` is a workload of the literature by its name, with `params`; it has arrivals of its
    own, which `rate_rps` brings to another rate and `arrivals` take the place of.

    `time_scale` stretches arrivals and pauses: 0.5 replays twice as fast. `rate_rps` stretches the
    starts of programs alone, to that mean rate; `arrivals` draw them anew. Pauses after a parent's
    end are scaled, by `delay_scale` or else by `time_scale`, or stay as recorded, or are left out.
    `programs` takes those from one place to before another, in order of their starts. `prompts`
    recorded sends the texts that a trace has. Raises InputError for what contradicts itself.
    """

    trace: str | None = None
    synthetic: SyntheticSpec | None = None
    generator: str | None = None
    params: dict[str, int | float | str] | None = None
    format: str | None = None
    start_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    duration_s: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    calls: Annotated[int, Meta(gt=0)] | None = None
    programs: tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=1)]] | None = None
    sessions: Literal["auto", "none"] = "auto"
    arrivals: ArrivalSpec | None = None
    rate_rps: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    time_scale: Annotated[float, Meta(ge=1e-6, le=1e6)] = 1.0
    delays: Literal["recorded", "none", "scale"] = "scale"
    delay_scale: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    prompts: Literal["recorded", "synthetic"] = "recorded"

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.trace, self.synthetic, self.generator)) != 1:
            raise InputError(
                "A workload is either a trace or synthetic, or one that a generator makes.",
                "Name a trace or a generator, or describe synthetic calls by their lengths.",
            )
        if self.params and self.generator is None:
            raise InputError(
                "params are those of a generator, and there is none.",
                "Name it, or leave them out.",
            )
        if self.rate_rps is not None and (self.arrivals or self.time_scale != 1):
            raise InputError(
                "A rate, arrivals and a time scale each say when programs start.",
                "Keep one of them.",
            )
        if self.delay_scale is not None and self.delays != "scale":
            raise InputError(
                f"The delay scale scales pauses, but delays are '{self.delays}'.",
                "Let delays be 'scale', or leave the delay scale out.",
            )
        if self.programs is not None and self.programs[0] >= self.programs[1]:
            raise InputError(
                f"There are no programs from {self.programs[0]} to before {self.programs[1]}.",
                "Give the first and the end, as in programs = [100, 200].",
            )
        of_a_trace = ["format", "start_s", "time_scale", "sessions"]
        if self.synthetic is not None:
            of_a_trace += ["programs", "rate_rps", "delays"]
        unused = [name for name in of_a_trace if getattr(self, name) != _default(name)]
        if self.trace is None and unused:
            raise InputError(
                f"{unused[0]} says what to do with a trace, and the workload is none.",
                "Leave it out; arrivals say when programs start.",
            )

    @property
    def drawn(self) -> bool:
        """Whether programs start at moments that are drawn, and not as a trace recorded them."""
        return self.arrivals is not None or self.trace is None

    def at_rate(self, rate_rps: float) -> Self:
        """Return the workload with programs starting at this mean rate, by the same process.

        Synthetic programs that have none start as a Poisson process.
        """
        if self.arrivals is None and self.synthetic is None:
            return msgspec.structs.replace(self, rate_rps=rate_rps)
        drawn = msgspec.structs.replace(self.arrivals or ArrivalSpec(), rate_rps=rate_rps)
        return msgspec.structs.replace(self, arrivals=drawn)


def _default(name: str) -> Any:
    """Return what a key of the workload is if nobody says it."""
    return next(field.default for field in fields(WorkloadSpec) if field.name == name)


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
    """The embedded engine: a system and its parameters, and replicas of a model on GPUs.

    Several names in `gpu` are unlike replicas, each on `tp` x `pp` GPUs. `prefix_cache` None leaves
    it to the system, `context_tokens` None to the model. A system is known by name, or defined in a
    Python file. Raises InputError for what contradicts itself.
    """

    system: str = "sarathi"
    params: dict[str, str] = {}
    model: str = "Llama-3.1-8B"
    gpu: str | tuple[str, ...] = "H100"
    tp: Annotated[int, Meta(ge=1)] = 1
    pp: Annotated[int, Meta(ge=1)] = 1
    overhead: str = "plain"
    context_tokens: Annotated[int, Meta(ge=1)] | None = None
    replicas: Annotated[int, Meta(ge=1, le=1024)] | None = None
    prefix_cache: bool | None = None

    def __post_init__(self) -> None:
        named = len(self.gpus)
        if not named or (self.replicas is not None and self.replicas != named):
            raise InputError(
                f"There are {named} GPUs named, and {self.replicas} replicas.",
                "Name one GPU for all replicas, or one for each.",
            )

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPU of each replica."""
        if isinstance(self.gpu, str):
            return (self.gpu,) * (self.replicas or 1)
        return self.gpu

    @property
    def file(self) -> PluginFile | None:
        """The Python file that defines the system; None for one that is known by name."""
        return PluginFile.of(self.system)

    def beside(self, folder: Path) -> EngineSpec:
        """Return the engine with the file of its system looked for in a folder first."""
        if self.file is None:
            return self
        return msgspec.structs.replace(self, system=str(self.file.beside(folder)))


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
    """Read an experiment file; raises InputError that names the path of a mistake.

    A Python file that it names is looked for beside it first.
    """
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=Experiment)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.", "Check the path.") from None
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path} is not an experiment: {error}.",
            "docs/reference/experiment.md shows every key.",
        ) from None
    if found.engine is None:
        return found
    return msgspec.structs.replace(found, engine=found.engine.beside(path.parent))


def to_toml(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as TOML has it: plain tables without the keys that are not set."""
    return _without_nulls(msgspec.to_builtins(experiment))


def _without_nulls(table: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }
