"""vLLM's engine (version 1), and what speaks its names: `servescope serve` does."""

from __future__ import annotations

from servescope.dashboards.grafana.board import Board, Panel, Row
from servescope.dashboards.grafana.promql import (
    SYSTEM,
    Query,
    average,
    buckets,
    chosen,
    mean,
    quantiles,
    rate,
    share,
    total,
)

_LOAD = (
    Panel(
        "Requests",
        "short",
        (
            Query(total("vllm:num_requests_running"), f"running {SYSTEM}"),
            Query(total("vllm:num_requests_waiting"), f"waiting {SYSTEM}"),
        ),
        "Requests in the batch and in the queue.",
    ),
    Panel(
        "KV cache in use",
        "percentunit",
        (Query(average("vllm:kv_cache_usage_perc")),),
        "Share of the KV blocks in use, mean of the engines; near 1 requests are preempted.",
        limits=(0.8, 0.95),
        top=1,
    ),
    Panel(
        "Preemptions a second",
        "suffix: /s",
        (Query(rate("vllm:num_preemptions_total")),),
        "Requests that were thrown out of the batch for want of KV blocks, and begin anew.",
    ),
    Panel(
        "Waiting by reason",
        "short",
        (
            Query(
                total("vllm:num_requests_waiting_by_reason", by="reason"),
                f"{{{{reason}}}} {SYSTEM}",
            ),
        ),
        "Why requests wait: capacity, or a passing constraint.",
    ),
    Panel(
        "Time in the queue",
        "s",
        quantiles("vllm:request_queue_time_seconds"),
        "How long requests waited before their first step.",
    ),
    Panel(
        "Finished a second",
        "reqps",
        (
            Query(
                rate("vllm:request_success_total", by="finished_reason"),
                f"{{{{finished_reason}}}} {SYSTEM}",
            ),
        ),
        "Requests that ended, by why they did.",
    ),
)

_TOKENS = (
    Panel(
        "Tokens a second",
        "suffix: tok/s",
        (
            Query(rate("vllm:prompt_tokens_total"), f"prompts {SYSTEM}"),
            Query(rate("vllm:generation_tokens_total"), f"answers {SYSTEM}"),
        ),
        "Tokens of prompts and of answers.",
    ),
    Panel(
        "Prefix cache hits",
        "percentunit",
        (Query(share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")),),
        "Share of the prompt tokens that were found in the prefix cache of late.",
        top=1,
    ),
    Panel(
        "Prompt tokens by source",
        "suffix: tok/s",
        (
            Query(
                rate("vllm:prompt_tokens_by_source_total", by="source"), f"{{{{source}}}} {SYSTEM}"
            ),
        ),
        "Prompt tokens that were computed, and those that came from a cache.",
    ),
    Panel(
        "Tokens of a step",
        "suffix: tok",
        quantiles("vllm:iteration_tokens_total"),
        "How many tokens one step of the engine computes: the size of the batch.",
    ),
    Panel(
        "Prompt length",
        "suffix: tok",
        quantiles("vllm:request_prompt_tokens"),
        "Tokens of the prompts of finished requests.",
    ),
    Panel(
        "Answer length",
        "suffix: tok",
        quantiles("vllm:request_generation_tokens"),
        "Tokens of the answers of finished requests.",
    ),
)

_LATENCY = (
    Panel(
        "TTFT",
        "s",
        quantiles("vllm:time_to_first_token_seconds"),
        "Time to first token as the server sees it: no network, no client.",
    ),
    Panel(
        "TTFT over time",
        "short",
        (buckets("vllm:time_to_first_token_seconds"),),
        "How many requests had which time to first token, of all chosen instances.",
        kind="heatmap",
    ),
    Panel(
        "TBT",
        "s",
        quantiles("vllm:inter_token_latency_seconds"),
        "Time between two tokens, each gap counted by itself.",
    ),
    Panel(
        "TPOT",
        "s",
        quantiles("vllm:request_time_per_output_token_seconds"),
        "Mean time per output token of a request, after the first.",
    ),
    Panel(
        "E2E",
        "s",
        quantiles("vllm:e2e_request_latency_seconds"),
        "From arrival to the last token.",
    ),
    Panel(
        "Where the time goes",
        "s",
        (
            Query(mean("vllm:request_queue_time_seconds"), f"queue {SYSTEM}"),
            Query(mean("vllm:request_prefill_time_seconds"), f"prefill {SYSTEM}"),
            Query(mean("vllm:request_decode_time_seconds"), f"decode {SYSTEM}"),
        ),
        "Mean time of a request in the queue, in prefill and in decode.",
    ),
)

_ENGINE = (
    Panel(
        "Estimated work of a GPU",
        "suffix: FLOP/s",
        (Query(rate("vllm:estimated_flops_per_gpu_total")),),
        "Floating-point operations a second that vLLM reckons for each GPU.",
    ),
    Panel(
        "Estimated memory traffic of a GPU",
        "Bps",
        (
            Query(rate("vllm:estimated_read_bytes_per_gpu_total"), f"read {SYSTEM}"),
            Query(rate("vllm:estimated_write_bytes_per_gpu_total"), f"written {SYSTEM}"),
        ),
        "Bytes a second that vLLM reckons for each GPU's memory.",
    ),
    Panel(
        "Cache",
        "none",
        (Query(chosen("vllm:cache_config_info")),),
        "How the KV cache is set up: block size, blocks, prefix caching.",
        kind="table",
    ),
)

BOARD = Board(
    "vllm",
    "servescope: vLLM",
    "vLLM's own metrics; the embedded engine has most of them under the same names.",
    "vllm:num_requests_running",
    (
        Row("Load", _LOAD),
        Row("Latency", _LATENCY),
        Row("Tokens and reuse", _TOKENS),
        Row("Engine", _ENGINE),
    ),
)
