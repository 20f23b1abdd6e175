import json
from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow
from servescope.traces.formats import BUILT_IN, aiperf_dag

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "aiperf_dag.jsonl"
LIVE = (
    "Answers of earlier turns are not in the file, since AIPerf takes them from the server: prompts"
    " lack them."
)


def a_turn(content: str = "hi", **fields: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], **fields}


def a_session(name: str, *turns: dict[str, object], **fields: object) -> str:
    return json.dumps({"session_id": name, "turns": turns or [a_turn()], **fields}) + "\n"


def prompts(path: Path) -> dict[str, str]:
    texts = load(path).tables["contents"].collect()
    return {
        name: " ".join(message["content"] for message in json.loads(messages))
        for name, messages in texts.select("content_ref", "input_messages").iter_rows()
    }


def waits(path: Path) -> dict[str, list[str]]:
    return dict(load(path).collect().select("call_id", "parents").iter_rows())


def test_calls_wait_for_their_turn_their_spawner_and_what_is_joined() -> None:
    trace = load(SAMPLE, tokenizer="estimate")
    calls = trace.collect()
    assert dict(calls.select("call_id", "parents").iter_rows()) == {
        "root/0": [],
        "a/0": ["root/0"],
        "a/1": ["a/0"],
        "root/1": ["root/0"],
        "root/2": ["root/1", "a/1"],
        "b/0": ["root/2"],
    }
    assert calls["call_id"].to_list() == ["root/0", "a/0", "a/1", "root/1", "root/2", "b/0"]
    assert calls["program_id"].unique().to_list() == ["root"]
    assert calls["turn"].to_list() == [0, 1, 2, 3, 4, 5]
    assert calls["source_row"].to_list() == [1, 2, 2, 1, 1, 3]
    assert calls["delay_s"].to_list() == [None, 0.0, 0.0, 0.2505, 0.0, 0.0]
    assert calls["delay_kind"].to_list() == [None, *["unknown"] * 5]
    assert calls["output_tokens"].to_list() == [64, 16, None, None, None, None]
    assert calls["input_tokens"].to_list() == [1, 1, 2, 3, 5, 6]
    assert calls["model"].to_list() == [None, None, None, None, "m", None]
    assert "arrival_s" not in calls.columns
    known = trace.provenance
    assert (known.format, known.rows_kept, known.t0) == ("aiperf_dag", 6, None)
    assert known.inferred == {
        "output_tokens": "max_tokens, the most that the answer may have: it may be shorter"
    }
    assert known.doubts == (LIVE,)


def test_a_fork_inherits_what_was_said_and_a_spawn_does_not() -> None:
    assert prompts(SAMPLE) == {
        "root/0": "plan",
        "root/1": "plan go on",
        "root/2": "plan go on merge",
        "a/0": "sub",
        "a/1": "sub more",
        "b/0": "plan go on merge end",
    }


def test_turns_that_are_whole_are_not_added_up(a_file: Write) -> None:
    mode = {"context_mode": "message_array_with_responses"}
    path = a_file(a_session("s", a_turn("one"), a_turn("one two three"), **mode))
    assert prompts(path) == {"s/0": "one", "s/1": "one two three"}
    assert LIVE not in load(path).provenance.doubts


def test_answers_are_lacking_only_where_there_were_any(a_file: Write) -> None:
    alone = a_session("p", a_turn())
    forked = a_session("p", a_turn(forks=["c"])) + a_session("c")
    assert LIVE not in load(a_file(alone)).provenance.doubts
    assert LIVE in load(a_file(forked)).provenance.doubts


def test_a_child_may_stand_before_its_parent(a_file: Write) -> None:
    path = a_file(a_session("child") + a_session("p", a_turn(spawns=["child"]), a_turn()))
    assert waits(path) == {"p/0": [], "child/0": ["p/0"], "p/1": ["p/0", "child/0"]}


def test_a_session_spawned_twice_is_two(a_file: Write) -> None:
    spawning = a_session("p", a_turn(spawns=["c", "c"]), a_turn())
    path = a_file(spawning + a_session("c", a_turn(forks=["d"])) + a_session("d"))
    assert waits(path) == {
        "p/0": [],
        "c/0": ["p/0"],
        "d/0": ["c/0"],
        "c~2/0": ["p/0"],
        "d~2/0": ["c~2/0"],
        "p/1": ["p/0", "c/0", "c~2/0"],
    }


def test_a_spawn_before_the_session_waits_for_what_the_session_waits_for(a_file: Write) -> None:
    inner = a_session("s", a_turn(), pre_session_spawns=["x"]) + a_session("x")
    path = a_file(a_session("p", a_turn(forks=["s"]), pre_session_spawns=["y"]) + inner)
    path.write_text(path.read_text() + a_session("y"))
    assert waits(path) == {"p/0": [], "y/0": [], "s/0": ["p/0"], "x/0": ["p/0"]}


def test_what_is_spawned_by_the_last_turn_is_joined_by_none(a_file: Write) -> None:
    path = a_file(a_session("p", a_turn(spawns=["c"])) + a_session("c"))
    assert waits(path) == {"p/0": [], "c/0": ["p/0"]}


def test_a_background_fork_leaves_its_parent_running(a_file: Write) -> None:
    fork = a_turn(forks=[{"child": "c", "background": True}])
    path = a_file(a_session("p", fork, a_turn()) + a_session("c"))
    assert waits(path) == {"p/0": [], "c/0": ["p/0"], "p/1": ["p/0"]}


def test_multi_turn_has_texts_and_times(a_file: Write) -> None:
    turns = (
        {"text": "one", "timestamp": 1500, "output_length": 7},
        {"texts": ["two", "three"], "delay": 20},
    )
    path = a_file(a_session("s", *turns) + a_session("t", {"text": "x", "timestamp": 1750.5}))
    trace = load(path)
    calls = trace.collect().sort("call_id")
    assert calls["arrival_s"].to_list() == [0.0, None, 0.2505]
    assert calls["delay_s"].to_list() == [None, 0.02, None]
    assert calls["output_tokens"].to_list() == [7, None, None]
    assert prompts(path) == {"s/0": "one", "s/1": "one two three", "t/0": "x"}
    assert trace.provenance.inferred == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_session("p"), "a session p came before"),
        (a_session("q", a_turn(spawns=["x"])), "session q starts x, which is not in the file"),
        (a_session("q", a_turn(spawns=["q"])), "session q starts itself"),
        (
            a_session("q", a_turn(forks=["r"])) + a_session("r", a_turn(spawns=["q"])),
            "session q starts itself",
        ),
        (
            a_session("q", a_turn(spawns=[{"children": ["p"], "join_at": 1}])),
            "turn 0 spawns sessions to be joined at turn 1",
        ),
        (
            a_session("q", a_turn(), a_turn(spawns=[{"children": ["p"], "join_at": 1}]), a_turn()),
            "turn 1 spawns sessions to be joined at turn 1",
        ),
        (a_session("q", {}), "turn 0 has no messages"),
        (a_session("q", orchestrator=True, spawns=["p"]), "session q is an orchestrator"),
        ('{"session_id": "q", "turns": []}\n', "session q has no turns"),
        ('{"turns": []}\n', "missing required field `session_id`"),
        (a_session("q", a_turn(max_tokens=0)), r"`int` >= 1 - at `\$\.turns\[0\]\.max_tokens`"),
        (a_session("q", a_turn(spawns=[{}])), r"missing required field `children`"),
        (a_session("q", a_turn(timestamp=1e30)), "is no moment in ms before the year 2262"),
        (a_session("q", a_turn(), a_turn(delay=-1)), "delay_s is -0.001"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"t\.jsonl, line 2: .*{message}"):
        load(a_file(a_session("p") + line, "t.jsonl"))


def test_bad_lines_may_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    """What starts a session that is put aside goes with it."""
    lines = a_session("p", a_turn(spawns=["q"])) + a_session("q", a_turn(spawns=["nobody"]))
    path = a_file(lines + a_session("ok") * 2)
    trace = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.collect()["call_id"].to_list() == ["ok/0"]
    assert trace.provenance.rows_dropped == {
        "not a session of AIPerf": 1,
        "sessions astray": 2,
    }


def test_sessions_may_not_multiply_without_end(
    a_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiperf_dag, "_MOST_CALLS", 100)
    lines = (a_session(f"{n}", a_turn(spawns=[f"{n + 1}"] * 2)) for n in range(20))
    with pytest.raises(BadRow, match=r"line 1: session 0 becomes more than 100 calls"):
        load(a_file("".join(lines) + a_session("20")))


def test_a_long_line_of_forks_is_followed(a_file: Write) -> None:
    lines = (a_session(f"{n}", a_turn(forks=[f"{n + 1}"])) for n in range(1500))
    assert load(a_file("".join(lines) + a_session("1500"))).collect().height == 1501


def test_no_other_format_claims_it() -> None:
    for head in (SAMPLE.read_bytes(), a_session("s", {"text": "one"}).encode()):
        assert [name for name, form in BUILT_IN.items() if form.sniff(head)] == ["aiperf_dag"]
