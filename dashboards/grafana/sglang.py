"""SGLang, started with `--enable-metrics`."""

from __future__ import annotations

from servescope.dashboards.grafana.board import Board, Panel, Row
from servescope.dashboards.grafana.promql import (
    SYSTEM,
    Query,
    average,
    buckets,
    quantiles,
    rate,
    share,
    total,
)

# Its scheduler says a count once in all, and once more for each priority.
IN_ALL = 'priority=""'

_LOAD = (
    Panel(
        "Requests",
        "short",
        (
            Query(total("sglang:num_running_reqs", IN_ALL), f"running {SYSTEM}"),
            Query(total("sglang:num_queue_reqs", IN_ALL), f"waiting {SYSTEM}"),
        ),
        "Requests in the batch and in the queue.",
    ),
    Panel(
        "KV cache in use",
        "percentunit",
        (Query(average("sglang:token_usage", IN_ALL)),),
        "Share of the KV cache's tokens in use; near 1 requests wait or are retracted.",
        limits=(0.8, 0.95),
        top=1,
    ),
    Panel(
        "Retractions a second",
        "suffix: /s",
        (Query(rate("sglang:num_retracted_requests_total", IN_ALL)),),
        "Requests that were thrown out of the batch for want of KV cache, and begin anew.",
    ),
    Panel(
        "Time in the queue",
        "s",
        quantiles("sglang:queue_time_seconds", where=IN_ALL),
        "How long requests waited before their first step.",
    ),
    Panel(
        "Requests a second",
        "reqps",
        (
            Query(rate("sglang:num_requests_total"), f"finished {SYSTEM}"),
            Query(rate("sglang:num_aborted_requests_total"), f"aborted {SYSTEM}"),
        ),
        "Requests that ended, and those that were aborted.",
    ),
)

_LATENCY = (
    Panel(
        "TTFT",
        "s",
        quantiles("sglang:time_to_first_token_seconds"),
        "Time to first token as the server sees it: no network, no client.",
    ),
    Panel(
        "TTFT over time",
        "short",
        (buckets("sglang:time_to_first_token_seconds"),),
        "How many requests had which time to first token, of all chosen instances.",
        kind="heatmap",
    ),
    Panel(
        "TBT",
        "s",
        quantiles("sglang:inter_token_latency_seconds"),
        "Time between two tokens; tokens that come together share their gap.",
    ),
    Panel(
        "E2E",
        "s",
        quantiles("sglang:e2e_request_latency_seconds"),
        "From arrival to the last token.",
    ),
)

_TOKENS = (
    Panel(
        "Tokens a second",
        "suffix: tok/s",
        (
            Query(rate("sglang:prompt_tokens_total"), f"prompts {SYSTEM}"),
            Query(rate("sglang:generation_tokens_total"), f"answers {SYSTEM}"),
        ),
        "Tokens of the prompts and answers of finished requests.",
    ),
    Panel(
        "Generation now",
        "suffix: tok/s",
        (Query(total("sglang:gen_throughput", IN_ALL)),),
        "Tokens a second of the last decode steps, by the server's own count.",
    ),
    Panel(
        "Prefix cache hits",
        "percentunit",
        (Query(share("sglang:cached_tokens_total", "sglang:prompt_tokens_total")),),
        "Share of the prompt tokens of finished requests that came from a cache of late.",
        top=1,
    ),
    Panel(
        "Cached tokens by source",
        "suffix: tok/s",
        (
            Query(
                rate("sglang:cached_tokens_total", by="cache_source"),
                f"{{{{cache_source}}}} {SYSTEM}",
            ),
        ),
        "Prompt tokens that were found on the GPU, in the host's memory or in storage.",
    ),
    Panel(
        "Hit rate of the last prefill",
        "percentunit",
        (Query(average("sglang:cache_hit_rate", IN_ALL)),),
        "Share of cached tokens in the last batch of prompts, by the server's own count.",
        top=1,
    ),
)

BOARD = Board(
    "sglang",
    "servescope: SGLang",
    "SGLang's own metrics; it says them with --enable-metrics.",
    "sglang:num_running_reqs",
    (Row("Load", _LOAD), Row("Latency", _LATENCY), Row("Tokens and reuse", _TOKENS)),
)
