"""Critical paths by hand, and parts that add up to JCT whatever the graph."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.analysis import Measured
from servescope.analysis.critical_path import with_path
from servescope.analysis.metrics import JCT_PARTS
from servescope.traces import Run
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]


def test_the_path_goes_through_the_parent_that_ended_last(call: Make, a_run: MakeRun) -> None:
    """A plan, two workers of which the second is slow, and a summary that waits for both."""
    rows = [
        call("plan", 0.0, 1.0, 2.0, end_s=2.5, parents=[]),
        call("quick", 3.0, 3.5, 4.0, parents=["plan"]),
        call("slow", 3.5, 6.0, 9.0, end_s=9.5, sent_s=4.0, parents=["plan"]),
        call("sum", 10.0, 11.0, 13.0, parents=["quick", "slow"]),
    ]
    for row in rows:
        row["program_id"] = "p"
    measured = Measured.of(a_run(rows))
    table = with_path(measured.calls)
    assert table.filter("on_path")["call_id"].to_list() == ["plan", "slow", "sum"]
    (program,) = measured.programs.iter_rows(named=True)
    parts = {name: program[name] for name in JCT_PARTS}
    assert parts == {
        "jct_pause": pytest.approx(1.0 + 0.5),
        "jct_client": pytest.approx(0.5),
        "jct_prefill": pytest.approx(1.0 + 2.0 + 1.0),
        "jct_decode": pytest.approx(1.0 + 3.0 + 2.0),
        "jct_closing": pytest.approx(0.5 + 0.5),
    }
    assert sum(parts.values()) == pytest.approx(program["jct"])


def test_of_roots_side_by_side_the_last_to_end_is_the_path(call: Make, a_run: MakeRun) -> None:
    """The second starts 4 s into the program, which counts as a pause of it."""
    rows = [call("a", 0.0, 1.0, program_id="p"), call("b", 4.0, 5.0, 7.0, program_id="p")]
    measured = Measured.of(a_run(rows))
    assert with_path(measured.calls)["on_path"].to_list() == [False, True]
    assert measured.values("jct_pause")["value"].to_list() == [4.0]


def test_parents_in_a_circle_end(call: Make) -> None:
    rows = [
        call("a", 0.0, 1.0, program_id="p", parents=["b"]),
        call("b", 1.0, 2.0, program_id="p", parents=["a"]),
    ]
    assert with_path(frame_of_rows(rows))["on_path"].to_list() == [True, True]


def test_no_calls_have_no_path() -> None:
    assert with_path(frame_of_rows([])).is_empty()


MOMENTS = st.lists(st.floats(0.001, 5.0), min_size=5, max_size=5)


@given(st.lists(st.tuples(MOMENTS, st.sets(st.integers(0, 9))), min_size=1, max_size=10))
def test_the_parts_add_up_to_jct_in_every_graph(
    call: Make, programs: list[tuple[list[float], set[int]]]
) -> None:
    rows: list[dict[str, Any]] = []
    for number, ((pause, wait, first, decode, closing), wanted) in enumerate(programs):
        parents = [rows[n] for n in wanted if n < number]
        begun = max((row["end_s"] for row in parents), default=0.0)
        due = begun + pause
        sent = due + wait
        rows.append(
            call(
                f"c{number}", due, sent + first, sent + first + decode,
                sent_s=sent, end_s=sent + first + decode + closing, program_id="p",
                parents=[row["call_id"] for row in parents],
            )
        )  # fmt: skip
    (program,) = Measured(frame_of_rows(rows).lazy()).programs.iter_rows(named=True)
    assert sum(program[name] for name in JCT_PARTS) == pytest.approx(program["jct"])
    assert all(program[name] >= -1e-9 for name in JCT_PARTS)
