"""What was asked for: a study, which is many experiments on several systems, as TOML holds it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from servescope.analysis.slo import SLO
from servescope.loadgen.experiment import (
    SECRET,
    EndpointSpec,
    EngineSpec,
    Experiment,
    WorkloadSpec,
    refuse_unwritable,
)
from servescope.traces.errors import InputError

# The name of a folder, too.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=80)]
Command = str | tuple[str, ...]
REPORTS = "reports"
OVERVIEW = "overview.html"
TAKEN = (
    REPORTS,
    OVERVIEW,
    "study.json",
    "study.toml",
    "study-summary.json",
    "sweep.json",
    "sweep.csv",
)
PORT = "{port}"


class StopSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server is torn down: by a command if there is one, else by a signal to its processes.

    What is left of it after `grace_s` is killed.
    """

    command: Command | None = None
    signal: Literal["TERM", "INT", "HUP", "QUIT", "KILL"] = "TERM"
    grace_s: Annotated[float, Meta(ge=0, le=3600)] = 30.0


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a server is started: a list of words, or one line for the shell.

    `health` is a path below the base URL, or a URL, that answers 200 once it can serve. A `fresh`
    server is started for every run; one that is not is kept from one of its runs to the next, as
    long as no other system comes between. `{port}` in the command, the variables, the base URL and
    `health` stands for a free port.
    """

    command: Command
    env: dict[str, str] = {}
    cwd: str | None = None
    health: str = "/health"
    start_timeout_s: Annotated[float, Meta(gt=0, le=1e5)] = 600.0
    fresh: bool = True
    stop: StopSpec = StopSpec()


class SystemSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the systems that are compared: an endpoint, launched or running, or an engine.

    The embedded engine runs in virtual time; a `real` one is launched as an HTTP server. Raises
    InputError for what contradicts itself.
    """

    name: Name
    endpoint: EndpointSpec | None = None
    launch: LaunchSpec | None = None
    engine: EngineSpec | None = None
    real: bool = False

    def __post_init__(self) -> None:
        if (self.endpoint is None) == (self.engine is None):
            raise InputError(
                f"The system '{self.name}' is either an endpoint or an engine.",
                "Give it a table called endpoint, with a base_url, or one called engine.",
            )
        if self.launch and not self.endpoint:
            raise InputError(
                f"The system '{self.name}' launches what is no endpoint.",
                "Name where it will listen: endpoint = { base_url = 'http://127.0.0.1:{port}' }.",
            )
        if self.real and not self.engine:
            raise InputError(
                f"The system '{self.name}' is real as it is: it is an endpoint.",
                "Leave real out; it lets the embedded engine serve in real time.",
            )
        if self.name in TAKEN:
            raise InputError(
                f"A system cannot be called '{self.name}': the study has a file of that name.",
                "Choose another name.",
            )
        if self.endpoint:
            refuse_unwritable(self.endpoint.extra_body)
        if self.launch:
            _refuse_secrets(self.name, self.launch)
            if not re.match(r"/|https?://", self.launch.health):
                raise InputError(
                    f"'{self.launch.health}' is no health URL.",
                    "Write it like /health, or like http://127.0.0.1:8000/health.",
                )

    @property
    def virtual(self) -> bool:
        """Whether it runs in virtual time."""
        return self.engine is not None and not self.real


class NamedWorkload(WorkloadSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workload and its name."""

    name: Name

    def __post_init__(self) -> None:
        try:
            WorkloadSpec.__post_init__(self)
        except InputError as error:
            raise InputError(f"Workload '{self.name}': {error.wrong}", error.mend) from None

    @property
    def spec(self) -> WorkloadSpec:
        """The workload without its name."""
        return WorkloadSpec(**{key: getattr(self, key) for key in WorkloadSpec.__struct_fields__})


class Study(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every workload, at every rate or speed-up, `repeats` times on every system.

    `rates` are of programs, in programs a second; a speed-up of 2 replays a trace twice as fast.
    The programs that begin before `warmup_s` of a run are left out of its numbers, and
    `warmup_calls` are sent before it. Raises InputError for what contradicts itself.
    """

    name: Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+$")] = "study"
    systems: tuple[SystemSpec, ...]
    workloads: tuple[NamedWorkload, ...]
    rates: tuple[Annotated[float, Meta(gt=0, le=1e9)], ...] = ()
    speed_ups: tuple[Annotated[float, Meta(ge=1e-6, le=1e6)], ...] = ()
    repeats: Annotated[int, Meta(ge=1, le=1000)] = 1
    order: Literal["balanced", "grouped"] = "balanced"
    slo: str | None = None
    seed: Annotated[int, Meta(ge=0, lt=2**61)] = 0
    warmup_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    warmup_calls: Annotated[int, Meta(ge=0, le=1000)] = 4
    pause_s: Annotated[float, Meta(ge=0, le=1e5)] = 0.0
    idle_timeout_s: Annotated[float, Meta(ge=0, le=1e5)] = 60.0

    def __post_init__(self) -> None:
        for kind, named in (("system", self.systems), ("workload", self.workloads)):
            if not named:
                raise InputError(
                    f"The study '{self.name}' has no {kind}.", f"Describe one: [[{kind}s]]."
                )
            for name, count in Counter(each.name.lower() for each in named).items():
                if count > 1:
                    raise InputError(
                        f"{count} {kind}s are called '{name}'.",
                        "Give each its own name; capitals do not tell them apart.",
                    )
        if self.rates and self.speed_ups:
            raise InputError(
                "rates and speed_ups each say how fast a workload is.", "Keep one of them."
            )
        for key in ("rates", "speed_ups"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise InputError(f"{key} holds a number twice.", "Use repeats for that.")
        if self.slo:
            SLO.parse(self.slo)
        for workload in self.workloads:
            for load in self.loads:
                load.of(workload)

    @property
    def loads(self) -> tuple[Load, ...]:
        """The rates or speed-ups, or one load that leaves workloads as they are."""
        rates = (Load(rate_rps=rate) for rate in self.rates)
        return (*rates, *(Load(speed_up=factor) for factor in self.speed_ups)) or (Load(),)

    def system(self, name: str) -> SystemSpec:
        """Return a system by its name."""
        return next(system for system in self.systems if system.name == name)

    def workload(self, name: str) -> NamedWorkload:
        """Return a workload by its name."""
        return next(workload for workload in self.workloads if workload.name == name)


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a workload is sent: at a rate (programs/s), sped up, or as it is."""

    rate_rps: float | None = None
    speed_up: float | None = None

    @property
    def label(self) -> str:
        """Short name, as it stands in the names of folders; empty for a workload as it is."""
        if self.rate_rps is not None:
            return f"{self.rate_rps:.12g}rps"
        return "" if self.speed_up is None else f"x{self.speed_up:.12g}"

    def of(self, workload: NamedWorkload) -> WorkloadSpec:
        """Return the workload at this load; raises InputError if it cannot be had."""
        spec = workload.spec
        if self.speed_up is not None:
            if spec.drawn or spec.rate_rps:
                raise InputError(
                    f"The workload '{workload.name}' does not start as a trace recorded it, so it"
                    " cannot be sped up.",
                    "Give rates in place of speed_ups, or leave arrivals and rates out of it.",
                )
            return msgspec.structs.replace(spec, time_scale=spec.time_scale / self.speed_up)
        if self.rate_rps is None:
            return spec
        if spec.rate_rps is not None or spec.time_scale != 1:
            raise InputError(
                f"The workload '{workload.name}' has a rate or a time scale of its own beside the"
                " rates of the study.",
                "Keep one of them.",
            )
        return spec.at_rate(self.rate_rps)


def experiment_of(
    study: Study, system: str, workload: WorkloadSpec, seed: int, endpoint: EndpointSpec | None
) -> Experiment:
    """Return one run of a study: on an endpoint, or else on the system's engine."""
    return Experiment(
        name=system,
        workload=workload,
        endpoint=endpoint,
        engine=None if endpoint else study.system(system).engine,
        seed=seed,
        slo=study.slo,
        warmup_s=study.warmup_s,
    )


def read(path: Path) -> Study:
    """Read the file of a study; raises InputError that names the path of a mistake.

    Python files that it names are looked for beside it first.
    """
    try:
        study = msgspec.toml.decode(path.read_bytes(), type=Study)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} is no file.", "Check the path.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not a study: {error}.", "docs/reference/study.md shows every key."
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error.wrong}", error.mend) from None
    return _with_engines(study, lambda engine: engine.beside(path.parent))


def to_toml(study: Study) -> dict[str, Any]:
    """Return the study as TOML has it: plain tables without the keys that are not set."""
    table: dict[str, Any] = _without_nulls(msgspec.to_builtins(study))
    return table


def digest(study: Study) -> str:
    """Return the SHA-256 of what is asked: how the file is written does not change it.

    Of a system in a Python file counts what stands there, and not where it is.
    """
    asked = _with_engines(study, _by_content)
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()


def _by_content(engine: EngineSpec) -> EngineSpec:
    file = engine.file
    if file is None:
        return engine
    return msgspec.structs.replace(engine, system=f"{file.sha256}:{file.name or ''}")


def _with_engines(study: Study, change: Callable[[EngineSpec], EngineSpec]) -> Study:
    replace = msgspec.structs.replace
    systems = (
        replace(system, engine=change(system.engine)) if system.engine else system
        for system in study.systems
    )
    return replace(study, systems=tuple(systems))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(each) for each in value]
    return value


def _refuse_secrets(name: str, launch: LaunchSpec) -> None:
    """Raise InputError if a key stands in a command or a variable: the study is written down."""
    told = [*launch.env.items(), *_options(launch.command), *_options(launch.stop.command or ())]
    for key, value in told:
        if SECRET.search(key) and value and not value.startswith("$"):
            raise InputError(
                f"'{key}' in the launch of '{name}' looks like a secret, which would be written"
                " down.",
                "Put it into an environment variable, which a server inherits; a command that is"
                " one line of text can name it as $VARIABLE.",
            )


def _options(command: Command) -> Iterable[tuple[str, str]]:
    """Return every word of a command that could name a secret, with the value that follows it."""
    words: Sequence[str] = command.split() if isinstance(command, str) else command
    words = [word.strip("'\"") for word in words]
    for word, following in zip(words, [*words[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if equals:
            yield option, value.strip("'\"")
        elif re.match(r"--?\w", word):
            yield word, "" if following.startswith("-") else following
