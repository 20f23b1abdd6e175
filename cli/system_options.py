"""The options that name one system, an endpoint or the embedded engine. Verbs share them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from servescope.cli.options import (
    PP,
    TP,
    ContextTokens,
    Gpu,
    Overhead,
    Params,
    PrefixCache,
    Replicas,
    checked,
    gpus,
    label,
    pairs,
    params,
)

if TYPE_CHECKING:
    from servescope.cli.workload_options import Asked
    from servescope.loadgen.experiment import EngineSpec
    from servescope.loadgen.study import NamedWorkload, SystemSpec

WHERE, ENGINE = "Endpoint", "Embedded engine"

BaseUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--base-url",
        "--url",
        help="Where the server is; give it again for every replica.",
        rich_help_panel=WHERE,
    ),
]
Backend = Annotated[
    str,
    typer.Option(help="The dialect: openai, vllm, openai-chat, sglang, ...", rich_help_panel=WHERE),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header", help="NAME=VALUE, $VARIABLE or @FILE for a secret.", rich_help_panel=WHERE
    ),
]
Emulated = Annotated[
    str | None,
    typer.Option(
        help="Take this scheduling system of the embedded engine, in virtual time: a name, or a"
        " Python file as in policy.py or policy.py:Name.",
        rich_help_panel=ENGINE,
    ),
]
AnyModel = Annotated[
    str | None, typer.Option(help="Model to ask the server for, or shape that the engine emulates.")
]


@dataclass(frozen=True, kw_only=True)
class Emulation:
    """What the options say of the embedded engine beside its system and its model."""

    param: Params = None
    gpu: Gpu = "H100"
    tp: TP = 1
    pp: PP = 1
    replicas: Replicas = None
    prefix_cache: PrefixCache = None
    overhead: Overhead = "plain"
    context_tokens: ContextTokens = None

    def spec(self, system: str, model: str | None) -> EngineSpec:
        """Return the engine of an experiment; raises InputError that names a wrong option."""
        from servescope.loadgen.experiment import EngineSpec

        return checked(
            EngineSpec,
            system=system,
            params=params(self.param),
            gpu=gpus(self.gpu),
            tp=self.tp,
            pp=self.pp,
            replicas=self.replicas,
            prefix_cache=self.prefix_cache,
            overhead=self.overhead,
            context_tokens=self.context_tokens,
            **({"model": model} if model else {}),
        )


SystemName = Annotated[str | None, typer.Option(help="Name of the system in what is written.")]


def system_of(
    base_url: list[str] | None,
    backend: str,
    header: list[str] | None,
    system: str | None,
    engine: Emulation,
    model: str | None,
    name: str | None,
) -> SystemSpec:
    """Return the one system that is meant; raises InputError for none and for two."""
    from servescope.loadgen.experiment import EndpointSpec
    from servescope.loadgen.study import SystemSpec
    from servescope.traces.errors import InputError

    if (base_url is None) == (system is None):
        raise InputError(
            "The system is either an endpoint or one of the embedded engine.",
            "Give --base-url, or --system.",
        )
    if system is not None:
        return checked(SystemSpec, name=name or label(system), engine=engine.spec(system, model))
    endpoint = checked(
        EndpointSpec,
        base_url=base_url,
        backend=backend,
        model=model,
        headers=pairs(header, "header"),
    )
    return checked(SystemSpec, name=name or backend, endpoint=endpoint)


def named(workload: Asked) -> NamedWorkload:
    """Return the workload of a verb with a name that can be one of a folder."""
    import re
    from pathlib import Path

    import msgspec

    from servescope.loadgen.study import NamedWorkload
    from servescope.traces.errors import InputError

    if workload.experiment_file:
        raise InputError(
            f"{workload.experiment_file} is an experiment and no trace.",
            "Name a trace; several loads stand in a study: `servescope experiment run`.",
        )
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(workload.name).name).strip("-._")[:40]
    return NamedWorkload(name=plain or "trace", **msgspec.structs.asdict(workload.spec()))
