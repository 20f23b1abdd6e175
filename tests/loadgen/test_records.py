from pathlib import Path
from typing import Any

import polars as pl
import pytest

from servescope.loadgen.records import Journal, Record
from servescope.traces import Run, RunInfo
from servescope.traces.errors import OutputFailed
from servescope.traces.run import RUN_COLUMNS
from servescope.traces.schema import SCHEMA

PLAN = pl.DataFrame(
    {
        "call_id": ["a", "b"],
        "program_id": ["p", "p"],
        "turn": [0, 1],
        "due_s": [0.0, None],
        "parents": [[], ["a"]],
        "delay_s": [0.0, 2.0],
        "input_tokens": [10, 20],
        "output_tokens": [5, 6],
    },
    schema_overrides={"parents": pl.List(pl.String)},
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    info = RunInfo(name="r", system="s", clock="real", version="0", started="", seed=0)
    return Run.create(tmp_path / "r", {}, PLAN, info)


def record(number: int = 0, **fields: Any) -> Record:
    return Record(number=number, status="ok", due_s=1.0, **fields)


def test_rows_are_on_the_disk_after_a_flush_and_each_flush_adds(run: Run) -> None:
    journal = Journal(run)
    journal.append(record(1, chunk_s=[1.5, 2.0]))
    assert Run(run.path).trace.collect()["status"].to_list() == []
    journal.flush()
    journal.append(record(0))
    journal.flush()
    journal.flush()  # nothing new
    assert len(run.segments) == 2
    assert Run(run.path).trace.collect()["call_id"].to_list() == ["a", "b"]


def test_a_row_holds_what_the_plan_says_and_what_came_back(run: Run) -> None:
    table = Journal(run).frame([record(1, chunk_s=[1.5, 2.0], output_tokens=2, input_tokens=21)])
    row = table.row(0, named=True)
    assert table.columns == list(RUN_COLUMNS)
    assert all(table.schema[name] == SCHEMA[name] for name in RUN_COLUMNS)
    assert (row["call_id"], row["turn"], row["parents"], row["delay_s"]) == ("b", 1, ["a"], 2.0)
    assert (row["due_s"], row["arrival_s"], row["chunk_s"]) == (1.0, 1.0, [1.5, 2.0])
    assert (row["input_tokens"], row["output_tokens"]) == (21, 2)


def test_what_is_unknown_is_null_and_prompts_without_a_count_are_as_planned(run: Run) -> None:
    row = Journal(run).frame([record(0)]).row(0, named=True)
    assert (row["first_token_s"], row["cached_tokens"], row["replica"]) == (None, None, None)
    assert (row["parents"], row["input_tokens"]) == ([], 10)


def test_a_call_that_is_given_up_was_due_when_it_was_given_up() -> None:
    made = Record.given_up(1, 4.0)
    assert (made.status, made.due_s, made.sent_s, made.end_s) == ("not_sent", 4.0, None, 4.0)
    assert made.error == "not sent: a call it waits for failed"


def test_a_disk_that_takes_nothing_is_an_error(run: Run) -> None:
    (run.path / "calls").write_text("in the way")
    journal = Journal(run)
    journal.append(record())
    with pytest.raises(OutputFailed, match="cannot be written"):
        journal.flush()
