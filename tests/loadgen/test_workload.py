import polars as pl
import pytest

from servescope.loadgen.workload import Workload, digest
from servescope.traces import Provenance, Trace, infer_sessions, load
from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats.clock import to_ns


def trace_of(**columns: list[object]) -> Trace:
    return Trace.of(pl.DataFrame(columns), Provenance(format="test", source="test"))


def test_calls_without_a_session_are_a_program_each() -> None:
    workload = Workload.of(load("azure:sample"))
    assert len(workload.programs) == 1500
    assert {len(program.calls) for program in workload.programs} == {1}


def test_a_recorded_session_is_one_program_whose_turns_follow_each_other() -> None:
    workload = Workload.of(load("burstgpt:sessions"))
    program = next(p for p in workload.programs if p.id.startswith("1722ac82"))
    first, second = program.calls[:2]
    assert first.parents == ()
    assert second.parents == (first.id,)
    assert second.delay_s == 148.0  # 191 s less 0 s less 43 s of service: from the file by hand
    assert second.offset_s == 0.0


def test_a_turn_without_a_recorded_delay_keeps_its_distance_from_the_start() -> None:
    trace = trace_of(
        call_id=["a", "b"],
        program_id=["p", "p"],
        parents=[[], ["a"]],
        delay_s=[None, None],
        arrival_s=[10.0, 17.5],
        input_tokens=[100, 300],
        output_tokens=[10, 10],
    )
    (program,) = Workload.of(trace).programs
    assert program.start_s == 10.0
    assert program.calls[1].offset_s == 7.5
    assert program.calls[1].delay_s == 0.0


def test_what_cannot_be_sent_is_left_out_by_reason_and_said() -> None:
    workload = Workload.of(load("burstgpt:sample"))
    assert workload.left_out == {"no input tokens": 17}
    assert "17 calls were left out: no input tokens." in workload.doubts
    assert sum(1 for _ in workload.calls()) == 383


def test_the_child_of_a_call_that_is_left_out_becomes_a_root_at_its_own_time() -> None:
    trace = trace_of(
        call_id=["a", "b"],
        program_id=["p", "p"],
        parents=[[], ["a"]],
        delay_s=[None, 3.0],
        arrival_s=[0.0, 9.0],
        input_tokens=[0, 50],
        output_tokens=[0, 5],
    )
    (program,) = Workload.of(trace).programs
    assert [call.id for call in program.calls] == ["b"]
    assert program.calls[0].parents == ()
    assert program.start_s == 9.0


def test_a_trace_of_which_nothing_can_be_sent_is_an_error_with_a_mend() -> None:
    trace = trace_of(arrival_s=[0.0], input_tokens=[0], output_tokens=[0])
    with pytest.raises(InputError, match=r"No call of the trace can be sent\. Choose"):
        Workload.of(trace)


def test_a_growing_prompt_shares_its_stream_and_a_shrunken_one_starts_anew() -> None:
    trace = trace_of(
        call_id=["a", "b", "c"],
        program_id=["p", "p", "p"],
        parents=[[], ["a"], ["b"]],
        delay_s=[None, 1.0, 1.0],
        arrival_s=[0.0, 2.0, 4.0],
        input_tokens=[100, 130, 90],
        output_tokens=[10, 10, 10],
    )
    (program,) = Workload.of(trace).programs
    streams = [call.prompt_stream for call in program.calls]
    assert streams[0] == streams[1] != streams[2]


def test_the_same_trace_makes_the_same_plan_to_the_byte() -> None:
    plans = [
        Workload.of(infer_sessions(load("mooncake:sample").window(0, 20))).plan() for _ in range(2)
    ]
    assert plans[0].equals(plans[1])
    assert digest(plans[0], 0, 512) == digest(plans[1], 0, 512)
    assert len({digest(plans[0], *made) for made in ((0, 512), (1, 512), (0, 16))}) == 3


def test_a_plan_knows_when_roots_are_due_and_leaves_the_rest_open() -> None:
    plan = Workload.of(load("burstgpt:sessions")).plan()
    roots = plan.filter(pl.col("parents").list.len() == 0)
    assert roots["due_s"].null_count() == 0
    assert plan.filter(pl.col("parents").list.len() > 0)["due_s"].is_null().all()


def test_calls_that_wait_for_each_other_are_refused() -> None:
    """None of them would ever be due: a replay would wait for ever."""
    trace = trace_of(
        call_id=["a", "b"],
        program_id=["p", "p"],
        parents=[["b"], ["a"]],
        delay_s=[0.0, 0.0],
        arrival_s=[0.0, 1.0],
        input_tokens=[5, 5],
        output_tokens=[5, 5],
    )
    with pytest.raises(BadRow, match=r"wait for each other: .*\. Mend their parents"):
        Workload.of(trace)


def test_a_link_to_another_program_is_dropped_and_said() -> None:
    trace = trace_of(
        call_id=["a", "b"],
        program_id=["p", "q"],
        parents=[[], ["a"]],
        delay_s=[None, 1.0],
        arrival_s=[0.0, 1.0],
        input_tokens=[5, 5],
        output_tokens=[5, 5],
    )
    workload = Workload.of(trace)
    assert [c.parents for c in workload.calls()] == [(), ()]
    assert workload.doubts == ("1 calls wait for a call of another program; they do not here.",)


def test_a_pause_without_end_is_refused() -> None:
    trace = trace_of(
        parents=[[]], delay_s=[float("nan")], arrival_s=[0.0], input_tokens=[5], output_tokens=[5]
    )
    with pytest.raises(BadRow):
        Workload.of(trace)


def a_blocked_trace(**facts: object) -> Trace:
    """Two programs whose prompts are made of blocks 1 and 2 each."""
    table = {
        "call_id": ["a", "b", "c"],
        "program_id": ["p", "p", "q"],
        "parents": [[], ["a"], []],
        "arrival_s": [0.0, 5.0, 1.0],
        "input_tokens": [130, 140, 130],
        "output_tokens": [5, 5, 5],
        "prefix_blocks": [[1, 2], [1, 2], [1, 2]],
    }
    types = {"prefix_blocks": pl.List(pl.UInt64)}
    about = Provenance(format="test", source="test", **facts)  # type: ignore[arg-type]
    return Trace.of(pl.DataFrame(table, schema_overrides=types), about)


def test_blocks_of_one_program_mean_nothing_in_another() -> None:
    known = {"block_tokens": 64, "block_rule": "floor"}
    local = Workload.of(a_blocked_trace(block_scope="program", **known)).calls()
    a, b, c = (call.prefix_blocks for call in local)
    assert a == b
    assert not set(a) & set(c)
    shared = Workload.of(a_blocked_trace(block_scope="global", **known)).calls()
    assert {call.prefix_blocks for call in shared} == {(1, 2)}


def test_what_a_replay_cannot_follow_is_said() -> None:
    apart = Workload.of(a_blocked_trace(arrival_basis="program"))
    assert any("they all begin together" in doubt for doubt in apart.doubts)
    parts = Workload.of(a_blocked_trace(block_rule="component", block_scope="global"))
    assert any("components of any length" in doubt for doubt in parts.doubts)
    assert Workload.of(a_blocked_trace(block_tokens=64, block_rule="floor")).doubts == ()


@pytest.mark.parametrize("name", ["azure:sample", "burstgpt:sample", "mooncake:sample"])
def test_calls_are_due_when_the_source_says_to_the_nanosecond(name: str) -> None:
    trace = load(name)
    due = Workload.of(trace).plan().select(ns=to_ns(pl.col("due_s"))).to_series()
    sendable = trace.collect().filter((pl.col("input_tokens") > 0) & (pl.col("output_tokens") > 0))
    stamps = sendable.select(ns=to_ns(pl.col("arrival_s"))).to_series()
    assert (due - due[0]).to_list() == (stamps - stamps[0]).to_list()
