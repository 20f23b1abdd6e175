"""Lanes of one engine: steps side by side over one KV cache, whatever a policy does with them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.engine.blame import BadPlan
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Deadlock, Engine
from servescope.engine.kvcache import BlockPool, blocks_for
from servescope.engine.policy import WHOLE, Batch, Parts, View
from servescope.engine.prefixes import Prefixes, Segment
from servescope.engine.request import Request, Status
from servescope.engine.step_time import Load
from servescope.engine.systems import make_system
from servescope.engine.virtual import run

P, D = "prefill", "decode"


class Split:
    """Lanes with shares that may be changed, planned by a function of the view."""

    overlap = 0.0

    def __init__(
        self, plan: Callable[[View], Batch], lanes: Sequence[str] = (P, D), **shares: float
    ) -> None:
        self.lanes = lanes
        self.of = {lane: shares.get(lane, 0.5) for lane in lanes}
        self._plan = plan

    def plan(self, view: View) -> Batch:
        return self._plan(view)

    def shares(self, view: View) -> Mapping[str, float]:
        return self.of


def whole_prompts(view: View) -> Batch:
    """Plan every prompt that waits in one lane, and decodes in the other."""
    if view.lane == D:
        return Batch(decode=True)
    admit = [(request, request.demand) for request in view.waiting]
    return Batch(admit=admit, prefill=[(request, request.remaining) for request, _ in admit])


def one_second(load: Load, share: float = 1.0) -> float:
    return 1.0 / share


def engine_of(split: Split, blocks: int = 100, **more: Any) -> Engine:
    return Engine(split, one_second, BlockPool(blocks), 10_000, partition=split, **more)


def begin(engine: Engine, now: float, lane: str) -> Any:
    step = engine.begin(now, lane=lane)
    engine.check()
    return step


def finish(engine: Engine, step: Any) -> Any:
    tokens = engine.finish(step)
    engine.check()
    return tokens


def test_a_lane_has_its_own_step() -> None:
    engine = engine_of(Split(whole_prompts))
    a, b = Request("a", 40, 3, 0.0), Request("b", 40, 3, 2.0)
    engine.submit(a, 0.0)
    first = begin(engine, 0.0, P)
    assert begin(engine, 0.0, D) is None  # nothing decodes yet
    assert (first.lane, first.ends) == (P, [2.0])
    assert finish(engine, first).prompted == [a]
    engine.submit(b, 2.0)
    prompt, decode = begin(engine, 2.0, P), begin(engine, 2.0, D)
    assert [step.ends_s for step in engine.steps] == [4.0, 4.0]
    assert engine.computing(P)
    assert engine.computing(D)
    with pytest.raises(RuntimeError, match="not finished"):
        engine.begin(3.0, lane=P)
    assert engine.decoding(prompt) == []
    assert engine.decoding(decode) == [a]
    finish(engine, prompt)
    # b's prompt is done before a's token: the decode step that was on its way is not b's
    assert engine.decoding(decode) == [a]
    assert engine.computes(a)
    assert not engine.computes(b)
    finish(engine, decode)
    assert (a.generated, b.generated) == (2, 1)


def test_a_step_ends_on_the_share_that_it_began_with() -> None:
    """The share changes at 1 s: the step on its way ends at 2 s, the next takes 1 / 0.25 s."""
    split = Split(whole_prompts)
    engine = engine_of(split)
    engine.submit(Request("a", 40, 5, 0.0), 0.0)
    finish(engine, begin(engine, 0.0, P))
    decode = begin(engine, 2.0, D)
    split.of = {P: 0.75, D: 0.25}
    engine.submit(Request("b", 40, 1, 3.0), 3.0)
    prompt = begin(engine, 3.0, P)
    assert decode.ends == [4.0]
    assert prompt.ends == [pytest.approx(3 + 1 / 0.75)]
    finish(engine, decode)
    assert begin(engine, 4.0, D).ends == [8.0]


def test_a_lane_takes_one_step_at_a_time_whatever_its_plan_promises() -> None:
    """Another lane may begin at any moment, and then the next decode takes longer."""

    def plan(view: View) -> Batch:
        batch = whole_prompts(view)
        return batch._replace(steps=1 << 30) if batch.decode else batch

    engine = engine_of(Split(plan, prefill=1.0, decode=1.0))
    engine.submit(Request("a", 40, 9, 0.0), 0.0)
    finish(engine, begin(engine, 0.0, P))
    assert begin(engine, 1.0, D).ends == [2.0]


@pytest.mark.parametrize(
    ("x", "y", "prompt_s", "decode_s"),
    [
        (0.5, 0.5, 2.0, 2.0),  # the whole, no more: each what it asks for
        (0.25, 0.5, 4.0, 2.0),  # less than the whole
        (1.0, 1.0, 2.0, 2.0),  # half each
        (1.0, 0.5, 1.5, 3.0),  # two thirds and one
    ],
)
def test_shares_of_more_than_the_whole_are_cut_in_proportion(
    x: float, y: float, prompt_s: float, decode_s: float
) -> None:
    """Lanes that begin beside a running one; alone, a lane has what it asks for."""
    engine = engine_of(Split(whole_prompts, prefill=x, decode=y))
    engine.submit(Request("a", 40, 9, 0.0), 0.0)
    alone = begin(engine, 0.0, P)
    assert alone.ends_s == pytest.approx(1 / x)
    finish(engine, alone)
    now = alone.ends_s
    decode = begin(engine, now, D)
    assert decode.ends_s - now == pytest.approx(1 / y)
    engine.submit(Request("b", 40, 1, now), now)
    prompt = begin(engine, now, P)
    assert prompt.ends_s - now == pytest.approx(prompt_s)
    while decode.ends_s < prompt.ends_s:
        finish(engine, decode)
        now = decode.ends_s
        decode = begin(engine, now, D)
        assert decode.ends_s - now == pytest.approx(decode_s)


def test_a_prompt_that_is_preempted_while_it_is_computed_is_computed_again() -> None:
    """The other lane takes its blocks: the step goes on as long, and gives it nothing."""

    def plan(view: View) -> Batch:
        if view.lane == D and view.prefilling:
            return Batch(preempt=view.prefilling, decode=True)
        return whole_prompts(view)

    engine = engine_of(Split(plan))
    a, b = Request("a", 40, 3, 0.0), Request("b", 40, 1, 2.0)
    engine.submit(a, 0.0)
    finish(engine, begin(engine, 0.0, P))
    engine.submit(b, 2.0)
    prompt = begin(engine, 2.0, P)
    decode = begin(engine, 2.0, D)
    assert b.status is Status.WAITING
    assert engine.pool.free == 100 - 3
    tokens = finish(engine, prompt)
    assert tokens.prompted == []
    assert (b.computed, b.generated) == (0, 0)
    again = begin(engine, 4.0, P)
    finish(engine, decode)
    assert finish(engine, again).finished == [b]
    assert b.token_s == [6.0]


def test_a_decode_that_is_preempted_while_it_is_computed_loses_that_token() -> None:
    def plan(view: View) -> Batch:
        if view.lane == P and view.waiting:
            return whole_prompts(view)._replace(preempt=list(view.decoding))
        return whole_prompts(view)

    engine = engine_of(Split(plan))
    a, b = Request("a", 40, 3, 0.0), Request("b", 40, 1, 3.0)
    engine.submit(a, 0.0)
    finish(engine, begin(engine, 0.0, P))
    decode = begin(engine, 2.0, D)
    engine.submit(b, 3.0)
    prompt = begin(engine, 3.0, P)
    assert a.status is Status.WAITING
    assert engine.decoding(decode) == []
    finish(engine, decode)
    assert a.token_s == [2.0]
    assert engine.counters.recomputed_tokens == 40
    finish(engine, prompt)
    again = begin(engine, 5.0, P)  # prompt and first token: 41 tokens
    assert again.load.tokens == 41
    finish(engine, again)
    assert a.token_s == [2.0, 7.0]


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_request_that_is_aborted_while_it_is_computed_gets_nothing(who: str) -> None:
    """The steps of both lanes end when they would have."""
    engine = engine_of(Split(whole_prompts))
    a, b = Request("a", 40, 3, 0.0), Request("b", 40, 3, 2.0)
    engine.submit(a, 0.0)
    finish(engine, begin(engine, 0.0, P))
    engine.submit(b, 2.0)
    prompt, decode = begin(engine, 2.0, P), begin(engine, 2.0, D)
    assert engine.abort(who, 3.0)
    engine.check()
    assert not engine.abort(who, 3.0)
    assert (prompt.ends_s, decode.ends_s) == (4.0, 4.0)
    assert engine.decoding(decode) == ([] if who == "a" else [a])
    tokens = finish(engine, prompt)
    assert tokens.prompted == ([b] if who == "a" else [])
    finish(engine, decode)
    assert (a.generated, b.generated) == ((1, 1) if who == "a" else (2, 0))
    assert engine.counters.aborted == 1


def test_two_lanes_that_decode_at_a_time_are_a_bad_plan() -> None:
    def plan(view: View) -> Batch:
        return Batch(decode=True) if view.decoding else whole_prompts(view)

    engine = engine_of(Split(plan))
    engine.submit(Request("a", 40, 3, 0.0), 0.0)
    finish(engine, begin(engine, 0.0, P))
    begin(engine, 2.0, P)
    with pytest.raises(BadPlan, match="decodes in lane 'decode' while 'prefill' computes them"):
        engine.begin(2.0, lane=D)


def test_a_prompt_in_two_lanes_at_a_time_is_a_bad_plan() -> None:
    def plan(view: View) -> Batch:
        if view.prefilling:
            return Batch(prefill=[(view.prefilling[0], 10)])
        [request] = view.waiting
        return Batch(admit=[(request, 3)], prefill=[(request, 10)])

    engine = engine_of(Split(plan))
    engine.submit(Request("a", 40, 3, 0.0), 0.0)
    begin(engine, 0.0, P)
    with pytest.raises(BadPlan, match="two pieces of 'a' at a time"):
        engine.begin(0.0, lane=D)


def test_a_prompt_twice_in_one_step_is_a_bad_plan() -> None:
    def plan(view: View) -> Batch:
        [request] = view.waiting
        return Batch(admit=[(request, 3)], prefill=[(request, 10), (request, 10)])

    engine = engine_of(Split(plan))
    engine.submit(Request("a", 40, 3, 0.0), 0.0)
    with pytest.raises(BadPlan, match="two pieces of 'a' at a time"):
        engine.begin(0.0, lane=P)


def test_lanes_that_plan_nothing_are_a_deadlock() -> None:
    split = Split(lambda view: Batch())
    source = Coming([Request("a", 40, 3, 0.0)])
    with pytest.raises(Deadlock, match="nothing is on its way"):
        run(Cluster(Parts(split, partition=split), [engine_of(split)]), source)


class Coming:
    """A source of given requests, which are aborted at given times unless they are done."""

    def __init__(self, due: list[Request]) -> None:
        self.due = due
        self.done: list[Request] = []

    def next_due_s(self) -> float | None:
        return self.due[0].arrival_s if self.due else None

    def take(self, now: float) -> Iterable[Request]:
        while self.due and self.due[0].arrival_s <= now:
            yield self.due.pop(0)

    def refused(self, request: Request, error: Exception, now: float) -> None:
        raise AssertionError(error)

    def finished(self, request: Request, now: float) -> None:
        self.done.append(request)


sizes = st.lists(
    st.tuples(st.floats(0, 1), st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=15
)


def requests_of(sizes: list[tuple[float, int, int]]) -> list[Request]:
    now, made = 0.0, []
    for number, (gap_s, prompt, answer) in enumerate(sizes):
        now += gap_s
        text = (Segment(number % 3, min(prompt, 64)), Segment(f"only {number}", prompt))
        made.append(Request(str(number), prompt, answer, now, prefix=text))
    return made


def by_load(load: Load, share: float = 1.0) -> float:
    return (0.02 + load.tokens * 1e-4 + load.kv_tokens * 1e-6) / share


@settings(deadline=None, max_examples=40)
@given(sizes=sizes, blocks=st.integers(30, 60), name=st.sampled_from(["sarathi", "vllm_v0"]))
def test_one_lane_of_everything_is_an_engine_without_lanes(
    sizes: list[tuple[float, int, int]], blocks: int, name: str
) -> None:
    """To the last bit, though decodes run on in one case and step by step in the other."""

    class Undivided:
        lanes = (WHOLE,)
        overlap = 0.0

        def shares(self, view: View) -> Mapping[str, float]:
            return {WHOLE: 1.0}

    def served(partition: Undivided | None) -> list[tuple[str, list[float]]]:
        system: Any = make_system(name)
        engine = Engine(system, by_load, BlockPool(blocks), 10_000, partition=partition)
        source = Coming(requests_of(sizes))
        cluster = Cluster(Parts(system, partition=partition), [engine])
        run(cluster, source, cluster.check)
        return [(request.id, request.token_s) for request in source.done]

    assert served(None) == served(Undivided())


@dataclass
class Anything:
    """Plans anything that is allowed, at random, over any number of lanes."""

    lanes: Sequence[str]
    chance: random.Random
    retracts: float  # how often a request is preempted, be it computed elsewhere or not
    overlap: float = 0.0
    engine: Engine | None = None  # whose steps on their way it must not repeat

    def shares(self, view: View) -> Mapping[str, float]:
        return {lane: self.chance.choice((0.3, 0.6, 1.0)) for lane in self.lanes}

    def busy(self) -> tuple[set[str], bool]:
        """Return whose prompts are computed, and whether decodes are."""
        assert self.engine is not None
        steps = list(self.engine.steps)
        ids = {request.id for step in steps for request, _ in step.prefill}
        return ids, any(step.load.kv_tokens for step in steps)

    def plan(self, view: View) -> Batch:
        chance = self.chance
        computed, decodes = self.busy()
        running = [*view.prefilling, *view.decoding]
        preempt = [each for each in running if chance.random() < self.retracts]
        room = view.pool.room + sum(each.own_blocks for each in preempt)
        growth = 0
        decode = bool(view.decoding) and not decodes and chance.random() < 0.7
        for request in reversed(view.decoding):
            if request in preempt or not decode:
                continue
            if view.decoding.grows(request):
                growth += 1
            if growth > room:  # whoever is last makes room, as late as needed
                preempt.append(request)
                growth -= view.decoding.grows(request)
                room += request.own_blocks
        room -= growth
        prefill: list[tuple[Request, int]] = []
        for request in view.prefilling:
            if request in preempt or request.id in computed or chance.random() < 0.3:
                continue
            piece = chance.randint(1, request.remaining)
            missing = max(0, blocks_for(request.computed + piece) - request.blocks)
            if missing <= room:
                room -= missing
                prefill.append((request, piece))
        admit: list[tuple[Request, int]] = []
        for request in list(view.waiting):
            if chance.random() < 0.3 or request in preempt:
                continue
            cost = view.pool.cost(request, request.demand)
            if cost > room:
                break
            room -= cost
            admit.append((request, request.demand))
            cached = 0 if request.swapped else view.pool.cached(request)
            if not request.swapped and chance.random() < 0.8:
                prefill.append((request, chance.randint(1, request.remaining - cached)))
        return Batch(preempt, chance.random() < 0.4, admit, prefill, decode)


@settings(deadline=None, max_examples=150)
@given(
    sizes=sizes,
    blocks=st.integers(30, 60),
    lanes=st.integers(1, 3),
    seed=st.integers(0, 1 << 16),
    retracts=st.sampled_from([0.0, 0.02, 0.1]),
    aborts=st.lists(st.tuples(st.integers(0, 14), st.floats(0, 8)), max_size=6),
    cached=st.booleans(),
)
def test_nothing_is_lost_whatever_lanes_do(
    sizes: list[tuple[float, int, int]],
    blocks: int,
    lanes: int,
    seed: int,
    retracts: float,
    aborts: list[tuple[int, float]],
    cached: bool,
) -> None:
    """Steps overlap, prompts and decodes are retracted and aborted while they are computed.

    Everybody else gets every token once, at the ends of steps that began after the token before,
    and no block and no token that was computed is forgotten.
    """
    policy = Anything([f"lane {n}" for n in range(lanes)], random.Random(seed), retracts)
    pool = BlockPool(blocks, Prefixes() if cached else None)
    engine = policy.engine = Engine(policy, by_load, pool, 10_000, partition=policy)
    cluster = Cluster(Parts(policy, partition=policy), [engine])
    came = requests_of(sizes)
    answers = {request.id: answer for request, (_, _, answer) in zip(came, sizes, strict=True)}
    due, calls = list(came), sorted((at, str(number)) for number, at in aborts)
    done: list[Request] = []
    got: dict[str, int] = dict.fromkeys(answers, 0)

    def heard(requests: list[Request]) -> None:
        for request in requests:
            got[request.id] += 1

    cluster.on_step = heard
    now, idle = 0.0, 0
    while due or not cluster.idle or engine.busy:
        cluster.begin(now)
        cluster.check()
        if not engine.busy and not engine.idle:
            policy.retracts = 0.0  # a random plan of nothing: ask again
            idle += 1
            assert idle < 10_000
            continue
        comes = due[0].arrival_s if due else float("inf")
        goes = calls[0][0] if calls else float("inf")
        now = max(now, min(cluster.next_s(), comes, goes))
        if goes <= now:
            cluster.abort(calls.pop(0)[1], now)
        elif cluster.next_s() <= now:
            done += cluster.end(now)
        elif due and comes <= now:
            cluster.submit(due.pop(0), now)
        cluster.check()
    finished = {request.id for request in done}
    assert len(finished) == len(done)
    gone = {request.id for request in came if request.status is Status.ABORTED}
    assert finished | gone == answers.keys()
    assert not finished & gone
    for request in came:
        token_s = request.token_s
        assert len(token_s) == got[request.id] == request.generated
        assert all(after - before >= 0.02 - 1e-9 for before, after in pairwise(token_s))
    for request in done:
        assert len(request.token_s) == answers[request.id]
    assert engine.pool.used == 0
    counters = engine.counters
    assert (counters.finished, counters.aborted) == (len(done), len(gone))
    assert counters.generation_tokens == sum(got.values())
    assert counters.preemptions == sum(request.preemptions for request in came)
