"""When programs start: the arrival processes that are known by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, Protocol, get_origin, get_type_hints

import msgspec
import numpy as np

from servescope.analysis.point_processes import (
    MMPP,
    Constant,
    Gamma,
    Hawkes,
    Immediately,
    Poisson,
    Times,
    Weibull,
)
from servescope.analysis.rate_functions import Piecewise, Ramp
from servescope.traces.errors import InputError
from servescope.traces.plugins import installed


class Process(Protocol):
    """A random or regular sequence of start times, as a frozen value."""

    @property
    def rate_rps(self) -> float:
        """Mean rate, in programs a second."""

    def sample(
        self, rng: np.random.Generator, *, until_s: float | None = None, count: int | None = None
    ) -> Times:
        """Return the times below `until_s`, at most the first `count`: sorted, seconds from 0."""


PROCESSES: Final[dict[str, Callable[..., Process]]] = {
    "immediately": Immediately,
    "constant": Constant,
    "poisson": Poisson,
    "gamma": Gamma,
    "weibull": Weibull,
    "mmpp": MMPP,
    "hawkes": Hawkes,
    "piecewise": Piecewise,
    "csv": Piecewise.from_csv,
    "ramp": Ramp,
}


def process(name: str, /, **parameters: Any) -> Process:
    """Return the arrival process called `name`; parameters may be text, lists with commas.

    Another package adds one by an entry point of the group `servescope.arrivals`: a function or
    class that takes the parameters and returns a Process. Raises InputError for an unknown name and
    for parameters that are missing, unknown or wrong.
    """
    known = installed("servescope.arrivals", PROCESSES)
    if name not in known:
        raise InputError(f"There is no arrival process '{name}'.", f"Known: {', '.join(known)}.")
    make = known[name]
    wanted = inspect.signature(make).parameters
    mend = f"{name} has: {', '.join(wanted) or 'no parameters'}."
    for unknown in parameters.keys() - wanted.keys():
        raise InputError(f"'{unknown}' is no parameter of {name} arrivals.", mend)
    for each in wanted.values():
        if each.default is each.empty and each.name not in parameters:
            raise InputError(f"{name} arrivals need {each.name}.", mend)
    types = get_type_hints(make)
    given = {key: _converted(name, key, value, types[key]) for key, value in parameters.items()}
    return make(**given)


def _converted(name: str, key: str, value: Any, kind: Any) -> Any:
    """Return a parameter as the type that is wanted; raises InputError if it cannot be that."""
    listed = get_origin(kind) is tuple and isinstance(value, str)
    given = value.split(",") if listed else value
    try:
        return msgspec.convert(given, kind, strict=False, dec_hook=lambda kind, text: kind(text))
    except msgspec.ValidationError as error:
        raise InputError(
            f"{name} arrivals cannot take {key} = {value}: {error}.", "Mend the parameter."
        ) from None
