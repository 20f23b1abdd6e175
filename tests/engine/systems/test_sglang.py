from collections.abc import Callable

from servescope.engine.decoding import Decoding
from servescope.engine.dispatchers import LongestPrefix
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, View, parts_of
from servescope.engine.prefixes import Prefixes, Segment
from servescope.engine.request import Request, Status
from servescope.engine.systems.sglang import LONGEST_QUEUE, Sglang

Decodes = Callable[..., Decoding]
KNOWN = Segment("known", 160)


def radix_pool() -> BlockPool:
    """A pool whose cache knows a text of 160 tokens and one of 64 that follow it."""
    pool = BlockPool(2000, Prefixes())
    assert pool.prefixes is not None
    pool.take(14)
    pool.prefixes.insert((KNOWN, Segment("more", 64)), 224)
    return pool


def question(name: str, *known: Segment) -> Request:
    text = (*known, Segment(name, 100))
    return Request(name, sum(each.tokens for each in text), 10, 0.0, prefix=text)


def queue() -> list[Request]:
    return [
        question("cold"),
        question("warm", KNOWN),
        question("hot", KNOWN, Segment("more", 64)),
        question("also warm", KNOWN),
    ]


def planned(system: Sglang, view: View) -> Batch:
    return parts_of(system).schedule.plan(view)


def order(batch: Batch) -> list[str]:
    return [request.id for request, _ in batch.admit]


def test_the_longest_known_prefix_goes_first_and_equals_as_they_came(decoding: Decodes) -> None:
    batch = planned(Sglang(), View(queue(), [], decoding(), radix_pool()))
    assert order(batch) == ["hot", "warm", "also warm", "cold"]
    assert [piece for _, piece in batch.prefill] == [100] * 4


def test_first_come_first_served_if_it_is_asked_for(decoding: Decodes) -> None:
    system = Sglang(longest_prefix_first=False)
    batch = planned(system, View(queue(), [], decoding(), radix_pool()))
    assert order(batch) == ["cold", "warm", "hot", "also warm"]


def test_a_long_queue_is_not_searched_for_prefixes(decoding: Decodes) -> None:
    cold = [question(str(number)) for number in range(LONGEST_QUEUE - 1)]
    warm = question("warm", KNOWN)
    for more, first in (([], "warm"), ([question("one more")], "0")):
        view = View([*cold, *more, warm], [], decoding(), radix_pool())
        assert order(planned(Sglang(), view))[0] == first


def test_chunks_go_before_decodes_and_what_was_begun_before_what_waits(decoding: Decodes) -> None:
    begun = Request("begun", 1000, 10, 0.0)
    begun.status, begun._computed, begun._blocks = Status.RUNNING, 300, 63
    view = View([question("new")], [begun], decoding(20), radix_pool())
    batch = planned(Sglang(chunked_prefill_size=750), view)
    assert [(request.id, piece) for request, piece in batch.prefill] == [
        ("begun", 700),
        ("new", 50),
    ]
    assert not batch.decode
    alone = planned(Sglang(), View([], [], decoding(20), radix_pool()))
    assert alone.decode
    assert alone.steps > 1


def test_it_has_a_radix_cache_and_a_router() -> None:
    parts = parts_of(Sglang(), 2)
    assert parts.prefix_cache
    assert isinstance(parts.dispatch, LongestPrefix)
