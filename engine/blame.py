"""Whose fault an error is: a policy that answers what cannot be, or raises, is named with its line.

A policy is whatever code the engine calls that is not servescope's: that of a Python file, or of an
installed plug-in.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from servescope.traces.errors import ServescopeError

# They ask no policy: what they call beside the engine is who sends the requests, and the loop.
_CLOCKS = ("servescope.engine.virtual", "servescope.engine.realtime", __name__)


class BadPlan(ServescopeError):
    """A policy planned what cannot be done."""


class PolicyFailed(ServescopeError):
    """A policy raised an error of its own."""


def wrong_answer(part: object, method: str, answer: object, wanted: str) -> BadPlan:
    """Return the error of a part that returned what it must not."""
    return BadPlan(
        f"{type(part).__name__}.{method} returns {reprlib.repr(answer)}.",
        f"It must return {wanted}.",
    )


@contextmanager
def blaming() -> Iterator[None]:
    """Raise PolicyFailed, with file and line, in place of what a policy raises itself."""
    try:
        yield
    except (Exception, SystemExit) as error:
        fault = None if isinstance(error, ServescopeError) else _fault(error)
        if fault is None:
            raise
        raise PolicyFailed(fault, "Mend the policy.") from error


def _fault(error: BaseException) -> str | None:
    """Say where in a policy's file an error was raised; None if no policy has part in it."""
    asking, file, line = "", None, 0
    for frame, number in walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if file is None and not module.startswith("servescope."):
            if not asking.startswith("servescope.engine.") or asking in _CLOCKS:
                asking = module
                continue
            file = frame.f_code.co_filename
        if frame.f_code.co_filename == file:
            line = number
        asking = module
    if file is None:
        return None
    said = f": {error}" if str(error) else ""
    return f"{file}, line {line}: {type(error).__name__}{said}."
