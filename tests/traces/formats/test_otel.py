import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "otel.jsonl"
T0_NS = 1_700_000_000_000_000_000
COUNTS = {
    "fan_in_dependencies": 4,
    "multi_agent_research": 12,
    "parallel_requests": 5,
    "prefix_sharing_example": 7,
    "simple_chain": 3,
}


def typed(value: object) -> dict[str, Any]:
    """Write a value as OTLP does: whole numbers as text."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [typed(member) for member in value]}}
    return {"stringValue": value}


def a_span(
    span: str = "a", start: float = 0, end: float | None = None, **fields: Any
) -> dict[str, Any]:
    attributes = fields.pop("attributes", {"gen_ai.operation.name": "chat"})
    return {
        "traceId": "t",
        "spanId": span,
        "parentSpanId": "",
        "name": "chat m",
        "kind": 3,
        "startTimeUnixNano": str(T0_NS + round(start * 1e9)),
        "endTimeUnixNano": str(T0_NS + round((start + 1 if end is None else end) * 1e9)),
        "attributes": [{"key": key, "value": typed(value)} for key, value in attributes.items()],
        "status": {},
        **fields,
    }


def an_export(*spans: dict[str, Any], **resource: object) -> dict[str, Any]:
    attributes = [{"key": k.replace("_", "."), "value": typed(v)} for k, v in resource.items()]
    scopes = [{"scope": {"name": "x"}, "spans": list(spans)}]
    return {"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": scopes}]}


def read(a_file: Write, *spans: dict[str, Any], **resource: object) -> pl.DataFrame:
    return load(a_file(json.dumps(an_export(*spans, **resource)), "spans.json")).collect()


def links(calls: pl.DataFrame) -> dict[str, list[str]]:
    return {
        name.split("/")[1]: [parent.split("/")[1] for parent in parents]
        for name, parents in calls.select("call_id", "parents").iter_rows()
    }


@pytest.mark.parametrize("name", COUNTS)
def test_the_examples_have_the_published_counts(original: Callable[[str], Path], name: str) -> None:
    trace = load(original(f"otel_genai/{name}.json"))
    calls = trace.collect()
    assert calls.height == trace.provenance.rows_read == COUNTS[name]
    independent = 3 if name == "prefix_sharing_example" else 0
    assert calls["program_id"].n_unique() == 1 + independent
    assert calls["status"].to_list() == ["ok"] * calls.height
    assert trace.provenance.format == "otel"
    assert trace.provenance.clock == "utc"
    texts = trace.tables["contents"].collect()
    assert texts["input_messages"].null_count() == texts["output_text"].null_count() == 0


def test_the_examples_are_one_trace_together(original: Callable[[str], Path]) -> None:
    """Names of spans repeat between the files: a call is named by its trace too."""
    trace = load(original("otel_genai/simple_chain.json").parent)
    assert trace.provenance.rows_read == 31
    assert trace.collect()["program_id"].n_unique() == 8
    assert trace.provenance.files == 5


def test_agents_at_once_wait_for_the_coordinator_and_the_synthesis_for_them(
    original: Callable[[str], Path],
) -> None:
    calls = load(original("otel_genai/multi_agent_research.json")).collect()
    short = {
        int(name.split("_")[1]): sorted(int(parent.split("_")[1]) for parent in parents)
        for name, parents in links(calls).items()
    }
    assert short == {
        **{1: [], 2: [1], 3: [1], 4: [1], 5: [2, 3, 4], 6: [5]},
        **{7: [6], 8: [6], 9: [6], 10: [7, 8, 9], 11: [10], 12: [11]},
    }
    assert calls["delay_s"].to_list() == [
        *[None, 0.5, 1.0, 1.5, 1.0, 1.0],
        *[0.5, 1.0, 1.5, 0.5, 1.0, 0.5],
    ]


def test_a_fan_in_a_fan_out_and_a_chain(original: Callable[[str], Path]) -> None:
    fan_in = links(load(original("otel_genai/fan_in_dependencies.json")).collect())
    assert list(fan_in.values()) == [
        [],
        ["span_001"],
        ["span_001"],
        ["span_002", "span_003"],
    ]
    parallel = links(load(original("otel_genai/parallel_requests.json")).collect())
    assert parallel["span_002"] == parallel["span_003"] == ["span_001"]
    assert parallel["span_004"] == ["span_002", "span_003"]
    chain = load(original("otel_genai/simple_chain.json")).collect()
    assert chain["delay_s"].to_list() == [None, 0.5, 1.0]
    assert chain["observed_e2e_s"].to_list() == [2.5, 2.0, 2.0]


def test_older_names_of_the_counts(original: Callable[[str], Path]) -> None:
    calls = load(original("otel_genai/prefix_sharing_example.json")).collect()
    assert calls["input_tokens"].to_list() == [50, 45, 100, 180, 270, 380, 40]
    assert calls["output_tokens"].to_list() == [20, 15, 50, 60, 70, 55, 10]
    assert calls["model"].unique().to_list() == ["gpt-4o"]


@pytest.mark.parametrize(
    "names",
    [
        ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"),
        ("gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"),
        ("llm.token_count.prompt", "llm.token_count.completion"),
    ],
)
@pytest.mark.parametrize(
    "cached",
    [
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.input_tokens.cached",
        "llm.token_count.prompt_details.cache_read",
    ],
)
def test_every_name_of_a_count(a_file: Write, names: tuple[str, str], cached: str) -> None:
    """Without an operation, too: a span that counts tokens is a call."""
    prompt, answer = names
    calls = read(a_file, a_span(attributes={prompt: 100, answer: 7, cached: 64}))
    assert calls["input_tokens"].to_list() == [100]
    assert calls["output_tokens"].to_list() == [7]
    assert calls["observed_cached_tokens"].to_list() == [64]


def test_what_else_a_span_tells(a_file: Write) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "asked",
        "gen_ai.response.model": "given",
        "gen_ai.conversation.id": "talk",
        "gen_ai.usage.reasoning.output_tokens": 5,
        "gen_ai.response.time_to_first_chunk": 0.25,
    }
    (call,) = read(a_file, a_span(attributes=attributes), service_name="shop").to_dicts()
    assert call["call_id"] == "t/a"
    assert (call["program_id"], call["model"], call["client_id"]) == ("talk", "asked", "shop")
    assert (call["call_class"], call["observed_reasoning_tokens"]) == ("chat", 5)
    assert (call["observed_ttft_s"], call["observed_e2e_s"]) == (0.25, 1.0)
    assert call["input_tokens"] is call["output_tokens"] is None


def test_openinference_names(a_file: Write) -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "session.id": "s",
        "user.id": "u",
        "llm.model_name": "m",
        "llm.token_count.prompt": 3,
        "llm.input_messages.0.message.role": "system",
        "llm.input_messages.0.message.content": "be kind",
        "llm.input_messages.1.message.role": "user",
        "llm.input_messages.1.message.content": "hi",
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "ho",
    }
    trace = load(a_file(json.dumps(an_export(a_span(attributes=attributes))), "x"))
    (call,) = trace.collect().to_dicts()
    assert (call["program_id"], call["client_id"], call["model"]) == ("s", "u", "m")
    assert (call["call_class"], call["input_tokens"]) == ("llm", 3)
    (text,) = trace.tables["contents"].collect().to_dicts()
    assert json.loads(text["input_messages"]) == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi"},
    ]
    assert text["output_text"] == "ho"


def test_only_calls_of_a_model_are_rows_and_tools_tell_pauses(a_file: Write) -> None:
    spans = [
        a_span("agent", 0, 9, attributes={"gen_ai.operation.name": "invoke_agent"}),
        a_span("one", 0, 1, parentSpanId="agent"),
        a_span("tool", 1.25, 1.5, attributes={"gen_ai.operation.name": "execute_tool"}),
        a_span("two", 2, 3, parentSpanId="agent"),
        a_span("emb", 3, 4, attributes={"gen_ai.operation.name": "embeddings"}),
        a_span("chain", 3, 4, attributes={"openinference.span.kind": "CHAIN"}),
        a_span("http", 3, 4, attributes={"http.method": "GET"}),
        a_span("odd", 3, 4, attributes={"gen_ai.operation.name": ["chat"]}),
        a_span("three", 5, 6),
        a_span("late", 6.5, 7, attributes={"openinference.span.kind": "TOOL"}),
        a_span("four", 8, 9, attributes={"gen_ai.usage.input_tokens": 4}),
    ]
    calls = read(a_file, *spans)
    assert links(calls) == {"one": [], "two": ["one"], "three": ["two"], "four": ["three"]}
    assert calls["delay_kind"].to_list() == [None, "tool", "unknown", "tool"]
    assert calls["delay_s"].to_list() == [None, 1.0, 2.0, 2.0]
    assert calls["source_row"].to_list() == [2, 4, 9, 11]


def test_a_call_inside_a_call_is_the_same_request(a_file: Write) -> None:
    """A parent span that had ended before is none around the call."""
    spans = [
        a_span("outer", 0, 5),
        a_span("inner", 0.25, 4.75, parentSpanId="outer"),
        a_span("next", 6, 7, parentSpanId="inner"),
    ]
    trace = load(a_file(json.dumps(an_export(*spans)), "x"))
    assert links(trace.collect()) == {"inner": [], "next": ["inner"]}
    assert trace.collect()["arrival_s"].to_list() == [0.0, 5.75]
    assert trace.provenance.doubts == (
        "1 calls enclose another record of the same request; only the inner records are kept.",
    )


def test_a_conversation_that_one_span_names_holds_the_whole_trace(a_file: Write) -> None:
    named = {"gen_ai.operation.name": "invoke_agent", "session.id": "talk"}
    lines = [
        an_export(a_span("one", 0, 1)),
        an_export(a_span("root", 0, 9, attributes=named)),
        an_export(a_span("two", 3, 4, traceId="u")),
        an_export(a_span("root2", 3, 5, traceId="u", attributes=named)),
    ]
    calls = load(a_file("".join(json.dumps(line) + "\n" for line in lines), "x")).collect()
    assert calls["program_id"].to_list() == ["talk", "talk"]
    assert links(calls) == {"one": [], "two": ["one"]}
    assert calls["source_row"].to_list() == [1, 3]


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"status": {"code": 2, "message": "429"}}, "error", "429"),
        ({"status": {"code": "STATUS_CODE_ERROR"}}, "error", None),
        ({"attributes": {"llm.usage.prompt_tokens": 1, "error.type": "Busy"}}, "error", "Busy"),
        ({"status": {"code": 1}}, "ok", None),
        ({"status": {}}, "ok", None),
        ({"status": None}, "ok", None),
    ],
)
def test_failures(a_file: Write, fields: dict[str, Any], status: str, error: str | None) -> None:
    (call,) = read(a_file, a_span(**fields)).to_dicts()
    assert (call["status"], call["error"]) == (status, error)


def test_stamps_are_exact_whether_text_or_number(a_file: Write) -> None:
    one = a_span("one", startTimeUnixNano=T0_NS + 1, endTimeUnixNano=T0_NS + 2)
    two = a_span("two", startTimeUnixNano=str(T0_NS + 4), endTimeUnixNano=str(T0_NS + 5))
    trace = load(a_file(json.dumps(an_export(one, two)), "x"))
    assert trace.collect()["arrival_s"].to_list() == [0.0, 3e-9]
    assert trace.collect()["delay_s"].to_list() == [None, 2e-9]
    assert (trace.provenance.t0_ns, trace.provenance.tick_s) == (T0_NS + 1, 1e-9)


def test_the_snake_case_of_protobuf_is_the_same(a_file: Write) -> None:
    pair = {"key": "gen_ai.usage.input_tokens", "value": {"int_value": "12"}}
    span = {
        "trace_id": "t",
        "span_id": "a",
        "start_time_unix_nano": str(T0_NS),
        "end_time_unix_nano": str(T0_NS + 10**9),
        "attributes": [pair],
    }
    export = {"resource_spans": [{"scope_spans": [{"spans": [span]}]}]}
    calls = load(a_file(json.dumps(export), "x")).collect()
    assert calls["input_tokens"].to_list() == [12]
    older = {"resourceSpans": [{"instrumentationLibrarySpans": [{"spans": [a_span()]}]}]}
    assert load(a_file(json.dumps(older), "y")).collect().height == 1


def test_an_answer_that_a_prompt_repeats_had_been_given(a_file: Write) -> None:
    """Both spans end when the agent does; the second prompt holds the answer of the first."""
    call = {"type": "tool_call", "id": "c1", "name": "f", "arguments": {}}
    said = {"role": "assistant", "parts": [call]}
    first = {
        "gen_ai.operation.name": "chat",
        "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "be kind"}]),
        "gen_ai.input.messages": json.dumps([{"role": "user", "content": "hi"}]),
        "gen_ai.output.messages": json.dumps([said]),
    }
    second = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps([{"role": "user", "content": "hi"}, said]),
    }
    spans = [a_span("two", 2, 9, attributes=second), a_span("one", 0, 9, attributes=first)]
    trace = load(a_file(json.dumps(an_export(*spans)), "x"))
    calls = trace.collect()
    assert links(calls) == {"one": [], "two": ["one"]}
    assert calls["delay_s"].to_list() == [None, 0.0]
    assert calls["observed_e2e_s"].to_list() == [9.0, 7.0]
    prompts = dict(
        trace.tables["contents"].select("content_ref", "input_messages").collect().iter_rows()
    )
    assert json.loads(prompts["t/one"])[0] == {"role": "system", "content": "be kind"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"attributes": {"gen_ai.usage.input_tokens": "many"}},
            "'gen_ai.usage.input_tokens' is 'many', not a whole number",
        ),
        ({"attributes": {"gen_ai.usage.output_tokens": -1}}, "output_tokens is -1"),
        (
            {"attributes": {"gen_ai.usage.output_tokens": 2**64}},
            f"output_tokens holds {2**64}, which has no place in 63 bits",
        ),
        ({"startTimeUnixNano": "soon"}, "'start_time_unix_nano' is 'soon'"),
        ({"startTimeUnixNano": None}, "'start_time' is '', not a date and time"),
        ({"endTimeUnixNano": str(T0_NS)}, r"observed_e2e_s is -5\.0"),
        ({"spanId": 7}, r"Expected `str`, got `int` - at `\$\.span_id`"),
        ({"spanId": "good"}, "a call named t/good came before"),
    ],
)
def test_a_span_that_makes_no_sense_is_named(
    a_file: Write, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    export = an_export(a_span("good"), a_span("bad", 5, **fields), a_span("more", 9))
    path = a_file(json.dumps(export, indent=1), "spans.json")
    with pytest.raises(BadRow, match=rf"spans\.json, span 2: .*{message}"):
        load(path)
    trace = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.collect()["call_id"].to_list() == ["t/good", "t/more"]
    assert (trace.provenance.rows_read, trace.provenance.rows_kept) == (3, 2)


@pytest.mark.parametrize(
    "document", ['{"resourceSpans": 3}', '{"resourceSpans": [{"scopeSpans": [7]}]}']
)
def test_an_export_of_another_shape_is_refused(a_file: Write, document: str) -> None:
    with pytest.raises(BadRow, match=r"Expected `(array|object)`"):
        load(a_file(document, "spans.json"))


def test_spans_without_a_call_are_no_trace(a_file: Write) -> None:
    web = a_span(attributes={"http.method": "GET"})
    with pytest.raises(BadRow, match="has no row that can be read"):
        load(a_file(json.dumps(an_export(web)), "spans.json"))


def test_the_sample() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert trace.provenance.format == "otel"
    assert calls["delay_kind"].to_list() == [None, "tool", "unknown"]
    assert calls["status"].to_list() == ["ok", "ok", "error"]
    assert calls["input_tokens"].to_list() == [120, 180, None]
