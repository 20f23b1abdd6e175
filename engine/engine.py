"""Iteration-level continuous batching: a queue, a block pool, a policy and a step time.

The engine has no clock: it is told what time it is, and says when its step ends.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from servescope.engine.catalog import find_gpu, find_model
from servescope.engine.kvcache import BLOCK_TOKENS, BlockPool, blocks_for, kv_blocks
from servescope.engine.policy import Batch, System, View
from servescope.engine.request import Request, Status
from servescope.engine.step_time import Load, StepTime
from servescope.traces.errors import InputError, ServescopeError


class Refused(InputError):
    """The engine can never serve this request."""


class Deadlock(ServescopeError):
    """There is work, and the policy plans none of it."""


class Step(NamedTuple):
    """One iteration on its way, from start to end on the engine's clock (s)."""

    batch: Batch
    load: Load
    starts_s: float
    ends_s: float


@dataclass(slots=True)
class Counters:
    """What the engine has done since it was made."""

    steps: int = 0
    prompt_tokens: int = 0  # of requests whose first token is out
    generation_tokens: int = 0
    computed_tokens: int = 0
    recomputed_tokens: int = 0  # computed, lost to a preemption, to be computed again
    preemptions: int = 0
    finished: int = 0
    aborted: int = 0


class Engine:
    """One emulated replica."""

    def __init__(
        self,
        system: System,
        step_time: Callable[[Load], float],
        pool: BlockPool,
        context_tokens: int,
    ) -> None:
        self.system = system
        self.step_time = step_time
        self.pool = pool
        self.context_tokens = context_tokens
        self.counters = Counters()
        self._waiting: deque[Request] = deque()
        self._prefilling: list[Request] = []
        self._decoding: list[Request] = []
        self._requests: dict[str, Request] = {}
        self._kept_tokens = 0  # computed for requests that have left
        self._step: Step | None = None
        self._now = 0.0
        self.view = View(self._waiting, self._prefilling, self._decoding, pool)

    @property
    def waiting(self) -> int:
        """How many requests are in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many requests hold KV blocks."""
        return len(self._prefilling) + len(self._decoding)

    def require_fit(self, request: Request) -> None:
        """Raise Refused when the request can never be served, however idle the engine is."""
        if request.input_tokens < 1 or request.output_tokens < 1:
            raise Refused(
                f"The request has {request.input_tokens} prompt tokens and asks for "
                f"{request.output_tokens}.",
                "Both must be at least 1.",
            )
        tokens = request.input_tokens + request.output_tokens
        if tokens > self.context_tokens:
            raise Refused(
                f"This model's maximum context length is {self.context_tokens} tokens; the "
                f"request asks for {tokens} ({request.input_tokens} in the prompt, "
                f"{request.output_tokens} to generate).",
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
        self._advance(now)
        self._requests[request.id] = request
        self._waiting.append(request)

    def begin(self, now: float) -> Step | None:
        """Start the next step at `now`; None when there is nothing to do."""
        waiting, prefilling, decoding = self._waiting, self._prefilling, self._decoding
        if not (waiting or prefilling or decoding):
            return None
        if self._step is not None:
            raise RuntimeError("the step before is not finished")
        self._advance(now)
        batch = self.system.plan(self.view)
        if not (batch.prefill or batch.decode):
            raise Deadlock(
                f"{type(self.system).__name__} plans nothing, with {len(waiting)} requests "
                f"waiting, {self.running} running and {self.pool.free} KV blocks free.",
                "Its limits cannot admit what is submitted: raise them.",
            )
        for request in batch.preempt:
            self._preempt(request)
        for request, blocks in batch.admit:
            self._admit(request, blocks, now)

        pool = self.pool
        tokens = sequences = len(batch.decode)
        kv_tokens = 0
        pairs = 0.0
        for request, piece in batch.prefill:
            computed = request.computed
            missing = blocks_for(computed + piece) - request.blocks
            if missing > 0:
                pool.take(missing)
                request.blocks += missing
            tokens += piece
            sequences += 1
            pairs += piece * (computed + (piece + 1) / 2)  # causal: each sees itself and before
        for request in batch.decode:
            computed = request.computed
            if computed == request.blocks * BLOCK_TOKENS:
                pool.take(1)
                request.blocks += 1
            kv_tokens += computed
        load = Load(tokens, sequences, kv_tokens, pairs)
        self._step = Step(batch, load, now, now + self.step_time(load))
        return self._step

    def finish(self, step: Step) -> list[Request]:
        """End the step and return the requests that got a token, in the order of the batch."""
        if step is not self._step:
            raise RuntimeError("this step is not on its way")
        self._step = None
        self._now = now = step.ends_s
        counters = self.counters
        running = Status.RUNNING
        emitted: list[Request] = []
        done = False

        for request, piece in step.batch.prefill:
            if request.status is not running:  # aborted while the step ran
                continue
            request.computed += piece
            request.remaining -= piece
            counters.computed_tokens += piece
            if request.remaining == 0:
                self._prefilling.remove(request)
                self._decoding.append(request)
                if request.generated == 0:
                    counters.prompt_tokens += request.input_tokens
                request.remaining = 1
                emitted.append(request)
        prefilled = len(emitted)
        for request in step.batch.decode:
            if request.status is running:
                request.computed += 1
                emitted.append(request)
        for request in emitted:
            request.generated += 1
            request.token_s.append(now)
            if request.generated == request.output_tokens:
                self._leave(request, Status.FINISHED)
                done = True

        if done:
            self._decoding[:] = [each for each in self._decoding if each.status is running]
        counters.steps += 1
        counters.computed_tokens += len(emitted) - prefilled
        counters.generation_tokens += len(emitted)
        return emitted

    def abort(self, request_id: str) -> bool:
        """Drop a request and free its blocks; False when it is not here (any more).

        A step that computes it goes on as long as planned, without a token for it.
        """
        request = self._requests.get(request_id)
        if request is None:
            return False
        for place in (self._waiting, self._prefilling, self._decoding):
            if request in place:
                place.remove(request)
        self._leave(request, Status.ABORTED)
        return True

    def check(self) -> None:
        """Assert what must hold between any two calls."""
        running = [*self._prefilling, *self._decoding]
        everyone = [*self._waiting, *running]
        assert len({each.id for each in everyone}) == len(everyone) == len(self._requests)
        assert 0 <= self.pool.free <= self.pool.total
        assert sum(each.blocks for each in everyone) == self.pool.used
        assert all(each.status is Status.WAITING and each.blocks == 0 for each in self._waiting)
        assert all(each.status is Status.RUNNING for each in running)
        for each in everyone:
            assert each.computed + each.remaining == each.input_tokens + each.generated
            assert each.computed <= each.blocks * BLOCK_TOKENS
            assert each.generated == len(each.token_s) < each.output_tokens
        # Every token computed belongs to somebody: here, gone, or lost to a preemption.
        held = sum(each.computed for each in everyone)
        counters = self.counters
        kept = held + self._kept_tokens + counters.recomputed_tokens
        assert counters.computed_tokens == kept

    def _advance(self, now: float) -> None:
        if now < self._now:
            raise RuntimeError(f"the clock went back from {self._now} s to {now} s")
        self._now = now

    def _admit(self, request: Request, blocks: int, now: float) -> None:
        if self._waiting[0] is request:
            self._waiting.popleft()
        else:
            self._waiting.remove(request)
        self.pool.take(blocks)
        request.blocks = blocks
        request.status = Status.RUNNING
        if request.first_scheduled_s is None:
            request.first_scheduled_s = now
        self._prefilling.append(request)

    def _preempt(self, request: Request) -> None:
        place = self._decoding if request in self._decoding else self._prefilling
        place.remove(request)
        self.pool.release(request.blocks)
        self.counters.preemptions += 1
        self.counters.recomputed_tokens += request.computed
        request.blocks = 0
        request.remaining += request.computed
        request.computed = 0
        request.preemptions += 1
        request.status = Status.WAITING
        self._waiting.appendleft(request)

    def _leave(self, request: Request, status: Status) -> None:
        request.status = status
        self.pool.release(request.blocks)
        request.blocks = 0
        self._kept_tokens += request.computed
        del self._requests[request.id]
        if status is Status.FINISHED:
            self.counters.finished += 1
        else:
            self.counters.aborted += 1


def emulate(
    system: System, model: str, gpu: str, tp: int = 1, context_tokens: int | None = None
) -> Engine:
    """Return an engine for a model on `tp` GPUs, both by name.

    `context_tokens` lowers or raises the model's own context length.
    """
    shape, card = find_model(model), find_gpu(gpu)
    return Engine(
        system,
        StepTime(shape, card, tp),
        BlockPool(kv_blocks(shape, card, tp)),
        context_tokens or shape.context_tokens,
    )
