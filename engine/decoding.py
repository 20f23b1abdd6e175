"""The requests that decode, as one: each step gives every one of them a token.

Nothing here is done request by request when a step ends. A request keeps the number of the step in
which it joined; how far it is, how many blocks it holds and when its tokens came follow from that.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Reversible

from servescope.engine.kvcache import BLOCK_TOKENS, blocks_for
from servescope.engine.request import Request

_FORGET_STEPS = 1 << 16


class Decoding(Reversible[Request]):
    """Requests in the order in which their prompts were finished, and the steps they took.

    `count` steps have ended and `begun` have begun: one more while one is on its way.
    """

    __slots__ = (
        "_dropped", "_ends", "_ends_of_requests", "_forget_at", "_growing", "_joined", "_late",
        "_members", "begun", "count", "kv_tokens",
    )  # fmt: skip

    def __init__(self) -> None:
        self.count = 0
        self.begun = 0
        self.kv_tokens = 0  # of all members, as of `count`
        self._members: dict[Request, None] = {}
        self._late = 0  # members that joined while a step was on its way, and take no part in it
        self._ends: list[float] = []
        self._dropped = 0  # ends before these, which nobody needs any more
        self._forget_at = _FORGET_STEPS
        # by step number modulo a block: how many members begin a new block in such a step
        self._growing = [0] * BLOCK_TOKENS
        self._ends_of_requests: list[tuple[int, int, Request]] = []
        self._joined = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._members)

    def __reversed__(self) -> Iterator[Request]:
        return reversed(self._members)

    def __contains__(self, request: object) -> bool:
        return request in self._members

    @property
    def growth(self) -> int:
        """New KV blocks that the next step needs."""
        return self._growing[self.begun % BLOCK_TOKENS]

    def grows(self, request: Request) -> bool:
        """Whether a member needs a new block in the next step."""
        return not request._blocks and self._phase(request) == self.begun % BLOCK_TOKENS

    def add(self, request: Request) -> int:
        """Take in a request whose prompt is computed and whose first token is out.

        Blocks that it holds beyond what is computed stay its own only if they are enough for the
        whole answer; returns how many are given back.
        """
        held, needed = request._blocks, blocks_for(request._computed)
        last = request._output_tokens - request._generated
        request._decoding, request._from_step = self, self.begun
        if held < blocks_for(request._computed + last):
            request._blocks = 0  # from now on it follows from the steps
            self._growing[self._phase(request)] += 1
        else:
            needed = held
        self._members[request] = None
        self._late += self.begun - self.count
        self.kv_tokens += request._computed
        self._joined += 1
        request._place = self._joined
        heapq.heappush(self._ends_of_requests, (self.begun + last, self._joined, request))
        return held - needed

    def remove(self, request: Request) -> None:
        """Let a member go, with what it has by now."""
        del self._members[request]
        self.kv_tokens -= request.computed
        if request._from_step > self.count:
            self._late -= 1
        if not request._blocks:
            self._growing[self._phase(request)] -= 1
            request._blocks = request.blocks
        request._token_s = request.token_s
        steps = request._steps
        request._decoding = None
        request._computed += steps
        request._generated += steps

    def steps_left(self) -> int:
        """Steps from the next one on until the first member has its last token."""
        ends = self._ends_of_requests
        while ends and not self._speaks_of_a_member(*ends[0]):
            heapq.heappop(ends)
        return ends[0][0] - self.begun if ends else 0

    def steps_within(self, blocks: int, most: int) -> int:
        """How many steps can begin, up to `most`, with so many free blocks."""
        cycle = sum(self._growing)
        if cycle * (most // BLOCK_TOKENS + 1) <= blocks:
            return most
        steps = blocks // cycle * BLOCK_TOKENS
        blocks %= cycle
        while steps < most:
            blocks -= self._growing[(self.begun + steps) % BLOCK_TOKENS]
            if blocks < 0:
                break
            steps += 1
        return min(steps, most)

    def begin(self) -> int:
        """Begin a step; returns the new blocks that it takes."""
        blocks = self.growth
        self.begun += 1
        return blocks

    def end(self, now: float) -> int:
        """End the step on its way: returns how many members took part and have one more token."""
        tokens = len(self._members) - self._late
        self.count += 1
        self.kv_tokens += tokens
        self._late = 0
        self._ends.append(now)
        if len(self._ends) >= self._forget_at:
            self._forget()
        return tokens

    def finished(self) -> list[Request]:
        """Return the members that have their last token."""
        ends, done = self._ends_of_requests, []
        while ends and ends[0][0] <= self.count:
            entry = heapq.heappop(ends)
            if self._speaks_of_a_member(*entry):
                done.append(entry[2])
        return done

    def ends_since(self, step: int) -> list[float]:
        """Return when the steps from this number on ended (s)."""
        return self._ends[max(0, step - self._dropped) :] if step < self.count else []

    def gap_s(self, request: Request) -> float:
        """Return the time between the last two tokens of a member that took part in a step."""
        ends = self._ends
        before = ends[-2] if request._from_step < self.count - 1 else request._token_s[-1]
        return ends[-1] - before

    def _phase(self, request: Request) -> int:
        return (request._from_step - request._computed) % BLOCK_TOKENS

    def _speaks_of_a_member(self, _: int, place: int, request: Request) -> bool:
        """Whether an entry of the heap does: not if its request left, be it to come back later."""
        return request._decoding is self and request._place == place

    def _forget(self) -> None:
        """Drop the ends that were before the oldest member."""
        oldest = min((each._from_step for each in self._members), default=self.count)
        del self._ends[: oldest - self._dropped]
        self._dropped = oldest
        self._forget_at = max(_FORGET_STEPS, 2 * len(self._ends))
