from collections.abc import Callable, Iterable
from typing import Any

import pytest

from servescope.engine.decoding import Decoding
from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Scheduler, View
from servescope.engine.request import Request
from servescope.engine.systems.static import FasterTransformer, Orca

Decodes = Callable[..., Decoding]
Simulate = Callable[[Engine, Iterable[Request]], Any]
BOTH = pytest.mark.parametrize("system", [FasterTransformer, Orca])


def waiting(*prompts: int) -> list[Request]:
    return [Request(str(i), prompt, 10, 0.0) for i, prompt in enumerate(prompts)]


def first_tokens(system: Scheduler, simulate: Simulate) -> list[float]:
    """Serve a short and a long answer that come together, and one that comes after them."""
    engine = Engine(system, lambda load: 1.0, BlockPool(1000), 1000)
    requests = [
        Request("short", 10, 2, 0.0), Request("long", 10, 5, 0.0), Request("late", 10, 1, 0.5)
    ]  # fmt: skip
    simulate(engine, requests)
    return [request.token_s[0] for request in requests]


def test_a_batch_ends_with_its_longest_answer_before_the_next_begins(simulate: Simulate) -> None:
    """Steps of 1 s: one of prompts and four decodes, then the third's prompt from 5 s to 6 s."""
    assert first_tokens(FasterTransformer(), simulate) == [1, 1, 6]


def test_with_iterations_a_newcomer_waits_for_a_step_and_no_more(simulate: Simulate) -> None:
    assert first_tokens(Orca(), simulate) == [1, 1, 2]


def test_orca_computes_whole_prompts_beside_decodes(decoding: Decodes) -> None:
    queue = waiting(3000, 200)
    batch = Orca().plan(View(queue, [], decoding(20, 20), BlockPool(1000)))
    assert batch.decode
    assert batch.prefill == [(queue[0], 3000), (queue[1], 200)]


def test_orca_runs_a_batch_of_16(decoding: Decodes) -> None:
    batch = Orca().plan(View(waiting(*[10] * 20), [], decoding(*[20] * 14), BlockPool(10_000)))
    assert len(batch.admit) == 2
    batch = Orca().plan(View(waiting(10), [], decoding(*[20] * 16), BlockPool(10_000)))
    assert not batch.admit
    assert batch.steps > 1


@BOTH
def test_a_seat_takes_the_blocks_of_the_longest_answer(
    system: type[Orca | FasterTransformer], decoding: Decodes
) -> None:
    """320 tokens are 20 blocks: 50 blocks seat two, however short their prompts."""
    queue = waiting(10, 100, 10)
    batch = system(max_tokens=320).plan(View(queue, [], decoding(), BlockPool(50)))
    assert batch.admit == [(queue[0], 20), (queue[1], 20)]


@BOTH
def test_no_watermark_stays_free(system: type[Orca | FasterTransformer], decoding: Decodes) -> None:
    pool = BlockPool(200)
    assert pool.watermark == 2
    assert len(system(max_tokens=1600).plan(View(waiting(9, 9), [], decoding(), pool)).admit) == 2


@BOTH
def test_a_prompt_beyond_the_reservation_gets_what_it_needs(
    system: type[Orca | FasterTransformer], decoding: Decodes
) -> None:
    queue = waiting(400)
    batch = system(max_tokens=320).plan(View(queue, [], decoding(), BlockPool(50)))
    assert batch.admit == [(queue[0], 25)]
