"""The run directory that a result becomes."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import Run
from servescope.traces.errors import BadRow, OutputExists
from servescope.traces.results import Result, read

ROW: dict[str, Any] = {
    "call_id": "0", "program_id": "0", "turn": 0, "parents": [], "status": "ok", "due_s": 0.0,
    "sent_s": 0.1, "first_byte_s": 0.2, "first_token_s": 0.3, "chunk_s": [0.3, 0.5],
    "last_token_s": 0.5, "end_s": 0.6, "input_tokens": 4, "output_tokens": 2,
}  # fmt: skip


def a_result(**facts: Any) -> Result:
    told = {"title": "vLLM", "file": "a.json", "sha256": "abc", **facts}
    return Result.of([ROW], "a.json", tool="vllm", **told)


def test_it_is_a_run_like_any_other(data: Path, tmp_path: Path) -> None:
    (result,) = read(data / "aiperf/faults/profile_export.jsonl.gz")
    result.write(tmp_path / "run", "mine")
    run = Run.open(tmp_path / "run")
    assert sorted(path.name for path in run.path.iterdir()) == [
        "calls.parquet",
        "experiment.toml",
        "plan.parquet",
        "run.json",
    ]
    assert run.rows.collect().sort("call_id").equals(result.calls.sort("call_id"))
    assert run.plan.equals(result.plan)
    info = run.info
    assert (info.name, info.clock, info.validity) == ("mine", "real", "suspect")
    assert info.doubts[0].startswith("Nobody checked the client: how late AIPerf itself sent")
    assert (info.planned_calls, info.workload["multi_turn_programs"]) == (43, 13)
    assert info.started == "2026-11-25T22:31:58+00:00"
    assert info.duration_s == result.calls["end_s"].max()
    assert info.imported is not None
    assert (info.imported.tool, info.imported.file) == ("aiperf", "profile_export.jsonl.gz")
    assert len(info.imported.sha256) == 64


def test_experiment_toml_says_where_it_came_from(tmp_path: Path) -> None:
    run = a_result(load={"rate": 5, "ramp": None, "far": 2**70, "in": [{"a": None}]}).write(
        tmp_path / "run", "n"
    )
    assert tomllib.loads((run.path / "experiment.toml").read_text()) == {
        "name": "n",
        "imported": {
            "tool": "vllm",
            "file": "a.json",
            "sha256": "abc",
            "load": {"rate": 5, "far": str(2**70), "in": [{}]},
        },
    }


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    info = a_result().write(tmp_path / "run", "n").info
    assert (info.started, info.ended, info.seed, info.zero_unix_s) == (None,) * 4
    assert Run.open(tmp_path / "run").info == info


def test_a_login_in_an_address_is_not_kept() -> None:
    assert a_result(endpoint="http://me:secret@host:8000").info("n").endpoint == "http://host:8000"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(OutputExists):
        a_result().write(tmp_path, "n")
    assert (tmp_path / "kept").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sent_s": float("inf")}, "sent_s that is no number"),
        ({"chunk_s": [0.3, float("nan")]}, "chunk_s that is no number"),
        ({"due_s": float("nan")}, "a (arrival|due)_s that is no number"),
        ({"first_token_s": 0.05}, "go backwards: the one numbered 0"),
        ({"end_s": 0.4}, "go backwards"),
        ({"first_token_s": None, "last_token_s": 0.05}, "go backwards"),
        ({"chunk_s": [0.5, 0.3]}, "go backwards"),
    ],
)
def test_stamps_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRow, match=says):
        Result.of([ROW | changes], "a.json", tool="vllm")


def test_a_stamp_may_be_off_by_what_rounding_takes() -> None:
    assert Result.of([ROW | {"end_s": 0.5 - 1e-9}], "a.json", tool="vllm").calls.height == 1
