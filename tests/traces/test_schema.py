from pathlib import Path

import polars as pl
import pytest

from servescope.traces import schema
from servescope.traces.errors import BadRow, MissingColumns

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "schema.md"


def a_table(**columns: object) -> pl.LazyFrame:
    base = {"call_id": ["a", "b"], "arrival_s": [0.0, 1.0]}
    base |= {"input_tokens": [5, 6], "output_tokens": [1, 2]}
    return pl.LazyFrame({**base, **columns})


def test_column_names_are_unique_and_every_group_is_told() -> None:
    names = [column.name for column in schema.COLUMNS]
    assert len(set(names)) == len(names)
    assert [name for group in schema.GROUPS.values() for name in group] == names


def test_moments_are_the_arrival_the_deadline_and_every_time_of_the_service() -> None:
    assert set(schema.MOMENTS) == {
        "arrival_s",
        "deadline_s",
        "due_s",
        "ready_s",
        "admitted_s",
        "dispatched_s",
        "sent_s",
        "first_byte_s",
        "first_token_s",
        "first_answer_s",
        "last_token_s",
        "end_s",
        "chunk_s",
        "empty_s",
    }


@pytest.mark.parametrize("group", schema.GROUPS)
def test_a_group_is_there_whole_or_not_at_all(group: str) -> None:
    """One column of a group, all null, brings the others; no other optional group comes along."""
    table = pl.LazyFrame({"arrival_s": [0.0], "input_tokens": [1], "output_tokens": [1]})
    touched = table.with_columns(
        pl.lit(None).alias(name) for name in schema.GROUPS[group][:1] if name != "arrival_s"
    )
    there = set(schema.conform(touched).collect_schema().names())
    assert there == set(schema.GROUPS["demand"]) | set(schema.GROUPS[group])


def test_columns_come_in_canonical_order_and_type() -> None:
    shuffled = a_table(chunk_s=[[1, 2], None], turn=[0, None]).select(
        "turn", "chunk_s", "output_tokens", "call_id", "input_tokens", "arrival_s"
    )
    found = schema.conform(shuffled).collect().schema
    order = [name for name in schema.SCHEMA if name in found]
    assert list(found) == order
    assert all(found[name] == schema.SCHEMA[name] for name in order)


def test_integers_become_floats_where_seconds_belong() -> None:
    table = schema.conform(a_table(arrival_s=[0, 3])).collect()
    assert table["arrival_s"].to_list() == [0.0, 3.0]


def test_a_column_of_no_known_name_is_refused_by_name() -> None:
    with pytest.raises(MissingColumns, match="does not know: latency, zone"):
        schema.conform(a_table(zone=["x", "y"], latency=[1, 2]))


def test_a_table_needs_tokens() -> None:
    with pytest.raises(MissingColumns, match="no output_tokens"):
        schema.conform(a_table().drop("output_tokens"))


def test_a_table_needs_arrivals_or_parents() -> None:
    bare = a_table().drop("arrival_s")
    with pytest.raises(MissingColumns, match=r"neither arrival_s .* nor parents"):
        schema.conform(bare)
    by_parents = schema.conform(bare.with_columns(parents=[])).collect_schema().names()
    assert "parents" in by_parents
    assert "arrival_s" not in by_parents  # all null, it would pass for arrivals that are there


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("input_tokens", [1.5, 2.0]),
        ("output_tokens", ["1", "2"]),
        ("arrival_s", ["0", "1"]),
        ("call_id", [0.5, 1.5]),
        ("chunk_s", [1.0, 2.0]),
        ("chunk_tokens", [[1.5], [2.0]]),
        ("prefix_blocks", [["a"], ["b"]]),
    ],
)
def test_a_column_of_another_type_is_refused_and_never_cut_short(
    column: str, cells: list[object]
) -> None:
    """A polars cast would turn 1.5 tokens into 1 and say nothing."""
    with pytest.raises(BadRow, match=f"Column {column} holds"):
        schema.conform(a_table(**{column: cells}))


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("input_tokens", [5, -1], "Call b has -1 input_tokens"),
        ("output_tokens", [-7, 1], "Call a has -7 output_tokens"),
        ("delay_s", [None, -0.5], "Call b has -0.5 delay_s"),
        ("arrival_s", [0.0, float("nan")], "Call b arrives at nan"),
        ("arrival_s", [float("inf"), 0.0], "Call a arrives at inf"),
        ("call_id", ["a", "a"], "Two calls are named a"),
        ("call_id", ["a", None], "A call has no call_id"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(column: str, cells: list[object], message: str) -> None:
    table = schema.conform(a_table(**{column: cells})).collect()
    with pytest.raises(BadRow, match=message):
        schema.check(table)


def test_unknown_counts_are_no_mistake() -> None:
    table = schema.conform(a_table(input_tokens=[None, 3], arrival_s=[None, 0.0])).collect()
    schema.check(table)
    assert table["input_tokens"].to_list() == [None, 3]


def test_every_column_is_on_its_page_with_its_type_and_meaning() -> None:
    page = PAGE.read_text()
    for column in schema.COLUMNS:
        dtype = str(column.dtype).replace("String", "text").replace("UInt64", "unsigned integer")
        dtype = dtype.replace("Int64", "integer").replace("Float64", "float")
        if isinstance(column.dtype, pl.List):
            dtype = f"list of {dtype.removeprefix('List(').removesuffix(')')}s".replace(
                "texts", "text"
            )
        assert f"| `{column.name}` | {dtype} | {column.says} |" in page
    for group in schema.GROUPS:
        assert f"\n## {group.capitalize()}\n" in page
