"""semi-PD (Hong et al., 2025): prompts and decodes on one GPU, each with its share of the SMs."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from msgspec import Meta

from servescope.engine.policy import Batch, Parts, View
from servescope.engine.request import Request
from servescope.engine.step_time import MEMORY_BOUND
from servescope.engine.systems.admission import Admission
from servescope.engine.systems.batching import decodes_alone

PREFILL, DECODE = "prefill", "decode"
Share = Annotated[float, Meta(gt=0, le=1)]


@dataclass(frozen=True, slots=True)
class SemiPd:
    """A lane for prompts and a lane for decodes over one KV cache.

    `prefill_share` and `decode_share` are the paper's x and y; with `dynamic` they are where
    Algorithm 1 begins, which moves them so that the percentile of TTFT meets `ttft_s` and that of
    TPOT `tpot_s`. Its window (in decode steps), step and number of steps are not in the paper and
    ASSUMED here. So is `overlap`: what of the GPU two lanes whose shares are more than the whole
    win by using different parts of it, from 0 (they take turns) to 1 (neither slows the other).
    """

    prefill_share: Share = 0.8
    decode_share: Share = 1.0
    dynamic: bool = True
    ttft_s: Annotated[float, Meta(gt=0)] = 0.4
    tpot_s: Annotated[float, Meta(gt=0)] = 0.2
    percentile: Annotated[float, Meta(gt=0, le=100)] = 90.0
    window: Annotated[int, Meta(ge=1)] = 200
    max_step: Annotated[int, Meta(ge=1)] = 10
    step_share: Share = 0.05
    overlap: Annotated[float, Meta(ge=0, le=1)] = 0.5
    max_prefill_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 512

    def parts(self, replicas: int) -> Parts:
        """Return the two lanes, and what tunes their shares."""
        tuner = _Tuner(self, [_Shares(self) for _ in range(replicas)])
        return Parts(_Lanes(self, tuner), annotate=tuner, partition=tuner)


class _Lanes:
    def __init__(self, system: SemiPd, tuner: _Tuner) -> None:
        self._system = system
        self._tuner = tuner

    def plan(self, view: View) -> Batch:
        if view.lane == DECODE:
            self._tuner.decodes(view)
            # A prompt in the other lane is being computed: decodes alone make room.
            return decodes_alone(view._replace(prefilling=()))
        seats = self._system.max_num_seqs - len(view.decoding)
        room = view.pool.room - view.decoding.growth
        step = Admission(view, seats, self._system.max_prefill_tokens, room)
        for request in view.waiting:
            if not step.offer(request, whole=True):
                break
        return Batch(admit=step.admit, prefill=step.prefill)


class _Tuner:
    """Hears of what happens on all replicas, and holds the shares of each."""

    lanes: Sequence[str] = (PREFILL, DECODE)

    def __init__(self, system: SemiPd, shares: Sequence[_Shares]) -> None:
        self._system = system
        self._shares = list(shares)
        self.overlap = system.overlap

    def shares(self, view: View) -> Mapping[str, float]:
        return self._of(view.replica).now

    def arrived(self, request: Request, now: float) -> None:
        """Count nothing yet: which replica serves it is not known."""

    def prompted(self, request: Request, now: float) -> None:
        self._of(request.replica).prompted(request, now)

    def finished(self, request: Request, now: float) -> None:
        self._of(request.replica).finished(request)

    def decodes(self, view: View) -> None:
        self._of(view.replica).decodes(view)

    def _of(self, replica: int) -> _Shares:
        while len(self._shares) <= replica:
            self._shares.append(_Shares(self._system))
        return self._shares[replica]


@dataclass
class _Shares:
    """The shares of one replica, and what its last window saw."""

    system: SemiPd
    now: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self.now = {PREFILL: self.system.prefill_share, DECODE: self.system.decode_share}
        self._ttft_s: list[float] = []
        self._tpot_s: list[float] = []
        self._steps = 0
        self._began_s = 0.0
        self._queue = 0  # when the window began
        self._busy_s = 0.0  # of the prefill lane
        self._prompted_s = 0.0
        self.ttft = Hyperbola()
        self.tpot = Hyperbola()

    def prompted(self, request: Request, now: float) -> None:
        """Take in a first token, and how long the prefill lane worked for it."""
        if not self.system.dynamic or request.generated > 1:
            return  # computed again after it had been retracted
        self._ttft_s.append(now - request.arrival_s)
        begun_s = max(self._prompted_s, request.first_scheduled_s or 0.0)
        self._busy_s += now - begun_s
        self._prompted_s = now

    def finished(self, request: Request) -> None:
        """Take in the time between tokens of a request that is done."""
        if self.system.dynamic:
            self._take_pace(request)

    def decodes(self, view: View) -> None:
        """Count a decode step that is about to begin, and end the window when it is full."""
        if not self.system.dynamic or not view.decoding:
            return
        if self._steps >= self.system.window and self._ttft_s:
            for request in view.decoding:
                self._take_pace(request)
            queue = len(view.waiting) + len(view.prefilling)
            came = len(self._ttft_s) + queue - self._queue
            self._tune(max(0, came) / (view.now - self._began_s))
            self._ttft_s, self._tpot_s, self._busy_s = [], [], 0.0
            self._steps, self._began_s, self._queue = 0, view.now, queue
        self._steps += 1

    def _take_pace(self, request: Request) -> None:
        """Note the mean time between those tokens of a request that came in this window."""
        token_s = request.token_s
        before = max(0, bisect_right(token_s, self._began_s) - 1)
        gaps = len(token_s) - 1 - before
        if gaps > 0:
            self._tpot_s.append((token_s[-1] - token_s[before]) / gaps)

    def _tune(self, rate_rps: float) -> None:
        """Algorithm 1, as its text has it: move one share when one of the two SLOs fails."""
        system, x, y = self.system, self.now[PREFILL], self.now[DECODE]
        ttft_s = float(np.percentile(self._ttft_s, system.percentile))
        tpot_s = float(np.percentile(self._tpot_s, system.percentile)) if self._tpot_s else 0.0
        alone_s = self._busy_s / len(self._ttft_s) * effective(x, y)  # l_100, of one prompt
        load = rate_rps * alone_s
        # M/M/1: the wait is l_100 / (x - load); an overloaded lane knows no such wait.
        free = effective(x, y) - load
        if free > 0:
            self.ttft.saw(1 / free, ttft_s)
        self.tpot.saw(1 / effective(y, x), tpot_s, MEMORY_BOUND)
        late, slow = ttft_s > system.ttft_s, tpot_s > system.tpot_s
        if late == slow:
            return
        for _ in range(system.max_step):
            if late:
                free = effective(x, y) - load
                if free > 0 and self.ttft.at(1 / free) <= system.ttft_s:
                    break
                x, y = more(x, y, system.step_share)
            else:
                if self.tpot.at(1 / effective(y, x)) <= system.tpot_s:
                    break
                y, x = more(y, x, system.step_share)
        self.now = {PREFILL: x, DECODE: y}


class Hyperbola:
    """`a z + b`, where z is one over a share: fitted to the last windows that were seen."""

    def __init__(self, windows: int = 8) -> None:
        self.a = 0.0
        self.b = 0.0
        self._seen: deque[tuple[float, float]] = deque(maxlen=windows)

    def saw(self, z: float, value: float, proportion: float = 1.0) -> None:
        """Take in a window; `proportion` of its value at z = 1 falls to `a` until three are told.

        Windows at one z alone cannot tell a from b.
        """
        self._seen.append((z, value))
        zs, values = np.array(self._seen).T
        if len(np.unique(zs.round(6))) >= 3:
            a, b = np.polyfit(zs, values, 1)
            if a > 0:
                self.a, self.b = float(a), float(max(0.0, b))
                return
        scale = value / (proportion * z + 1 - proportion)
        self.a, self.b = proportion * scale, (1 - proportion) * scale

    def at(self, z: float) -> float:
        """Return what is expected."""
        return self.a * z + self.b


def effective(share: float, other: float) -> float:
    """Return what a lane gets while both compute."""
    return share / max(1.0, share + other)


def more(share: float, other: float, step: float) -> tuple[float, float]:
    """Return a share raised by a step and the other one, which is lowered once the first is whole.

    The other never falls below one step.
    """
    if share + step <= 1.0 + 1e-9:
        return min(1.0, share + step), other
    return 1.0, max(step, other - step)
