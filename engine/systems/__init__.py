"""The scheduling policies that are known by name: one file a system of the literature.

Strangers add theirs by an entry point of the group `servescope.systems`, or name a Python file.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import msgspec

from servescope.engine.catalog import known
from servescope.engine.policy import System
from servescope.engine.systems.autellix import Autellix
from servescope.engine.systems.balanced import Infaas, LeastLoad
from servescope.engine.systems.by_length import LongestFirst, ShortestFirst
from servescope.engine.systems.continuum import Continuum, ContinuumFixed2s
from servescope.engine.systems.distserve import DistServe
from servescope.engine.systems.hexgen import HexGenText2Sql
from servescope.engine.systems.infercept import InferCept
from servescope.engine.systems.llumnix import Llumnix, LlumnixV0
from servescope.engine.systems.sarathi import (
    Sarathi,
    SarathiChunkedOnly,
    SarathiDynamic,
    SarathiHybridOnly,
)
from servescope.engine.systems.semi_pd import SemiPd
from servescope.engine.systems.sglang import Sglang
from servescope.engine.systems.static import FasterTransformer, Orca
from servescope.engine.systems.vllm_v0 import VllmV0
from servescope.engine.systems.vllm_v1 import VllmV1
from servescope.traces.errors import InputError, ServescopeError
from servescope.traces.plugin_file import PluginFile
from servescope.traces.plugins import installed

SYSTEMS: dict[str, type[System]] = {
    "faster_transformer": FasterTransformer,
    "orca": Orca,
    "vllm_v0": VllmV0,
    "vllm_v1": VllmV1,
    "sglang": Sglang,
    "shortest_first": ShortestFirst,
    "longest_first": LongestFirst,
    "sarathi": Sarathi,
    "sarathi_chunked_only": SarathiChunkedOnly,
    "sarathi_hybrid_only": SarathiHybridOnly,
    "sarathi_dynamic": SarathiDynamic,
    "least_load": LeastLoad,
    "infaas": Infaas,
    "distserve": DistServe,
    "semi_pd": SemiPd,
    "continuum": Continuum,
    "continuum_fixed2s": ContinuumFixed2s,
    "infercept": InferCept,
    "autellix": Autellix,
    "hexgen_text2sql": HexGenText2Sql,
    "llumnix": Llumnix,
    "llumnix_v0": LlumnixV0,
}


def installed_systems() -> dict[str, type[System]]:
    """Return every system by name, those of installed plug-ins included."""
    return installed("servescope.systems", SYSTEMS)


def make_system(name: str, parameters: Mapping[str, str] | None = None) -> System:
    """Return a system with some of its parameters, given as text, in place of the defaults.

    `name` is one of `installed_systems`, or a Python file as in `policy.py` or `policy.py:Name`.
    """
    file = PluginFile.of(name)
    if file is None:
        table = installed_systems()
        chosen = table[known(name, table, "a system")]
    else:
        chosen = _defined_in(file)
    given = dict(parameters or {})
    names: list[str] = []
    if is_dataclass(chosen):
        names = [each.name for each in fields(chosen) if each.init]
    mend = f"{name} has: {', '.join(names) or 'no parameters'}."
    for key in given:
        if key not in names:
            raise InputError(f"{key!r} is not a parameter of {name}.", mend)
    try:
        return msgspec.convert(given, chosen, strict=False) if given else chosen()
    except msgspec.ValidationError as error:
        raise InputError(f"{name} cannot take {given}: {error}.", mend) from None
    except ServescopeError:
        raise
    except Exception as error:  # whatever a stranger's class raises
        fault = file and file.fault(error)
        raise InputError(fault or f"{name} cannot be made: {error}.", mend) from error


def _defined_in(file: PluginFile) -> type[System]:
    """Return the system that a file defines; raises InputError unless it is clear which."""
    found = file.classes(file.load(), "plan", "parts")
    methods = "A system is a class with a method `plan`, or `parts`"
    if file.name is not None:
        if file.name not in found:
            raise InputError(
                f"{file.path} defines no system called {file.name}.",
                f"{methods}; there are: {', '.join(found) or 'none'}.",
            )
        return found[file.name]
    if not found:
        raise InputError(f"{file.path} defines no system.", f"{methods}.")
    if len(found) > 1:
        raise InputError(
            f"{file.path} defines several systems: {', '.join(found)}.",
            f"Name one, as in {file.path}:{next(iter(found))}, or let the names of the others"
            " begin with an underscore.",
        )
    return next(iter(found.values()))
