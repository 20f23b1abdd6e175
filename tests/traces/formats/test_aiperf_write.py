"""Programs written as AIPerf's sessions come back with the same waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servescope.traces import Provenance, Trace, export, load

FORMATS = Path(__file__).parents[2] / "data" / "formats"


def a_trace(parents: list[list[str]], **columns: list[Any]) -> Trace:
    """Return one program of calls named "0", "1", ... with these parents."""
    count = len(parents)
    frame = pl.DataFrame(
        {
            "call_id": [str(number) for number in range(count)],
            "program_id": ["p"] * count,
            "input_tokens": [3] * count,
            "output_tokens": list(range(1, count + 1)),
            "parents": parents,
            "delay_s": [number / 8 if waits else None for number, waits in enumerate(parents)],
            **columns,
        },
        schema_overrides={"parents": pl.List(pl.String), "prefix_blocks": pl.List(pl.UInt64)}
        if "prefix_blocks" in columns
        else {"parents": pl.List(pl.String)},
    )
    about = Provenance(format="test", source="test", kind="synthetic")
    return Trace.of(frame, about)


def back(trace: Trace, path: Path) -> tuple[Trace, tuple[str, ...]]:
    doubts = export(trace, path, format="aiperf_dag", overwrite=True)
    return load(path), doubts


def waits(trace: Trace) -> dict[int, set[int]]:
    """Who waits for whom, by the tokens of the answers, which name calls on both sides."""
    calls = trace.collect()
    of = dict(zip(calls["call_id"], calls["output_tokens"], strict=True))
    return {
        of[name]: {of[parent] for parent in parents or []}
        for name, parents in zip(calls["call_id"], calls["parents"].to_list(), strict=True)
    }


def test_a_chain_is_one_session(tmp_path: Path) -> None:
    after, doubts = back(a_trace([[], ["0"], ["1"]]), tmp_path / "t")
    calls = after.collect()
    assert calls["call_id"].to_list() == ["p/0", "p/1", "p/2"]
    assert calls["delay_s"].to_list() == [None, 0.125, 0.25]
    assert calls["output_tokens"].to_list() == [1, 2, 3]
    assert doubts == (
        "3 prompts have no text: theirs is made up, one word a token, which a tokenizer may count"
        " differently.",
    )


@pytest.mark.parametrize(
    "parents",
    [
        [[], ["0"], ["0"], ["0"]],
        [[], ["0"], ["1"], ["0", "2"]],
        [[], ["0"], ["0"], ["0", "1", "2"]],
        [[], [], ["0"], ["1"]],
        [[], ["0"], ["1"], ["0"], ["3"], ["0", "2"]],
    ],
    ids=["fan-out", "sub-agent", "two sub-agents", "two roots", "one on its own"],
)
def test_a_graph_comes_back(tmp_path: Path, parents: list[list[str]]) -> None:
    before = a_trace(parents)
    after, doubts = back(before, tmp_path / "t")
    assert waits(after) == waits(before)
    assert after.collect()["program_id"].unique().to_list() == ["p"]
    assert not any("are lost" in doubt for doubt in doubts)


@st.composite
def graphs(draw: st.DrawFn) -> list[list[str]]:
    count = draw(st.integers(1, 8))
    return [
        [str(p) for p in draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3))]
        if n
        else []
        for n in range(count)
    ]


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parents=graphs())
def test_no_wait_is_invented_and_every_lost_one_is_counted(
    tmp_path: Path, parents: list[list[str]]
) -> None:
    before = a_trace(parents)
    after, doubts = back(before, tmp_path / "t")
    said, kept = waits(before), waits(after)
    assert said.keys() == kept.keys()
    lost = sum(len(said[call] - kept[call]) for call in said)
    assert all(kept[call] <= said[call] for call in said)
    counted = [int(doubt.split()[0]) for doubt in doubts if "are lost" in doubt]
    assert sum(counted) == lost


def test_sub_agents_of_a_real_format_come_back(tmp_path: Path) -> None:
    before = load(FORMATS / "weka.json")
    after, _ = back(before, tmp_path / "t")
    assert waits(after) == waits(before)


def test_texts_are_kept(tmp_path: Path) -> None:
    before = load(FORMATS / "sharegpt.json")
    after, doubts = back(before, tmp_path / "t")
    texts = [
        [
            msgspec.json.decode(text)
            for text in trace.tables["contents"].collect()["input_messages"].drop_nulls()
        ]
        for trace in (before, after)
    ]
    assert texts[0] == texts[1]
    assert not any("made up" in doubt for doubt in doubts)


def test_made_up_prompts_share_what_blocks_share(tmp_path: Path) -> None:
    trace = a_trace([[], []], prefix_blocks=[[7, 8], [7, 9]]).known(
        block_tokens=2, block_rule="ceil", block_scope="global"
    )
    after, _ = back(trace, tmp_path / "t")
    asked = after.tables["contents"].collect()["input_messages"]
    words = [msgspec.json.decode(text)[0]["content"].split() for text in asked]
    assert words == [["7", "7", "8"], ["7", "7", "9"]]


def test_calls_without_programs_are_sessions_of_one(tmp_path: Path) -> None:
    export(load("azure:sample").head(3), tmp_path / "t", format="aiperf_dag")
    assert load(tmp_path / "t").collect()["program_id"].n_unique() == 3
