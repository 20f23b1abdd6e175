from collections.abc import Sequence

import pytest

from servescope.engine.cluster import Replica
from servescope.engine.dispatchers import FewestRequests, LeastMemory, LongestPrefix, memory_load
from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool
from servescope.engine.prefixes import Prefixes, Segment
from servescope.engine.request import Request
from servescope.engine.systems.vllm_v0 import VllmV0


def replica(*waiting: int, running: Sequence[int] = (), blocks: int = 100) -> Replica:
    """Return a replica where prompts of these lengths wait, and others are computed."""
    engine = Engine(VllmV0(), lambda load: 1.0, BlockPool(blocks), 10_000)
    for place, prompt in enumerate(running):
        engine.submit(Request(f"running {place}", prompt, 10, 0.0), 0.0)
    step = engine.begin(0.0)
    if step is not None:
        engine.finish(step)
    for place, prompt in enumerate(waiting):
        engine.submit(Request(f"waiting {place}", prompt, 10, 1.0), 1.0)
    return Replica(engine)


NEW = Request("new", 100, 10, 1.0)


def test_fewest_requests_counts_those_that_wait_and_those_that_run() -> None:
    one, two, none = replica(10, running=[10]), replica(900), replica()
    assert [each.load for each in (one, two, none)] == [2, 1, 0]
    assert FewestRequests().pick(NEW, [one, two], 1.0) == 1
    assert FewestRequests().pick(NEW, [one, two, none], 1.0) == 2
    assert FewestRequests().pick(NEW, [two, replica(10)], 1.0) == 0  # equals: the first


def test_memory_counts_what_the_queue_will_need() -> None:
    """Of 100 blocks, 320 tokens that run hold 20, and 160 that wait need 10."""
    assert memory_load(replica()) == 0
    assert memory_load(replica(running=[320])) == pytest.approx(0.20)
    assert memory_load(replica(160, running=[320])) == pytest.approx(0.30)


def test_least_memory_prefers_many_short_ones_to_one_long_one() -> None:
    long, short = replica(running=[800]), replica(16, 16, 16)
    assert FewestRequests().pick(NEW, [long, short], 1.0) == 0
    assert LeastMemory().pick(NEW, [long, short], 1.0) == 1


def test_least_memory_is_a_share_of_the_replicas_own() -> None:
    small, large = replica(160, blocks=20), replica(320, blocks=100)
    assert LeastMemory().pick(NEW, [small, large], 1.0) == 1


def knowing(text: tuple[Segment, ...], waiting: int = 0, number: int = 0) -> Replica:
    engine = Engine(VllmV0(), lambda load: 1.0, BlockPool(1000, Prefixes()), 10_000, number=number)
    tokens = sum(segment.tokens for segment in text)
    if tokens:
        engine.pool.take(tokens // 16)
        assert engine.pool.prefixes is not None
        engine.pool.prefixes.insert(text, tokens)
    for place in range(waiting):
        engine.submit(Request(f"{number}.{place}", 10, 10, 0.0), 0.0)
    return Replica(engine)


def test_a_prompt_goes_to_where_most_of_it_is_known() -> None:
    """Of its 320 tokens the second replica knows 160, and a third is not half."""
    system = Segment("system", 160)
    asked = Request("a", 320, 10, 0.0, prefix=(system, Segment("question", 160)))
    other = Segment("other", 800)
    replicas = [knowing(()), knowing((system, other)), knowing((other,))]
    assert LongestPrefix(cache_threshold=0.4).pick(asked, replicas, 0.0) == 1


def test_what_is_known_too_little_goes_to_the_emptiest_cache() -> None:
    system, other = Segment("system", 160), Segment("other", 800)
    asked = Request("a", 320, 10, 0.0, prefix=(system, Segment("question", 160)))
    replicas = [knowing((other,)), knowing((system, other)), knowing((Segment("few", 64),))]
    assert LongestPrefix(cache_threshold=0.5).pick(asked, replicas, 0.0) == 2


@pytest.mark.parametrize(
    ("loads", "place"),
    [
        ((65, 0), 1),  # 65 more, and over 1.5 times as many
        ((64, 0), 0),  # not more than 64 more
        ((200, 135), 0),  # 65 more, and less than 1.5 times as many
        ((200, 130), 1),  # 70 more, and 1.54 times as many
    ],
)
def test_an_uneven_load_counts_for_more_than_the_cache(loads: tuple[int, int], place: int) -> None:
    system = Segment("system", 160)
    asked = Request("a", 176, 10, 0.0, prefix=(system, Segment("question", 16)))
    replicas = [knowing((system,), loads[0]), knowing((), loads[1], number=1)]
    assert LongestPrefix().pick(asked, replicas, 0.0) == place


def test_replicas_without_a_cache_are_all_alike() -> None:
    assert LongestPrefix().pick(NEW, [replica(), replica()], 1.0) == 0
