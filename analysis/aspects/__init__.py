"""The aspects of a trace, in the order in which they are told; a new one is added here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from servescope.analysis.aspects import (
    arrivals,
    burstiness,
    clients,
    clock,
    dependence,
    failures,
    lengths,
    load,
    prefixes,
    rhythm,
    sessions,
)
from servescope.analysis.findings import Findings, Statistic, TableOf


@dataclass(frozen=True, slots=True)
class Aspect:
    """One aspect: its title, and the module with `found`, STATISTICS and TABLES."""

    title: str
    module: ModuleType
    on_a_server: bool = False

    @property
    def statistics(self) -> Mapping[str, Statistic]:
        """What its numbers mean."""
        known: Mapping[str, Statistic] = self.module.STATISTICS
        return known

    @property
    def tables(self) -> Mapping[str, TableOf]:
        """What its tables mean."""
        known: Mapping[str, TableOf] = self.module.TABLES
        return known

    def findings(self, name: str) -> Findings:
        """Return an empty record of it."""
        return Findings(name, self.statistics, self.tables)


ASPECTS: Final[dict[str, Aspect]] = {
    "clock": Aspect("Clock", clock),
    "arrivals": Aspect("Arrivals", arrivals),
    "burstiness": Aspect("Burstiness", burstiness),
    "rhythm": Aspect("Rhythm", rhythm),
    "lengths": Aspect("Lengths", lengths),
    "dependence": Aspect("Dependence", dependence),
    "sessions": Aspect("Sessions and programs", sessions),
    "prefixes": Aspect("Prefix reuse", prefixes, on_a_server=True),
    "clients": Aspect("Clients", clients),
    "failures": Aspect("Failures", failures),
    "load": Aspect("Load on a server", load, on_a_server=True),
}
