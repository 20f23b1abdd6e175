import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import inspect, load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
SAMPLES = Path(__file__).parents[2] / "data" / "formats" / "atif"
PROMPTS = (
    "Prompts are the steps up to each answer; what the agent left out of them before sending is not"
    " recorded."
)


def a_step(source: str = "agent", second: int | None = None, **fields: object) -> dict[str, Any]:
    stamp = {} if second is None else {"timestamp": f"2025-01-15T14:00:{second:02}Z"}
    return {"step_id": 1, "source": source, "message": source[0], **stamp, **fields}


def naming(**reference: str) -> dict[str, Any]:
    """The observation of a step that called another agent."""
    return {"results": [{"subagent_trajectory_ref": [reference]}]}


def a_trajectory(*steps: dict[str, Any], session: str = "s", **fields: object) -> dict[str, Any]:
    head = {"schema_version": "ATIF-v1.7", "session_id": session, "agent": {"name": "a"}}
    return {**head, "steps": steps, **fields}


def roles(path: Path) -> list[list[str]]:
    texts = load(path).tables["contents"].collect()["input_messages"]
    return [[message["role"] for message in json.loads(text or "[]")] for text in texts]


@pytest.mark.parametrize(
    ("name", "steps", "calls", "totals"),
    [
        ("harbor_terminus2_summarization", 10, 7, None),
        ("multi_tool_trajectory", 5, 3, (9150, 635, 5562)),
        ("parallel_tools_mixed_results", 3, 2, (1200, 105, 0)),
        ("multimodal_trajectory", 3, 2, (2600, 125, 0)),
    ],
)
def test_the_fixtures_have_the_totals_that_they_say(
    original: Callable[[str], Path],
    name: str,
    steps: int,
    calls: int,
    totals: tuple[int, int, int] | None,
) -> None:
    path = original(f"atif/{name}.json")
    document = json.loads(path.read_bytes())
    assert len(document["steps"]) == steps
    frame = load(path).collect()
    assert frame.height == calls
    assert set(frame["program_id"]) == {document["session_id"]}
    if totals:
        found = (frame["input_tokens"], frame["output_tokens"], frame["observed_cached_tokens"])
        assert tuple(column.sum() for column in found) == totals


def test_harbor_has_an_order_and_no_times(original: Callable[[str], Path]) -> None:
    """Its final metrics say 7,802 prompt tokens and its steps 6,502: the rest is in other files."""
    trace = load(original("atif/harbor_terminus2_summarization.json"))
    frame = trace.collect()
    assert "arrival_s" not in frame.columns
    assert frame["source_row"].to_list() == [2, 3, 4, 7, 8, 9, 10]
    assert frame["input_tokens"].to_list() == [682, 750, 820, 1700, 850, 850, 850]
    assert frame["parents"].to_list() == [[], ["2"], ["3"], ["4"], ["7"], ["8"], ["9"]]
    assert frame["delay_s"].null_count() == 7
    assert frame["delay_kind"].to_list() == [None, "tool", "tool", "user", *["tool"] * 3]
    assert (
        "3 references to trajectories are not followed: not in the source, or named before."
        in trace.provenance.doubts
    )
    assert trace.provenance.clock is None


def test_timestamps_are_arrivals_where_every_step_has_one(
    original: Callable[[str], Path],
) -> None:
    trace = load(original("atif/multi_tool_trajectory.json"))
    frame = trace.collect()
    assert frame["arrival_s"].to_list() == [0.0, 6.0, 11.0]
    assert frame["delay_s"].to_list() == [None, 6.0, 5.0]
    assert trace.provenance.t0 == "2025-01-15 14:00:03+00:00"
    assert {"arrival_s", "delay_s", "parents"} <= set(trace.provenance.inferred)


def test_images_are_counted_in_the_prompt(original: Callable[[str], Path]) -> None:
    """The user shows one, and a tool another."""
    frame = load(original("atif/multimodal_trajectory.json")).collect()
    assert frame["image_count"].to_list() == [1, 2]


def test_all_fixtures_are_one_trace(original: Callable[[str], Path]) -> None:
    trace = load(original("atif"))
    assert (trace.collect().height, trace.provenance.files) == (7 + 3 + 2 + 2 + 3, 5)
    found = inspect(trace).structure
    assert found is not None
    assert (found.programs, found.lost_parents, found.foreign_parents) == (5, 0, 0)
    assert (found.early, found.in_cycles, found.misnumbered) == (0, 0, 0)


@pytest.mark.parametrize("name", ["subagent_trajectories.json", "sample"])
def test_a_subagent_waits_for_its_caller_which_waits_for_it(
    original: Callable[[str], Path], name: str
) -> None:
    """Stamps: the caller at 2 s and 10 s, its sub-agent at 6 s of the same minute."""
    path = SAMPLES / "named.json" if name == "sample" else original(f"atif/{name}")
    frame = load(path).collect()
    assert frame["call_class"].to_list() == ["orchestrator", "summarizer", "orchestrator"]
    assert frame["model"].to_list() == ["gpt-4", "gpt-4o-mini", "gpt-4"]
    assert frame["input_tokens"].to_list() == [800, 600, 1200]
    assert frame["arrival_s"].to_list() == [0.0, 4.0, 8.0]
    assert set(frame["program_id"]) == {"sess-parent-001"}
    assert frame["source_row"].to_list() == [2, 6, 3]
    assert frame["parents"].to_list() == [[], ["2"], ["2", "6"]]
    assert frame["delay_s"].to_list() == [None, 4.0, 4.0]
    assert frame["delay_kind"].to_list() == [None, "unknown", "tool"]


def test_the_samples_are_one_trace() -> None:
    assert load(SAMPLES).collect().height == 5


def test_subagents_may_be_embedded_and_share_a_session(a_file: Write) -> None:
    caller = a_trajectory(
        a_step(observation=naming(trajectory_id="t", session_id="s")),
        a_step(),
        subagent_trajectories=[a_trajectory(a_step(), trajectory_id="t")],
    )
    frame = load(a_file(json.dumps(caller))).collect()
    assert frame["parents"].to_list() == [[], ["1", "3"], ["1"]]
    assert set(frame["program_id"]) == {"s"}
    assert frame["turn"].to_list() == [0, 1, 2]


def test_subagents_may_lie_in_files_beside(a_file: Write, tmp_path: Path) -> None:
    """In two runs of the same file names each finds its own; the caller's file comes later."""
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        caller = a_step(observation=naming(trajectory_path="a.sub.json", session_id="lost"))
        a_file(json.dumps(a_trajectory(a_step(), session=f"{run}-sub")), f"{run}/a.sub.json")
        a_file(json.dumps(a_trajectory(caller, a_step(), session=run)), f"{run}/trajectory.json")
    frame = load(tmp_path).collect()
    assert frame["program_id"].to_list() == ["one"] * 3 + ["two"] * 3
    assert frame["parents"].to_list() == [["2"], [], ["2", "1"], ["5"], [], ["5", "4"]]


def test_a_continuation_follows_the_last_call(a_file: Write, tmp_path: Path) -> None:
    """Steps copied from the earlier trajectory are in its prompt, and are no calls."""
    (tmp_path / "run").mkdir()
    copied = [a_step("user", is_copied_context=True), a_step(is_copied_context=True)]
    later = a_trajectory(*copied, a_step(), session="s-cont-1")
    first = a_trajectory(a_step("user"), a_step(), continued_trajectory_ref="b.json")
    a_file(json.dumps(first), "run/a.json")
    a_file(json.dumps(later), "run/b.json")
    frame = load(tmp_path / "run").collect()
    assert frame["source_row"].to_list() == [2, 5]
    assert frame["parents"].to_list() == [[], ["2"]]
    assert set(frame["program_id"]) == {"s"}
    assert roles(tmp_path / "run") == [["user"], ["user", "assistant"]]


def test_subagents_of_one_step_run_side_by_side(a_file: Write) -> None:
    both = [{"session_id": "x"}, {"session_id": "y"}]
    caller = a_step(observation={"results": [{"subagent_trajectory_ref": both}]})
    trajectories = [
        a_trajectory(caller, a_step()),
        a_trajectory(a_step(), a_step(), session="x"),
        a_trajectory(a_step(), session="y"),
    ]
    frame = load(a_file(json.dumps(trajectories))).collect()
    assert frame["parents"].to_list() == [[], ["1", "4", "5"], ["1"], ["3"], ["1"]]


def test_a_reference_to_itself_or_to_one_named_before_is_not_followed(a_file: Write) -> None:
    """The second step calls the sub-agent, so that waits for it and not for the first."""
    steps = [
        a_step(observation=naming(session_id="s")),
        a_step(observation=naming(session_id="x")),
        a_step(observation=naming(session_id="x")),
        a_step(),
    ]
    trace = load(a_file(json.dumps([a_trajectory(*steps), a_trajectory(a_step(), session="x")])))
    assert trace.collect()["parents"].to_list() == [[], ["1"], ["2", "5"], ["3"], ["2"]]
    assert (
        "2 references to trajectories are not followed: not in the source, or named before."
        in trace.provenance.doubts
    )


def test_trajectories_that_call_each_other_are_refused(a_file: Write) -> None:
    """x and y each wait for a call of the other that cannot have been made."""
    trajectories = [
        a_trajectory(a_step(observation=naming(session_id=other)), a_step(), session=me)
        for me, other in ("xy", "yx")
    ]
    with pytest.raises(BadRow, match="waits for itself through its parents"):
        load(a_file(json.dumps(trajectories)))


def test_a_step_without_a_call_is_none_and_one_of_several_is_doubted(a_file: Write) -> None:
    steps = [a_step(llm_call_count=0), a_step(llm_call_count=1), a_step(llm_call_count=3)]
    trace = load(a_file(json.dumps(a_trajectory(*steps))))
    assert trace.collect()["source_row"].to_list() == [2, 3]
    assert (
        "1 steps stand for several calls to the model each; their tokens are sums."
        in trace.provenance.doubts
    )


def test_one_step_without_a_time_takes_away_the_arrivals(a_file: Write) -> None:
    """Of its own trajectory only; and zero cached tokens are not unknown ones."""
    metrics = {"prompt_tokens": 7, "cached_tokens": 0}
    trajectories = [
        a_trajectory(a_step(second=1, metrics=metrics), a_step("user"), a_step(second=5)),
        a_trajectory(a_step(second=3, metrics=None), session="t"),
    ]
    frame = load(a_file(json.dumps(trajectories))).collect()
    assert frame["arrival_s"].to_list() == [None, None, 0.0]
    assert frame["delay_s"].null_count() == 3
    assert frame["input_tokens"].to_list() == [7, None, None]
    assert frame["observed_cached_tokens"].to_list() == [0, None, None]


def test_a_time_without_a_zone_is_local(a_file: Write) -> None:
    step = a_step(timestamp="2025-01-15T14:00:03.25")
    trace = load(a_file(json.dumps(a_trajectory(step))))
    assert trace.provenance.clock == "local"
    assert trace.provenance.t0 == "2025-01-15 14:00:03.25"


def test_a_call_stamped_before_its_parent_is_doubted(a_file: Write) -> None:
    trace = load(a_file(json.dumps(a_trajectory(a_step(second=9), a_step(second=5)))))
    frame = trace.collect().sort("source_row")
    assert frame["delay_s"].to_list() == [None, 0.0]
    assert (
        "1 calls are stamped before one that they wait for; their pause is 0."
        in trace.provenance.doubts
    )


def test_what_a_step_observed_is_in_the_next_prompt(a_file: Write) -> None:
    told = {"results": [{"source_call_id": "c", "content": "r"}, {"source_call_id": "d"}]}
    tools = [{"tool_call_id": "c", "function_name": "f", "arguments": {}}]
    step = a_step(tool_calls=tools, observation=told, reasoning_content="why")
    path = a_file(json.dumps(a_trajectory(a_step("system"), a_step("user"), step, a_step())))
    assert roles(path) == [["system", "user"], ["system", "user", "assistant", "tool"]]
    trace = load(path)
    answers = trace.tables["contents"].collect()["output_text"].to_list()
    assert answers[0] == f"why\na\n{json.dumps(tools, separators=(',', ':'))}"
    assert answers[1] == "a"
    assert PROMPTS in trace.provenance.doubts


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            a_trajectory(a_step("robot")),
            r"Invalid enum value 'robot' - at `\$\.steps\[0\]\.source`",
        ),
        (
            a_trajectory(a_step(), a_step(metrics={"prompt_tokens": "7"})),
            r"got `str` - at `\$\.steps\[1\]\.metrics\.prompt_tokens`",
        ),
        ([a_trajectory(steps=None)], r"got `null` - at `\$\[0\]\.steps`"),
        (a_trajectory(a_step(message=5)), r"`\$\.steps\[0\]\.message`"),
        (
            a_trajectory(a_step(), a_step(metrics={"completion_tokens": -7})),
            r", step 2: output_tokens is -7",
        ),
        (
            [a_trajectory(a_step()), a_trajectory(a_step(timestamp="noon"))],
            r", step 2: 'timestamp' is 'noon', not a date and time",
        ),
    ],
)
def test_what_makes_no_sense_is_named(a_file: Write, document: object, message: str) -> None:
    with pytest.raises(BadRow, match=rf"trace\.json.*{message}"):
        load(a_file(json.dumps(document), "trace.json"))


def test_bad_files_and_steps_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    """A trajectory with a bad time keeps its order; what waits for the bad step forgets it."""
    (tmp_path / "runs").mkdir()
    steps = [a_step(second=1), a_step(metrics={"prompt_tokens": -1}, second=2), a_step(second=3)]
    a_file(json.dumps(a_trajectory(*steps)), "runs/a.json")
    a_file(json.dumps(a_trajectory(a_step("robot"))), "runs/b.json")
    a_file(json.dumps(a_trajectory(a_step(timestamp="?"), a_step())), "runs/c.json")
    aside = tmp_path / "r.jsonl"
    trace = load(tmp_path / "runs", on_error="skip", rejected=aside)
    frame = trace.collect().sort("source_row")
    assert frame["source_row"].to_list() == [1, 3, 5]
    assert frame["parents"].to_list() == [[], [], []]
    assert trace.provenance.rows_read == 6
    assert sorted(trace.provenance.rows_dropped.values()) == [1, 1, 1]
    assert len(aside.read_text().splitlines()) == 3
