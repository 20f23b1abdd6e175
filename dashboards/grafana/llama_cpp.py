"""llama.cpp's server, started with `--metrics`: no histograms, so latencies are the client's."""

from __future__ import annotations

from servescope.dashboards.grafana.board import Board, Panel, Row
from servescope.dashboards.grafana.promql import SYSTEM, Query, average, rate, share, total

_PROMPT, _CACHED = "llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"
_ANSWER = "llamacpp:tokens_predicted_total"

_LOAD = (
    Panel(
        "Requests",
        "short",
        (
            Query(total("llamacpp:requests_processing"), f"running {SYSTEM}"),
            Query(total("llamacpp:requests_deferred"), f"waiting {SYSTEM}"),
        ),
        "Requests that have a slot, and those that wait for one.",
    ),
    Panel(
        "Busy slots",
        "short",
        (Query(average("llamacpp:n_busy_slots_per_decode")),),
        "Mean number of slots that a decode call served, since the server began.",
    ),
    Panel(
        "Decode calls a second",
        "suffix: /s",
        (Query(rate("llamacpp:n_decode_total")),),
        "Steps of the model a second.",
    ),
    Panel(
        "Time spent",
        "percentunit",
        (
            Query(rate("llamacpp:prompt_seconds_total"), f"prompts {SYSTEM}"),
            Query(rate("llamacpp:tokens_predicted_seconds_total"), f"answers {SYSTEM}"),
        ),
        "Seconds of work on prompts and on answers in a second, of all slots together.",
    ),
    Panel(
        "Longest sequence",
        "suffix: tok",
        (Query(total("llamacpp:n_tokens_max")),),
        "Most tokens of a prompt and its answer so far: near a slot's context answers are cut.",
    ),
)

_TOKENS = (
    Panel(
        "Tokens a second",
        "suffix: tok/s",
        (
            Query(rate(_PROMPT), f"prompts {SYSTEM}"),
            Query(rate(_ANSWER), f"answers {SYSTEM}"),
        ),
        "Prompt tokens that were computed, and tokens of answers.",
    ),
    Panel(
        "Speed of a request",
        "suffix: tok/s",
        (
            Query(share(_PROMPT, "llamacpp:prompt_seconds_total"), f"prompts {SYSTEM}"),
            Query(
                share(_ANSWER, "llamacpp:tokens_predicted_seconds_total"),
                f"answers {SYSTEM}",
            ),
        ),
        "Tokens per second of work on prompts and on answers of late.",
    ),
    Panel(
        "Prefix cache hits",
        "percentunit",
        (Query(f"{rate(_CACHED)} / ({rate(_PROMPT)} + {rate(_CACHED)})"),),
        "Share of the prompt tokens kept from an earlier request; older servers do not say.",
        top=1,
    ),
    Panel(
        "Drafts accepted",
        "percentunit",
        (
            Query(
                share(
                    "llamacpp:spec_decode_num_accepted_tokens_total",
                    "llamacpp:spec_decode_num_draft_tokens_total",
                )
            ),
        ),
        "Share of the drafted tokens that the model took; empty without speculative decoding.",
        top=1,
    ),
)

BOARD = Board(
    "llama-cpp",
    "servescope: llama.cpp",
    "llama.cpp's own metrics; it says them with --metrics.",
    "llamacpp:requests_processing",
    (Row("Load", _LOAD), Row("Tokens and reuse", _TOKENS)),
)
