"""Admission: whom a step takes out of the queue, and how much of their prompts it computes."""

from __future__ import annotations

from servescope.engine.policy import View
from servescope.engine.request import Request


class Admission:
    """What a step has left to give: seats, blocks and tokens; and to whom it gave some.

    `tokens` None sets no limit to them. The watermark stays free.
    """

    __slots__ = ("_pool", "admit", "prefill", "room", "seats", "tokens")

    def __init__(self, view: View, seats: int, tokens: int | None, room: int) -> None:
        self._pool = view.pool
        self.seats = seats
        self.tokens = tokens
        self.room = room - view.pool.watermark
        self.admit: list[tuple[Request, int]] = []
        self.prefill: list[tuple[Request, int]] = []

    @property
    def open(self) -> bool:
        """Whether anybody can still be admitted."""
        return self.seats > 0 and self.room > 0 and (self.tokens is None or self.tokens > 0)

    def go_on(self, request: Request) -> None:
        """Compute more of a prompt that was begun, as far as the tokens reach."""
        piece = request.remaining if self.tokens is None else min(request.remaining, self.tokens)
        if piece > 0:
            self._give(request, piece)

    def offer(self, request: Request, *, whole: bool = False, blocks: int | None = None) -> bool:
        """Admit a waiting request, with as much of its prompt as the tokens reach; or say no.

        It gets all blocks of its prompt, or so many `blocks`. `whole` says no if its prompt has
        more tokens than are left, unless it is the first of the step.
        """
        if not self.open:
            return False
        blocks = request.demand if blocks is None else blocks
        cost = self._pool.cost(request, blocks)
        if cost > self.room:
            return False
        if not request.swapped:
            piece = request.remaining - self._pool.cached(request)
            if self.tokens is not None and piece > self.tokens:
                if whole and self.prefill:
                    return False
                piece = piece if whole else self.tokens
            self._give(request, piece)
        self.admit.append((request, blocks))
        self.seats -= 1
        self.room -= cost
        return True

    def _give(self, request: Request, piece: int) -> None:
        self.prefill.append((request, piece))
        if self.tokens is not None:
            self.tokens -= piece
