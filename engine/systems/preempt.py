"""Preemption by recompute: who keeps running when the blocks run out."""

from collections.abc import Sequence
from typing import NamedTuple

from servescope.engine.kvcache import BLOCK_TOKENS
from servescope.engine.policy import View
from servescope.engine.request import Request


class Kept(NamedTuple):
    """Who runs on, who is preempted, and the blocks free after each decode has its own."""

    decoding: Sequence[Request]
    prefilling: Sequence[Request]
    preempted: Sequence[Request]
    free_blocks: int


def preempt_last(view: View) -> Kept:
    """Preempt from the last admitted until every decode that is left has a block to write to."""
    decoding, prefilling, free = list(view.decoding), list(view.prefilling), view.pool.free
    growing = [each for each in decoding if each.computed == each.blocks * BLOCK_TOKENS]
    preempted = []
    while len(growing) > free:
        victim = (prefilling or decoding).pop()
        if growing[-1] is victim:
            growing.pop()
        free += victim.blocks
        preempted.append(victim)
    return Kept(decoding, prefilling, preempted, free - len(growing))
