import itertools
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces.formats.links import Chain, cycles

calls = st.lists(
    st.tuples(
        st.sampled_from(["s", "t", "u", None]), st.integers(0, 5), st.none() | st.integers(0, 4)
    ),
    min_size=1,
    max_size=25,
)
graphs = st.dictionaries(
    st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefghxy"), max_size=3), max_size=8
)


def a_table(rows: list[tuple[str | None, int, int | None]], ends: bool = True) -> pl.DataFrame:
    """Calls of a program, so many seconds after the call before, and how long they took."""
    table = pl.DataFrame(
        {
            "call_id": [str(row) for row in range(len(rows))],
            "program_id": [program for program, _, _ in rows],
            "arrival_s": pl.Series([gap for _, gap, _ in rows]).cum_sum().cast(pl.Float64),
            "observed_e2e_s": [took for _, _, took in rows],
        },
        schema_overrides={"program_id": pl.String, "observed_e2e_s": pl.Float64},
    )
    return table if ends else table.drop("observed_e2e_s")


def by_hand(table: pl.DataFrame) -> tuple[list[tuple[Any, ...]], int]:
    """Turn, parents, pause and kind of every call, one after the other; and how many overlap."""
    before: dict[str, dict[str, Any]] = {}
    turns: dict[str, int] = {}
    found: list[tuple[Any, ...]] = []
    overlapping = 0
    for call in table.iter_rows(named=True):
        program = call["program_id"]
        if program is None:
            found.append((None, None, None, None))
            continue
        turns[program] = turns.get(program, -1) + 1
        if program not in before:
            found.append((0, [], None, None))
        else:
            last = before[program]
            took = last.get("observed_e2e_s", 0.0)
            pause = None if took is None else call["arrival_s"] - last["arrival_s"] - took
            overlapping += pause is not None and pause < -1
            shown = None if pause is None else max(0.0, pause)
            found.append((turns[program], [last["call_id"]], shown, "user"))
        before[program] = call
    return found, overlapping


COLUMNS = ("turn", "parents", "delay_s", "delay_kind")


@settings(deadline=None, max_examples=60)
@given(calls, st.lists(st.integers(0, 25), max_size=4), st.booleans())
def test_a_chain_across_batches_is_that_of_one(
    rows: list[tuple[str | None, int, int | None]], cuts: list[int], ends: bool
) -> None:
    table = a_table(rows, ends)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    whole, parts = Chain(), Chain()
    linked = whole(table)
    pieces = [parts(table[a:b]) for a, b in itertools.pairwise(edges)]
    assert pl.concat(pieces).equals(linked)
    expected, overlapping = by_hand(table)
    assert linked.select(COLUMNS).rows() == expected
    assert parts.overlapping == whole.overlapping == overlapping
    assert linked.columns == [*table.columns, *COLUMNS]


def test_a_pause_counts_from_the_end_of_the_turn_before() -> None:
    linked = Chain("tool")(a_table([("s", 0, 3), ("s", 10, None), ("s", 10, 1)]))
    assert linked["delay_s"].to_list() == [None, 7.0, None]
    assert linked["delay_kind"].to_list() == [None, "tool", "tool"]


def test_a_pause_is_the_gap_where_no_ends_are_recorded() -> None:
    linked = Chain()(a_table([("s", 0, 3), ("s", 10, 3)], ends=False))
    assert linked["delay_s"].to_list() == [None, 10.0]
    assert "observed_e2e_s" not in linked.columns


def on_a_cycle(graph: dict[str, list[str]]) -> list[str]:
    """Those from which one comes back to oneself, by walking."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for parent in graph.get(todo.pop(), []):
                if parent in graph and parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
        return seen

    return [name for name in graph if name in reached(name)]


@pytest.mark.parametrize(
    ("graph", "stuck"),
    [
        ({}, []),
        ({"a": []}, []),
        ({"a": ["a"]}, ["a"]),
        ({"a": ["b"], "b": ["a"], "c": ["a"], "d": []}, ["a", "b"]),
        ({"a": ["b"], "b": ["c"], "c": ["gone"]}, []),
        ({"a": ["b"], "b": ["a"], "c": ["b"], "d": ["c", "e"], "e": ["d"]}, ["a", "b", "d", "e"]),
    ],
)
def test_a_call_that_waits_for_itself_is_found(
    graph: dict[str, list[str]], stuck: list[str]
) -> None:
    assert list(cycles(graph.items())) == stuck


@settings(max_examples=300)
@given(graphs)
def test_cycles_are_those_that_walking_finds(graph: dict[str, list[str]]) -> None:
    assert list(cycles(graph.items())) == on_a_cycle(graph)


def test_long_chains_and_rings_need_no_deep_recursion() -> None:
    ring = {str(n): [str((n + 1) % 20_000)] for n in range(20_000)}
    chain = {f"c{n}": [f"c{n + 1}"] for n in range(20_000)}
    assert list(cycles({**chain, **ring}.items())) == list(ring)
