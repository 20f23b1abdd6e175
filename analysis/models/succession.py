"""What follows what, among a few states: kinds of pauses, models that calls go to."""

from __future__ import annotations

import msgspec
import numpy as np

from servescope.analysis.models.quantiles import MIN_COUNT, all_rounded
from servescope.analysis.sample import Floats, Ints


class Succession(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Markov chain: shares of the states that come first, and of those next after each."""

    first: tuple[float, ...]
    after: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, states: Ints, program: Ints, many: int, min_count: int = MIN_COUNT) -> Succession:
        """Count firsts and steps within programs, whose states stand together, in order.

        What was seen fewer than `min_count` times never comes; after a state that was left so
        seldom, all come as often as they do anywhere.
        """
        begins = np.concatenate(([True], program[1:] != program[:-1]))
        went = ~begins[1:]
        steps = np.zeros((many, many))
        np.add.at(steps, (states[:-1][went], states[1:][went]), 1.0)
        anywhere = np.bincount(states, minlength=many).astype(np.float64)
        first = np.bincount(states[begins], minlength=many).astype(np.float64)
        rows = [_shares(row, anywhere, min_count) for row in steps]
        return cls(first=_shares(first, anywhere, min_count), after=tuple(rows))

    def begin(self, u: Floats) -> Ints:
        """Return the first states that uniform numbers stand for."""
        return _picked(np.cumsum(self.first), u)

    def follow(self, states: Ints, u: Floats) -> Ints:
        """Return the states after these that uniform numbers stand for."""
        return _picked(np.cumsum(self.after, axis=1)[states], u)


def _shares(counts: Floats, anywhere: Floats, min_count: int) -> tuple[float, ...]:
    for seen in (counts, anywhere):
        kept = np.where(seen >= min_count, seen, 0.0)
        if kept.any():
            return all_rounded(kept / kept.sum())
    return all_rounded(np.full(len(counts), 1 / len(counts)))


def _picked(upto: Floats, u: Floats) -> Ints:
    return np.asarray((u[:, None] >= upto[..., :-1]).sum(axis=-1))
