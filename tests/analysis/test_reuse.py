"""Prefix reuse: exact against a cache that is simulated block by block."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.analysis.reuse import Reuse


def simulated(prompts: list[list[int]], size: int) -> int:
    """Count the hits of an LRU cache; a prompt touches its blocks from the last to the first."""
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for prompt in prompts:
        for block in prompt:
            if block not in held:
                break
            hits += 1
        for block in reversed(prompt):
            held.pop(block, None)
            held[block] = None
        while len(held) > size:
            held.popitem(last=False)
    return hits


def prompts_of(choices: list[list[int]]) -> tuple[list[list[int]], int]:
    """Number the nodes of the tree that lists of choices walk down."""
    nodes: dict[tuple[int, int], int] = {}
    made = []
    for walk in choices:
        at, prompt = -1, []
        for step in walk:
            at = nodes.setdefault((at, step), len(nodes))
            prompt.append(at)
        made.append(prompt)
    return made, len(nodes)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=7), min_size=1, max_size=60))
def test_every_cache_size_hits_what_a_simulated_one_hits(choices: list[list[int]]) -> None:
    prompts, distinct = prompts_of(choices)
    reuse = Reuse(max(1, distinct)).add_all(np.array(p, np.int64) for p in prompts)
    total = sum(map(len, prompts))
    for size, rate in reuse.curve().iter_rows():
        assert rate * total == pytest.approx(simulated(prompts, size))
    assert (reuse.hit_rate or 0) * total == pytest.approx(simulated(prompts, 10_000))


def test_the_smallest_cache_for_a_share_of_the_hits_is_exact() -> None:
    rng = np.random.default_rng(2)
    prompts, distinct = prompts_of([rng.integers(0, 3, 6).tolist() for _ in range(300)])
    reuse = Reuse(distinct).add_all(np.array(p) for p in prompts)
    for share in (0.5, 0.95):
        size = reuse.size_for(share)
        assert size is not None
        wanted = share * sum(reuse.hit_blocks)
        assert simulated(prompts, size - 1) < wanted <= simulated(prompts, size)
    assert Reuse(1).add_all([np.array([0])]).size_for(0.5) is None


def test_a_tree_has_the_shape_it_has() -> None:
    prompts, distinct = prompts_of([[0, 0], [0, 1], [0, 2], [1]])
    reuse = Reuse(distinct).add_all(np.array(p) for p in prompts)
    assert reuse.tree() == {
        "nodes": 5, "roots": 2, "leaves": 4, "forks": 1, "branching": 3, "shared": 0.2,
    }  # fmt: skip
    assert reuse.hit_blocks == [0, 1, 1, 0]
    assert reuse.age == [-1, 1, 1, -1]
    assert reuse.popularity().tolist() == [3, 1, 1, 1, 1]


def test_thousands_of_prompts_are_counted_as_a_few_are() -> None:
    rng = np.random.default_rng(1)
    prompts, distinct = prompts_of([rng.integers(0, 3, 6).tolist() for _ in range(5000)])
    reuse = Reuse(distinct).add_all(np.array(p) for p in prompts)
    curve = reuse.curve()
    middle = curve.row(curve.height // 2)
    assert middle[1] * sum(map(len, prompts)) == pytest.approx(simulated(prompts, middle[0]))


def test_nothing_hits_nothing() -> None:
    reuse = Reuse(1).add_all([np.empty(0, np.int64)])
    assert reuse.hit_rate is None
    assert reuse.curve().height == 0
