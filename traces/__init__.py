"""Trace formats, the canonical table and the run directory."""

from servescope.traces.catalog import BUNDLED, load
from servescope.traces.errors import ServescopeError
from servescope.traces.quality import Quality, inspect
from servescope.traces.run import Run, RunInfo
from servescope.traces.sessions import forget_sessions, infer_sessions
from servescope.traces.trace import Provenance, Trace

__all__ = [
    "BUNDLED",
    "Provenance",
    "Quality",
    "Run",
    "RunInfo",
    "ServescopeError",
    "Trace",
    "forget_sessions",
    "infer_sessions",
    "inspect",
    "load",
]
