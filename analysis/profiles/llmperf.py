"""The definitions of LLMPerf."""

from __future__ import annotations

import polars as pl
from polars import col

from servescope.analysis.profiles import seen as streams
from servescope.analysis.profiles.inference_perf import answer_tokens
from servescope.analysis.profiles.profile import (
    Field,
    Profile,
    Quantity,
    Value,
    deviation,
    least,
    mean,
    most,
    percentile,
    spread,
)
from servescope.analysis.profiles.seen import Seen
from servescope.traces.status import SERVER

# Its files also hold p25 and p75.
STATISTICS = (
    percentile(50, "quantiles.p50"), percentile(90, "quantiles.p90"),
    percentile(95, "quantiles.p95"), percentile(99, "quantiles.p99"),
    mean(), least(), most(), deviation("stddev", of_sample=True),
)  # fmt: skip
_TOKENS = (
    "the server sent no usage, or no count of reasoning, and the text that the tool would tokenize"
    " is not kept"
)


def _counts(seen: Seen) -> pl.Expr:
    # an event that is an error ends the call with one; an end with a reason does not
    return col("status").is_in(streams.WHOLE) | ((col("status") == SERVER) & streams.ABORTED)


def _quantities(seen: Seen) -> dict[str, Quantity]:
    tokens = answer_tokens()
    first, last, start = col("first_answer_s"), col("last_token_s"), col("start_s")
    events = col("chunks").fill_null(0) + col("empties")
    e2e = col("end_s") - start
    silent = tokens.is_null()
    answered = col("answer_chunks") > 0
    return {
        # what was never stamped is 0
        "ttft": Quantity(expr=pl.when(answered).then(first - start).otherwise(0.0)),
        "itl": Quantity(
            expr=pl.when(answered).then((last - start) / events).otherwise(0.0),
            unknown=answered & events.is_null(),
            why="this run is of before chunks without a piece of answer were kept",
        ),
        "e2e": Quantity(expr=e2e),
        "throughput": Quantity(expr=tokens / e2e, unknown=silent, why=_TOKENS),
        "input": Quantity(expr=col("input_tokens")),
        "output": Quantity(expr=tokens, unknown=silent, why=_TOKENS),
    }


def _every(name: str, quantity: str, unit: str, says: str, ours: str | None = None) -> list[Field]:
    return list(spread(f"{name}.{{}}", quantity, STATISTICS, unit, says, ours))


LLMPERF = Profile(
    name="llmperf",
    tool="LLMPerf (ray-project/llmperf)",
    version="the repository at f1d6bed",
    counts=_counts,
    quantities=_quantities,
    duration_s=lambda reading: reading.seen.span_s,
    stamps_empties=True,
    fields=(
        *_every("inter_token_latency_s", "itl", "s", "(TTFT + gaps between chunks of content) /"
                " events of the stream, role and end included", "norm"),
        *_every("ttft_s", "ttft", "s", "from before the request is posted, a new connection"
                " included, to the first chunk of content; 0 without any", "ttft"),
        *_every("end_to_end_latency_s", "e2e", "s", "from before the request is posted to the end"
                " of the response"),
        *_every("request_output_throughput_token_per_s", "throughput", "tokens/s", "tokens of a"
                " call over its end-to-end latency"),
        *_every("number_input_tokens", "input", "tokens", "tokens of a prompt"),
        *_every("number_output_tokens", "output", "tokens", "tokens of the content of an answer"),
        Field("num_requests_started", "count", "calls that were sent",
              lambda r: Value(float(r.seen.calls.height)), ours="calls"),
        Field("number_errors", "count", "calls that did not end well", lambda r: r.failed,
              ours="failed"),
        Field("error_rate", "share", "errors, of all calls that were sent",
              lambda r: r.share(r.failed, r.seen.calls.height)),
        Field("mean_output_throughput_token_per_s", "tokens/s", "tokens of answers over the time"
              " from the start to the last end", lambda r: r.rate(r.total("output")),
              ours="output_tps"),
        Field("num_completed_requests", "count", "calls without an error", lambda r: r.count),
        Field("num_completed_requests_per_min", "1/min", "calls without an error over the time",
              lambda r: r.rate(r.count, 60.0)),
    ),
    doubts=(
        "LLMPerf counts tokens with Llama 2's tokenizer, whatever the model; here the counts are"
        " the server's, without reasoning.",
        "It knows chats alone and reads their content: reasoning and tool calls are events and no"
        " token.",
        "It does not ask for usage, whose event is left out here; its own client would end in an"
        " error at it.",
        "It opens a new connection for every call, and sends as its threads come free.",
    ),
)  # fmt: skip
