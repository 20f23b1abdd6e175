import json
from pathlib import Path

import msgspec
import polars as pl
import pytest

from servescope.traces import Run, RunInfo, load, sent_log
from servescope.traces.errors import NotARun, OutputExists, OutputFailed
from servescope.traces.run import RUN_COLUMNS, frame_of_rows
from servescope.traces.schema import SCHEMA

INFO = RunInfo(
    name="chat",
    system="vllm",
    clock="virtual",
    version="0.1.0",
    started="2026-01-01T00:00:00Z",
    seed=7,
    planned_calls=3,
)
PLAN = pl.DataFrame(
    {
        "call_id": ["a", "b", "c"],
        "program_id": ["p", "q", "q"],
        "turn": [0, 0, 1],
        "parents": [[], [], ["b"]],
        "delay_s": [None, None, 3.0],
        "input_tokens": [5, 6, 7],
        "due_s": [0.0, 1.0, None],
    },
    schema_overrides={"parents": pl.List(pl.String)},
)
ROWS = [
    {"call_id": "b", "due_s": 1.0, "arrival_s": 1, "input_tokens": 6, "output_tokens": 0,
     "status": "http_503", "error": "busy"},
    {"call_id": "a", "due_s": 0.0, "arrival_s": 0, "input_tokens": 5, "output_tokens": 2,
     "status": "ok", "parents": [], "chunk_s": [1.0, 2.5], "chunk_tokens": [1, None]},
]  # fmt: skip


def a_run(path: Path, rows: list[dict[str, object]] = ROWS) -> Run:
    """A run that has not been sealed, one segment a row."""
    run = Run.create(path, {"name": "chat", "rate": {"rps": 2.5}}, PLAN, INFO)
    for row in rows:
        run.append(frame_of_rows([row]))
    return run


def test_a_new_run_holds_what_was_asked_and_planned(tmp_path: Path) -> None:
    Run.create(tmp_path / "a" / "b", {"name": "chat", "rate": {"rps": 2.5}}, PLAN, INFO)
    run = Run.open(tmp_path / "a" / "b")
    assert run.info == INFO
    assert run.plan.equals(PLAN)
    assert "rps = 2.5" in (run.path / "experiment.toml").read_text()
    assert run.trace.collect().is_empty()
    assert sorted(p.name for p in run.path.iterdir()) == [
        "experiment.toml",
        "plan.parquet",
        "run.json",
    ]


def test_a_run_may_begin_in_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert a_run(tmp_path / "empty").info.seed == 7


@pytest.mark.parametrize("taken", ["run.json", "notes.txt"])
def test_a_folder_with_anything_in_it_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(OutputExists, match="exists already and is not empty"):
        a_run(tmp_path)
    assert (tmp_path / taken).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputExists):
        a_run(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_without_run_json_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(NotARun, match=r"holds no run\.json"):
        Run.open(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"name": "x"}', '{"name": 3}', ""])
def test_a_damaged_run_json_is_said_to_be_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(NotARun, match=r"run\.json cannot be read"):
        _ = Run.open(tmp_path).info


def test_run_json_is_for_people_too(tmp_path: Path) -> None:
    text = (a_run(tmp_path / "r").path / "run.json").read_text()
    assert json.loads(text)["clock"] == "virtual"
    assert text.count("\n") > 5


def test_new_info_is_seen_at_once(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r")
    assert run.info.ended is None
    run.write_info(msgspec.structs.replace(INFO, ended="later", doubts=("late",)))
    assert (run.info.ended, run.info.doubts) == ("later", ("late",))


def test_a_killed_run_keeps_every_call_that_had_ended(tmp_path: Path) -> None:
    """No calls.parquet, and a segment that was being written."""
    run = a_run(tmp_path / "r")
    (run.path / "calls" / "000003.part").write_bytes(b"ARROW1\0\0 torn")
    calls = Run.open(run.path).trace.collect()
    assert calls["call_id"].to_list() == ["a", "b"]
    assert calls["status"].to_list() == ["ok", "http_503"]


def test_a_call_that_was_sent_and_has_no_row_was_in_flight(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r", ROWS[1:])
    entries = [sent_log.ENTRY.pack(0, 0.001), sent_log.ENTRY.pack(1, 1.002)]
    sent_log.path_of(run.path, 0).write_bytes(b"".join(entries) + b"torn")
    calls = run.trace.collect()
    assert calls.select("call_id", "status", "dispatched_s").rows() == [
        ("a", "ok", None),
        ("b", "lost", 1.002),
        ("c", "not_sent", None),
    ]
    run.seal(INFO)
    assert run.trace.collect().equals(calls)
    assert not sent_log.logs_of(run.path)


def test_damage_to_a_segment_is_not_passed_over(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r")
    run.segments[0].write_bytes(b"ARROW1 and then nothing")
    with pytest.raises(NotARun, match=r"000001\.arrow cannot be read"):
        _ = run.trace


def test_a_run_that_is_opened_again_goes_on_where_it_stopped(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r", [{**ROWS[0], "program_id": "q"}])
    run.seal(INFO)
    assert run.trace.collect()["status"].to_list() == ["http_503", "not_sent"]
    run.unseal()
    run.append(frame_of_rows([{"call_id": "c", "program_id": "q", "due_s": 2.0, "status": "ok"}]))
    run.seal(INFO)
    assert run.trace.collect()["status"].to_list() == ["http_503", "ok"]


def test_a_sealed_run_reads_the_same_as_its_segments(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r")
    before = run.trace.collect()
    run.seal(msgspec.structs.replace(INFO, ended="now"))
    after = Run.open(run.path)
    assert after.trace.collect().equals(before)
    assert after.info.ended == "now"
    assert not list(run.path.glob("*.part"))


def test_sealing_shows_the_calls_that_ended_since_the_last_look(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r", rows=ROWS[:1])
    assert run.trace.collect().height == 1
    run.append(frame_of_rows(ROWS[1:]))
    run.seal(INFO)
    assert run.trace.collect().height == 2


def test_a_failed_call_is_a_row_and_what_is_not_known_is_null(tmp_path: Path) -> None:
    calls = a_run(tmp_path / "r").trace.collect()
    a, b = calls.to_dicts()
    assert (b["status"], b["error"], b["output_tokens"]) == ("http_503", "busy", 0)
    assert (b["sent_s"], b["parents"], b["cached_tokens"]) == (None, None, None)
    assert (a["parents"], a["chunk_s"], a["chunk_tokens"]) == ([], [1.0, 2.5], [1, None])


def test_a_run_is_a_trace_of_measured_calls(tmp_path: Path) -> None:
    run = a_run(tmp_path / "r")
    trace = load(run.path)
    assert trace.provenance.kind == "measured"
    assert trace.provenance.source == str(run.path)
    assert trace.collect().equals(run.trace.collect())


def test_calls_are_ordered_by_when_they_were_due_then_by_name(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"call_id": name, "due_s": due} for name, due in [("z", None), ("y", 1.0), ("x", 1.0)]
    ]
    assert a_run(tmp_path / "r", rows).trace.collect()["call_id"].to_list() == ["x", "y", "z"]


@pytest.mark.parametrize("name", ["plan", "calls"])
def test_a_damaged_table_is_said_to_be_damaged(tmp_path: Path, name: str) -> None:
    run = a_run(tmp_path / "r[1]")
    (run.path / f"{name}.parquet").write_bytes(b"PAR1 and then nothing")
    damaged = Run.open(run.path)
    with pytest.raises(NotARun, match=rf"{name}\.parquet cannot be read"):
        _ = damaged.plan if name == "plan" else damaged.trace


def test_brackets_in_a_path_are_no_pattern(tmp_path: Path) -> None:
    run = a_run(tmp_path / "sweep[rate=2]*")
    run.seal(INFO)
    assert run.plan.height == 3
    assert run.trace.collect().height == 2


def test_rows_become_the_columns_of_a_run() -> None:
    """The first rows may know less than the last: types come from the schema, not from the rows."""
    rows = [{"call_id": str(n)} for n in range(200)] + [{"call_id": "z", "error": "late"}]
    table = frame_of_rows(rows)
    assert table.columns == list(RUN_COLUMNS)
    assert all(table.schema[name] == SCHEMA[name] for name in RUN_COLUMNS)
    assert table["error"].null_count() == 200


@pytest.mark.parametrize("sealed", [True, False])
def test_a_run_of_before_a_column_was_added_reads_as_null_and_can_go_on(
    tmp_path: Path, sealed: bool
) -> None:
    run = Run.create(tmp_path / "r", {}, PLAN, INFO)
    for row in ROWS:
        run.append(frame_of_rows([row]).drop("empty_s"))
    if sealed:
        run.seal(INFO)
    old = Run(run.path)
    assert "empty_s" not in old.rows.collect_schema()
    assert old.trace.collect()["empty_s"].to_list() == [None, None]
    old.unseal()
    old.append(frame_of_rows([{**ROWS[0], "call_id": "c", "empty_s": [3.0]}]))
    assert old.trace.collect().filter(pl.col("call_id") == "c")["empty_s"].to_list() == [[3.0]]


def test_the_unsent_rest_of_a_program_that_had_begun_is_in_the_run(tmp_path: Path) -> None:
    """Half a program is no whole one: without a row for turn 1 its JCT would be turn 0's."""
    begun: list[dict[str, object]] = [{"call_id": "b", "program_id": "q", "due_s": 1.0}]
    run = a_run(tmp_path / "killed", begun)
    for _ in ("killed", "sealed"):
        calls = run.trace.collect()
        assert calls["call_id"].to_list() == ["b", "c"]
        rest = calls.row(1, named=True)
        assert (rest["status"], rest["due_s"], rest["turn"]) == ("not_sent", None, 1)
        assert (rest["parents"], rest["delay_s"], rest["input_tokens"]) == (["b"], 3.0, 7)
        run.seal(INFO)


def test_a_program_that_never_began_is_not_in_the_run(tmp_path: Path) -> None:
    begun: list[dict[str, object]] = [{"call_id": "a", "program_id": "p", "due_s": 0.0}]
    assert a_run(tmp_path / "r", begun).trace.collect()["call_id"].to_list() == ["a"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(OutputFailed, match="cannot be written: Not a directory"):
        a_run(taken / "run")


def test_programs_that_begin_in_the_warm_up_do_not_count(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"call_id": "a", "program_id": "p", "due_s": 1.0},
        {"call_id": "b", "program_id": "q", "due_s": 4.0},
        {"call_id": "c", "program_id": "p", "due_s": 9.0},  # of a program that began before
        {"call_id": "d", "program_id": None, "due_s": 5.0},
    ]
    run = a_run(tmp_path / "r", rows)
    run.write_info(msgspec.structs.replace(INFO, warmup_s=4.0))
    assert run.measured.collect()["call_id"].to_list() == ["b", "d"]
    assert run.trace.collect().height == 4
