"""BurstGPT (Wang et al., KDD 2025): requests of a university to ChatGPT and GPT-4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from servescope.analysis.literature.layout import Layout, Reading, Row, Value
from servescope.analysis.literature.quantities import (
    correlation,
    count,
    failures,
    length,
    pauses_below,
    peak_to_trough,
    rate,
    ratio,
    session,
    turn_share,
    turns,
    value,
    window_cv,
)

_IN, _OUT = "input_tokens", "output_tokens"


def _rows_of_class(name: str, values: Mapping[str, Value]) -> tuple[Row, ...]:
    """Return the rows of one class of BurstGPT v3."""
    of = {"call_class": name}
    made: list[tuple[str, str, Callable[[Reading], Value]]] = [
        ("calls", "calls", count(**of)),
        ("failures", "share", failures(**of)),
        ("rate", "calls/s", rate(**of)),
    ]
    for column, word in ((_IN, "request"), (_OUT, "response")):
        made += [
            (f"{word} {statistic}", "tokens", length(column, statistic, **of))
            for statistic in ("mean", "p50", "p90", "p99", "max")
        ]
    made += [
        ("correlation of request and response", "1", correlation(**of)),
        ("request tokens for a token of response", "1", ratio(**of)),
    ]
    made += [
        (f"CV of gaps in 5-minute windows, {s}", "1", window_cv(s, **of))
        for s in ("p10", "p50", "mean", "p90")
    ]
    made += [
        ("windows with a CV above 1", "share", window_cv("above 1", **of)),
        ("busiest hour over quietest", "1", peak_to_trough(**of)),
    ]
    return tuple(Row(q, unit, values.get(q), ours) for q, unit, ours in made)


_API: Final[dict[str, Value]] = {
    "calls": 5_110_404,
    "failures": 0.0756,
    "rate": 0.54,
    "request mean": 457,
    "request p50": 326,
    "request p90": 794,
    "request p99": 3141,
    "request max": 125_591,
    "response mean": 68.9,
    "response p50": 14,
    "response p90": 111,
    "response p99": 804,
    "correlation of request and response": 0.183,
    "request tokens for a token of response": 6.6,
    "CV of gaps in 5-minute windows, p10": 0.67,
    "CV of gaps in 5-minute windows, p50": 1.50,
    "CV of gaps in 5-minute windows, mean": 2.54,
    "CV of gaps in 5-minute windows, p90": 5.22,
    "windows with a CV above 1": 0.725,
    "busiest hour over quietest": 3.01,
}
_CONVERSATION: Final[dict[str, Value]] = {
    "calls": 233_617,
    "failures": 0.0079,
    "rate": 0.025,
    "request mean": 953,
    "request p50": 517,
    "request p90": 2354,
    "request p99": 5630,
    "request max": 71_197,
    "response mean": 272,
    "response p50": 187,
    "response p90": 669,
    "response p99": 1067,
    "correlation of request and response": 0.438,
    "request tokens for a token of response": 3.5,
    "CV of gaps in 5-minute windows, p10": 0.77,
    "CV of gaps in 5-minute windows, p50": 0.92,
    "CV of gaps in 5-minute windows, mean": 0.94,
    "CV of gaps in 5-minute windows, p90": 1.12,
    "busiest hour over quietest": 34.8,
}
_SHARES: Final = (0.355, 0.204, 0.119, 0.076, 0.051, 0.037, 0.028, 0.021, 0.018, 0.013)
_SESSIONS: Final = (
    Row("sessions", "programs", 55_920, value("sessions", "programs")),
    Row("turns, mean", "calls", 4.18, value("sessions", "turns_mean")),
    *(
        Row(f"turns, p{100 * q:g}", "calls", value, turns(q))
        for q, value in ((0.5, 2), (0.75, 4), (0.9, 9), (0.99, 31), (1.0, 436))
    ),
    *(Row(f"sessions of {k}", "share", v, turn_share(k)) for k, v in enumerate(_SHARES, 1)),
    Row("calls that go on with a session", "share", 0.761, value("sessions", "continuation_share")),
    Row("pauses", "pauses", 177_697, session("pause_s", "n")),
    Row("pause, mean", "s", 5709, session("pause_s", "mean")),
    *(
        Row(f"pause, p{q}", "s", value, session("pause_s", f"p{q}"))
        for q, value in ((10, 20), (25, 42), (50, 131), (75, 533), (90, 2340), (99, 78_903))
    ),
    *(
        Row(f"pauses below {limit} s", "share", value, pauses_below(limit))
        for limit, value in ((60, 0.327), (300, 0.660), (3600, 0.924))
    ),
    *(
        Row(f"session duration, p{q}", "s", value, session("duration_s", f"p{q}"))
        for q, value in ((50, 866), (90, 20_371), (99, 597_295))
    ),
    Row("growth of the prompt a turn, mean", "tokens", 187, session("growth_tokens", "mean")),
    *(
        Row(f"growth of the prompt a turn, p{q}", "tokens", v, session("growth_tokens", f"p{q}"))
        for q, v in ((10, -124), (50, 125), (90, 642))
    ),
)

LAYOUT: Final = Layout(
    "BurstGPT",
    "Wang et al., BurstGPT, KDD 2025 (arXiv 2401.17644)",
    "Published values are those of the whole file v3 (5,344,021 rows), as two independent"
    " measurements give them; the paper's own printed tables were not seen, so nothing of them"
    " stands here. A cut of the file, or another trace, need not agree.",
    {
        "The whole": (
            Row("calls", "calls", 5_344_021, count()),
            Row("GPT-4", "calls", 790_239, count(model="GPT-4")),
            Row("ChatGPT", "calls", 4_553_782, count(model="ChatGPT")),
            Row("failures", "share", 0.0726, failures()),
        ),
        "API": _rows_of_class("api", _API),
        "Conversation": _rows_of_class("conversation", _CONVERSATION),
        "Sessions": _SESSIONS,
    },
    {
        "rate": "Requests over time",
        "gap_windows": "Gamma(alpha, beta) of the gaps, interval by interval",
        "length_ccdf": "Request and response tokens, by model and class",
        "turns": "Turns of a conversation",
        "failures_over_time": "Failures over time",
    },
)
