"""Iteration-level continuous batching: a queue, a block pool, a policy and a step time.

The engine has no clock: it is told what time it is, and says when its step ends. Steps that only
decode are run many at a time, for as long as nothing can change what the policy would plan;
whatever comes in between cuts them short.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import NamedTuple

from servescope.engine.blame import BadPlan, wrong_answer
from servescope.engine.decoding import Decoding
from servescope.engine.host import Host
from servescope.engine.kvcache import BLOCK_TOKENS, BlockPool, blocks_for, shared_blocks
from servescope.engine.policy import (
    WHOLE,
    Batch,
    Keep,
    Partition,
    Pin,
    Retention,
    Scheduler,
    View,
    flaw_of,
)
from servescope.engine.prefixes import Node, Segment
from servescope.engine.request import Request, Status
from servescope.engine.step_time import Load
from servescope.traces.errors import InputError, ServescopeError

# So many steps that preempt, and no token computed for the first time, lead to nothing: who
# preempts for somebody's sake lets that one get on, beyond what it has to compute again.
IN_VAIN = 1000


class Refused(InputError):
    """The engine can never serve this request."""


class Deadlock(ServescopeError):
    """There is work, and what the policy plans never gets it done."""


class Violation(ServescopeError):
    """What must always hold did not: a policy reached past its plan, or the engine is wrong."""

    exit_code = 1


@dataclass(slots=True, eq=False)
class Step:
    """One step on its way, or several that decode alone, on the engine's clock (s)."""

    batch: Batch
    load: Load  # of the first
    starts_s: float
    ends: list[float]
    over: int = 0  # steps that have ended
    lane: str = WHOLE
    prefill: Sequence[tuple[Request, int]] = ()

    @property
    def ends_s(self) -> float:
        """When the last of them ends."""
        return self.ends[-1]


class Tokens(NamedTuple):
    """What a step gave: requests whose prompt it completed, and requests that are done."""

    prompted: list[Request]
    finished: list[Request]


@dataclass(slots=True)
class Counters:
    """What the engine has done since it was made."""

    steps: int = 0
    prompt_tokens: int = 0  # of requests whose first token is out
    generation_tokens: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0  # computed, lost to a preemption, to be computed again
    queried_tokens: int = 0  # prompt tokens that were looked up in the prefix cache
    found_tokens: int = 0  # of these, tokens that were there
    preemptions: int = 0
    finished: int = 0
    aborted: int = 0


class Engine:
    """One emulated replica: `number` of a cluster.

    With a `partition`, `step_time` is given the share of the GPU that a lane has beside the load.
    """

    def __init__(
        self,
        system: Scheduler,
        step_time: Callable[..., float],
        pool: BlockPool,
        context_tokens: int,
        *,
        retain: Retention | None = None,
        partition: Partition | None = None,
        number: int = 0,
        host: Host | None = None,
    ) -> None:
        self.system = system
        self.step_time = step_time
        self.pool = pool
        self.context_tokens = context_tokens
        self.retain = retain
        self.partition = partition
        self.number = number
        self.host = host
        self.counters = Counters()
        self.lanes = (WHOLE,) if partition is None else tuple(partition.lanes)
        self.pinned: dict[str, Pin] = {}
        self._pins: dict[str, Node] = {}
        self._waiting: deque[Request] = deque()
        self._prefilling: list[Request] = []
        self._decoding = Decoding()
        self._requests: dict[str, Request] = {}
        self._kept_tokens = 0  # computed for requests that have left
        self._steps: dict[str, Step] = {}  # on their way, by lane
        self._receiving: dict[Request, None] = {}  # admitted, and their keys and values on the way
        self._handed: dict[str, int] = {}  # blocks of requests that go on elsewhere, until copied
        self._reserved = 0  # blocks for requests that are to come from elsewhere
        self._in_vain = 0  # steps that preempt, since a token is known to have been new
        self._known_tokens = 0  # of answers, when that was looked at
        self._now = 0.0

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._waiting) if self.host is None else len(self._waiting) + len(self.host)

    @property
    def running(self) -> int:
        """How many requests hold KV blocks."""
        return len(self._prefilling) + len(self._decoding) + len(self._receiving)

    @property
    def view(self) -> View:
        """What a policy would see now."""
        return self._view(WHOLE)

    @property
    def steps(self) -> Iterable[Step]:
        """The steps on their way: one a lane at most."""
        return self._steps.values()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do and nothing on its way."""
        return not (self.waiting or self.running or self._handed or self._reserved)

    @property
    def busy(self) -> bool:
        """Whether a step is on its way."""
        return bool(self._steps)

    def computing(self, lane: str) -> bool:
        """Whether a lane has a step on its way."""
        return lane in self._steps

    @property
    def wakes_s(self) -> float:
        """When an engine that computes nothing should be asked again: at the end of a pin."""
        if self._steps or not self._waiting or not self.pinned:
            return math.inf
        return min(pin.until_s for pin in self.pinned.values())

    def require_fit(self, request: Request) -> None:
        """Raise Refused when the request can never be served, however idle the engine is."""
        asked = request._output_tokens
        if request.input_tokens < 1 or asked < 1:
            raise Refused(
                f"The request has {request.input_tokens} prompt tokens and asks for {asked}.",
                "Both must be at least 1.",
            )
        tokens = request.input_tokens + asked
        if tokens > self.context_tokens:
            raise Refused(
                f"This model's maximum context length is {self.context_tokens} tokens; the "
                f"request asks for {tokens} ({request.input_tokens} in the prompt, {asked} to "
                "generate).",
                "Shorten the prompt or lower max_tokens.",
            )
        room = self.pool.total - self.pool.watermark
        if blocks_for(tokens) > room:
            raise Refused(
                f"The request needs {blocks_for(tokens)} KV blocks, the engine can give {room}.",
                "Shorten the prompt, lower max_tokens or give the engine more memory.",
            )
        if request.id in self._requests:
            raise Refused(
                f"A request with the id {request.id!r} is being served.", "Give each its own id."
            )

    def submit(self, request: Request, now: float) -> None:
        """Put a request at the end of the queue, or raise Refused."""
        self.require_fit(request)
        self.cut(now)
        self._requests[request.id] = request
        if self.host is None:
            self._waiting.append(request)
        else:
            self.host.arrive(request, now)

    def begin(self, now: float, until: float = math.inf, lane: str = WHOLE) -> Step | None:
        """Start a lane's next step at `now`, or decodes alone up to the first end at `until`.

        Returns None when there is nothing to do.
        """
        if lane in self._steps:
            raise RuntimeError("the step before is not finished")
        self.advance(now)
        if self.host is not None:
            busy = bool(self._waiting or self._prefilling or self._decoding)
            now = self.host.wake(now, busy)
            self._waiting.extend(self.host.seen())
        if not (self._waiting or self._prefilling or self._decoding):
            return None
        batch = self._plan(lane)
        try:
            return self._carry_out(batch, now, until, lane)
        except (TypeError, AttributeError, ValueError):
            flaw = flaw_of(batch)
            if flaw is None:
                raise
            raise self._bad(flaw) from None

    def _carry_out(self, batch: Batch, now: float, until: float, lane: str) -> Step | None:
        if batch.preempt:
            self._require_progress()
            for request in batch.preempt:
                self._preempt(request, batch.swap)
        for request, _ in batch.admit:  # before any block is taken, which may drop what they find
            self._take_out(request)
        swapped = 0
        if len(batch.admit):
            swapped = sum(self._admit(request, blocks, now) for request, blocks in batch.admit)

        pool, decoding = self.pool, self._decoding
        tokens = sequences = kv_tokens = 0
        if len(batch.prefill) > 1 or self._steps:
            self._require_apart(batch, lane)
        if batch.decode and decoding:
            tokens = sequences = len(decoding)
            kv_tokens = decoding.kv_tokens
        pairs = 0.0
        for request, piece in batch.prefill:
            computed = request._computed
            if request.status is not Status.RUNNING or not 0 < index(piece) <= request.remaining:
                raise self._bad(
                    f"{piece} tokens of {request.id!r}, which is {request.status.value} with "
                    f"{request.remaining} to compute"
                )
            elsewhere = self._requests.get(request.id) is not request or request in self._receiving
            if elsewhere or request._decoding is not None:
                raise self._bad(f"to prefill {request.id!r}, which has no prompt to compute here")
            missing = blocks_for(computed + piece) - request._blocks
            if missing > 0:
                pool.take(missing)
                request._blocks += missing
            tokens += piece
            sequences += 1
            pairs += piece * (computed + (piece + 1) / 2)  # causal: each sees itself and before
        if not tokens:
            under_way = self._steps or self._receiving or self._handed or self._reserved
            if under_way or self.partition is not None or now < self.wakes_s < math.inf:
                return None  # what is on its way, or another lane, will change what can be planned
            raise Deadlock(
                f"{type(self.system).__name__} plans nothing, with {len(self._waiting)} requests "
                f"waiting, {self.running} running and {pool.free} KV blocks free.",
                "Its limits cannot admit what is submitted: raise them.",
            )
        load = Load(tokens, sequences, kv_tokens, pairs, swapped)
        if self.host is not None:
            ends = [self._hosted_end(self.host, now, load, batch)]
            until = now if len(self.host) else until  # who came is planned for after one more step
        elif self.partition is None:
            ends = [now + self.step_time(load)]
        else:
            ends = [now + self.step_time(load, self._share_of(lane))]
            until = now  # what happens in another lane changes how long a step takes
        if kv_tokens:
            pool.take(decoding.begin())
            if batch.steps > 1 and not batch.prefill and ends[0] < until:
                self._run_on(ends, load, batch.steps, until)
        step = Step(batch, load, now, ends, lane=lane, prefill=batch.prefill)
        self._steps[lane] = step
        return step

    def decoding(self, step: Step) -> list[Request]:
        """Return the requests that a step on its way gives their next token."""
        if not step.load.kv_tokens:
            return []
        begun = self._decoding.begun  # who joined since takes no part in it
        return [request for request in self._decoding if request._from_step < begun]

    def finish(self, step: Step) -> Tokens:
        """End what is on its way, and return who got a first token of a prompt, and who is done."""
        if step is not self._steps.pop(step.lane, None):
            raise RuntimeError("this step is not on its way")
        self._over(step, len(step.ends))
        self._now = now = step.ends_s
        if self.host is not None:
            self.host.ended(step.ends)
        counters, decoding = self.counters, self._decoding
        finished = decoding.finished()
        for request in finished:
            self._leave(request, Status.FINISHED)
        prompted: list[Request] = []
        for request, piece in step.prefill:
            if request.status is not Status.RUNNING:
                continue  # aborted while the step ran
            request._computed += piece
            counters.computed_tokens += piece
            if request.remaining:
                continue
            self._prefilling.remove(request)
            if request._generated == 0:
                counters.prompt_tokens += request.input_tokens
            request._generated += 1
            request._token_s.append(now)
            self._recover(request, now)
            counters.generation_tokens += 1
            prompted.append(request)
            self._share(request, request.prefix, request.input_tokens)
            if request._generated == request._output_tokens:
                self._leave(request, Status.FINISHED)
                finished.append(request)
            else:
                self.pool.release(decoding.add(request))
        return Tokens(prompted, finished)

    def abort(self, request_id: str, now: float | None = None) -> bool:
        """Drop a request and free its blocks; False when it is not here (any more).

        A step that computes it goes on as long as planned, without a token for it.
        """
        request = self._requests.get(request_id)
        if request is None:
            return False
        self.cut(self._now if now is None else now)
        if self.host is not None and self.host.forget(request):
            pass  # it had not come to the queue
        elif request.status is Status.WAITING:
            self._waiting.remove(request)
        elif request in self._receiving:
            del self._receiving[request]
        elif request not in self._decoding:
            self._prefilling.remove(request)
        self._leave(request, Status.ABORTED)
        return True

    def computes(self, request: Request) -> bool:
        """Whether a step on its way gives this request its next token."""
        decodes = any(step.load.kv_tokens for step in self._steps.values())
        return decodes and request._from_step < self._decoding.begun

    def advance(self, now: float) -> None:
        """Let pass what ended before `now`, so that the engine is seen as it is."""
        if now < self._now:
            raise RuntimeError(f"the clock went back from {self._now} s to {now} s")
        self._now = now
        for step in self._steps.values():
            if len(step.ends) > 1:
                self._over(step, min(bisect_left(step.ends, now), len(step.ends) - 1))

    def cut(self, now: float) -> None:
        """Let pass what ended before `now`, and let no step follow the one that runs."""
        self.advance(now)
        for step in self._steps.values():
            del step.ends[step.over + 1 :]

    def hand_over(self, request: Request, now: float) -> None:
        """Let a request that decodes go on elsewhere; its blocks stay until `copied`."""
        self.cut(now)
        self._decoding.remove(request)
        del self._requests[request.id]
        self._kept_tokens += request._computed - request.cached_tokens
        self._handed[request.id] = request._blocks - request._shared
        if self.pool.prefixes is not None and request._node is not None:
            self.pool.prefixes.let_go(request._node)
            request._node = None
        request._blocks = request._shared = 0

    def copied(self, request: Request, now: float) -> None:
        """Free the blocks of a request that was handed over."""
        self.cut(now)
        self.pool.release(self._handed.pop(request.id))

    def receive(self, request: Request, now: float, reserved: int | None = None) -> None:
        """Take in a request from elsewhere: into the queue, or with blocks `reserved` for it.

        Once admitted it waits for its keys and values until `received`.
        """
        self.cut(now)
        request.replica = self.number
        self._requests[request.id] = request
        self._kept_tokens -= request._computed - request.cached_tokens  # not computed here
        if reserved is None:
            request.status = Status.WAITING
            request.swapped = request._remote = True
            self._waiting.append(request)
        else:
            self._reserved -= reserved
            request._blocks = reserved
            self._receiving[request] = None

    @property
    def receiving(self) -> Iterable[Request]:
        """Requests from elsewhere that have blocks here, and wait for their keys and values."""
        return self._receiving

    def received(self, request: Request, now: float) -> None:
        """Let a request decode, now that its keys and values are here."""
        self.cut(now)
        del self._receiving[request]
        self.pool.release(self._decoding.add(request))

    def reserve(self, blocks: int, now: float) -> bool:
        """Take blocks for a request that is to come; False when there are not so many."""
        self.cut(now)
        if blocks > self.pool.room:
            return False
        self.pool.take(blocks)
        self._reserved += blocks
        return True

    def unreserve(self, blocks: int, now: float) -> None:
        """Give back what was reserved."""
        self.cut(now)
        self._reserved -= blocks
        self.pool.release(blocks)

    def check(self) -> None:
        """Assert what must hold between any two calls."""
        pool, prefixes = self.pool, self.pool.prefixes
        running = [*self._prefilling, *self._decoding, *self._receiving]
        everyone = [*(self.host or ()), *self._waiting, *running]
        once = len({each.id for each in everyone}) == len(everyone) == len(self._requests)
        assert once, "a request waits or runs, at one place"
        assert 0 <= pool.free <= pool.total, "no more blocks are free than there are, and no fewer"
        private = sum(each.blocks - each._shared for each in everyone)
        elsewhere = sum(self._handed.values()) + self._reserved
        cached = prefixes.blocks if prefixes else 0
        every_block = pool.free + private + elsewhere + cached == pool.total
        assert every_block, "every block is free, held by one request, or cached"
        for each in self._waiting:
            waits = each.status is Status.WAITING and each.blocks == 0
            assert waits, "who waits holds no blocks"
        assert all(each.status is Status.RUNNING for each in running), "who runs does not wait"
        for each in everyone:
            generated = each.generated
            known = each.computed + each.remaining == each.input_tokens + generated
            assert known, "a request has computed its text, or has it to compute"
            held = each.swapped or each.computed <= each.blocks * BLOCK_TOKENS
            assert held, "what a request has computed is in its blocks"
            timed = generated == len(each.token_s)
            assert timed, "every token that is out came at a time"
            assert generated < each._output_tokens, "who has its last token is gone"
        read = self._decoding.kv_tokens == sum(each.computed for each in self._decoding)
        assert read, "a decode reads all that its requests have computed"
        if prefixes:
            prefixes.check()
            pinned = all(node.holders for node in self._pins.values())
            assert pinned, "what is pinned is held"
        assert self._pins.keys() == self.pinned.keys(), "every pin holds something"
        # Every token computed belongs to somebody: here, gone, or lost to a preemption.
        here = sum(each.computed - each.cached_tokens for each in everyone)
        counters = self.counters
        kept = here + self._kept_tokens + counters.recomputed_tokens
        assert counters.computed_tokens == kept, "every token computed belongs to somebody"

    def _hosted_end(self, host: Host, now: float, load: Load, batch: Batch) -> float:
        """Return when a step's tokens are in, by the host's clock."""
        left = sum(request.remaining for request in self._prefilling)
        left -= sum(piece for _, piece in batch.prefill)
        return host.end(now, load, self.step_time(load), left, load.sequences)

    def _run_on(self, ends: list[float], load: Load, steps: int, until: float) -> None:
        """Go on with steps that decode alone, as far as nothing can come between."""
        decoding, step_time = self._decoding, self.step_time
        # the first of them has begun
        most = min(steps, decoding.steps_left() + 1) - 1
        if most < 1:
            return
        most = decoding.steps_within(self.pool.room, most)
        sequences, kv_tokens = load.sequences, load.kv_tokens
        now = ends[0]
        for _ in range(most):
            kv_tokens += sequences
            now += step_time(Load(sequences, sequences, kv_tokens, 0.0))
            ends.append(now)
            if now >= until:
                break

    def _over(self, step: Step, steps: int) -> None:
        """End all steps up to a number, and begin the next, if there is one."""
        decoding, counters = self._decoding, self.counters
        ends = step.ends
        for number in range(step.over, steps):
            counters.steps += 1
            if not step.load.kv_tokens:
                continue
            tokens = decoding.end(ends[number])
            counters.computed_tokens += tokens
            counters.generation_tokens += tokens
            if number + 1 < len(ends):
                self.pool.take(decoding.begin())
        step.over = max(steps, step.over)

    def _require_apart(self, batch: Batch, lane: str) -> None:
        """Raise BadPlan when the same would be computed twice at a time, here or in two lanes."""
        computed: set[Request] = set()
        for step in self._steps.values():
            if batch.decode and step.load.kv_tokens and self._decoding:
                raise self._bad(f"decodes in lane {lane!r} while {step.lane!r} computes them")
            computed.update(request for request, _ in step.prefill)
        for request, _ in batch.prefill:
            if request in computed:
                raise self._bad(f"two pieces of {request.id!r} at a time")
            computed.add(request)

    def _take_out(self, request: Request) -> None:
        """Take a request out of the queue, with what the prefix cache holds of its prompt."""
        if request.status is not Status.WAITING:
            raise self._bad(f"to admit {request.id!r}, which is {request.status.value}")
        queue = self._waiting
        if queue and queue[0] is request:
            queue.popleft()
        else:
            try:
                queue.remove(request)
            except ValueError:
                raise self._bad(f"to admit {request.id!r}, which does not wait here") from None
        request.status = Status.RUNNING
        pool = self.pool
        if pool.prefixes is not None and request.prefix and not request.swapped:
            request._node = node = pool.prefixes.find(request.prefix)
            pool.prefixes.hold(node)
            request._shared = shared_blocks(node, request)
            request.cached_tokens = request._computed = request._shared * BLOCK_TOKENS
        if request.program_id in self.pinned:  # what was kept for it is its own now
            self._unpin(request.program_id)

    def _from_host(self, request: Request) -> int:
        """Bring back what was offloaded of a program; returns its tokens."""
        kept = self.pool.host.pop(request.program_id or "", 0)
        tokens = min(kept, request.remaining + request._computed - 1) // BLOCK_TOKENS * BLOCK_TOKENS
        brought = max(0, tokens - request._computed)
        request._computed += brought
        request.cached_tokens += brought
        return brought

    def _admit(self, request: Request, blocks: int, now: float) -> int:
        """Give a request its blocks; returns the tokens that come from host memory."""
        blocks = max(index(blocks), request._shared)
        self.pool.take(blocks - request._shared)
        request._blocks = blocks
        brought = 0
        if request._remote:
            request.swapped = request._remote = False
            self._receiving[request] = None
        elif not request.swapped:
            self._prefilling.append(request)
            brought = self._from_host(request)
        else:
            request.swapped = False
            brought = request._computed
            if request.remaining == 1 and request._generated:
                self._recover(request, now)
                self.pool.release(self._decoding.add(request))
            else:
                self._prefilling.append(request)
        if request.first_scheduled_s is None:
            request.first_scheduled_s = now
            request.found_tokens = request.cached_tokens
            if self.pool.prefixes is not None:
                self.counters.queried_tokens += request.input_tokens
                self.counters.found_tokens += request.found_tokens
        return brought

    def _require_progress(self) -> None:
        """Raise Deadlock when many steps have preempted, and no token was new between them."""
        self._in_vain += 1
        if self._in_vain <= IN_VAIN:
            return
        further = [each for each in self._prefilling if each._computed > each._reached]
        for request in further:
            request._reached = request._computed
        before, self._known_tokens = self._known_tokens, self.counters.generation_tokens
        if not further and self._known_tokens == before:
            raise Deadlock(
                f"{type(self.system).__name__} has preempted in {IN_VAIN} steps, and since the "
                "first of them no request has got a token that it had not had before.",
                "It preempts what it admits: let some request get on before it is preempted again.",
            )
        self._in_vain = 0

    def _preempt(self, request: Request, swap: bool) -> None:
        if request in self._decoding:
            self._decoding.remove(request)
        elif request in self._prefilling:
            self._prefilling.remove(request)
        else:
            raise self._bad(f"to preempt {request.id!r}, which is {request.status.value}")
        for step in self._steps.values():  # of another lane: what it computes is lost
            step.prefill = [each for each in step.prefill if each[0] is not request]
        self.counters.preemptions += 1
        if request._computed > request._reached:
            request._reached = request._computed
            self._in_vain = 0
        self._give_back(request)
        if swap:
            request.swapped = True
        else:
            self.counters.recomputed_tokens += request._computed - request.cached_tokens
            request._computed = request.cached_tokens = 0
        request.preemptions += 1
        if request._preempted_s is None:  # else it had not recovered from the last time
            request._preempted_s = self._now
        request.status = Status.WAITING
        self._waiting.appendleft(request)

    def _recover(self, request: Request, now: float) -> None:
        """Count what a preemption has cost a request that is where it was again."""
        if request._preempted_s is not None:
            request.lost_s += now - request._preempted_s
            request._preempted_s = None

    def _leave(self, request: Request, status: Status) -> None:
        if request in self._decoding:
            self._decoding.remove(request)
        if status is Status.FINISHED:
            self._keep(request)
        request.status = status
        self._give_back(request)
        self._kept_tokens += request._computed - request.cached_tokens
        del self._requests[request.id]
        if status is Status.FINISHED:
            self.counters.finished += 1
        else:
            self.counters.aborted += 1

    def _share(self, request: Request, text: tuple[Segment, ...], tokens: int) -> None:
        """Put what a request computed into the prefix cache, and go on with the cache's blocks."""
        pool = self.pool
        if pool.prefixes is None or not request.prefix:
            return
        node, new = pool.prefixes.insert(text, tokens)
        pool.prefixes.hold(node)
        if request._node is not None:
            pool.prefixes.let_go(request._node)
        request._node = node
        # another request may have put the same there meanwhile: then its own copies are free
        pool.release(node.depth_blocks - request._shared - new)
        request._shared = node.depth_blocks

    def _keep(self, request: Request) -> None:
        """Do with a finished request's keys and values what the system wants done."""
        keep = Keep() if self.retain is None else self.retain.finished(request, self.view)
        if not isinstance(keep, Keep):
            raise wrong_answer(self.retain, "finished", keep, "a Keep")
        if keep.mode != "drop":
            answer = Segment(request.id, request._generated)
            self._share(request, (*request.prefix, answer), request._computed)
        prefixes, node, program = self.pool.prefixes, request._node, request.program_id
        if program is None:
            return
        if keep.copy:
            self.pool.host[program] = request._computed
        if keep.mode == "pin" and prefixes is not None and node is not None:
            prefixes.hold(node)
            if program in self.pinned:
                self._unpin(program)
            self._pins[program] = node
            self.pinned[program] = Pin(
                program, keep.until_s, request.program_began_s, request._computed
            )

    def _unpin(self, program_id: str) -> None:
        del self.pinned[program_id]
        assert self.pool.prefixes is not None
        self.pool.prefixes.let_go(self._pins.pop(program_id))

    def _plan(self, lane: str) -> Batch:
        """Ask for the next step, and unpin what stands in its way."""
        view, retain = self._view(lane), self.retain
        if retain is None:
            return self.system.plan(view)
        expired = retain.unpin(view)
        if not isinstance(expired, Iterable):
            raise wrong_answer(retain, "unpin", expired, "the programs to unpin")
        for program in list(expired):
            self._unpin_as(program, "unpin")
        batch = self.system.plan(view)
        while (
            isinstance(batch, Batch)
            and self.pinned
            and (batch.preempt or (self._waiting and not batch.admit))
        ):
            pressed = retain.pressed(view, batch)
            if pressed is None:
                break
            self._unpin_as(pressed, "pressed")
            batch = self.system.plan(view)
        return batch

    def _unpin_as(self, program_id: str, method: str) -> None:
        """Unpin a program that a method of the retention names."""
        if program_id not in self.pinned:
            raise wrong_answer(self.retain, method, program_id, "programs that are pinned")
        self._unpin(program_id)

    def _view(self, lane: str) -> View:
        return View(
            self._waiting, self._prefilling, self._decoding, self.pool, self._now, self.number,
            lane, self.pinned,
        )  # fmt: skip

    def _share_of(self, lane: str) -> float:
        """Return what a lane gets of the GPU, beside the lanes that compute meanwhile."""
        assert self.partition is not None
        shares = self.partition.shares(self._view(lane))
        if not isinstance(shares, Mapping) or not all(name in shares for name in self.lanes):
            wanted = f"the share of each lane: {', '.join(self.lanes)}"
            raise wrong_answer(self.partition, "shares", shares, wanted)
        whole = shares[lane] + sum(shares[other] for other in self._steps)
        beyond = max(0.0, whole - 1.0) * (1.0 - self.partition.overlap)
        return shares[lane] / (1.0 + beyond)

    def _give_back(self, request: Request) -> None:
        pool = self.pool
        pool.release(request._blocks - request._shared)
        if pool.prefixes is not None and request._node is not None:
            pool.prefixes.let_go(request._node)
            request._node = None
        request._blocks = request._shared = 0

    def _bad(self, what: str) -> BadPlan:
        return BadPlan(
            f"{type(self.system).__name__} plans {what}.",
            "A plan is a Batch; it admits who waits, and preempts or computes who runs, once.",
        )
