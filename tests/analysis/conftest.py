"""A small run directory, made of rows."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from servescope.traces import Run
from servescope.traces.run import PLANNED, RunInfo, frame_of_rows

# a machine that others share stalls now and then
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

Row = dict[str, Any]
MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def call() -> Callable[..., Row]:
    """Return a function that makes the row of a call from the moments of its chunks."""

    def make(call_id: str, due_s: float | None = 0.0, *chunk_s: float, **fields: Any) -> Row:
        row: Row = {
            "call_id": call_id,
            "program_id": fields.get("program_id", f"program of {call_id}"),
            "status": "ok",
            "arrival_s": due_s,
            "due_s": due_s,
            "admitted_s": due_s,
            "dispatched_s": fields.get("sent_s", due_s),
            "sent_s": due_s,
            "input_tokens": 10,
            "output_tokens": len(chunk_s),
            "chunk_s": list(chunk_s),
            "first_token_s": chunk_s[0] if chunk_s else None,
            "first_answer_s": chunk_s[0] if chunk_s else None,
            "last_token_s": chunk_s[-1] if chunk_s else None,
            "end_s": chunk_s[-1] if chunk_s else due_s,
        }
        return row | fields

    return make


@pytest.fixture(scope="session")
def failed(call: Callable[..., Row]) -> Callable[..., Row]:
    """Return a function that makes the row of a call that got no answer."""

    def make(call_id: str, due_s: float, status: str = "http_503", **fields: Any) -> Row:
        nothing = {"output_tokens": None, "chunk_s": None, "end_s": due_s + 1}
        return call(call_id, due_s, status=status, **{**nothing, **fields})

    return make


@pytest.fixture
def a_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a sealed run directory of rows."""
    made: list[Run] = []

    def make(rows: Iterable[Row], name: str = "a", **fields: Any) -> Run:
        said = {"system": "none", "clock": "virtual", "version": "0", "started": "", "seed": 0}
        info = RunInfo(**{"name": name, "plan_sha256": "one plan", **said, **fields})
        rows = list(rows)
        plan = frame_of_rows(rows).select(*PLANNED, "due_s")
        run = Run.create(tmp_path / f"{len(made)}-{name}", {}, plan, info)
        run.append(frame_of_rows(rows))
        run.seal(info)
        made.append(run)
        return run

    return make
