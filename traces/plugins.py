"""Plug-ins: a table that can be read on one screen, and what other packages add to it."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TypeVar

from servescope.traces.errors import InputError

Plugin = TypeVar("Plugin")


def installed(group: str, built_in: Mapping[str, Plugin]) -> dict[str, Plugin]:
    """Return the plug-ins of `group` by name: those of other packages first, then the built-in.

    No package can take a built-in name. Raises InputError for an entry point that cannot be loaded.
    """
    strangers: dict[str, Plugin] = {}
    for point in entry_points(group=group):
        if point.name in built_in:
            continue
        try:
            strangers[point.name] = point.load()
        except Exception as error:  # whatever a stranger's module raises
            raise InputError(
                f"'{point.name}' of {group} ({point.value}) cannot be loaded: {error}.",
                "Mend or uninstall the package that brings it.",
            ) from error
    return {**strangers, **built_in}
