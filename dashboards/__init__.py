"""A local web app over runs, finished or in progress, and boards for Grafana."""

from typing import TYPE_CHECKING

from servescope.traces.lazy import names_of

if TYPE_CHECKING:
    from servescope.dashboards.app import app_of
    from servescope.dashboards.library import Library
    from servescope.dashboards.server import Server

_HOME = {"app_of": "app", "Library": "library", "Server": "server"}

__all__ = ["Library", "Server", "app_of"]

__getattr__ = names_of(__name__, _HOME)
