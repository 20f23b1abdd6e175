"""The load generator beside the servers, whichever they are: by what `traces.server` knows."""

from __future__ import annotations

from servescope.dashboards.grafana.board import Board, Panel, Row
from servescope.dashboards.grafana.promql import (
    SYSTEM,
    Query,
    average,
    quantile,
    rate,
    share,
    total,
)
from servescope.dashboards.grafana.sglang import IN_ALL
from servescope.traces.server import KNOWN

# IN_ALL asks nothing of the others: they have no such label.


def _named(name: str) -> str:
    """Return whose name of a metric it is."""
    return name.split(":")[0].split("_")[0]


def _gauges(quantity: str) -> tuple[Query, ...]:
    how, names = KNOWN[quantity]
    return tuple(
        Query((total if how == "sum" else average)(name, IN_ALL), f"{_named(name)} {SYSTEM}")
        for name in names
    )


def _rates(quantity: str) -> tuple[Query, ...]:
    return tuple(Query(_rate(name), f"{_named(name)} {SYSTEM}") for name in KNOWN[quantity].names)


def _shares(part: str, whole: str) -> tuple[Query, ...]:
    """Return one rate as a share of another, where a server says both."""
    pairs = zip(KNOWN[part].names, KNOWN[whole].names, strict=True)
    return tuple(
        Query(f"{_rate(one)} / ({_rate(other)})", f"{_named(one)} {SYSTEM}") for one, other in pairs
    )


def _rate(names: str) -> str:
    return " + ".join(rate(name, IN_ALL) for name in names.split("+"))


def _p99(client: str, *servers: str) -> tuple[Query, ...]:
    """Return p99 of a histogram of the client, then of those of the servers."""
    named = (("client", client), *((_named(name), name) for name in servers))
    return tuple(Query(quantile(0.99, name), f"{said} {SYSTEM}") for said, name in named)


_BOTH = (
    Panel(
        "Calls a second",
        "reqps",
        (
            Query(rate("servescope_calls_sent_total"), f"sent {SYSTEM}"),
            Query(rate("servescope_calls_finished_total"), f"finished {SYSTEM}"),
        ),
        "Offered load against throughput, as the client sees them.",
    ),
    Panel(
        "TTFT p99",
        "s",
        _p99(
            "servescope_ttft_seconds",
            "vllm:time_to_first_token_seconds",
            "sglang:time_to_first_token_seconds",
        ),
        "Time to first token of client and server: what the client has more is network and HTTP.",
    ),
    Panel(
        "TBT p99",
        "s",
        _p99(
            "servescope_tbt_seconds",
            "vllm:inter_token_latency_seconds",
            "sglang:inter_token_latency_seconds",
        ),
        "Time between two tokens, of client and server.",
    ),
    Panel(
        "Tokens of answers a second",
        "suffix: tok/s",
        (
            Query(rate("servescope_output_tokens_total"), f"client {SYSTEM}"),
            *_rates("generation_tokens"),
        ),
        "What the client received of finished calls, and what servers generated for everybody.",
    ),
    Panel(
        "In flight",
        "short",
        (
            Query(total("servescope_calls_in_flight"), f"in flight {SYSTEM}"),
            Query(total("servescope_calls_waiting"), f"wait for a slot {SYSTEM}"),
        ),
        "Calls that the client has sent and not got back, and those that it holds back.",
    ),
    Panel(
        "SLO attainment",
        "percentunit",
        (Query(share("servescope_slo_met_total", "servescope_slo_judged_total")),),
        "Share of the calls judged of late that met the SLO.",
        limits=(0.99, 0.9),
        top=1,
    ),
)

_SERVERS = (
    Panel("Running", "short", _gauges("running"), "Requests that servers compute at once."),
    Panel("Waiting", "short", _gauges("waiting"), "Requests in the servers' queues."),
    Panel(
        "KV cache in use",
        "percentunit",
        _gauges("kv_usage"),
        "Share of the KV cache in use; near 1 requests wait or are thrown out.",
        limits=(0.8, 0.95),
        top=1,
    ),
    Panel(
        "Prefix cache hits",
        "percentunit",
        _shares("prefix_hits", "prefix_queries"),
        "Share of the prompt tokens that came from the prefix cache of late.",
        top=1,
    ),
    Panel(
        "Preemptions a second",
        "suffix: /s",
        _rates("preemptions"),
        "Requests that were thrown out of the batch and begin anew.",
    ),
    Panel(
        "Time in the queue",
        "s",
        _shares("queue_s", "queued"),
        "Mean time that requests of late had spent in the servers' queues.",
    ),
)

BOARD = Board(
    "compare",
    "servescope: client and servers",
    "The load generator beside the servers, in one picture each.",
    "up",
    (Row("Client and servers", _BOTH), Row("Servers", _SERVERS)),
)
