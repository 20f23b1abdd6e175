"""Every decision here is worked out by hand."""

import heapq
import random
from pathlib import Path

import pytest

from servescope.loadgen.board import Board
from servescope.loadgen.dispatch import Replica, dispatch, freeness, priority
from servescope.loadgen.program import Call, Program
from servescope.traces.errors import InputError


def call(
    number: int = 0, program: str = "p", *blocks: int, tokens: tuple[int, int] = (100, 10)
) -> Call:
    return Call(f"c{number}", program, 0, *tokens, prefix_blocks=blocks, number=number)


def loads(*calls: int) -> list[Replica]:
    return [Replica(count) for count in calls]


def test_round_robin_follows_the_plan() -> None:
    policy = dispatch("round-robin", {}, 3)
    assert [policy.pick(call(k), loads(9, 0, 0)) for k in (0, 1, 2, 3, 7)] == [0, 1, 2, 0, 1]


def test_the_least_loaded_is_picked_and_equals_take_turns() -> None:
    policy = dispatch("least-outstanding", {}, 3)
    assert policy.pick(call(), loads(2, 1, 3)) == 1
    assert [policy.pick(call(), loads(0, 0, 0)) for _ in range(4)] == [2, 0, 1, 2]


def test_a_program_stays_with_its_replica() -> None:
    policy = dispatch("session-sticky", {}, 4)
    homes = {name: policy.pick(call(0, name), loads(0, 9, 9, 9)) for name in map(str, range(200))}
    assert all(
        policy.pick(call(k, name), loads(5, 0, 0, 0)) == home
        for k, (name, home) in enumerate(homes.items())
    )
    assert set(homes.values()) == {0, 1, 2, 3}


def test_a_prompt_goes_where_most_of_it_was_seen() -> None:
    policy = dispatch("prefix-affinity", {}, 2)
    assert policy.pick(call(0, "p", 1, 2), loads(0, 0)) == 0
    assert policy.pick(call(1, "q", 7, 8), loads(1, 0)) == 1
    assert policy.pick(call(2, "r", 1, 2, 3), loads(3, 0)) == 0
    assert policy.pick(call(3, "s", 7, 9), loads(0, 3)) == 1


def test_a_replica_that_is_too_busy_gets_no_more_whatever_it_has_seen() -> None:
    policy = dispatch("prefix-affinity", {"overload": "1", "slack": "2"}, 2)
    assert policy.pick(call(0, "p", 1), loads(0, 0)) == 0
    assert policy.pick(call(1, "p", 1), loads(6, 2)) == 0  # 6 is not above 4 + 2
    assert policy.pick(call(2, "p", 1), loads(7, 2)) == 1  # 7 is above 4.5 + 2


def test_hexgen_gives_a_replica_of_half_the_speed_half_the_work_in_tokens() -> None:
    """alpha 0: the least work in seconds, so calls go 2 to 1 where one is twice as fast."""
    policy = dispatch("workload-balanced", {"alpha": "0", "speeds": "1/0.5"}, 2)
    picks = [policy.pick(call(k), loads(0, 0)) for k in range(300)]
    assert picks[:2] == [0, 1]
    assert picks.count(0) == pytest.approx(200, abs=1)


def test_hexgens_score_by_hand() -> None:
    """t is 1 s and 2 s. After the first pick W = (1, 0): 0.5 - 0.5 = 0 against 0.25 - 0."""
    parameters = {"alpha": "0.5", "speeds": "1/0.5", "prefill_s": "0.01", "decode_s": "0"}
    policy = dispatch("workload-balanced", parameters, 2)
    # then W = (1, 2): 0.5 - 0.5 = 0 against 0.25 - 1 = -0.75; W = (2, 2): 0 against 0.25 - 0.5;
    # W = (3, 2): 0.5 - 0.5 = 0 against 0.25 - 1/3 = -0.083; W = (4, 2): 0 against 0.25 - 0.25 = 0
    picks = [policy.pick(call(k), loads(0, 0)) for k in range(6)]
    assert picks == [0, 1, 0, 0, 0, 0]


def test_the_freest_is_picked_and_where_one_is_silent_the_least_loaded() -> None:
    policy = dispatch("freeness", {}, 3)
    assert policy.pick(call(), [Replica(0, 0, 0.1), Replica(9, 0, 0.5), Replica(0, 0, 0.2)]) == 1
    assert policy.pick(call(), [Replica(2, 0, 0.5), Replica(1, 0, 0.5), Replica(0, 0, 0.2)]) == 1
    assert policy.pick(call(), [Replica(2, 0, 0.5), Replica(1), Replica(0, 0, 0.2)]) == 2


def test_freeness_is_free_cache_over_the_batch() -> None:
    assert freeness(running=3, waiting=1, kv_usage=0.6) == pytest.approx(0.1)
    assert freeness(0, 0, 0.0) == float("inf")


def test_least_outstanding_shortens_the_queue_of_unlike_replicas() -> None:
    """One replica serves a call in 1 s, the other in 4 s, at 0.9 calls a second."""

    def mean_wait(name: str) -> float:
        policy, rng, now, waits = dispatch(name, {}, 2), random.Random(1), 0.0, []
        free, ends = [0.0, 0.0], [[], []]  # type: tuple[list[float], list[list[float]]]
        for number in range(4000):
            now += rng.expovariate(0.9)
            for queue in ends:
                while queue and queue[0] <= now:
                    heapq.heappop(queue)
            chosen = policy.pick(call(number), [Replica(len(queue)) for queue in ends])
            start = max(now, free[chosen])
            free[chosen] = start + (1.0, 4.0)[chosen]
            heapq.heappush(ends[chosen], free[chosen])
            waits.append(start - now)
        return sum(waits) / len(waits)

    # by turns the slow one gets 0.45 calls of 4 s a second, and its queue grows without end
    assert mean_wait("round-robin") > 100 * mean_wait("least-outstanding")


def program(*calls: Call, start_s: float = 5.0) -> Program:
    return Program("p", start_s, calls)


def test_priorities_of_programs_are_their_arrivals_in_ms() -> None:
    policy = priority("program-arrival", {})
    assert policy.of(call(), program(start_s=1.2345), 99.0) in (1234, 1235)
    assert priority("none", {}).of(call(), program(), 0.0) is None


def test_the_priority_of_a_stage_is_the_moment_by_which_it_must_begin() -> None:
    """Two stages of 1 s and 3 s, deadline 20 s, 4 s spent: the first has 16 * 1/4 = 4 s."""
    first = Call("a", "p", 0, 100, 0)
    second = Call("b", "p", 1, 300, 0, parents=("a",))
    policy = priority("stage-urgency", {"slo_s": "20", "prefill_s": "0.01", "decode_s": "0"})
    assert policy.late
    assert policy.of(first, program(first, second, start_s=5.0), 9.0) == 1000 * (9 + 4 - 1)
    # the last stage has all that is left: 20 - 10 = 10 s
    assert policy.of(second, program(first, second, start_s=5.0), 15.0) == 1000 * (15 + 10 - 3)


@pytest.mark.parametrize(
    ("name", "parameters", "match"),
    [
        ("best", {}, "There is no dispatch policy 'best'. Known: round-robin"),
        ("round-robin", {"alpha": "1"}, "has no parameter 'alpha'. It has none"),
        ("workload-balanced", {"beta": "1"}, "has no parameter 'beta'. It has alpha, speeds"),
        ("workload-balanced", {"alpha": "much"}, "could not convert"),
        ("workload-balanced", {"speeds": "1/2/3"}, "speeds must be 2 numbers"),
    ],
)
def test_a_wrong_policy_is_the_users_input(
    name: str, parameters: dict[str, str], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        dispatch(name, parameters, 2)


def test_all_workers_see_one_board(tmp_path: Path) -> None:
    ours = Board.create(tmp_path / "board", workers=2, replicas=2)
    theirs = [Board(tmp_path / "board", 2, 2) for _ in range(2)]
    theirs[0].add(0, 1, 1, 300)
    theirs[1].add(1, 1, 2, 50)
    theirs[1].add(1, 1, -1, -20)
    ours.tell(0, {"running": 2.0, "waiting": 1.0, "kv_usage": 0.25})
    assert theirs[0].replicas() == [Replica(0, 0, 0.25), Replica(2, 330, None)]
    ours.tell(0, {"running": 2.0, "waiting": 1.0})  # llama.cpp says nothing of its KV cache
    assert theirs[0].replicas()[0] == Replica(0, 0, None)
