import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "langfuse.json"
# Of each export: observations as published, generations, those that enclose another one.
FILES = {
    "agno-2025-06-11": (6, 4, 2),
    "beeai-2025-08-01": (29, 5, 0),
    "crewai-2025-07-11": (6, 1, 0),
    "google-adk-2025-08-28": (5, 2, 0),
    "koog-2025-08-26": (11, 2, 0),
    "langgraph-python-2025-08-22": (9, 2, 0),
    "microsoft-agent-2025-12-17": (4, 2, 0),
    "pydantic-ai-2025-06-06": (3, 1, 0),
    "pydantic-ai-tools-2025-12-04": (12, 4, 0),
    "vercel-aisdk-2025-11-17": (3, 2, 1),
}


def seen(name: str = "a", start: float = 0, end: float | None = None, **fields: Any) -> Any:
    observation = {
        "id": name,
        "traceId": "t",
        "type": "GENERATION",
        "parentObservationId": None,
        "name": "chat",
        "startTime": f"2025-08-01T13:56:{start:06.3f}Z",
        "endTime": f"2025-08-01T13:56:{start + 1 if end is None else end:06.3f}Z",
        "level": "DEFAULT",
        "model": "m",
        "usageDetails": {"input": 10, "output": 5, "total": 15},
    }
    return {**observation, **fields}


def a_trace(*observations: Any, **fields: Any) -> str:
    return json.dumps({"trace": {"id": "t", **fields}, "observations": observations})


def read(a_file: Write, *observations: Any, **fields: Any) -> pl.DataFrame:
    return load(a_file(a_trace(*observations, **fields), "trace.json")).collect()


@pytest.mark.parametrize("name", FILES)
def test_generations_are_the_calls_of_every_framework(
    original: Callable[[str], Path], name: str
) -> None:
    path = original(f"langfuse/{name}.trace.json.gz")
    observations, generations, around = FILES[name]
    trace = load(path)
    calls = trace.collect()
    assert calls.height == generations - around
    assert calls["source_row"].max() <= observations  # type: ignore[operator]
    assert calls["program_id"].n_unique() == 1
    assert calls["status"].unique().to_list() == ["ok"]
    enclosing = [doubt for doubt in trace.provenance.doubts if "enclose" in doubt]
    assert enclosing == [
        f"{around} calls enclose another record of the same request; only the"
        " inner records are kept."
    ] * bool(around)


def test_the_exports_together(original: Callable[[str], Path]) -> None:
    """Sums of tokens and sessions counted over the files by hand."""
    trace = load(original("langfuse/agno-2025-06-11.trace.json.gz").parent)
    calls = trace.collect()
    assert (calls.height, calls["program_id"].n_unique()) == (22, 10)
    assert {"demo-session", "session_abc"} <= set(calls["program_id"])
    assert set(calls["client_id"].drop_nulls()) == {"demo-user", "user_123"}
    assert (calls["input_tokens"].sum(), calls["output_tokens"].sum()) == (8709, 1105)
    assert (calls["input_tokens"].null_count(), calls["output_tokens"].null_count()) == (2, 5)
    assert (trace.provenance.clock, trace.provenance.tick_s) == ("utc", 0.001)


def test_calls_wait_for_calls_and_tools_tell_the_pause(original: Callable[[str], Path]) -> None:
    calls = load(original("langfuse/pydantic-ai-tools-2025-12-04.trace.json.gz")).collect()
    names = calls["call_id"].to_list()
    assert calls["parents"].to_list() == [[], [names[0]], [names[1]], [names[2]]]
    assert calls["delay_s"].to_list() == [None, 0.008, 0.003, 0.006]
    assert calls["delay_kind"].to_list() == [None, "tool", "unknown", "unknown"]
    # This export writes latencies in milliseconds; the times of the span do not depend on that.
    assert calls["observed_e2e_s"].to_list() == [2.362, 1.707, 1.283, 2.05]
    beeai = load(original("langfuse/beeai-2025-08-01.trace.json.gz")).collect()
    assert beeai["parents"].to_list() == [[]] * 5  # every span is recorded to end with the agent


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input": 10, "output": 5, "total": 15}, (10, 5, None, None)),
        ({"input": 10}, (10, None, None, None)),
        ({}, (None, None, None, None)),
        (None, (None, None, None, None)),
        ({"input": 10, "output": 5, "total": 15, "input_cache_read": 8}, (10, 5, 8, None)),
        (
            {"input": 2, "input_cache_read": 8, "output": 1, "output_reasoning": 4, "total": 15},
            (10, 5, 8, 4),
        ),
        (
            {"input": 10, "prompt_details.cache_read": 3, "output": 5, "total": 15},
            (10, 5, 3, None),
        ),
        ({"input": 2, "cache_read_input_tokens": 8, "output": 5, "total": 15}, (10, 5, 8, None)),
        ({"input": 2, "input_cached_tokens": 8, "output": 5}, (2, 5, 8, None)),
    ],
)
def test_tokens_of_a_prompt_include_those_from_a_cache(
    a_file: Write, usage: dict[str, int] | None, expected: tuple[int | None, ...]
) -> None:
    """`total` shows whether `input` already holds its details or they come on top."""
    (call,) = read(a_file, seen(usageDetails=usage)).to_dicts()
    assert expected == (
        call["input_tokens"],
        call["output_tokens"],
        call["observed_cached_tokens"],
        call["observed_reasoning_tokens"],
    )


@pytest.mark.parametrize(
    ("fields", "ttft_s"),
    [
        ({"completionStartTime": "2025-08-01T13:56:00.250Z", "timeToFirstToken": 9}, 0.25),
        ({"timeToFirstToken": 0.25, "latency": 1.0}, 0.25),
        ({"timeToFirstToken": 250, "latency": 1000}, 0.25),
        ({"timeToFirstToken": 0.25}, 0.25),
        ({}, None),
    ],
)
def test_the_first_token_is_in_seconds(
    a_file: Write, fields: dict[str, Any], ttft_s: float | None
) -> None:
    assert read(a_file, seen(**fields))["observed_ttft_s"].to_list() == [ttft_s]


def test_a_failure_is_of_level_error(a_file: Write) -> None:
    calls = read(a_file, seen(level="ERROR", statusMessage="overloaded"), seen("b", level=None))
    assert calls["status"].to_list() == ["error", "ok"]
    assert calls["error"].to_list() == ["overloaded", None]


def test_a_session_of_two_traces_is_one_program(a_file: Write) -> None:
    first, second = seen("a", 0, traceId="t"), seen("b", 5, traceId="u")
    a_file(json.dumps({"trace": {"id": "t", "sessionId": "s"}, "observations": [first]}), "1.json")
    path = a_file(
        json.dumps({"trace": {"id": "u", "sessionId": "s"}, "observations": [second]}), "2.json"
    )
    trace = load(path.parent)
    calls = trace.collect()
    assert calls["program_id"].to_list() == ["s", "s"]
    assert calls["parents"].to_list() == [[], ["a"]]
    assert calls["source_row"].to_list() == [1, 2]


def test_texts_are_kept_aside(a_file: Write) -> None:
    prompt = {"messages": [{"role": "user", "content": "hi"}]}
    path = a_file(a_trace(seen(input=json.dumps(prompt), output="ho")), "x")
    (text,) = load(path).tables["contents"].collect().to_dicts()
    assert text == {
        "content_ref": "a",
        "input_text": None,
        "input_messages": '[{"role":"user","content":"hi"}]',
        "output_text": "ho",
    }


@pytest.mark.parametrize("shape", ["lines", "list", "page", "snake"])
def test_observations_alone_are_the_same_trace(a_file: Write, shape: str) -> None:
    outer = seen("outer", 0, 9)
    rows = [outer, seen("inner", 1, 8, parentObservationId="outer", sessionId="s", userId="u")]
    rows.append(seen("tool", 9.5, 9.75, type="TOOL"))
    rows.append(seen("next", 10, providedModelName="m", model=None))
    if shape == "snake":
        names = {"id": "id", "type": "type", "name": "name", "level": "level", "model": "model"}
        snake = {
            "traceId": "trace_id",
            "parentObservationId": "parent_observation_id",
            "startTime": "start_time",
            "endTime": "end_time",
            "usageDetails": "usage_details",
            "providedModelName": "provided_model_name",
            "sessionId": "session_id",
            "userId": "user_id",
        }
        names |= snake
        rows = [
            {names[key]: "" if value is None else value for key, value in row.items()}
            for row in rows
        ]
        for row in rows:
            row["start_time"] = row["start_time"].replace("T", " ").replace("Z", "000")
            row["usage_details"] = json.dumps(row["usage_details"])
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    page = {"data": rows, "meta": {"page": 1}}
    text = {"list": json.dumps(rows), "page": json.dumps(page)}.get(shape, lines)
    trace = load(a_file(text, "observations.json"))
    calls = trace.collect()
    assert trace.provenance.format == "langfuse"
    assert calls["call_id"].to_list() == ["inner", "next"]
    assert calls["program_id"].to_list() == ["s", "s"]
    assert calls["parents"].to_list() == [[], ["inner"]]
    assert calls["delay_kind"].to_list() == [None, "tool"]
    assert calls["model"].to_list() == ["m", "m"]
    assert calls["input_tokens"].to_list() == [10, 10]
    assert calls["source_row"].to_list() == [2, 4]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"usageDetails": {"input": "ten"}},
            r"Expected `float \| null`, got `str` - at `\$\.usage",
        ),
        ({"usageDetails": {"input": 1.5}}, "'input' is '1.5', not a whole number"),
        ({"usageDetails": {"output": -1}}, "output_tokens is -1"),
        ({"startTime": "noon"}, "'startTime' is 'noon', not a date and time"),
        ({"startTime": None}, "'startTime' is '', not a date and time"),
        ({"endTime": "2025-08-01T13:00:00Z"}, "observed_e2e_s is -3365"),
        ({"id": None}, r"Expected `str`, got `null` - at `\$\.id`"),
        ({"id": "good"}, "a call named good came before"),
    ],
)
def test_an_observation_that_makes_no_sense_is_named(
    a_file: Write, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    path = a_file(a_trace(seen("good"), seen("bad", 5, **fields), seen("more", 9)), "trace.json")
    with pytest.raises(BadRow, match=rf"trace\.json, observation 2: .*{message}"):
        load(path)
    trace = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.collect()["call_id"].to_list() == ["good", "more"]
    assert trace.provenance.rows_read == 3


def test_a_trace_without_generations_is_refused(a_file: Write) -> None:
    with pytest.raises(BadRow, match="has no row that can be read"):
        load(a_file(a_trace(seen(type="SPAN")), "trace.json"))


def test_the_sample() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert trace.provenance.format == "langfuse"
    assert calls["parents"].to_list() == [[], ["f6e4c65297e40c96"], ["bded677884f031ce"]]
    assert calls["delay_kind"].to_list() == [None, "tool", "unknown"]
    assert calls["status"].to_list() == ["ok", "ok", "error"]
