"""Admission: whom a step takes out of the queue, and how much of their prompts it computes."""

from __future__ import annotations

from servescope.engine.kvcache import blocks_for
from servescope.engine.policy import View
from servescope.engine.request import Request


class Admission:
    """What a step has left to give: seats, blocks and tokens; and to whom it gave some.

    `tokens` None sets no limit to them. The watermark stays free. Who is admitted gets the blocks
    of its whole prompt, or, if blocks are `paged`, of the tokens that are computed now.
    """

    __slots__ = ("_paged", "_pool", "admit", "prefill", "room", "seats", "tokens", "watermark")

    def __init__(
        self, view: View, seats: int, tokens: int | None, room: int, *, paged: bool = False
    ) -> None:
        self._pool = view.pool
        self._paged = paged
        self.watermark = 0 if paged else view.pool.watermark
        self.seats = seats
        self.tokens = tokens
        self.room = room - self.watermark
        self.admit: list[tuple[Request, int]] = []
        self.prefill: list[tuple[Request, int]] = []

    @property
    def open(self) -> bool:
        """Whether anybody can still be admitted."""
        return self.seats > 0 and self.room > 0 and (self.tokens is None or self.tokens > 0)

    def go_on(self, request: Request, withheld: int = 0) -> None:
        """Compute more of a prompt that was begun, as far as the tokens reach.

        So many of them as are `withheld` are not for this one.
        """
        piece = request.remaining
        if self.tokens is not None:
            piece = min(piece, self.tokens - withheld)
        if piece > 0:
            self._give(request, piece)

    def offer(self, request: Request, *, whole: bool = False, blocks: int = 0) -> bool:
        """Admit a waiting request, with as much of its prompt as the tokens reach; or say no.

        It gets `blocks` if that is more than it needs. `whole` says no if its prompt has more
        tokens than are left, unless it is the first of the step.
        """
        if not self.open:
            return False
        cached = 0 if request.swapped else self._pool.cached(request)
        decodes = request.swapped and request.generated > 0 and request.remaining == 1
        piece = 0 if decodes else request.remaining - cached
        if self.tokens is not None and piece > self.tokens:
            if whole and self.prefill:
                return False
            piece = piece if whole else self.tokens
        needed = request.demand
        if self._paged and not request.swapped:
            needed = blocks_for(cached + piece)
        blocks = max(blocks, needed)
        cost = self._pool.cost(request, blocks)
        if cost > self.room:
            return False
        if piece:
            self._give(request, piece)
        self.admit.append((request, blocks))
        self.seats -= 1
        self.room -= cost
        return True

    def _give(self, request: Request, piece: int) -> None:
        self.prefill.append((request, piece))
        if self.tokens is not None:
            self.tokens -= piece
