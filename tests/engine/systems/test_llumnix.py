"""Llumnix by hand: freeness, dispatch, pairs, draining and scaling on replicas of 100 blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pytest

from servescope.engine.cluster import Cluster, Replica
from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, Migrate, Scale, View, parts_of
from servescope.engine.request import Request
from servescope.engine.systems.llumnix import Llumnix, LlumnixV0, remaining_steps
from servescope.engine.virtual import run

ARTIFACT = Llumnix()


class AdmitAll:
    """Admits everybody that is marked by an id that begins with r, and computes prompts whole."""

    def plan(self, view: View) -> Batch:
        for request in view.waiting:
            if request.id.startswith("r"):
                return Batch(
                    admit=[(request, request.demand)], prefill=[(request, request.remaining)]
                )
        return Batch(decode=True)


def replica(
    number: int,
    running: Sequence[int | tuple[int, int]] = (),
    waiting: Sequence[int | tuple[int, int]] = (),
    blocks: int = 100,
) -> Replica:
    """Return a replica on which requests run and wait, of so many blocks each (and a priority).

    A request that runs has filled its blocks but for two tokens.
    """
    engine = Engine(AdmitAll(), lambda load: 1.0, BlockPool(blocks), 10_000, number=number)
    for state, each in [*(("r", one) for one in running), *(("w", one) for one in waiting)]:
        held, priority = each if isinstance(each, tuple) else (each, 0)
        name = f"{state}{number}-{len(engine._requests)}"
        engine.submit(Request(name, 16 * held - 2, 2, 0.0, priority=priority), 0.0)
    for place in range(len(running)):
        step = engine.begin(float(place))
        assert step is not None
        engine.finish(step)
    engine.check()
    return Replica(engine)


def tick(system: Llumnix | LlumnixV0, replicas: Sequence[Replica], now: float = 1.0) -> list[Any]:
    control = parts_of(system, len(replicas)).control
    assert control is not None
    return list(control.tick(replicas, now))


def pick(
    system: Llumnix | LlumnixV0, replicas: Sequence[Replica], tokens: int = 16, priority: int = 0
) -> int:
    dispatch = parts_of(system, len(replicas)).dispatch
    assert dispatch is not None
    return dispatch.pick(Request("new", tokens, 10, 0.0, priority=priority), replicas, 0.0)


def test_freeness_is_what_is_left_for_each_that_runs() -> None:
    """(100 - 10 - 30) / 2 = 30."""
    assert ARTIFACT.freeness(replica(0, [10, 30])) == 30.0


def test_nobody_on_a_replica_leaves_it_all_free() -> None:
    assert ARTIFACT.freeness(replica(0)) == 100.0


def test_of_a_queue_the_head_alone_counts() -> None:
    """(100 - 40 - 20) / 1, however much waits behind; with 90 at the head it is negative."""
    assert ARTIFACT.freeness(replica(0, [40], [20, 99, 99])) == 40.0
    assert ARTIFACT.freeness(replica(0, [40, 20], [90, 1])) == -25.0


def test_the_head_of_a_queue_is_who_is_admitted_next() -> None:
    """The one of high priority, though it came last."""
    assert ARTIFACT.freeness(replica(0, [40], [20, 20, (5, -1)])) == 55.0


def test_high_priority_keeps_all_but_its_target_load_free() -> None:
    """1600 tokens are 100 blocks: of 851 the other 751 are headroom, shared by all of the class.

    (851 - 40 - 751) / 2 = 30, and just as much if both are of high priority.
    """
    assert ARTIFACT.freeness(replica(0, [10, (30, -1)], blocks=851)) == 30.0
    assert ARTIFACT.freeness(replica(0, [(10, -1), (30, -1)], blocks=851)) == 30.0
    assert ARTIFACT.freeness(replica(0, [10, 30], blocks=851)) == 811 / 2
    assert ARTIFACT.freeness(replica(0, [10, (30, 1)], blocks=851)) == 811 / 2


def test_a_high_priority_that_only_waits_claims_no_headroom() -> None:
    assert ARTIFACT.freeness(replica(0, [10], [(30, -1)], blocks=851)) == 811.0


def test_a_replica_that_is_to_go_counts_as_full() -> None:
    going = replica(0)
    going.accepting = False
    assert ARTIFACT.freeness(going) == -math.inf


def test_a_request_goes_to_the_most_freeness_and_not_to_the_most_memory() -> None:
    """50 blocks for one beat 60 for two."""
    assert pick(ARTIFACT, [replica(0, [20, 20]), replica(1, [50])]) == 1


def test_high_priorities_are_sent_together_and_others_elsewhere() -> None:
    """Where one is, another costs no more headroom, and a normal request finds none."""
    replicas = [replica(0, [10], blocks=851), replica(1, [10, (30, -1)], blocks=851)]
    assert pick(ARTIFACT, replicas, priority=-1) == 1
    assert pick(ARTIFACT, replicas) == 0


def test_the_least_free_sends_to_the_freest_and_the_next_to_the_next() -> None:
    """Freeness 2, 1, 20, 40, and 5 which takes no part: 1 goes to 3 and 0 to 2."""
    replicas = [
        replica(0, [48, 48]),
        replica(1, [49, 49]),
        replica(2, [80]),
        replica(3, [60]),
        replica(4, [95]),
    ]
    system = Llumnix(migrate_below=3, migrate_above=10)
    assert [ARTIFACT.freeness(each) for each in replicas] == [2, 1, 20, 40, 5]
    moves = cast(list[Migrate], tick(system, replicas))
    assert [(move.source, move.target) for move in moves] == [(1, 3), (0, 2)]


def test_with_one_bound_for_both_who_is_above_it_receives() -> None:
    replicas = [replica(0, [48, 48]), replica(1, [95])]
    assert [(move.source, move.target) for move in tick(ARTIFACT, replicas)] == [(0, 1)]


def test_nothing_moves_between_replicas_that_are_both_short_or_both_free() -> None:
    assert tick(ARTIFACT, [replica(0, [98]), replica(1, [99])]) == []
    assert tick(ARTIFACT, [replica(0, [50]), replica(1)]) == []


def test_a_replica_that_takes_part_in_a_migration_starts_no_other() -> None:
    replicas = [replica(0, [48, 48]), replica(1)]
    replicas[1].moving = 1
    assert tick(ARTIFACT, replicas) == []


def test_who_moves_is_of_low_priority_first_and_then_short() -> None:
    full = replica(0, [(5, -1), 30, 20, (40, 1)])
    [move] = tick(Llumnix(migrate_below=100), [full, replica(1, blocks=1000)])
    assert move.request.priority == 1
    full = replica(0, [(5, -1), 30, 20])
    [move] = tick(Llumnix(migrate_below=100), [full, replica(1, blocks=1000)])
    assert move.request.input_tokens == 16 * 20 - 2


def test_a_replica_that_is_to_go_is_emptied_into_the_others() -> None:
    going, other = replica(0, [10]), replica(1, [10])
    going.accepting = False
    [move] = tick(ARTIFACT, [going, other])
    assert (move.source, move.target) == (0, 1)


class Given:
    def __init__(self, requests: Iterable[Request]) -> None:
        self.due, self.done = list(requests), 0

    def next_due_s(self) -> float | None:
        return self.due[0].arrival_s if self.due else None

    def take(self, now: float) -> Iterable[Request]:
        while self.due and self.due[0].arrival_s <= now:
            yield self.due.pop(0)

    def refused(self, request: Request, error: Exception, now: float) -> None:
        raise AssertionError(error)

    def finished(self, request: Request, now: float) -> None:
        self.done += 1


def cluster_of(system: Llumnix | LlumnixV0, replicas: int, blocks: int = 100) -> Cluster:
    parts = parts_of(system, replicas)

    def make(number: int) -> Engine:
        return Engine(parts.schedule, lambda load: 1.0, BlockPool(blocks), 10_000, number=number)

    return Cluster(
        parts, [make(number) for number in range(replicas)], start_up_s=30.0, another=make
    )


def test_migration_makes_room_for_a_prompt_that_no_replica_has_alone() -> None:
    """Two replicas of 100 blocks hold 50 to 56 each, and a prompt of 60 comes.

    Without migration its prompt is computed after the answers end at 101 s. With it a request of
    its replica leaves at the end of the step, at 11 s; its blocks are free for the step after next.
    """
    waited = {}
    for migration in (False, True):
        cluster = cluster_of(Llumnix(migration=migration), 2)
        small = [Request(f"{i}", 16 * 25, 100, 0.1 * i) for i in range(4)]
        large = Request("large", 16 * 60, 2, 10.5)
        source = Given([*small, large])
        run(cluster, source, cluster.check)
        assert source.done == 5
        waited[migration] = large.token_s[0] - 10.5
        assert bool(cluster.migrations) == migration
    assert waited == {False: 102 - 10.5, True: 13 - 10.5}


def test_priorities_go_before_and_equals_as_they_came() -> None:
    """One seat: while the first runs, three more come; the urgent one is next."""
    cluster = cluster_of(Llumnix(max_num_seqs=1, migration=False), 1)
    first, second, third = (Request(str(i), 16, 5, 0.1 * i) for i in range(3))
    urgent = Request("urgent", 16, 5, 0.5, priority=-1)
    run(cluster, Given([first, second, third, urgent]))
    starts = [each.token_s[0] for each in (first, urgent, second, third)]
    assert starts == [1.0, 6.0, 11.0, 16.0]


def scaling(**changed: Any) -> Llumnix:
    return Llumnix(migration=False, scaling=True, scale_interval_s=10.0, **changed)


def test_a_replica_comes_once_freeness_was_too_small_for_a_whole_interval() -> None:
    """Mean freeness (8 + 4) / 2 = 6 is below 10 from 1 s on; one comes at 11 s, one at 21 s."""
    control = parts_of(scaling(), 2).control
    assert control is not None
    short = [replica(0, [92]), replica(1, [96])]
    asked = {now: list(control.tick(short, float(now))) for now in range(1, 25)}
    assert {now: each for now, each in asked.items() if each} == {
        11: [Scale(add=1)],
        21: [Scale(add=1)],
    }


def test_a_moment_of_enough_freeness_begins_the_interval_anew() -> None:
    control = parts_of(scaling(), 1).control
    assert control is not None
    for now, blocks in ((0, 95), (6, 50), (8, 95), (12, 95), (17, 95)):
        assert list(control.tick([replica(0, [blocks])], float(now))) == []
    assert list(control.tick([replica(0, [95])], 18.0)) == [Scale(add=1)]


def test_no_more_replicas_come_than_are_allowed_those_on_their_way_included() -> None:
    control = parts_of(scaling(most_replicas=3), 1).control
    assert control is not None
    short = [replica(0, [95])]
    asked = [list(control.tick(short, 10.0 * now)) for now in range(6)]
    assert asked == [[], [Scale(add=1)], [Scale(add=1)], [], [], []]


def test_the_replica_with_the_fewest_that_run_goes_when_there_is_too_much_freeness() -> None:
    """Mean (90/2 + 80 + 88) / 3 = 71 is above 60; replica 1 and 2 run one each, the first goes."""
    control = parts_of(scaling(), 3).control
    assert control is not None
    replicas = [replica(0, [5, 5]), replica(1, [20]), replica(2, [12])]
    assert list(control.tick(replicas, 0.0)) == []
    assert list(control.tick(replicas, 10.0)) == [Scale(drain=1)]
    assert list(parts_of(scaling(), 1).control.tick([replica(0)], 10.0)) == []  # type: ignore[union-attr]


def test_headroom_starts_no_replica() -> None:
    """Scaling looks at the freeness of the normal class: 811 of 851."""
    control = parts_of(scaling(), 1).control
    assert control is not None
    urgent = [replica(0, [(40, -1)], blocks=851)]
    assert ARTIFACT.freeness(urgent[0]) == 60.0
    assert [list(control.tick(urgent, float(now))) for now in (0, 10, 20)] == [[], [], []]


def test_a_cluster_grows_under_load_and_shrinks_after_it() -> None:
    cluster = cluster_of(Llumnix(scaling=True, scale_interval_s=5.0, scale_in_above=60.0), 1)
    crowd = [Request(str(i), 16 * 10, 60, 0.1 * i) for i in range(12)]
    late = Request("late", 16, 2, 400.0)
    source = Given([*crowd, late])
    run(cluster, source, cluster.check)
    assert source.done == 13
    assert len(cluster.all) > 1
    assert any(request.replica > 0 for request in crowd)
    assert len(cluster.replicas) == 1


# As released.


def test_remaining_steps_count_all_that_waits_and_the_watermark() -> None:
    """(200 - 40 - 2 - 20 - 30) / (1 + 2) = 36; nobody: all but the watermark."""
    assert remaining_steps(replica(0, [40], [20, 30], blocks=200)) == 36.0
    assert remaining_steps(replica(0, blocks=200)) == 198.0


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("load", [2, 2, 2]),  # 20 and 25 and 40 left for each
        ("queue", [0, 0, 0]),
        ("rr", [0, 1, 2]),
        ("balanced", [0, 1, 2]),  # sent so far, as this dispatcher knows
        ("flood", [0, 0, 0]),
    ],
)
def test_dispatch_policies_of_the_released_code(policy: Any, expected: list[int]) -> None:
    replicas = [replica(0, [40, 20]), replica(1, [25], [25]), replica(2, [10], [10])]
    dispatch = parts_of(LlumnixV0(dispatch_policy=policy), 3).dispatch
    assert dispatch is not None
    request = Request("new", 16, 10, 0.0)
    assert [dispatch.pick(request, replicas, 0.0) for _ in range(3)] == expected


def test_pairs_are_zipped_from_both_ends() -> None:
    """Remaining steps 1.5, 0.5, 79, 59 (a watermark of 1 each)."""
    replicas = [replica(0, [48, 48]), replica(1, [49, 49]), replica(2, [20]), replica(3, [40])]
    assert [remaining_steps(each) for each in replicas] == [1.5, 0.5, 79, 59]
    moves = tick(LlumnixV0(), replicas)
    assert [(move.source, move.target) for move in moves] == [(1, 2), (0, 3)]


def test_balanced_pairs_must_even_out() -> None:
    """Without its 49 blocks the source has (0 + 49) / 1 = 49 steps left.

    An empty target would have (99 - 49) / 1 = 50, no longer 99 more but 1: yes. One that runs 20
    blocks would have (79 - 49) / 2 = 15, less than the source: no.
    """

    def moves(target: Replica) -> int:
        return len(tick(LlumnixV0(pair="balanced"), [replica(0, [49, 50]), target]))

    assert moves(replica(1)) == 1
    assert moves(replica(1, [20])) == 0


def test_balanced_pairs_leave_the_target_its_bound() -> None:
    """3 blocks go, the source has (0 + 3) / 2 = 1.5; the target (9 - 3) / 2 = 3, or 2.5: no."""

    def moves(target: Replica) -> int:
        return len(tick(LlumnixV0(pair="balanced"), [replica(0, [3, 48, 48]), target]))

    assert moves(replica(1, [90])) == 1
    assert moves(replica(1, [91])) == 0


@pytest.mark.parametrize(("order", "blocks"), [("SR", 20), ("LR", 50), ("LCR", 28)])
def test_who_moves_in_the_released_code(order: Any, blocks: int) -> None:
    [move] = tick(LlumnixV0(order=order), [replica(0, [20, 50, 28]), replica(1)])
    assert move.request.input_tokens == 16 * blocks - 2


def test_a_replica_that_has_preempted_sends_and_never_receives() -> None:
    """Though it has plenty left: (200 - 10 - 2 - 10) / 2 = 89."""
    preempted = replica(0, [10, 10], blocks=200)
    preempted.engine._preempt(next(iter(preempted.view.decoding)), swap=False)
    assert remaining_steps(preempted) == 89.0
    assert tick(LlumnixV0(), [replica(1, [98]), preempted]) == []
    [move] = tick(LlumnixV0(), [preempted, replica(1)])
    assert (move.source, move.target) == (0, 1)
