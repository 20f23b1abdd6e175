"""One program as a timeline: stages by hand, and stages that add up to JCT."""

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest

from servescope.analysis import Measured
from servescope.analysis.timeline import STAGES, Timeline
from servescope.traces import Run
from servescope.traces.errors import InputError
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]


def of_rows(rows: list[dict[str, Any]]) -> Timeline:
    return Timeline(Measured(frame_of_rows(rows).lazy()), "p")


def agent(call: Make) -> list[dict[str, Any]]:
    """A plan, two workers side by side of which the second is slow, and a summary of both."""
    rows = [
        call("plan", 10.0, 11.0, 12.0, end_s=12.5, parents=[]),
        call("quick", 13.0, 13.5, 14.0, parents=["plan"], ready_s=12.5, delay_kind="tool"),
        call("slow", 13.5, 16.0, 19.0, parents=["plan"], ready_s=12.5, dispatched_s=13.7,
             sent_s=14.0, end_s=19.5, observed_queue_s=0.5),
        call("sum", 20.0, 21.0, 23.0, parents=["quick", "slow"], ready_s=19.5),
    ]  # fmt: skip
    return [row | {"program_id": "p"} for row in rows]


def stages_of(timeline: Timeline, call_id: str) -> list[tuple[str, float, float]]:
    of_call = timeline.stages.filter(pl.col("call_id") == call_id).drop("call_id")
    return [(stage, round(begin, 9), round(end, 9)) for stage, begin, end in of_call.iter_rows()]


def test_a_call_is_told_stage_by_stage_since_the_program_began(call: Make) -> None:
    told = of_rows(agent(call))
    assert stages_of(told, "plan") == [
        ("first_token", 0.0, 1.0), ("decode", 1.0, 2.0), ("closing", 2.0, 2.5),
    ]  # fmt: skip
    assert stages_of(told, "slow") == [
        ("pause", 2.5, 3.5), ("wait", 3.5, 3.7), ("connect", 3.7, 4.0), ("queue", 4.0, 4.5),
        ("prefill", 4.5, 6.0), ("decode", 6.0, 9.0), ("closing", 9.0, 9.5),
    ]  # fmt: skip
    assert stages_of(told, "quick")[0] == ("pause", 2.5, 3.0)  # off the path, and it paused too


def test_calls_side_by_side_are_as_deep_and_have_lanes_of_their_own(call: Make) -> None:
    calls = of_rows(agent(call)).calls
    assert calls.select("call_id", "lane", "depth", "on_path").rows() == [
        ("plan", 0, 0, True), ("quick", 1, 1, False), ("slow", 2, 1, True), ("sum", 3, 2, True),
    ]  # fmt: skip


def test_the_stages_of_the_critical_path_add_up_to_the_parts_of_jct(call: Make) -> None:
    told = of_rows(agent(call))
    (program,) = told.measured.programs.iter_rows(named=True)
    on_path = told.stages.join(told.calls.filter("on_path"), on="call_id", maintain_order="left")
    spent = dict(
        on_path.group_by("stage").agg((pl.col("until_s") - pl.col("from_s")).sum()).iter_rows()
    )
    assert spent["pause"] == pytest.approx(program["jct_pause"])
    assert spent["wait"] + spent["connect"] == pytest.approx(program["jct_client"])
    first = spent["queue"] + spent["prefill"] + spent["first_token"]
    assert first == pytest.approx(program["jct_prefill"])
    assert spent["decode"] == pytest.approx(program["jct_decode"])
    assert spent["closing"] == pytest.approx(program["jct_closing"])
    assert sum(spent.values()) == pytest.approx(program["jct"])


def test_a_failure_ends_what_is_known_of_a_call(call: Make, failed: Make) -> None:
    rows = [
        call("broke", 0.0, 1.0, 2.0, status="reset", end_s=3.0, program_id="p"),
        failed("refused", 1.0, end_s=1.0, program_id="p"),
        failed("never", 0.0, "not_sent", program_id="p")
        | dict.fromkeys(("due_s", "admitted_s", "dispatched_s", "sent_s", "end_s")),
    ]
    told = of_rows(rows)
    assert stages_of(told, "broke")[-2:] == [("decode", 1.0, 2.0), ("failed", 2.0, 3.0)]
    assert stages_of(told, "refused") == [("failed", 1.0, 1.0)]
    assert stages_of(told, "never") == []
    assert told.calls["call_id"].to_list() == ["broke", "refused", "never"]


def test_a_program_of_which_nothing_was_due_has_no_stages(failed: Make) -> None:
    row = failed("never", 0.0, "not_sent", program_id="p")
    told = of_rows([row | dict.fromkeys(("due_s", "dispatched_s", "sent_s", "end_s"))])
    assert (told.start_s, told.stages.height) == (0.0, 0)


def test_a_queue_that_the_server_overstates_ends_with_the_first_token(call: Make) -> None:
    told = of_rows([call("a", 0.0, 1.0, 2.0, observed_queue_s=5.0, program_id="p")])
    assert stages_of(told, "a") == [("queue", 0.0, 1.0), ("decode", 1.0, 2.0)]


def test_parents_in_a_circle_and_parents_elsewhere_end(call: Make) -> None:
    rows = [
        call("a", 0.0, 1.0, program_id="p", parents=["b"]),
        call("b", 1.0, 2.0, program_id="p", parents=["a", "of another program"]),
        call("c", 2.0, 3.0, program_id="p", parents=["b"]),
    ]
    assert of_rows(rows).calls["depth"].to_list() == [1, 0, 1]


def test_a_long_chain_is_as_deep_as_it_is_long(call: Make) -> None:
    rows = [
        call(str(n), float(n), n + 0.5, program_id="p", parents=[str(n - 1)] if n else [])
        for n in range(2000)
    ]
    assert of_rows(rows[::-1]).calls["depth"].to_list() == list(range(2000))


def test_gaps_of_a_call_stand_at_the_chunk_that_ended_them(call: Make, a_run: MakeRun) -> None:
    rows = [
        call("first", 4.0, 5.0, 6.0, program_id="p"),
        call("other", 4.5, 5.0, 9.0, program_id="q"),
        call("a", 5.0, 6.0, 6.5, 8.5, program_id="p", chunk_tokens=[1, 2, 3], output_tokens=6),
        call("one", 6.0, 7.0, program_id="p"),
    ]
    told = Timeline(Measured.of(a_run(rows)), "p")
    assert told.gaps("a").rows() == [(2.5, 0.5, 2), (4.5, 2.0, 3)]
    assert told.gaps("first").rows() == [(2.0, 1.0, None)]
    assert told.gaps("one").is_empty()


def test_a_call_without_chunks_has_no_gaps(failed: Make) -> None:
    assert of_rows([failed("a", 0.0, program_id="p")]).gaps("a").is_empty()


def test_unknown_names_are_refused_in_a_sentence(call: Make) -> None:
    told = of_rows([call("a", 0.0, 1.0, program_id="p")])
    with pytest.raises(InputError, match="measured no program 'q'"):
        _ = Timeline(told.measured, "q").calls
    with pytest.raises(InputError, match="has no call 'b'"):
        told.gaps("b")


def test_every_stage_has_a_name_for_a_person() -> None:
    assert all(name and name[0].islower() for name in STAGES.values())
