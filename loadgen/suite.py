"""A suite: the loads that a scheduling policy is evaluated on, as a TOML file holds them."""

from __future__ import annotations

import hashlib
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from servescope.analysis.slo import SLO
from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.study import Name
from servescope.traces.errors import InputError

DEFAULT = "default"


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One load of a suite: a workload, the engine that serves it, and what is asked of that."""

    name: Name
    says: str = ""
    workload: WorkloadSpec
    engine: EngineSpec = EngineSpec()
    slo: str
    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 0

    def __post_init__(self) -> None:
        SLO.parse(self.slo)
        if (self.engine.system, self.engine.params) != (EngineSpec().system, {}):
            raise InputError(
                f"The case '{self.name}' names a system, and it is a policy that is evaluated.",
                "Leave system and params out of its engine.",
            )

    def experiment(self, system: str, params: dict[str, str], seed: int = 0) -> Experiment:
        """Return the case as an experiment on a system; `seed` is added to its own."""
        engine = msgspec.structs.replace(self.engine, system=system, params=params)
        return Experiment(
            name=self.name,
            workload=self.workload,
            engine=engine,
            seed=self.seed + seed,
            slo=self.slo,
        )


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cases, and a version: scores of two versions are not comparable."""

    name: Name
    version: Annotated[int, Meta(ge=1)] = 1
    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        if not self.cases:
            raise InputError(f"The suite '{self.name}' has no case.", "Describe one: [[cases]].")
        for name, count in Counter(case.name.lower() for case in self.cases).items():
            if count > 1:
                raise InputError(f"{count} cases are called '{name}'.", "Give each its own name.")

    @property
    def sha256(self) -> str:
        """The digest of what is asked: how the file is written does not change it."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


def read(name: str | Path) -> Suite:
    """Read the suite that ships, `default`, or a file; raises InputError that names a mistake."""
    path = Path(name)
    try:
        if str(name) == DEFAULT:
            content = (files("servescope.loadgen") / "data" / "suite.toml").read_bytes()
        else:
            content = path.read_bytes()
        return msgspec.toml.decode(content, type=Suite)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{name} is no suite.", f"Give a TOML file, or {DEFAULT}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{name} is not a suite: {error}.",
            "docs/how-to/evaluate-a-policy.md shows every key.",
        ) from None
    except InputError as error:
        raise InputError(f"{name}: {error.wrong}", error.mend) from None
