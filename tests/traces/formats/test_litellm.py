import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "litellm.jsonl"
HASH = "9" * 64


def a_record(second: float = 0, **fields: Any) -> dict[str, Any]:
    record = {
        "request_id": f"r{second}",
        "call_type": "acompletion",
        "api_key": HASH,
        "cache_hit": "None",
        "startTime": f"2025-01-24 09:20:{second:09.6f}",
        "endTime": f"2025-01-24 09:20:{second + 1:09.6f}",
        "completionStartTime": f"2025-01-24 09:20:{second + 0.25:09.6f}",
        "model": "gpt-4o",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "session_id": "s",
        "status": "success",
        "metadata": "{}",
    }
    return {**record, **fields}


def test_the_published_record(original: Callable[[str], Path]) -> None:
    trace = load(original("gateway_logs/litellm_spend_logs_payload.json"))
    (call,) = trace.collect().to_dicts()
    assert trace.provenance.format == "litellm"
    assert trace.provenance.t0 == "2025-01-24 09:20:46.847371"
    assert trace.provenance.tick_s == 1e-6
    assert trace.provenance.sha256 == (
        "4b795e2dd9e4f34a4bbef1a0cf265c2f2d2104ed3f7fd2e7ed21e23804d9e666"
    )
    assert call["call_id"] == "chatcmpl-2283081b-dc89-41f6-93e6-d4f914774027"
    assert (call["input_tokens"], call["output_tokens"]) == (10, 20)
    assert (call["program_id"], call["model"], call["call_class"]) == (
        "1234567890",
        "gpt-4o",
        "acompletion",
    )
    assert call["observed_e2e_s"] == 0.004583
    assert call["observed_ttft_s"] is None  # the end, written twice: it was not streamed
    assert (call["status"], call["error"], call["client_id"]) == ("ok", None, None)
    assert trace.tables == {}


def test_a_session_is_a_program(a_file: Write) -> None:
    lines = [a_record(0), a_record(0.5), a_record(3), a_record(4.5, session_id="")]
    calls = load(a_file("".join(json.dumps(line) + "\n" for line in lines))).collect()
    assert calls["parents"].to_list() == [[], [], ["r0", "r0.5"], None]
    assert calls["delay_s"].to_list() == [None, None, 1.5, None]
    assert calls["observed_ttft_s"].to_list() == [0.25] * 4
    assert calls["turn"].to_list() == [0, 1, 2, None]


@pytest.mark.parametrize("shape", ["list", "csv", "lines"])
def test_every_export_is_the_same_trace(a_file: Write, shape: str) -> None:
    records = [
        a_record(1, metadata=json.dumps({"usage_object": {"cache_read_input_tokens": 4}})),
        a_record(2, status="failure", metadata='{"error_information": {"error_class": "Busy"}}'),
    ]
    if shape == "list":
        text = json.dumps(records, indent=1)
    elif shape == "lines":
        text = "".join(json.dumps(record) + "\n" for record in records)
    else:
        out = io.StringIO()
        writer = csv.DictWriter(out, records[0])
        writer.writeheader()
        writer.writerows(records)
        text = out.getvalue()
    trace = load(a_file(text, f"logs.{shape}"))
    calls = trace.collect()
    assert trace.provenance.format == "litellm"
    assert calls["call_id"].to_list() == ["r1", "r2"]
    assert calls["observed_cached_tokens"].to_list() == [4, None]
    assert calls["status"].to_list() == ["ok", "error"]
    assert calls["error"].to_list() == [None, "Busy"]
    assert calls["input_tokens"].to_list() == [10, 10]
    assert calls["client_id"].to_list() == [HASH, HASH]


@pytest.mark.parametrize(
    ("fields", "client"),
    [
        ({"end_user": "e", "user": "u"}, "e"),
        ({"end_user": "", "user": "u", "team_id": "t"}, "u"),
        ({"team_id": "t"}, "t"),
        ({}, HASH),
        ({"api_key": "sk-secret"}, None),
        ({"api_key": ""}, None),
    ],
)
def test_a_client_is_named_but_never_by_a_key(
    a_file: Write, fields: dict[str, Any], client: str | None
) -> None:
    calls = load(a_file(json.dumps(a_record(**fields)))).collect()
    assert calls["client_id"].to_list() == [client]


def test_details_of_usage_are_found_in_the_metadata(a_file: Write) -> None:
    usage = {
        "prompt_tokens_details": {"cached_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    for metadata in ({"usage_object": usage}, json.dumps({"usage_object": usage})):
        calls = load(a_file(json.dumps(a_record(metadata=metadata)))).collect()
        assert calls["observed_cached_tokens"].to_list() == [6]
        assert calls["observed_reasoning_tokens"].to_list() == [2]


def test_answers_from_the_gateways_cache_are_doubted(a_file: Write) -> None:
    records = [a_record(1, cache_hit="True"), a_record(2, cache_hit="False")]
    trace = load(a_file(json.dumps(records)))
    assert trace.provenance.doubts == (
        "1 calls were answered from the gateway's own cache, not by a model.",
    )
    assert trace.collect().height == 2


def test_texts_are_kept_aside(a_file: Write) -> None:
    record = a_record(
        messages=[{"role": "user", "content": "hi"}],
        response={"choices": [{"message": {"role": "assistant", "content": "ho"}}]},
    )
    (text,) = load(a_file(json.dumps(record))).tables["contents"].collect().to_dicts()
    assert text["input_messages"] == '[{"role":"user","content":"hi"}]'
    assert text["output_text"] == "ho"


def test_what_is_not_said_is_unknown(a_file: Write) -> None:
    bare = dict.fromkeys(("status", "prompt_tokens", "endTime", "completionStartTime", "metadata"))
    trace = load(a_file(json.dumps(a_record(**bare))))
    (call,) = trace.collect().to_dicts()
    assert call["input_tokens"] is call["status"] is call["observed_e2e_s"] is None
    assert trace.provenance.doubts == ("1 calls have no recorded end; no call waits for them.",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_tokens": "ten"}, r"Expected `int \| null`, got `str` - at `\$\.prompt_tokens`"),
        ({"completion_tokens": -1}, "output_tokens is -1"),
        ({"startTime": "soon"}, "'startTime' is 'soon', not a date and time"),
        ({"startTime": ""}, "'startTime' is '', not a date and time"),
        ({"endTime": "2025-01-24 09:19:00"}, "observed_e2e_s is -65"),
        (
            {"metadata": '{"usage_object": {"cache_read_input_tokens": "few"}}'},
            "'cache_read_input_tokens' is 'few', not a whole number",
        ),
    ],
)
def test_a_record_that_makes_no_sense_is_named(
    a_file: Write, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    path = a_file(json.dumps([a_record(1), a_record(5, **fields), a_record(9)]), "logs.json")
    with pytest.raises(BadRow, match=rf"logs\.json, record 2: {message}"):
        load(path)
    trace = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.collect()["call_id"].to_list() == ["r1", "r9"]
    assert sum(trace.provenance.rows_dropped.values()) == 1


def test_a_cell_that_makes_no_sense_is_named(a_file: Write) -> None:
    head = "request_id,call_type,startTime,endTime,model,prompt_tokens\n"
    rows = "a,c,2025-01-24 09:20:01,2025-01-24 09:20:02,m,5\na,c,2025-01-24 09:20:01,,m,five\n"
    with pytest.raises(BadRow, match="line 3: 'prompt_tokens' is 'five', not a whole number"):
        load(a_file(head + rows, "logs.csv"))


def test_the_sample() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert calls["status"].to_list() == ["ok", "ok", "error"]
    assert calls["parents"].to_list() == [[], ["chatcmpl-1"], None]
    assert calls["observed_cached_tokens"].to_list() == [None, 16, None]
