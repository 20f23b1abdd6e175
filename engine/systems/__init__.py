"""The scheduling policies that are known by name: one file a system of the literature.

Strangers add theirs by an entry point of the group `servescope.systems`.
"""

from collections.abc import Mapping
from dataclasses import fields

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
from servescope.traces.errors import InputError
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
    """Return a system with some of its parameters, given as text, in place of the defaults."""
    table = installed_systems()
    chosen = table[known(name, table, "a system")]
    given = dict(parameters or {})
    names = [each.name for each in fields(chosen)]  # type: ignore[arg-type]
    mend = f"{name} has: {', '.join(names) or 'no parameters'}."
    for key in given:
        if key not in names:
            raise InputError(f"{key!r} is not a parameter of {name}.", mend)
    try:
        return msgspec.convert(given, chosen, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"{name} cannot take {given}: {error}.", mend) from None
