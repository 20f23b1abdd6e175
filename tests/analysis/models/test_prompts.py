"""The prompts of a trace as blocks: what they begin as, and which prefixes many share."""

import polars as pl
import pytest

from servescope.analysis.demand import Demand
from servescope.analysis.models.prompts import Prompts
from servescope.traces import Trace
from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance


def prompts(*blocks: list[int], programs: list[str] | None = None) -> Prompts:
    columns = {
        "arrival_s": [float(row) for row in range(len(blocks))],
        "input_tokens": [16 * len(each) for each in blocks],
        "output_tokens": [1] * len(blocks),
        "prefix_blocks": pl.Series(list(blocks), dtype=pl.List(pl.UInt64)),
    }
    if programs:
        columns |= {"program_id": programs, "turn": [0] * len(blocks)}
    about = Provenance(
        format="made", source="made", block_tokens=16, block_rule="ceil", block_scope="global"
    )
    return Prompts.of(Demand.of(Trace.of(pl.DataFrame(columns), about)))


def test_a_prompt_begins_as_the_last_one_that_had_the_block_it_shares() -> None:
    owner, shared, _ = prompts([7, 8, 9], [7, 8, 5], [7, 8, 9, 4], [1]).origins()
    assert owner.tolist() == [-1, 0, 0, -1]  # block 9 was last in the first prompt
    assert shared.tolist() == [0, 2, 3, 0]


def test_turns_share_with_the_turn_before_them() -> None:
    made = prompts([1, 2], [5, 6], [1, 2, 3], [5, 9], programs=["a", "b", "a", "b"])
    assert made.before.tolist() == [-1, -1, 0, 1]
    assert made.origins()[2].tolist() == [0, 0, 2, 1]


def test_prefixes_that_many_prompts_have_are_a_tree() -> None:
    nodes, at, depth = prompts([1, 2, 3], [1, 2, 4], [1, 5], [6]).popular(min_visits=2)
    assert nodes == [(-1, 1), (0, 2)]
    assert at.tolist() == [1, 1, 0, -1]
    assert depth.tolist() == [2, 2, 1, 0]


def test_a_block_that_is_named_twice_counts_once() -> None:
    assert prompts([3, 3, 4], [3, 4]).sizes.tolist() == [2, 2]


def test_a_trace_without_blocks_is_refused() -> None:
    with pytest.raises(InputError, match="No prompt"):
        prompts([], [])
