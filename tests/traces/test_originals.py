"""Every original file is recognised by its content, and holds the rows that its manifest counts."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces import load
from servescope.traces.errors import InputError

ORIGINALS = Path(__file__).parents[2].parent / "shared" / "data"
MANIFEST = ORIGINALS / "MANIFEST.csv"
# The folder of a source, and the format that it is in where that is not its name.
FORMATS = {
    "azure_llm_2023": "azure",
    "cc_traces_normalized": "cc_traces",
    "continuum_results": "continuum",
    "exgentic_otel_normalized": "exgentic",
    "lmcache_agent_trace": "lmcache",
    "mlcommons_agentic": "mlcommons",
    "otel_genai": "otel",
    "prism_arena": "prism",
    "swarm_agentic": "swarm",
    "weka_agentic": "weka",
}
# These count spans, messages or steps, of which only some are calls; or clients' windows.
NOT_CALLS = {"langfuse", "langsmith", "mlcommons_agentic", "atif", "servegen", "otel_genai"}
REFUSED = {
    "lmcache_agent_trace/taubench/ea09a0dc475dbe00b56101ef665b8c03.jsonl.gz": "It is empty",
    "mlcommons_agentic/agentic_inference_dataset_schema.json": "in no trace format",
    "tracelab/summary.json": "in no trace format",
    **{
        f"ragpulse/{part}.jsonl.gz": "holds the lengths of components and no calls"
        for part in (*("1_sys_prompt", "2_passages", "3_history", "4_user_input", "5_web_search"),)
    },
}
WEKA = ("trace_0012", "trace_0572", "trace_0612")  # all of them are read by their own test


def listed() -> list[tuple[str, int | None]]:
    if not MANIFEST.exists():
        return []
    with MANIFEST.open(newline="") as file:
        rows = [
            (row["file"], int(row["rows"]) if row["rows"] else None) for row in csv.DictReader(file)
        ]
    return [
        (name, rows)
        for name, rows in rows
        if not name.startswith("weka_agentic/") or any(some in name for some in WEKA)
    ]


@pytest.mark.skipif(not MANIFEST.exists(), reason="needs the original traces in ../shared/data")
def test_the_manifest_lists_every_kind_of_file() -> None:
    assert len({name.split("/")[0] for name, _ in listed()}) == 24


@pytest.mark.parametrize(("name", "rows"), [pytest.param(*row, id=row[0]) for row in listed()])
def test_a_file_is_recognised_and_whole(
    original: Callable[[str], Path], name: str, rows: int | None
) -> None:
    path = original(name)
    if name in REFUSED:
        with pytest.raises(InputError, match=REFUSED[name]):
            load(path)
        return
    about = load(path).provenance
    source = name.split("/")[0]
    if source != "gateway_logs":
        assert about.format == FORMATS.get(source, source)
    if source not in NOT_CALLS and rows is not None:
        assert about.rows_kept == about.rows_read == rows
