"""Preemption from the last: who keeps running when the blocks run out."""

from collections.abc import Sequence
from typing import NamedTuple

from servescope.engine.policy import View
from servescope.engine.request import Request

STEADY = 1 << 30  # steps that a plan of decodes alone stands for: until something happens


class Kept(NamedTuple):
    """Who is preempted, who runs on, and the room left after each decode has its own block."""

    preempted: Sequence[Request]
    prefilling: Sequence[Request]
    decoding: int
    room: int


def preempt_last(view: View) -> Kept:
    """Preempt from the last admitted until every decode that is left has a block to write to."""
    decoding, room = view.decoding, view.pool.room
    growth, left = decoding.growth, len(decoding)
    if growth <= room:
        return Kept((), view.prefilling, left, room - growth)
    prefilling, last = list(view.prefilling), reversed(decoding)
    preempted = []
    while growth > room:
        if prefilling:
            victim = prefilling.pop()
        else:
            victim = next(last)
            left -= 1
            growth -= decoding.grows(victim)
        room += victim.own_blocks
        preempted.append(victim)
    return Kept(preempted, prefilling, left, room - growth)
