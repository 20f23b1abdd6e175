import polars as pl
import pytest

from servescope.traces import Provenance, Trace, infer_sessions, load
from servescope.traces.errors import MissingColumns
from servescope.traces.sessions import INFERRED

BLOCKS = Provenance(
    format="test", source="here", block_tokens=10, block_rule="ceil", block_scope="global"
)
Row = tuple[int | None, int | None, list[int] | None]


def a_trace(rows: list[Row], provenance: Provenance = BLOCKS) -> Trace:
    """Make a trace of (input tokens, output tokens, blocks), a second apart, named a, b, c, ..."""
    inputs, outputs, blocks = zip(*rows, strict=True)
    table = pl.DataFrame(
        {
            "call_id": list("abcdefgh"[: len(rows)]),
            "arrival_s": [float(n) for n in range(len(rows))],
            "input_tokens": pl.Series(inputs, dtype=pl.Int64),
            "output_tokens": pl.Series(outputs, dtype=pl.Int64),
            "prefix_blocks": pl.Series(blocks, dtype=pl.List(pl.UInt64)),
        }
    )
    return Trace.of(table, provenance)


def parents_of(trace: Trace) -> list[str | None]:
    """Name each call's parent, None for a root."""
    lists = infer_sessions(trace).collect()["parents"].to_list()
    return [names[0] if names else None for names in lists]


def test_a_prompt_that_repeats_another_and_its_answer_is_its_next_turn() -> None:
    trace = a_trace([(25, 5, [1, 2, 3]), (48, 5, [1, 2, 4, 5, 6]), (30, 5, [7, 8, 9])])
    calls = infer_sessions(trace).collect()
    assert calls["program_id"].to_list() == ["a", "a", "c"]
    assert calls["turn"].to_list() == [0, 1, 0]
    assert calls["parents"].to_list() == [[], ["a"], []]
    assert calls["delay_kind"].to_list() == [None, "unknown", None]
    assert calls["delay_s"].null_count() == 3


def test_a_shared_first_block_alone_is_a_system_prompt() -> None:
    assert parents_of(a_trace([(15, 5, [1, 2]), (40, 5, [1, 3, 4, 5])])) == [None, None]


def test_a_prompt_too_short_to_hold_the_answer_is_no_next_turn() -> None:
    """25 tokens in and 30 out leave at least 45 for the next prompt, a block of doubt allowed."""
    first: Row = (25, 30, [1, 2, 3])
    assert parents_of(a_trace([first, (44, 5, [1, 2, 4, 5, 6])])) == [None, None]
    assert parents_of(a_trace([first, (45, 5, [1, 2, 4, 5, 6])])) == [None, "a"]


def test_of_several_the_longest_shared_prompt_is_continued() -> None:
    rows: list[Row] = [
        (25, 5, [1, 2, 3]),
        (45, 5, [1, 2, 4, 5, 6]),
        (27, 5, [1, 2, 7]),
        (65, 5, [1, 2, 4, 5, 8, 9, 10]),
    ]
    assert parents_of(a_trace(rows)) == [None, "a", "a", "b"]


def test_a_prompt_asked_again_is_a_second_answer_to_the_same_turn() -> None:
    """c repeats b's prompt: it cannot follow b, whose answer it lacks; it follows a, as b does."""
    again: Row = (45, 30, [1, 2, 4, 5, 6])
    trace = a_trace([(25, 5, [1, 2, 3]), again, again])
    assert parents_of(trace) == [None, "a", "a"]
    assert infer_sessions(trace).collect()["turn"].to_list() == [0, 1, 1]


def test_of_equals_the_latest_is_continued() -> None:
    same: Row = (25, 15, [1, 2, 3])
    assert parents_of(a_trace([same, same, (48, 5, [1, 2, 4, 5, 6])])) == [None, None, "b"]


def test_unknown_lengths_and_blocks_make_no_family() -> None:
    rows: list[Row] = [
        (None, 5, [1, 2, 3]),
        (40, 5, [1, 2, 3, 4]),
        (60, None, [1, 2, 3, 4, 5, 6]),
        (50, 5, None),
    ]
    assert parents_of(a_trace(rows)) == [None, None, "b", None]


def test_calls_are_chained_in_order_of_arrival() -> None:
    trace = a_trace([(48, 5, [1, 2, 4, 5, 6]), (25, 5, [1, 2, 3])])
    backwards = Trace.of(
        trace.frame.with_columns(arrival_s=pl.Series([9.0, 0.0])), trace.provenance
    )
    calls = infer_sessions(backwards).collect()
    assert dict(zip(calls["call_id"], calls["parents"].to_list(), strict=True)) == {
        "b": [],
        "a": ["b"],
    }


def test_inference_is_a_doubt_and_changes_no_demand() -> None:
    trace = load("mooncake:conversation")
    found = infer_sessions(trace)
    assert INFERRED in found.provenance.doubts
    demand = ["call_id", "arrival_s", "input_tokens", "output_tokens", "prefix_blocks"]
    assert found.collect().select(demand).equals(trace.collect().select(demand))


@pytest.mark.parametrize("name", ["mooncake:sample", "mooncake:conversation"])
def test_every_inferred_turn_repeats_its_parents_prompt(name: str) -> None:
    calls = infer_sessions(load(name)).collect()
    by_name = {row["call_id"]: row for row in calls.to_dicts()}
    for row in by_name.values():
        for parent in (by_name[other] for other in row["parents"]):
            full = parent["input_tokens"] // 512
            assert full >= 2
            assert row["prefix_blocks"][:full] == parent["prefix_blocks"][:full]
            assert row["input_tokens"] + 512 >= parent["input_tokens"] + parent["output_tokens"]
            assert row["arrival_s"] >= parent["arrival_s"]
            assert row["turn"] == parent["turn"] + 1
            assert row["program_id"] == parent["program_id"]
    assert calls["program_id"].n_unique() == calls.filter(turn=0).height
    assert calls.filter(pl.col("turn") > 0).height > 0


@pytest.mark.parametrize(
    "provenance",
    [
        Provenance(format="test", source="here"),
        Provenance(format="test", source="here", block_tokens=10, block_scope="program"),
    ],
)
def test_ids_that_do_not_name_a_whole_prefix_are_refused(provenance: Provenance) -> None:
    with pytest.raises(MissingColumns, match="no global prefix blocks"):
        infer_sessions(a_trace([(25, 5, [1, 2, 3])], provenance))


def test_a_trace_without_blocks_is_refused() -> None:
    with pytest.raises(MissingColumns, match="no global prefix blocks"):
        infer_sessions(load("burstgpt:sample"))
