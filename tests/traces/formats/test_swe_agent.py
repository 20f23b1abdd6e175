import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "swe_agent.traj"
FROM_HISTORY = (
    "Prompts are the history up to each answer; what the agent left out of it before sending is"
    " not recorded."
)


def a_step(response: str = "r", **fields: object) -> dict[str, Any]:
    return {"action": "ls", "observation": "o", "response": response, **fields}


def a_run(*steps: dict[str, Any], **fields: object) -> str:
    return json.dumps({"environment": "main", "trajectory": steps, **fields})


def said(role: str, content: str = "c", **fields: object) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def prompts(path: Path) -> list[list[str] | None]:
    """The contents of the messages of every prompt."""
    texts = load(path).tables["contents"].collect()["input_messages"]
    return [text and [message["content"] for message in json.loads(text)] for text in texts]


def test_pydicom_has_the_published_totals(original: Callable[[str], Path]) -> None:
    path = original("swe_agent/pydicom__pydicom-1458.traj")
    trace = load(path)
    frame = trace.collect()
    assert frame.height == 12
    assert set(frame["program_id"]) == {"pydicom__pydicom-1458"}
    assert frame["turn"].to_list() == list(range(12))
    assert frame["input_tokens"].null_count() == frame["output_tokens"].null_count() == 12
    assert frame["delay_s"].null_count() == 12
    assert not {"arrival_s", "status"} & set(frame.columns)
    assert (
        "Tokens are recorded as totals of runs only: 122,612 sent and 1,369 received."
        in trace.provenance.doubts
    )
    assert FROM_HISTORY in trace.provenance.doubts
    assert not any("calls to the model" in doubt for doubt in trace.provenance.doubts)
    assert trace.provenance.sha256 == (
        "f081b131803e16ed68cf2c65bedff8e8a60be494c98b141d0af44ce28ae56b74"
    )


def test_every_answer_of_pydicom_is_that_of_its_step(original: Callable[[str], Path]) -> None:
    """A system prompt, a demonstration and the issue come first, then two messages a step."""
    path = original("swe_agent/pydicom__pydicom-1458.traj")
    steps = json.loads(path.read_bytes())["trajectory"]
    texts = load(path).tables["contents"].collect()
    assert texts["output_text"].to_list() == [step["response"] for step in steps]
    assert [len(prompt or []) for prompt in prompts(path)] == list(range(3, 26, 2))


def test_newer_files_say_how_long_each_action_ran(original: Callable[[str], Path]) -> None:
    frame = load(original("swe_agent/6e44b9__sweagenttestrepo-1c2844.traj")).collect()
    assert frame.height == 5
    assert frame["delay_s"].to_list() == [
        None,
        0.2814128329991945,
        0.29675291599960474,
        0.4935787079994043,
        0.2925790000008419,
    ]


def test_two_runs_are_two_programs(original: Callable[[str], Path]) -> None:
    trace = load(original("swe_agent"))
    frame = trace.collect()
    assert frame["program_id"].n_unique() == 2
    assert frame["parents"].to_list() == [
        [] if turn == 0 else [str(row - 1)]
        for turn, row in zip(frame["turn"], frame["source_row"], strict=True)
    ]
    # 122,612 + 7,141 and 1,369 + 243
    assert (
        "Tokens are recorded as totals of runs only: 129,753 sent and 1,612 received."
        in trace.provenance.doubts
    )


def test_the_sample() -> None:
    """The history ends before the last answer: all of it is that step's prompt."""
    trace = load(SAMPLE)
    frame = trace.collect()
    assert frame["delay_s"].to_list() == [None, 0.2814128]
    assert frame["delay_kind"].to_list() == [None, "tool"]
    first = ["SETTING: You are a programmer.", "Here is a demonstration.", "Solve the issue."]
    assert prompts(SAMPLE) == [first, [*first, "I will search.", "Found 1"]]
    answers = trace.tables["contents"].collect()["output_text"].to_list()
    assert answers[0].startswith('I will search.\n[{"function"')
    assert answers[1] == "Done."


def test_an_answer_of_a_demonstration_is_no_step(a_file: Write) -> None:
    history = [said("assistant", "demo", is_demo=True), said("user"), said("assistant", "r")]
    path = a_file(a_run(a_step(), history=history), "a.traj")
    assert prompts(path) == [["demo", "c"]]


def test_steps_beyond_the_history_have_no_prompt(a_file: Write) -> None:
    path = a_file(a_run(a_step(), a_step(), a_step(), history=[said("user")]), "a.traj")
    assert prompts(path) == [["c"], None, None]


def test_what_was_sent_is_taken_where_it_is_recorded(a_file: Write) -> None:
    """Newer versions record the messages of each call, and [{}] for a step without one."""
    steps = [a_step(query=[said("user", "sent")]), a_step(query=[{}])]
    history = [said("user", "long"), said("assistant", "r"), said("tool", "t")]
    path = a_file(a_run(*steps, history=history), "a.traj")
    assert prompts(path) == [["sent"], ["long", "r", "t"]]
    assert FROM_HISTORY in load(path).provenance.doubts
    path = a_file(a_run(steps[0], history=history), "b.traj")
    assert FROM_HISTORY not in load(path).provenance.doubts


def test_zero_totals_are_of_replays_and_not_said(a_file: Write) -> None:
    stats = {"tokens_sent": 0, "tokens_received": 0, "api_calls": 0}
    trace = load(a_file(a_run(a_step(), info={"model_stats": stats}), "a.traj"))
    assert not any("Tokens" in doubt for doubt in trace.provenance.doubts)


def test_steps_that_are_not_as_many_as_calls_are_doubted(a_file: Write) -> None:
    path = a_file(a_run(a_step(), info={"model_stats": {"api_calls": 3}}), "a.traj")
    assert "The runs count 3 calls to the model and have 1 steps." in load(path).provenance.doubts


def test_runs_of_one_name_stay_apart(a_file: Write, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        a_file(a_run(a_step()), f"{folder}/task.traj")
    assert load(tmp_path).collect()["program_id"].to_list() == ["task", "task (2)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (a_run(a_step(response=None)), r"got `null` - at `\$\.trajectory\[0\]\.response`"),  # type: ignore[arg-type]
        (
            a_run(a_step(), a_step(execution_time=-1)),
            r"`float` >= 0.0 - at `\$\.trajectory\[1\]\.execution_time`",
        ),
        (a_run(a_step(), history={}), r"got `object` - at `\$\.history`"),
        (
            a_run(a_step(), info={"model_stats": {"tokens_sent": "1"}}),
            r"got `str` - at `\$\.info\.model_stats\.tokens_sent`",
        ),
        (a_run(a_step())[:-1], "Input data was truncated"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(a_file: Write, content: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"a\.traj: .*{message}"):
        load(a_file(content, "a.traj"))


def test_a_run_without_steps_is_no_trace(a_file: Write) -> None:
    with pytest.raises(BadRow, match="has no row that can be read"):
        load(a_file(a_run(), "a.traj"), format="swe_agent")


def test_bad_files_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    a_file(a_run(a_step()), "runs/a.traj")
    a_file(a_run(a_step(execution_time="long")), "runs/b.traj")
    a_file(a_run(a_step(), a_step()), "runs/c.traj")
    aside = tmp_path / "r.jsonl"
    trace = load(tmp_path / "runs", on_error="skip", rejected=aside)
    assert trace.collect()["program_id"].to_list() == ["a", "c", "c"]
    assert sum(trace.provenance.rows_dropped.values()) == 1
    assert "b.traj" in json.loads(aside.read_text())["where"]
