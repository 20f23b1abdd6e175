"""Trace formats, the canonical table and the run directory."""

from servescope.traces.catalog import BUNDLED, export, load
from servescope.traces.errors import ServescopeError
from servescope.traces.merge import merge
from servescope.traces.provenance import Provenance
from servescope.traces.quality import Quality, inspect
from servescope.traces.run import Run, RunInfo
from servescope.traces.sessions import forget_sessions, infer_sessions
from servescope.traces.trace import Trace
from servescope.traces.transforms import transform

__all__ = [
    "BUNDLED",
    "Provenance",
    "Quality",
    "Run",
    "RunInfo",
    "ServescopeError",
    "Trace",
    "export",
    "forget_sessions",
    "infer_sessions",
    "inspect",
    "load",
    "merge",
    "transform",
]
