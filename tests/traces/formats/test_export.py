"""What is written in another tool's format and read again is what both can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from servescope.traces import Provenance, Trace, export, load
from servescope.traces.errors import InputError, OutputExists
from servescope.traces.formats.clock import to_ns

OF_NS = {"azure": 100, "burstgpt": 1, "mooncake": 1, "timed_trace": 1}
SAID: dict[str, dict[str, Any]] = {"mooncake": {"unit": "ms"}, "timed_trace": {"unit": "s"}}
COUNTS = st.integers(1, 10**6)


def a_trace(rows: list[tuple[int, int, int]], **facts: Any) -> Trace:
    frame = pl.DataFrame(rows, schema=["ns", "input_tokens", "output_tokens"], orient="row")
    calls = frame.sort("ns", maintain_order=True).select(
        pl.col("input_tokens", "output_tokens"),
        arrival_s=(pl.col("ns") - pl.col("ns").min()).cast(pl.Float64)
        / pl.lit(10**9).cast(pl.Float64),
    )
    return Trace.of(calls, Provenance(format="test", source="test", kind="synthetic", **facts))


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("format", OF_NS)
@given(rows=st.lists(st.tuples(st.integers(0, 10**15), COUNTS, COUNTS), min_size=1, max_size=20))
def test_arrivals_and_tokens_survive(
    tmp_path: Path, format: str, rows: list[tuple[int, int, int]]
) -> None:
    rows = [(ns // OF_NS[format] * OF_NS[format], *tokens) for ns, *tokens in rows]
    before = a_trace(rows)
    path = tmp_path / "t"
    export(before, path, format=format, overwrite=True)
    after = load(path, format=format, **SAID.get(format, {}))
    columns = ["arrival_s", "input_tokens", "output_tokens"]
    exact = pl.col("arrival_s").pipe(to_ns)
    assert_frame_equal(
        before.collect().select(columns).with_columns(exact),
        after.collect().select(columns).with_columns(exact),
    )


@pytest.mark.parametrize(
    ("sample", "format", "kept"),
    [
        ("azure:sample", "azure", ["arrival_s", "input_tokens", "output_tokens"]),
        (
            "burstgpt:sessions",
            "burstgpt",
            [
                *("arrival_s", "input_tokens", "output_tokens", "model", "call_class", "status"),
                *("program_id", "turn", "parents", "delay_s", "observed_e2e_s"),
            ],
        ),
        (
            "mooncake:sample",
            "mooncake",
            ["arrival_s", "input_tokens", "output_tokens", "prefix_blocks"],
        ),
    ],
)
def test_a_published_trace_comes_back_by_way_of_the_canonical_file(
    tmp_path: Path, sample: str, format: str, kept: list[str]
) -> None:
    before = load(sample)
    before.write(tmp_path / "t.parquet")
    export(load(tmp_path / "t.parquet"), tmp_path / "t", format=format)
    after = load(tmp_path / "t")
    assert after.provenance.format == format
    assert after.provenance.t0 == before.provenance.t0
    assert_frame_equal(before.collect().select(kept), after.collect().select(kept))


def blocked(scope: str = "global", rule: str = "ceil") -> Trace:
    blocks = [[0, 1], [0, 2]] if rule == "ceil" else [[0], [0]]
    frame = pl.DataFrame(
        {
            "arrival_s": [0.0, 1.5],
            "input_tokens": [20, 20],
            "output_tokens": [1, 2],
            "program_id": ["a", "b"],
            "prefix_blocks": blocks,
        },
        schema_overrides={"prefix_blocks": pl.List(pl.UInt64)},
    )
    about = Provenance(
        format="test", source="test", kind="synthetic",
        block_tokens=16, block_rule=rule, block_scope=scope,
    )  # fmt: skip
    return Trace.of(frame, about)


@pytest.mark.parametrize("format", ["mooncake", "timed_trace"])
def test_ids_of_a_program_are_told_apart(tmp_path: Path, format: str) -> None:
    export(blocked("program"), tmp_path / "t", format=format)
    after = load(tmp_path / "t", format=format, block_tokens=16)
    assert after.collect()["prefix_blocks"].to_list() == [[0, 1], [3, 5]]


@pytest.mark.parametrize("format", ["mooncake", "timed_trace"])
def test_a_last_block_that_is_not_full_gets_an_id_of_its_own(tmp_path: Path, format: str) -> None:
    export(blocked(rule="floor"), tmp_path / "t", format=format)
    after = load(tmp_path / "t", format=format, block_tokens=16)
    assert after.collect()["prefix_blocks"].to_list() == [[0, 1], [0, 2]]


def test_prompts_without_blocks_share_nothing_and_that_is_said(tmp_path: Path) -> None:
    doubts = export(a_trace([(0, 17, 1), (5, 16, 1)]), tmp_path / "t", format="timed_trace")
    assert load(tmp_path / "t").collect()["prefix_blocks"].to_list() == [[0, 1], [2]]
    assert doubts == ("2 prompts get block ids of their own: what they share is not known.",)


def test_what_waits_for_more_than_one_call_is_said(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "call_id": ["a", "b", "c"],
            "program_id": ["p", "p", "p"],
            "arrival_s": [0.0, 1.0, 2.0],
            "input_tokens": [1, 1, 1],
            "output_tokens": [1, 1, 1],
            "parents": [[], ["a"], ["a", "b"]],
            "delay_s": [None, 0.25, 0.5],
        },
        schema_overrides={"parents": pl.List(pl.String)},
    )
    trace = Trace.of(frame, Provenance(format="test", source="test", kind="synthetic"))
    doubts = export(trace, tmp_path / "t", format="mooncake")
    assert any(doubt.startswith("1 calls wait for others") for doubt in doubts)
    after = load(tmp_path / "t").collect()
    assert after["program_id"].to_list() == ["p", "p", "p"]
    assert after["delay_s"].to_list() == [None, 0.25, 0.5]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    trace = a_trace([(0, 1, 1)])
    with pytest.raises(InputError, match="The format 'otel' cannot be written"):
        export(trace, tmp_path / "t", format="otel")
    (tmp_path / "taken").touch()
    with pytest.raises(OutputExists):
        export(trace, tmp_path / "taken", format="azure")
    row = {"input_tokens": [1], "output_tokens": [1], "arrival_s": [None]}
    alone = Trace.of(
        pl.DataFrame(row, schema_overrides={"arrival_s": pl.Float64}), trace.provenance
    )
    with pytest.raises(InputError, match="No call of the trace has arrival_s"):
        export(alone, tmp_path / "t", format="azure")
    of_programs = trace.known(arrival_basis="program")
    with pytest.raises(InputError, match="have a clock each"):
        export(of_programs, tmp_path / "t", format="mooncake")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("name", ["t.gz", "t.zst"])
def test_an_export_may_be_packed(tmp_path: Path, name: str) -> None:
    export(a_trace([(0, 5, 1)]), tmp_path / name, format="azure")
    assert load(tmp_path / name).collect()["input_tokens"].to_list() == [5]
