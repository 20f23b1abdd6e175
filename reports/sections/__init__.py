"""The sections of a report: each a function from the story to a section, or None."""

from __future__ import annotations

from collections.abc import Callable

from servescope.reports.blocks import Section
from servescope.reports.sections.differences import differences
from servescope.reports.sections.fidelity import fidelity
from servescope.reports.sections.groups import groups
from servescope.reports.sections.latencies import latencies
from servescope.reports.sections.objectives import objectives
from servescope.reports.sections.pictures import pictures
from servescope.reports.sections.profiles import profiles
from servescope.reports.sections.programs import programs
from servescope.reports.sections.provenance import provenance
from servescope.reports.sections.server import server
from servescope.reports.sections.service import service
from servescope.reports.sections.steadiness import steadiness
from servescope.reports.sections.verdict import verdict
from servescope.reports.sections.workload import workload
from servescope.reports.story import Story

SECTIONS: dict[str, Callable[[Story], Section | None]] = {
    "verdict": verdict,
    "differences": differences,
    "objectives": objectives,
    "service": service,
    "pictures": pictures,
    "programs": programs,
    "groups": groups,
    "latencies": latencies,
    "profiles": profiles,
    "server": server,
    "steadiness": steadiness,
    "fidelity": fidelity,
    "workload": workload,
    "provenance": provenance,
}
