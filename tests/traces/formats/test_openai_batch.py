import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servescope.traces import Trace, load
from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats import BUILT_IN
from servescope.traces.formats.openai_batch import REQUESTS
from servescope.traces.formats.sharegpt import NO_TIMES

SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "openai_batch.jsonl"
Write = Callable[..., Path]


def requests(a_file: Write, *bodies: dict[str, Any], url: str = "/v1/completions") -> Trace:
    rows = [
        {"custom_id": str(n), "method": "POST", "url": url, "body": body}
        for n, body in enumerate(bodies)
    ]
    return load(a_file("".join(json.dumps(row) + "\n" for row in rows), "batch.jsonl"))


def test_results_have_usage_and_outcomes() -> None:
    trace = load(SAMPLE, tokenizer="estimate")
    calls = trace.collect()
    assert trace.provenance.format == "openai_batch"
    assert calls["call_id"].to_list() == ["r-2", "r-1", "r-3", "r-4"]
    assert calls["arrival_s"].null_count() == 4
    assert calls["call_class"].to_list() == ["chat", None, None, "embedding"]
    assert calls["input_tokens"].to_list() == [22, None, None, 8]
    assert calls["output_tokens"].to_list() == [2, None, None, None]
    assert calls["observed_cached_tokens"].to_list() == [16, None, None, None]
    assert calls["observed_reasoning_tokens"].to_list() == [0, None, None, None]
    assert calls["status"].to_list() == ["ok", "http_429", "error", "ok"]
    assert calls["error"].to_list() == [
        None,
        "rate_limit_exceeded: slow down",
        "batch_expired: This request could not be executed in time.",
        None,
    ]
    assert trace.tables["contents"].collect()["output_text"].to_list() == ["Hello."]
    assert trace.provenance.doubts == (
        NO_TIMES,
        "1 calls are embeddings: they generate nothing, so they have no output_tokens.",
    )


def test_the_requests_of_vllms_example(original: Callable[[str], Path]) -> None:
    trace = load(original("gateway_logs/openai_example_batch.jsonl"), tokenizer="estimate")
    calls = trace.collect()
    assert calls["call_id"].to_list() == ["request-1", "request-2"]
    assert calls["model"].to_list() == ["meta-llama/Meta-Llama-3-8B-Instruct"] * 2
    assert calls["call_class"].to_list() == ["chat", "chat"]
    # "You are a helpful assistant." has 28 bytes, "... an unhelpful ..." 31, "Hello world!" 12.
    assert calls["input_tokens"].to_list() == [7 + 3, 8 + 3]
    assert calls["output_tokens"].null_count() == 2
    assert "status" not in calls.columns
    assert trace.provenance.doubts == (NO_TIMES, REQUESTS)


@pytest.mark.parametrize(
    ("body", "tokens", "column", "text"),
    [
        ({"prompt": "abc"}, None, "input_text", "abc"),
        ({"prompt": ["abc", "def"]}, None, "input_text", "abc\ndef"),
        ({"prompt": [5, 6, 7]}, 3, None, None),
        ({"input": "abc"}, None, "input_text", "abc"),
        ({"input": [{"role": "user"}]}, None, "input_messages", '[{"role":"user"}]'),
    ],
)
def test_prompts_come_in_many_shapes(
    a_file: Write, body: dict[str, Any], tokens: int | None, column: str | None, text: str | None
) -> None:
    trace = requests(a_file, body)
    assert trace.collect()["input_tokens"].to_list() == [tokens]
    if column:
        assert trace.tables["contents"].collect()[column].to_list() == [text]


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/completions", "completion"),
        ("/v1/responses", "response"),
        ("/v1/embeddings", "embedding"),
        ("/v1/rerank", None),
    ],
)
def test_the_address_says_the_kind(a_file: Write, url: str, kind: str | None) -> None:
    assert requests(a_file, {"input": "x"}, url=url).collect()["call_class"].to_list() == [kind]


def test_usage_of_the_responses_api(a_file: Write) -> None:
    usage = {
        "input_tokens": 5,
        "output_tokens": 6,
        "input_tokens_details": {"cached_tokens": 1},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]
    body = {"object": "response", "usage": usage, "output": output}
    line = {"custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}
    trace = load(a_file(json.dumps(line) + "\n"))
    call = trace.collect().row(0, named=True)
    assert (call["input_tokens"], call["output_tokens"], call["call_class"]) == (5, 6, "response")
    assert (call["observed_cached_tokens"], call["observed_reasoning_tokens"]) == (1, 2)
    assert trace.tables["contents"].collect()["output_text"].to_list() == ["Hi"]


def test_requests_and_results_together_would_count_twice(a_file: Write) -> None:
    request = {"custom_id": "r-2", "method": "POST", "url": "/v1/completions", "body": {}}
    with pytest.raises(InputError, match=r"line 5: requests and results of a batch are mixed"):
        load(a_file(SAMPLE.read_text() + json.dumps(request) + "\n"))


def test_names_are_taken_from_one_file_alone(a_file: Write, tmp_path: Path) -> None:
    a_file(SAMPLE.read_text(), "a.jsonl")
    a_file(SAMPLE.read_text(), "b.jsonl")
    assert load(tmp_path).collect()["call_id"].to_list() == [str(n) for n in range(1, 9)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"custom_id": "r-2", "response": None}, "line 5: a call named r-2 came before"),
        ({"custom_id": 5, "response": None}, r"line 5: Expected `str`, got `int` - at `\$.custom"),
        ({"response": None}, "line 5: Object missing required field `custom_id`"),
        (
            {"custom_id": "x", "response": {"body": {"usage": {"prompt_tokens": -1}}}},
            "line 5: input_tokens is -1",
        ),
    ],
)
def test_a_bad_line_is_named(a_file: Write, line: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRow, match=said):
        load(a_file(SAMPLE.read_text() + json.dumps(line) + "\n"))


def test_bad_lines_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    path = a_file(SAMPLE.read_text() + '{"custom_id": 5}\n')
    trace = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert (trace.provenance.rows_read, trace.provenance.rows_kept) == (5, 4)


def test_nothing_else_recognises_it(original: Callable[[str], Path]) -> None:
    real = original("gateway_logs/openai_example_batch.jsonl").read_bytes()
    for head in (SAMPLE.read_bytes(), real):
        assert [name for name, form in BUILT_IN.items() if form.sniff(head)] == ["openai_batch"]
