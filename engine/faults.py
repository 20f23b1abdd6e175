"""Faults on purpose: what a client must bear, at a rate and from a seed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from servescope.traces.errors import InputError

Kind = Literal["reset", "stall", "error"]
LIKE = "reset:0.01, stall:0.02:3s, error:0.05 or error-503:0.01"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a share of the requests.

    reset drops the connection in the middle of the answer, stall pauses there for `stall_s`, error
    answers with an HTTP status and nothing else.
    """

    kind: Kind
    share: float
    stall_s: float = 0.0
    status: int = 500

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read KIND:SHARE or stall:SHARE:SECONDS; raises InputError for anything else."""
        match = re.fullmatch(
            r"(?:(reset)|(stall)|error(?:-(5\d\d|4\d\d))?):([0-9.]+)(?::([0-9.]+)s?)?", text
        )
        share = _number(match[4]) if match else None
        if match is None or share is None or not 0 <= share <= 1:
            raise InputError(f"'{text}' is no fault.", f"Write it like {LIKE}.")
        pause_s = _number(match[5]) if match[5] else None
        if bool(match[2]) != (pause_s is not None):
            raise InputError(f"'{text}' is no fault.", "A stall has seconds, and nothing else has.")
        kind: Kind = "reset" if match[1] else "stall" if match[2] else "error"
        return cls(kind, share, pause_s or 0.0, int(match[3] or 500))


class Faults:
    """Draws what becomes of each request, in the order in which they come; counts what did."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 0) -> None:
        self.faults = tuple(faults)
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        if sum(fault.share for fault in self.faults) > 1:
            raise InputError(
                "The faults add up to more than all requests.", "Lower some of their shares."
            )

    def draw(self) -> Fault | None:
        """Return the fault of the next request, or None for one that is served well."""
        if not self.faults:
            return None
        chance = self._random.random()
        for fault in self.faults:
            chance -= fault.share
            if chance < 0:
                self.counts[fault.kind] += 1
                return fault
        return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
