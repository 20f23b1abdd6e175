"""The replay is told the time and the ends, so every case is played by hand without a clock."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen.program import Call, Program
from servescope.loadgen.replay import AHEAD, Replay


def call(name: str, *parents: str, delay_s: float = 0.0, offset_s: float = 0.0) -> Call:
    return Call(name, "p", 0, 10, 10, parents, delay_s, offset_s)


def replay_of(*calls: Call, start_s: float = 0.0) -> Replay:
    return Replay([Program("p", start_s, calls)])


def names(dues: list) -> list[str]:
    return [due.call.id for due in dues]


def test_a_root_is_due_at_its_programs_start_and_taken_once() -> None:
    replay = replay_of(call("a"), start_s=5.0)
    assert replay.next_due_s() == 5.0
    assert replay.take(4.999) == []
    assert names(replay.take(5.0)) == ["a"]
    assert replay.take(6.0) == []


def test_a_turn_is_due_its_delay_after_its_parents_end() -> None:
    replay = replay_of(call("a"), call("b", "a", delay_s=3.0))
    replay.take(0.0)
    assert replay.next_due_s() is None
    replay.ended(call("a"), 2.5, ok=True)
    (due,) = replay.take(10.0)
    assert (due.due_s, due.ready_s) == (5.5, 2.5)


def test_a_call_with_an_offset_waits_for_it_even_if_its_parent_is_quick() -> None:
    replay = replay_of(call("a"), call("b", "a", offset_s=8.0), start_s=1.0)
    replay.take(1.0)
    replay.ended(call("a"), 2.0, ok=True)
    assert replay.next_due_s() == 9.0


def test_a_slow_parent_delays_its_child_past_the_offset() -> None:
    replay = replay_of(call("a"), call("b", "a", offset_s=8.0), start_s=1.0)
    replay.take(1.0)
    replay.ended(call("a"), 20.0, ok=True)
    assert replay.next_due_s() == 20.0


def test_a_join_waits_for_the_last_of_its_parents() -> None:
    replay = replay_of(call("a"), call("b"), call("c", "a", "b", delay_s=1.0))
    replay.take(0.0)
    replay.ended(call("b"), 1.0, ok=True)
    assert replay.next_due_s() is None
    replay.ended(call("a"), 4.0, ok=True)
    assert replay.next_due_s() == 5.0


def test_what_waits_for_a_failed_call_is_given_up_once() -> None:
    replay = replay_of(call("a"), call("b", "a"), call("c", "b"), call("d", "b", "c"))
    replay.take(0.0)
    lost = replay.ended(call("a"), 1.0, ok=False)
    assert [c.id for c in lost] == ["b", "c", "d"]
    assert replay.done


def test_a_join_with_one_failed_parent_is_never_sent() -> None:
    replay = replay_of(call("a"), call("b"), call("c", "a", "b"))
    replay.take(0.0)
    assert [c.id for c in replay.ended(call("a"), 1.0, ok=False)] == ["c"]
    replay.ended(call("b"), 2.0, ok=True)
    assert replay.done
    assert replay.next_due_s() is None


def test_programs_start_on_time_whatever_happens_to_others() -> None:
    """Open loop: a stuck server does not slow the arrivals down."""
    programs = tuple(
        Program(f"p{n}", float(n), (Call(f"c{n}", f"p{n}", 0, 1, 1),)) for n in range(5)
    )
    replay = Replay(programs)
    assert names(replay.take(4.0)) == ["c0", "c1", "c2", "c3", "c4"]


def test_upcoming_names_the_next_calls_without_taking_them() -> None:
    programs = tuple(
        Program(f"p{n}", float(n), (Call(f"c{n}", f"p{n}", 0, 1, 1),)) for n in range(5)
    )
    replay = Replay(programs)
    assert [c.id for c in replay.upcoming(2)] == ["c0", "c1"]
    assert names(replay.take(0.0)) == ["c0"]


@given(
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=30),
    service=st.lists(st.floats(0.01, 5), min_size=30, max_size=30),
    failing=st.sets(st.integers(0, 29)),
)
def test_every_call_is_sent_once_or_given_up_whatever_fails(
    gaps: list[float], service: list[float], failing: set[int]
) -> None:
    calls = [call("0")] + [
        call(str(n), str(n - 1), delay_s=gap) for n, gap in enumerate(gaps[1:], start=1)
    ]
    replay = replay_of(*calls)
    sent, lost, now = [], [], 0.0
    while not replay.done:
        due_s = replay.next_due_s()
        assert due_s is not None
        now = max(now, due_s)
        for due in replay.take(now):
            sent.append(due.call.id)
            number = int(due.call.id)
            now += service[number]
            lost += replay.ended(due.call, now, ok=number not in failing)
    assert sorted(sent + [c.id for c in lost], key=int) == [c.id for c in calls]


def test_the_end_of_a_replayed_chain_is_the_sum_of_services_and_delays() -> None:
    replay = replay_of(call("a"), call("b", "a", delay_s=2.0), call("c", "b", delay_s=0.5))
    now = 0.0
    for name in "abc":
        now = replay.next_due_s() or 0.0
        assert names(replay.take(now)) == [name]
        now += 1.25
        replay.ended(call(name), now, ok=True)
    assert now == pytest.approx(3 * 1.25 + 2.0 + 0.5)


def test_a_chain_of_thousands_is_given_up_without_recursion() -> None:
    chain = [call("0"), *(call(str(n), str(n - 1)) for n in range(1, 5000))]
    replay = replay_of(*chain)
    replay.take(0.0)
    assert len(replay.ended(call("0"), 1.0, ok=False)) == 4999
    assert replay.done


def test_roots_and_followers_are_taken_in_the_order_of_their_due_times() -> None:
    first = Program("p", 0.0, (call("a"), call("b", "a", delay_s=2.0)))
    late = Program("q", 5.0, (Call("c", "q", 0, 1, 1),))
    replay = Replay((first, late))
    replay.take(0.0)
    replay.ended(call("a"), 1.0, ok=True)
    assert replay.next_due_s() == 3.0
    assert [c.id for c in replay.upcoming(5)] == ["b", "c"]
    assert names(replay.take(9.0)) == ["b", "c"]


def closed(programs: int, users: int, **options: float) -> Replay:
    return Replay(
        (Program(f"p{n}", float(n), (Call(f"c{n}", f"p{n}", 0, 1, 1),)) for n in range(programs)),
        users=users,
        **options,  # type: ignore[arg-type]
    )


def test_in_a_closed_loop_a_user_begins_its_next_program_when_the_last_one_has_ended() -> None:
    replay = closed(4, users=2)
    first = replay.take(0.0)
    assert names(first) == ["c0", "c1"]
    assert replay.next_due_s() is None
    replay.ended(first[1].call, 3.0, ok=False)  # a failure ends a program too
    (third,) = replay.take(3.0)
    assert (third.call.id, third.due_s) == ("c2", 3.0)
    replay.ended(first[0].call, 4.0, ok=True)
    replay.ended(third.call, 5.0, ok=True)
    (fourth,) = replay.take(9.0)
    assert (fourth.call.id, fourth.due_s) == ("c3", 4.0)
    replay.ended(fourth.call, 9.0, ok=True)
    assert replay.done


def test_users_can_begin_apart_and_no_program_begins_after_the_last_second() -> None:
    replay = closed(10, users=2, apart_s=1.5, until_s=2.0)
    assert [due.due_s for due in replay.take(9.0)] == [0.0, 1.5]
    replay.ended(Call("c0", "p0", 0, 1, 1), 2.0, ok=True)
    replay.ended(Call("c1", "p1", 0, 1, 1), 2.5, ok=True)
    assert replay.done


def test_programs_are_taken_in_only_as_they_are_needed() -> None:
    taken = 0

    def endless() -> Iterator[Program]:
        nonlocal taken
        while True:
            taken += 1
            yield Program(f"p{taken}", taken / 10, (Call(f"c{taken}", f"p{taken}", 0, 1, 1),))

    replay = Replay(endless())
    for due in replay.take(100.0):
        replay.ended(due.call, 100.0, ok=True)
    assert 1000 <= taken <= 1000 + 2 * AHEAD
    assert not replay.done


def test_what_ended_before_a_resume_is_not_sent_again_and_its_children_follow_it() -> None:
    calls = (call("a"), call("b", "a", delay_s=3.0), call("c", "a", "b", delay_s=1.0), call("d"))
    replay = Replay([Program("p", 0.0, calls, {"a": 7.0})])
    assert names(replay.take(8.0)) == ["d"]
    (due,) = replay.take(10.0)
    assert (due.call.id, due.due_s, due.ready_s) == ("b", 10.0, 7.0)
    replay.ended(due.call, 12.0, ok=True)
    assert replay.next_due_s() == 13.0
