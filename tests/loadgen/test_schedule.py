"""The order of runs is balanced, whatever drifts on the machine meanwhile."""

from collections import Counter
from itertools import groupby, pairwise
from math import lcm

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen.experiment import EngineSpec, SyntheticSpec
from servescope.loadgen.schedule import Cell, doubts_of, schedule, squares
from servescope.loadgen.study import NamedWorkload, Study, SystemSpec


def study(systems: int, workloads: int = 1, rates: int = 1, repeats: int = 1, **more: str) -> Study:
    return Study(
        systems=tuple(SystemSpec(name=f"s{n}", engine=EngineSpec()) for n in range(systems)),
        workloads=tuple(
            NamedWorkload(name=f"w{n}", synthetic=SyntheticSpec()) for n in range(workloads)
        ),
        rates=tuple(float(rate) for rate in range(1, rates + 1)),
        repeats=repeats,
        **more,  # type: ignore[arg-type]
    )


def blocks(cells: tuple[Cell, ...]) -> list[list[Cell]]:
    return [list(found) for _, found in groupby(cells, lambda cell: (cell.condition, cell.repeat))]


def test_two_systems_go_a_b_b_a() -> None:
    order = [cell.system for cell in schedule(study(2, repeats=4))]
    assert order == ["s0", "s1", "s1", "s0", "s0", "s1", "s1", "s0"]


@pytest.mark.parametrize("count", range(2, 9))
def test_in_a_square_each_stands_at_each_place_and_after_each_other_equally_often(
    count: int,
) -> None:
    rows = squares(count)
    assert len(rows) == (count if count % 2 == 0 else 2 * count)
    assert all(sorted(row) == list(range(count)) for row in rows)
    places = Counter((place, each) for row in rows for place, each in enumerate(row))
    after = Counter(pair for row in rows for pair in pairwise(row))
    assert len(places) == count**2
    assert len(after) == count * (count - 1)
    assert len(set(places.values())) == len(set(after.values())) == 1


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.integers(1, 6))
def test_every_run_is_made_once_and_a_block_holds_every_system_once(
    systems: int, workloads: int, rates: int, repeats: int
) -> None:
    asked = study(systems, workloads, rates, repeats)
    cells = schedule(asked)
    assert len({cell.path for cell in cells}) == len(cells) == systems * workloads * rates * repeats
    found = blocks(cells)
    assert len(found) == workloads * rates * repeats
    for block in found:
        assert {cell.system for cell in block} == {system.name for system in asked.systems}
    assert schedule(asked) == cells


@given(st.integers(2, 5), st.integers(1, 4))
def test_over_whole_squares_each_system_is_equally_often_at_each_place_of_each_load(
    systems: int, rates: int
) -> None:
    cells = schedule(study(systems, rates=rates, repeats=lcm(2, len(squares(systems)))))
    places = Counter(
        (cell.condition, place, cell.system)
        for block in blocks(cells)
        for place, cell in enumerate(block)
    )
    assert len(places) == rates * systems**2
    assert len(set(places.values())) == 1


def test_loads_stand_on_average_at_the_same_moment_over_an_even_number_of_repeats() -> None:
    cells = schedule(study(2, workloads=2, rates=3, repeats=4))
    moments: dict[str, list[int]] = {}
    for moment, cell in enumerate(cells):
        moments.setdefault(cell.condition, []).append(moment)
    assert len({sum(each) for each in moments.values()}) == 1


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
def test_systems_share_the_seed_of_a_block_and_no_two_blocks_do(
    systems: int, rates: int, repeats: int
) -> None:
    found = blocks(schedule(study(systems, rates=rates, repeats=repeats)))
    seeds = [{cell.seed for cell in block} for block in found]
    assert all(len(each) == 1 for each in seeds)
    assert len(set.union(*seeds)) == len(found)


def test_a_grouped_order_keeps_a_system_together_and_is_doubted() -> None:
    asked = study(3, rates=2, repeats=2, order="grouped")
    names = [name for name, _ in groupby(cell.system for cell in schedule(asked))]
    assert names == ["s0", "s1", "s2"]
    assert any("drifts" in doubt for doubt in doubts_of(asked))


def test_repeats_of_what_is_all_recorded_are_doubted_in_virtual_time() -> None:
    recorded = NamedWorkload(name="w", trace="azure:sample")
    systems = (SystemSpec(name="a", engine=EngineSpec()),)
    asked = Study(systems=systems, workloads=(recorded,), repeats=2)
    assert any("repeats add nothing" in doubt for doubt in doubts_of(asked))
    assert doubts_of(study(1, repeats=2)) == ()
