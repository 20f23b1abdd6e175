from collections.abc import Callable

import pytest

from servescope.engine.decoding import Decoding
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import System, View, parts_of
from servescope.engine.request import Request
from servescope.engine.systems.by_length import LongestFirst, ShortestFirst

Decodes = Callable[..., Decoding]


def admitted(system: System, decoding: Decoding, blocks: int = 1000) -> list[str]:
    """Return who is admitted of four whose prompts and answers are of opposite lengths."""
    parts = parts_of(system)
    queue = []
    for prompt, answer in ((300, 10), (100, 900), (200, 150), (100, 20)):
        queue.append(Request(f"{prompt}+{answer}", prompt, answer, 0.0))
        if parts.oracle:
            queue[-1].oracle_tokens = answer
    return [
        each.id
        for each, _ in parts.schedule.plan(View(queue, [], decoding, BlockPool(blocks))).admit
    ]


def test_the_shortest_prompt_goes_first_and_equals_as_they_came(decoding: Decodes) -> None:
    assert admitted(ShortestFirst(), decoding()) == ["100+900", "100+20", "200+150", "300+10"]


def test_the_longest_prompt_goes_first_and_equals_as_they_came(decoding: Decodes) -> None:
    assert admitted(LongestFirst(), decoding()) == ["300+10", "200+150", "100+900", "100+20"]


def test_in_total_the_answer_counts_too(decoding: Decodes) -> None:
    """Totals: 310, 1000, 350 and 120."""
    shortest = ["100+20", "300+10", "200+150", "100+900"]
    assert admitted(ShortestFirst(by="total"), decoding()) == shortest
    assert admitted(LongestFirst(by="total"), decoding()) == shortest[::-1]


@pytest.mark.parametrize("system", [ShortestFirst, LongestFirst])
def test_only_the_total_needs_an_oracle(system: type[ShortestFirst | LongestFirst]) -> None:
    assert not parts_of(system()).oracle
    assert parts_of(system(by="total")).oracle


def test_the_head_of_the_order_holds_back_who_would_fit(decoding: Decodes) -> None:
    """25 blocks: the longest takes 19 and leaves 6, the next needs 13, who come after need 7."""
    assert admitted(LongestFirst(), decoding(), blocks=25) == ["300+10"]
    assert admitted(LongestFirst(max_num_batched_tokens=450), decoding()) == ["300+10"]
