"""Replicas together: who serves whom, and what it costs to move."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.engine.assembly import deploy
from servescope.engine.blame import BadPlan
from servescope.engine.cluster import Cluster, Replica
from servescope.engine.engine import Deadlock, Engine, Refused
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, Keep, Migrate, Parts, Scale, View
from servescope.engine.prefixes import Prefixes, Segment
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems import make_system
from servescope.engine.systems.admission import Admission
from servescope.engine.systems.sarathi import Sarathi
from servescope.engine.virtual import run


def one_second(load: Load, share: float = 1.0) -> float:
    return 1.0 / share


@dataclass
class Given:
    """A source of given requests; `after` makes more of those that are done."""

    due: list[Request]
    after: Callable[[Request, float], Iterable[Request]] = lambda request, now: ()
    done: list[Request] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def next_due_s(self) -> float | None:
        return min((request.arrival_s for request in self.due), default=None)

    def take(self, now: float) -> Iterable[Request]:
        come = [request for request in self.due if request.arrival_s <= now]
        self.due = [request for request in self.due if request.arrival_s > now]
        return come

    def refused(self, request: Request, error: Refused, now: float) -> None:
        self.refusals.append(request.id)

    def finished(self, request: Request, now: float) -> None:
        self.done.append(request)
        self.due += self.after(request, now)


def engines(count: int, blocks: int = 100, **parts: Any) -> list[Engine]:
    prefix_cache = parts.pop("prefix_cache", False)
    return [
        Engine(
            Sarathi(),
            one_second,
            BlockPool(blocks, Prefixes() if prefix_cache else None),
            10_000,
            number=number,
            **parts,
        )
        for number in range(count)
    ]


def serve(cluster: Cluster, source: Given) -> list[Request]:
    run(cluster, source, cluster.check)
    assert all(
        engine.pool.used == sum(pin.tokens for pin in engine.pinned.values()) // 16
        for engine in cluster.engines
    )
    return source.done


def test_round_robin_is_the_plain_way() -> None:
    cluster = Cluster(Parts(Sarathi()), engines(3))
    requests = [Request(str(i), 10, 2, 0.0) for i in range(7)]
    serve(cluster, Given(requests))
    assert [request.replica for request in requests] == [0, 1, 2, 0, 1, 2, 0]
    assert [replica.engine.counters.finished for replica in cluster.replicas] == [3, 2, 2]


def test_a_dispatcher_sees_replicas_as_they_are_now() -> None:
    """Three long answers come while steps run ahead: each goes where the fewest are."""
    seen = []

    class LeastLoad:
        def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
            seen.append(
                [sum(each.generated for each in replica.view.decoding) for replica in replicas]
            )
            return min(range(len(replicas)), key=lambda place: replicas[place].load)

    cluster = Cluster(Parts(Sarathi(), dispatch=LeastLoad()), engines(2))
    requests = [Request("a", 10, 50, 0.0), Request("b", 10, 50, 10.5), Request("c", 10, 5, 20.5)]
    serve(cluster, Given(requests))
    assert [request.replica for request in requests] == [0, 1, 0]
    assert seen == [[0, 0], [10, 0], [20, 9]]


def test_a_dispatcher_that_picks_no_replica_is_named() -> None:
    class Wild:
        def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
            return 2

    with pytest.raises(BadPlan, match="Wild picks replica 2 of 2"):
        serve(
            Cluster(Parts(Sarathi(), dispatch=Wild()), engines(2)),
            Given([Request("a", 10, 2, 0.0)]),
        )


def test_a_prompt_computed_here_goes_on_there_after_a_copy() -> None:
    """The first token comes from the prefill replica, the second a copy and a step later."""
    parts = Parts(Sarathi(), dispatch=_First(), handover=lambda request, replicas, now: 1)
    cluster = Cluster(parts, engines(2), copy_s=lambda tokens: tokens / 10)
    a, b = Request("a", 50, 3, 0.0), Request("b", 20, 3, 0.0)
    serve(cluster, Given([a, b]))
    assert a.token_s == [1.0, 7.0, 8.0]  # 50 tokens take 5 s
    assert b.token_s == [1.0, 4.0, 5.0]  # 20 take 2 s
    assert a.replica == b.replica == 1
    assert cluster.engines[0].pool.used == cluster.engines[1].pool.used == 0


def test_a_copy_waits_for_room_where_it_goes() -> None:
    """And its blocks stay where they are until then, which holds back the next prompt."""
    parts = Parts(Sarathi(), dispatch=_First(), handover=lambda request, replicas, now: 1)
    cluster = Cluster(parts, [*engines(1, blocks=10), *engines(2, blocks=10)[1:]])
    requests = [Request(str(i), 100, 20, 0.0) for i in range(4)]
    serve(cluster, Given(requests))
    assert [request.token_s[0] for request in requests] == [1.0, 2.0, 21.0, 40.0]


class _First:
    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        return 0


@dataclass
class MoveAll:
    """Moves everything from replica 0 to replica 1 at one moment."""

    at_s: float
    period_s: float = 0.5

    def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Migrate]:
        if now == self.at_s:
            for request in replicas[0].view.decoding:
                yield Migrate(request, 0, 1)


def test_a_migrated_request_stops_for_the_downtime_alone() -> None:
    """It goes on at home while its keys and values are copied, whatever their length."""
    for prompt in (160, 1280):
        parts = Parts(Sarathi(chunk_tokens=2048), dispatch=_First(), control=MoveAll(2.5))
        cluster = Cluster(parts, engines(2), copy_s=lambda tokens: tokens / 1000, downtime_s=0.25)
        for engine in cluster.engines:
            engine.system = Sarathi(chunk_tokens=2048)
        request = Request("a", prompt, 8, 0.0)
        serve(cluster, Given([request]))
        assert request.replica == 1
        gaps = [b - a for a, b in zip(request.token_s, request.token_s[1:], strict=False)]
        assert sorted(gaps) == [1.0] * 6 + [1.25]
        assert cluster.migrations == 1


def test_a_migration_without_room_does_not_begin() -> None:
    parts = Parts(Sarathi(), dispatch=_First(), control=MoveAll(2.5))
    cluster = Cluster(parts, [*engines(1), *engines(2, blocks=5)[1:]])
    request = Request("a", 200, 8, 0.0)
    serve(cluster, Given([request]))
    assert request.replica == 0
    assert cluster.migrations == 0


def test_a_request_that_ends_while_it_is_copied_stays_where_it_was() -> None:
    parts = Parts(Sarathi(), dispatch=_First(), control=MoveAll(2.5))
    cluster = Cluster(parts, engines(2), copy_s=lambda tokens: 100.0)
    request = Request("a", 200, 8, 0.0)
    serve(cluster, Given([request]))
    assert request.token_s[-1] == 8.0
    assert cluster.engines[1].pool.used == 0


def test_replicas_come_and_go() -> None:
    class Scaler:
        period_s = 1.0

        def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Scale]:
            if now == 2.0:
                yield Scale(add=1)
            if now == 20.0:
                yield Scale(drain=0)

    parts = Parts(Sarathi(), control=Scaler())
    cluster = Cluster(
        parts, engines(1), start_up_s=5.0, another=lambda number: engines(number + 1)[-1]
    )
    requests = [Request(str(i), 10, 5, 3.0 * i) for i in range(10)]
    serve(cluster, Given(requests))
    assert {request.replica for request in requests if request.arrival_s < 7} == {0}
    assert {request.replica for request in requests if 7 < request.arrival_s < 20} == {0, 1}
    assert {request.replica for request in requests if request.arrival_s > 20} == {1}
    gone, last = cluster.all
    assert gone.ends_s is not None
    assert 20 <= gone.ends_s < 26
    assert (last.begins_s, last.ends_s) == (2.0, None)


def test_a_replica_that_is_emptied_by_migration_goes_with_its_last_request() -> None:
    """The request leaves at the end of the step, and its blocks a downtime later."""

    class Drain:
        period_s = 0.5

        def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Migrate | Scale]:
            if now == 2.5:
                yield Scale(drain=0)
                yield Migrate(next(iter(replicas[0].view.decoding)), 0, 1)

    parts = Parts(Sarathi(), dispatch=_First(), control=Drain())
    cluster = Cluster(parts, engines(2), downtime_s=0.25)
    request = Request("a", 100, 8, 0.0)
    serve(cluster, Given([request]))
    gone, left = cluster.all
    assert (gone.ends_s, left.ends_s) == (3.25, None)
    assert [replica.number for replica in cluster.replicas] == [1]
    assert request.replica == 1


class Lanes:
    """Prompts in one lane, decodes in the other."""

    lanes = ("prefill", "decode")
    overlap = 0.0

    def __init__(self, prefill: float, decode: float) -> None:
        self.of = {"prefill": prefill, "decode": decode}

    def shares(self, view: View) -> Mapping[str, float]:
        return self.of

    def plan(self, view: View) -> Batch:
        if view.lane == "decode":
            return Batch(decode=True)
        step = Admission(view, 8, 512, view.pool.room)
        for request in view.prefilling:
            step.go_on(request)
        for request in view.waiting:
            if not step.offer(request):
                break
        return Batch(admit=step.admit, prefill=step.prefill)


def test_lanes_compute_side_by_side() -> None:
    """With half of the GPU each, a step takes 2 s, and a prompt delays no decode."""
    lanes = Lanes(0.5, 0.5)
    engine = Engine(lanes, one_second, BlockPool(100), 10_000, partition=lanes)
    a, b = Request("a", 100, 5, 0.0), Request("b", 100, 3, 3.0)
    serve(Cluster(Parts(lanes, partition=lanes), [engine]), Given([a, b]))
    assert a.token_s == [2.0, 4.0, 6.0, 8.0, 10.0]
    assert b.token_s == [5.0, 8.0, 10.0]


def test_lanes_that_ask_for_more_than_the_gpu_share_it_while_both_compute() -> None:
    lanes = Lanes(1.0, 1.0)
    engine = Engine(lanes, one_second, BlockPool(100), 10_000, partition=lanes)
    a, b = Request("a", 100, 4, 0.0), Request("b", 100, 1, 1.5)
    serve(Cluster(Parts(lanes, partition=lanes), [engine]), Given([a, b]))
    # alone to 2.0; b's prompt begins beside a step that runs: half the GPU, to 3.5
    assert b.token_s == [3.5]
    assert a.token_s == [1.0, 2.0, 4.0, 5.0]


@dataclass
class PinFor:
    """Pins every program's text for so long."""

    ttl_s: float

    def finished(self, request: Request, view: View) -> Keep:
        return Keep() if request.last else Keep("pin", view.now + self.ttl_s)

    def unpin(self, view: View) -> Iterable[str]:
        back = {request.program_id for request in view.waiting}
        return [p.program_id for p in view.pinned.values() if view.now >= p.until_s
                and p.program_id not in back]  # fmt: skip

    def pressed(self, view: View, batch: Batch) -> str | None:
        if view.pool.cost(view.waiting[0], view.waiting[0].demand) <= view.pool.room:
            return None
        return max(view.pinned.values(), key=lambda pin: pin.program_s).program_id


def turns(count: int, pause_s: float) -> Callable[[Request, float], Iterable[Request]]:
    """Return what makes the next turn of a program, `pause_s` after the one before."""

    def after(request: Request, now: float) -> Iterable[Request]:
        if request.last or request.program_id is None:
            return
        turn = request.turn + 1
        said = Segment(request.id, request.generated)
        new = Segment(f"{request.program_id} says {turn}", 20)
        prefix = (*request.prefix, said, new)
        yield Request(
            f"{request.program_id}-{turn}",
            sum(segment.tokens for segment in prefix),
            10,
            now + pause_s,
            request.program_id,
            prefix=prefix,
            program_s=request.program_began_s,
            turn=turn,
            last=turn == count - 1,
        )

    return after


def first_turn(program: str, at: float, tokens: int = 320) -> Request:
    return Request(
        f"{program}-0", tokens, 10, at, program, prefix=(Segment(program, tokens),), last=False
    )


@pytest.mark.parametrize(("ttl_s", "found"), [(8.0, 320), (2.0, 16)])
def test_a_pin_keeps_a_programs_text_until_its_next_turn(ttl_s: float, found: int) -> None:
    """A long prompt wants 40 blocks of 60: 19 are taken from what was used longest ago.

    That is the program's text, of 20 blocks, unless it is pinned; then it is the other text.
    """
    [engine] = engines(1, blocks=60, prefix_cache=True, retain=PinFor(ttl_s))
    other = Request("other", 304, 2, 11.0, prefix=(Segment("other", 304),))
    long = Request("long", 639, 2, 13.5, prefix=(Segment("long", 639),))
    done = serve(Cluster.of(engine), Given([first_turn("a", 0.0), other, long], turns(2, 5.0)))
    again = next(request for request in done if request.id == "a-1")
    assert again.arrival_s == 15.0
    assert again.found_tokens == found


def test_a_pin_gives_way_to_who_needs_its_room() -> None:
    [engine] = engines(1, blocks=50, prefix_cache=True, retain=PinFor(1000.0))
    big = Request("big", 700, 2, 12.0, prefix=(Segment("big", 700),))
    done = serve(Cluster.of(engine), Given([first_turn("a", 0.0), big], turns(2, 100.0)))
    assert [request.id for request in done] == ["a-0", "big", "a-1"]
    assert big.first_scheduled_s == 12.0


def test_an_engine_that_waits_for_a_pin_wakes_at_its_end() -> None:
    class Stubborn(PinFor):
        def pressed(self, view: View, batch: Batch) -> str | None:
            return None

    [engine] = engines(1, blocks=50, prefix_cache=True, retain=Stubborn(50.0))
    big = Request("big", 700, 2, 12.0, prefix=(Segment("big", 700),))
    serve(Cluster.of(engine), Given([first_turn("a", 0.0), big], turns(2, 100.0)))
    assert big.first_scheduled_s == 60.0


def test_what_was_offloaded_comes_back_from_host_memory() -> None:
    class Offload:
        def finished(self, request: Request, view: View) -> Keep:
            return Keep("drop", copy=True)

        def unpin(self, view: View) -> Iterable[str]:
            return ()

        def pressed(self, view: View, batch: Batch) -> str | None:
            return None

    loads: list[Load] = []

    def watched(load: Load) -> float:
        loads.append(load)
        return 1.0

    engine = Engine(Sarathi(), watched, BlockPool(50), 10_000, retain=Offload())
    done = serve(Cluster.of(engine), Given([first_turn("a", 0.0)], turns(2, 5.0)))
    assert len(done) == 2
    # 320 and 9 of 10 were computed: 20 whole blocks come back, and the rest is computed
    assert [load.swapped for load in loads if load.swapped] == [320]
    assert next(load for load in loads if load.swapped).tokens == 320 + 10 + 20 - 320


def test_parts_that_wait_for_each_other_are_a_deadlock() -> None:
    class Never:
        def plan(self, view: View) -> Batch:
            return Batch()

    engine = Engine(Never(), one_second, BlockPool(50), 10_000)
    with pytest.raises(Deadlock, match="Never plans nothing"):
        serve(Cluster.of(engine), Given([Request("a", 10, 2, 0.0)]))


@dataclass
class Restless:
    """Migrates at random."""

    seed: int
    period_s: float = 0.7

    def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Migrate]:
        import random

        chance = random.Random(self.seed + int(now * 10))
        source, target = chance.sample([replica.number for replica in replicas], 2)
        for request in list(replicas[source].view.decoding)[:2]:
            yield Migrate(request, source, target)


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=25),
    blocks=st.integers(30, 60),
    seed=st.integers(0, 99),
    copy=st.floats(0.0, 0.05),
    hand=st.booleans(),
    cached=st.booleans(),
)
def test_nothing_is_lost_however_requests_move(
    lengths: list[tuple[int, int]], blocks: int, seed: int, copy: float, hand: bool, cached: bool
) -> None:
    """Every request gets all its tokens in order, and every block is free in the end."""
    parts = Parts(
        Sarathi(),
        control=Restless(seed),
        handover=(lambda request, replicas, now: seed % 3) if hand else None,
    )
    cluster = Cluster(
        parts,
        engines(3, blocks, prefix_cache=cached),
        copy_s=lambda tokens: tokens * copy,
        downtime_s=0.1,
    )
    requests = [
        Request(str(i), prompt, output, 0.4 * i, prefix=(Segment(i % 4, min(prompt, 64)),))
        for i, (prompt, output) in enumerate(lengths)
    ]
    done = serve(cluster, Given(list(requests)))
    assert sorted(request.id for request in done) == sorted(request.id for request in requests)
    for request, (_, output) in zip(requests, lengths, strict=True):
        assert len(request.token_s) == output
        assert request.token_s == sorted(request.token_s)


def test_the_same_twice_is_the_same_to_the_last_bit() -> None:
    def tokens() -> list[list[float]]:
        cluster = deploy(make_system("sarathi"), "Llama-3.1-8B", ["H100", "A40"])
        requests = [Request(str(i), 50 + 37 * i % 400, 5 + i % 30, 0.05 * i) for i in range(60)]
        serve(cluster, Given(list(requests)))
        return [request.token_s for request in requests]

    assert tokens() == tokens()
