"""Which calls wait for which, against the definition, and what is known besides times."""

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.traces.formats.messages import texts
from servescope.traces.formats.spans import OddValue, Order, count, moment

Span = tuple[int, int | None]


def linked(spans: list[Span], order: Order | None = None, program: str = "p") -> pl.DataFrame:
    order = order or Order()
    order.settle()
    rows = {
        "program_id": [program] * len(spans),
        "call_id": [str(n) for n in range(len(spans))],
        "start_ns": [start for start, _ in spans],
        "end_ns": [end for _, end in spans],
    }
    return order(pl.DataFrame(rows, schema_overrides={"start_ns": pl.Int64, "end_ns": pl.Int64}))


def parents(spans: list[Span], order: Order | None = None) -> list[list[int]]:
    return [sorted(map(int, names)) for names in linked(spans, order)["parents"]]


def by_definition(spans: list[tuple[int, int]]) -> list[list[int]]:
    """Look at every pair: who had ended, less whoever another one of those had waited for."""
    ends = [max(end, start + 1) for start, end in spans]
    before = [{a for a in range(len(spans)) if ends[a] <= spans[b][0]} for b in range(len(spans))]
    return [sorted(a for a in had if not any(a in before[c] for c in had)) for had in before]


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 12)).map(lambda s: (s[0], s[0] + s[1])),
        max_size=25,
    ).map(sorted)
)
def test_the_links_are_the_fewest_that_say_who_had_ended(spans: list[tuple[int, int]]) -> None:
    """Random spans, ties and empty spans among them, against the definition by brute force."""
    assert parents(list(spans)) == by_definition(spans)


def test_a_fan_out_and_its_fan_in() -> None:
    """One call, three that overlap, one after them: it waits for the three only."""
    spans: list[Span] = [(0, 10), (12, 30), (13, 20), (14, 25), (31, 40)]
    frame = linked(spans)
    assert parents(spans) == [[], [0], [0], [0], [1, 2, 3]]
    assert frame["delay_s"].to_list() == [None, 2e-9, 3e-9, 4e-9, 1e-9]
    assert frame["turn"].to_list() == [0, 1, 2, 3, 4]
    assert frame["delay_kind"].to_list() == [None, *["unknown"] * 4]


def test_a_call_that_starts_as_another_ends_waits_for_it() -> None:
    assert parents([(0, 10), (10, 20)]) == [[], [0]]
    assert parents([(0, 10), (9, 20)]) == [[], []]


def test_empty_spans_of_one_moment_do_not_wait_for_each_other() -> None:
    assert parents([(5, 5), (5, 5), (6, 7)]) == [[], [], [0, 1]]
    assert linked([(5, 5), (8, 9)])["delay_s"].to_list() == [None, 3e-9]


def test_nobody_waits_for_a_call_without_an_end() -> None:
    order = Order()
    assert parents([(0, None), (10, 20), (30, 40)], order) == [[], [], [1]]
    assert order.endless == 1


def test_batches_are_linked_like_one() -> None:
    spans: list[Span] = [(0, 4), (1, 9), (5, 6), (10, 12), (11, 13), (14, 15)]
    order = Order()
    order.settle()
    columns = {"program_id": "p", "call_id": [str(n) for n in range(6)]}
    whole = pl.DataFrame(
        {**columns, "start_ns": [s for s, _ in spans], "end_ns": [e for _, e in spans]}
    )
    parts = pl.concat([order(whole[:2]), order(whole[2:3]), order(whole[3:])])
    assert parts.equals(linked(spans))


def test_programs_do_not_wait_for_each_other_and_no_program_knows_nothing() -> None:
    order = Order()
    order.settle()
    frame = order(
        pl.DataFrame(
            {
                "program_id": ["a", "b", None],
                "call_id": ["1", "2", "3"],
                "start_ns": [0, 5, 9],
                "end_ns": [1, 6, 9],
            }
        )
    )
    assert frame["parents"].to_list() == [[], [], None]
    assert frame["turn"].to_list() == [0, 0, None]


@pytest.mark.parametrize(
    ("ended_ns", "kind"),
    [(9, "unknown"), (10, "tool"), (15, "tool"), (20, "tool"), (21, "unknown")],
)
def test_a_pause_in_which_a_tool_ended_is_its_pause(ended_ns: int, kind: str) -> None:
    order = Order()
    order.tool("p", ended_ns)
    order.tool("another", 15)
    assert linked([(0, 10), (20, 30)], order)["delay_kind"].to_list() == [None, kind]


def a_chat(*answers: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": answer} for answer in answers]


def test_a_prompt_that_repeats_an_answer_came_after_it() -> None:
    """Call 0 is recorded to end at 50, but call 1 at 20 knows its answer: it had ended by then."""
    order = Order()
    order.said("p", "0", 0, texts(None, "Paris"))
    order.said("p", "1", 20, texts(a_chat("Paris"), "Rome"))
    order.said("p", "2", 30, texts(a_chat("Oslo"), "Bern"))
    frame = linked([(0, 50), (20, 40), (30, 45)], order)
    assert frame["parents"].to_list() == [[], ["0"], ["0"]]
    assert frame["delay_s"].to_list() == [None, 0.0, 1e-8]


def test_an_answer_that_two_calls_gave_tells_nothing() -> None:
    order = Order()
    order.said("p", "0", 0, texts(None, "yes"))
    order.said("p", "1", 5, texts(None, "yes"))
    order.said("p", "2", 20, texts(a_chat("yes"), "no"))
    assert parents([(0, 50), (5, 50), (20, 60)], order) == [[], [], []]


def test_a_text_that_was_there_before_the_call_tells_nothing() -> None:
    order = Order()
    order.said("p", "0", 0, texts(a_chat("Hello"), "Bye"))
    order.said("p", "1", 5, texts(None, "Hello"))
    assert parents([(0, 50), (5, 40)], order) == [[], []]


def test_traces_of_a_conversation_are_one_program() -> None:
    order = Order()
    order.conversations |= {"p1": "talk", "p2": "talk"}
    order.tool("p1", 12)
    order.said("p1", "0", 0, texts(None, "Paris"))
    order.said("p2", "1", 5, texts(a_chat("Paris"), None))
    order.settle()
    spans = {"start_ns": [0, 5, 20], "end_ns": [50, 10, 30]}
    frame = order(pl.DataFrame({"program_id": "talk", "call_id": ["0", "1", "2"], **spans}))
    assert frame["parents"].to_list() == [[], ["0"], ["1"]]
    assert frame["delay_kind"].to_list() == [None, "unknown", "tool"]


@pytest.mark.parametrize(
    ("value", "whole"), [(3, 3), ("3", 3), (3.0, 3), (None, None), (0, 0), (2**70, 2**70)]
)
def test_a_count_is_whole(value: object, whole: int | None) -> None:
    assert count({"a": None, "b": value, "c": 9 if value is None else None}, "a", "b") == whole


@pytest.mark.parametrize("value", [1.5, "many", True, [], float("inf")])
def test_what_is_no_count_is_said(value: object) -> None:
    with pytest.raises(OddValue) as odd:
        count({"a": value}, "a")
    assert odd.value.args == ("a", value, "a whole number")


def test_a_moment_is_a_date_or_a_number() -> None:
    day_ns = 86_400 * 10**9
    assert moment("t", "1970-01-02T00:00:00.000000001Z") == day_ns + 1
    assert moment("t", 86_400_000) == day_ns
    assert moment("t", 86400.000001, "s") == day_ns + 1000
    assert moment("t", None) is None
    assert moment("t", "") is None
    for odd in ("yesterday", 1e300):
        with pytest.raises(OddValue):
            moment("t", odd)
