"""The parts of which a model of prefix reuse consists: rates, shares and quantiles alone."""

from __future__ import annotations

import msgspec
import numpy as np

from servescope.analysis.models.quantiles import Quantiles
from servescope.traces.errors import InputError


class Steps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A function that is constant between `edges`: values[k] from edges[k] to edges[k + 1]."""

    edges: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.values) + 1 or list(self.edges) != sorted(self.edges):
            raise InputError(
                "The edges and values of a step function do not match.",
                "Give ascending edges, one more than values.",
            )

    def at_wholes(self, most: int) -> list[float]:
        """Return the values at 0, 1, ... most; outside the edges those of the nearest step."""
        return [self.values[place] for place in self.places(most)]

    def places(self, most: int) -> list[int]:
        """Return the steps that 0, 1, ... most are on, or nearest to."""
        place = np.searchsorted(self.edges, np.arange(most + 1), side="right") - 1
        steps: list[int] = np.clip(place, 0, len(self.values) - 1).tolist()
        return steps


class Popular(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A prefix that new conversations begin with: `blocks` more than its parent's (-1 for none).

    `share` of the new conversations leave the tree of popular prefixes here.
    """

    parent: int
    blocks: int
    share: float


class Forks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """New conversations that begin as an earlier prompt does, popular or not.

    They are a `share` of the new ones, by the blocks of the prompt; those of the k-th class share
    `depth[k]` blocks with a prompt `age_s` back.
    """

    share: Steps
    depth: tuple[Quantiles, ...]
    age_s: Quantiles


class Chains(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prompts that go on from an earlier one, each at most once.

    `hazard[k]` is the rate (1/s) at which a prompt of an age (s) is gone on from in the k-th of the
    `parts` (their ends, s from the first call) of the trace, the last at any later time. It is
    multiplied by
    `by_size`, of the prompt's blocks, and by `by_turn`, of how many prompts it went on from itself.
    A next prompt is `growth` blocks longer with the chance in `shares`, and keeps all but `dropped`
    of the blocks before.
    """

    parts: tuple[float, ...]
    hazard: tuple[Steps, ...]
    by_size: Steps
    by_turn: Steps
    middle_s: float
    growth: tuple[int, ...]
    shares: tuple[float, ...]
    dropped: tuple[Quantiles, ...]


class Turns(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a next call of a program has of the call before.

    A `share` of them keep all but `dropped` blocks, `cut` of them only the part `kept` of those;
    the rest begin as a new conversation does.
    """

    share: float
    dropped: Quantiles
    cut_grown: float
    cut_shrunk: float
    kept: Quantiles | None
