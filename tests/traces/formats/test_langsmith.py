import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "langsmith.json"
T0_MS = 1_728_680_300_000


def a_run(name: str = "a", start: float = 0, end: float | None = None, **fields: Any) -> Any:
    run = {
        "id": name,
        "trace_id": "t",
        "run_type": "llm",
        "name": "ChatOpenAI",
        "start_time": f"2024-10-11T20:58:{start:09.6f}",
        "end_time": f"2024-10-11T20:58:{start + 1 if end is None else end:09.6f}",
        "outputs": {"usage_metadata": {"input_tokens": 9, "output_tokens": 4}},
    }
    return {**run, **fields}


def posted(run: Any) -> Any:
    return {**run, "end_time": None, "outputs": {}, "error": None}


def read(a_file: Write, *runs: Any) -> pl.DataFrame:
    return load(a_file("".join(json.dumps(run) + "\n" for run in runs), "runs.jsonl")).collect()


def test_the_published_payloads(original: Callable[[str], Path]) -> None:
    trace = load(original("langsmith/langsmith_py_wrap_openai_.json").parent)
    calls = trace.collect()
    known = trace.provenance
    assert (calls.height, known.rows_read, known.files, known.format) == (4, 4, 4, "langsmith")
    assert calls["program_id"].n_unique() == 4
    assert calls["arrival_s"].to_list() == [0.0, 1.55952, 2.603398, 3.849056]
    assert calls["input_tokens"].to_list() == [9, None, 9, 43]
    assert calls["output_tokens"].to_list() == [9, None, 9, 2497]
    assert calls["observed_reasoning_tokens"].to_list() == [0, None, 0, 1408]
    assert calls["observed_cached_tokens"].to_list() == [0, None, 0, 0]
    assert calls["observed_ttft_s"].to_list() == [1.238811, 0.790264, None, None]
    assert calls["observed_e2e_s"].to_list() == [1.328441, 0.927004, 1.118333, 15.138093]
    assert calls["model"].to_list() == [*["gpt-4o-mini"] * 3, "o1-mini"]
    assert calls["status"].to_list() == ["ok"] * 4
    assert known.t0 == "2024-10-11 20:58:20.695375"
    texts = trace.tables["contents"].collect()
    assert texts["output_text"].to_list()[2] == "Howdy! How can I assist you today?"
    assert json.loads(texts["input_messages"][0]) == [{"role": "user", "content": "howdy"}]


def test_a_run_is_its_post_and_its_patch_even_of_another_payload(a_file: Write) -> None:
    one, two, open_ = a_run("one", 0, 2), a_run("two", 3), a_run("open", 9)
    payloads = [
        {"post": [posted(one), posted(open_)], "patch": []},
        {"post": [posted(two)], "patch": [{"id": "one", "end_time": one["end_time"]}]},
        {"patch": [{"id": "two", "end_time": two["end_time"], "outputs": two["outputs"]}]},
    ]
    text = "".join(json.dumps(payload) + "\n" for payload in payloads)
    trace = load(a_file(text, "runs.jsonl"))
    calls = trace.collect()
    assert calls["call_id"].to_list() == ["one", "two", "open"]
    assert calls["input_tokens"].to_list() == [None, 9, None]
    assert calls["observed_e2e_s"].to_list() == [2.0, 1.0, None]
    assert calls["status"].to_list() == ["ok", "ok", None]
    assert calls["parents"].to_list() == [[], ["one"], ["two"]]
    assert calls["source_row"].to_list() == [1, 2, 1]
    assert trace.provenance.doubts[-1] == ("1 calls have no recorded end; no call waits for them.")


def test_javascript_writes_milliseconds(a_file: Write) -> None:
    runs = [
        a_run("a", start_time=T0_MS, end_time=T0_MS + 250),
        a_run("b", start_time=T0_MS + 500, end_time=T0_MS + 501),
    ]
    trace = load(a_file(json.dumps({"post": runs, "patch": []}), "payload.json"))
    assert trace.provenance.t0_ns == T0_MS * 10**6
    assert trace.collect()["arrival_s"].to_list() == [0.0, 0.5]
    assert trace.collect()["delay_s"].to_list() == [None, 0.25]


def test_only_runs_of_a_model_are_rows_and_tools_tell_pauses(a_file: Write) -> None:
    calls = read(
        a_file,
        a_run("chain", 0, 9, run_type="chain"),
        a_run("one", 0, 1, parent_run_id="chain"),
        a_run("tool", 1.5, 2, run_type="tool", parent_run_id="chain"),
        a_run("two", 3, 4, parent_run_id="chain"),
        a_run("emb", 4, 5, run_type="embedding"),
        a_run("three", 6, 7, parent_run_id="chain"),
    )
    assert calls["call_id"].to_list() == ["one", "two", "three"]
    assert calls["parents"].to_list() == [[], ["one"], ["two"]]
    assert calls["delay_kind"].to_list() == [None, "tool", "unknown"]
    assert calls["source_row"].to_list() == [2, 4, 6]


@pytest.mark.parametrize("key", ["session_id", "thread_id", "conversation_id"])
def test_a_conversation_is_named_in_the_metadata(a_file: Write, key: str) -> None:
    """The field session_id of an exported run is its project, not its conversation."""
    extra = {"metadata": {key: "talk"}}
    calls = read(
        a_file,
        a_run("a", 0, trace_id="t", extra=extra, session_id="project"),
        a_run("b", 5, trace_id="u", extra=json.dumps(extra), session_id="project"),
        a_run("c", 9, trace_id="v", session_id="project"),
    )
    assert calls["program_id"].to_list() == ["talk", "talk", "v"]
    assert calls["parents"].to_list() == [[], ["a"], []]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"outputs": {"usage_metadata": {"input_tokens": 7, "output_tokens": 0}}}, (7, 0)),
        (
            {
                "outputs": {
                    "llm_output": {"token_usage": {"prompt_tokens": 7, "completion_tokens": 2}}
                }
            },
            (7, 2),
        ),
        ({"outputs": {"usage": {"prompt_tokens": 7, "completion_tokens": 2}}}, (7, 2)),
        ({"outputs": {}, "prompt_tokens": 7, "completion_tokens": 2}, (7, 2)),
        ({"outputs": {}, "prompt_tokens": 0, "completion_tokens": 0}, (None, None)),
        ({"outputs": None}, (None, None)),
        ({"outputs": {"usage_metadata": None}}, (None, None)),
    ],
)
def test_counts_are_where_they_are_or_unknown(
    a_file: Write, fields: dict[str, Any], expected: tuple[int | None, int | None]
) -> None:
    (call,) = read(a_file, a_run(**fields)).to_dicts()
    assert (call["input_tokens"], call["output_tokens"]) == expected


def test_the_first_token_is_the_first_that_says_something(a_file: Write) -> None:
    def token(second: float, token: object) -> dict[str, Any]:
        time = f"2024-10-11T20:58:{second:09.6f}"
        return {"name": "new_token", "time": time, "kwargs": {"token": token}}

    def piece(content: str) -> dict[str, Any]:
        return {"choices": [{"delta": {"content": content}}]}

    calls = read(
        a_file,
        a_run("a", 1, events=[token(1.25, piece("")), token(1.5, piece("Hi"))]),
        a_run("b", 3, events=[{"name": "start"}, token(3.25, ""), token(3.75, "Hi")]),
        a_run("c", 5, first_token_time="2024-10-11T20:58:05.125"),
        a_run("d", 7, events=[]),
    )
    assert calls["observed_ttft_s"].to_list() == [0.5, 0.75, 0.125, None]


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"error": "Busy()"}, "error", "Busy()"),
        ({"status": "error"}, "error", None),
        ({"status": "success"}, "ok", None),
        ({"status": "pending"}, None, None),
        ({}, "ok", None),
        ({"end_time": None}, None, None),
    ],
)
def test_failures(
    a_file: Write, fields: dict[str, Any], status: str | None, error: str | None
) -> None:
    (call,) = read(a_file, a_run(**fields)).to_dicts()
    assert (call["status"], call["error"]) == (status, error)


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"extra": {"metadata": {"ls_model_name": "m"}}}, "m"),
        ({"extra": {"invocation_params": {"model": "m"}}}, "m"),
        ({"inputs": {"model": "m"}}, "m"),
        ({}, None),
    ],
)
def test_the_model(a_file: Write, fields: dict[str, Any], model: str | None) -> None:
    assert read(a_file, a_run(**fields))["model"].to_list() == [model]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start_time": "noon"}, "'start_time' is 'noon', not a date and time"),
        ({"start_time": None}, "'start_time' is '', not a date and time"),
        ({"start_time": []}, r"Expected `float \| str \| null`, got `array`"),
        ({"id": 7}, r"Expected `str`, got `int` - at `\$\.id`"),
        ({"end_time": "2024-10-11T20:57:59"}, r"observed_e2e_s is -6\.0"),
        (
            {"outputs": {"usage_metadata": {"input_tokens": "nine"}}},
            "'input_tokens' is 'nine', not a whole number",
        ),
        ({"outputs": {"usage_metadata": {"input_tokens": -9}}}, "input_tokens is -9"),
        ({"id": "good"}, "a call named good came before"),
    ],
)
def test_a_run_that_makes_no_sense_is_named(
    a_file: Write, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    runs = [a_run("good"), a_run("bad", 5, **fields), a_run("more", 9)]
    path = a_file(json.dumps({"post": runs}), "payload.json")
    with pytest.raises(BadRow, match=rf"payload\.json, run 2: .*{message}"):
        load(path)
    trace = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.collect()["call_id"].to_list() == ["good", "more"]
    assert (trace.provenance.rows_read, trace.provenance.rows_kept) == (3, 2)


def test_the_sample() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert trace.provenance.format == "langsmith"
    assert calls["input_tokens"].to_list() == [9, 43]
    assert calls["delay_kind"].to_list() == [None, "tool"]
    assert calls["status"].to_list() == ["ok", "error"]
