"""The workloads that papers were evaluated on, by name: one file a paper.

Strangers add theirs by an entry point of the group `servescope.workloads`: a Generator.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches

import msgspec

from servescope.loadgen.papers.autellix import Autellix
from servescope.loadgen.papers.burstgpt import BurstGPTApi, BurstGPTConv
from servescope.loadgen.papers.continuum import Continuum
from servescope.loadgen.papers.generator import Generator
from servescope.loadgen.papers.hexgen import HexGen
from servescope.loadgen.papers.infercept import InferCept
from servescope.loadgen.papers.llumnix import Llumnix
from servescope.loadgen.papers.sarathi import Sarathi
from servescope.loadgen.papers.semipd import SemiPD
from servescope.traces.errors import InputError
from servescope.traces.plugins import installed

WORKLOADS: dict[str, Generator] = {
    "burstgpt-conv": BurstGPTConv(),
    "burstgpt-api": BurstGPTApi(),
    "sarathi-chat": Sarathi("chat"),
    "sarathi-arxiv": Sarathi("arxiv"),
    "continuum-swebench": Continuum("swebench"),
    "continuum-bfcl": Continuum("bfcl"),
    "hexgen-text2sql": HexGen(),
    "semipd-sharegpt": SemiPD("sharegpt"),
    "semipd-longbench": SemiPD("longbench"),
    "llumnix-s-s": Llumnix("short", "short"),
    "llumnix-m-m": Llumnix("medium", "medium"),
    "llumnix-l-l": Llumnix("long", "long"),
    "llumnix-s-l": Llumnix("short", "long"),
    "llumnix-l-s": Llumnix("long", "short"),
    "llumnix-sharegpt": Llumnix("sharegpt", "sharegpt"),
    "llumnix-burstgpt": Llumnix("burstgpt", "burstgpt"),
    "autellix-sharegpt": Autellix("sharegpt"),
    "autellix-bfcl": Autellix("bfcl"),
    "autellix-lats": Autellix("lats"),
    "infercept": InferCept(),
}


def installed_workloads() -> dict[str, Generator]:
    """Return every workload by name, those of installed plug-ins included."""
    return installed("servescope.workloads", WORKLOADS)


def make_workload(
    name: str, parameters: Mapping[str, int | float | str] | None = None
) -> Generator:
    """Return a workload with some of its parameters, which may be text, in place of its own.

    Raises InputError for an unknown name, and for parameters that are unknown or wrong.
    """
    table = installed_workloads()
    if name not in table:
        near = get_close_matches(name, table, n=3, cutoff=0.3) or sorted(table)
        raise InputError(f"There is no workload '{name}'.", f"Near it: {', '.join(near)}.")
    chosen, given = table[name], dict(parameters or {})
    if not isinstance(chosen, Generator) or not is_dataclass(chosen):
        raise InputError(
            f"The workload {name} is no Generator but {chosen!r}.",
            "Let its entry point name a frozen dataclass's instance, or uninstall its package.",
        )
    own = {key: getattr(chosen, key) for key in parameters_of(chosen)}
    mend = f"{name} has: {', '.join(own) or 'no parameters'}."
    for key in given.keys() - own.keys():
        raise InputError(f"'{key}' is no parameter of the workload {name}.", mend)
    try:
        return msgspec.convert({**own, **given}, type(chosen), strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"The workload {name} cannot take {given}: {error}.", mend) from None


def parameters_of(workload: Generator) -> tuple[str, ...]:
    """Return the names of a workload's parameters."""
    return tuple(each.name for each in fields(workload))  # type: ignore[arg-type]
