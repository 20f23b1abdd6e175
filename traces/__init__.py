"""Trace formats, the canonical table and the run directory.

The names are loaded when they are asked for: what imports one light module of this room, as a
worker process does, does not pay for the tables.
"""

from typing import TYPE_CHECKING

from servescope.traces.lazy import names_of

if TYPE_CHECKING:
    from servescope.traces.catalog import BUNDLED, export, load
    from servescope.traces.errors import ServescopeError
    from servescope.traces.merging import merge
    from servescope.traces.provenance import Provenance
    from servescope.traces.quality import Quality, inspect
    from servescope.traces.run import Run, RunInfo
    from servescope.traces.sessions import forget_sessions, infer_sessions
    from servescope.traces.trace import Trace
    from servescope.traces.transforms import transform

_HOME = {
    "BUNDLED": "catalog",
    "export": "catalog",
    "load": "catalog",
    "ServescopeError": "errors",
    "merge": "merging",
    "Provenance": "provenance",
    "Quality": "quality",
    "inspect": "quality",
    "Run": "run",
    "RunInfo": "run",
    "forget_sessions": "sessions",
    "infer_sessions": "sessions",
    "Trace": "trace",
    "transform": "transforms",
}

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


__getattr__ = names_of(__name__, _HOME)
