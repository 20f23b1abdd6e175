"""ServeGen (Xiang et al., 2025): pools of clients of a cloud."""

from __future__ import annotations

from typing import Final

from servescope.analysis.literature.layout import Layout, Row
from servescope.analysis.literature.quantities import (
    correlation,
    pool,
    pool_length,
    session,
    value,
)

_IN, _OUT = "input_tokens", "output_tokens"


LAYOUT: Final = Layout(
    "ServeGen",
    "Xiang et al., ServeGen, 2025 (arXiv 2505.09999)",
    "No number of the paper's own was at hand, but for two of its conversations that others quote;"
    " which average the time between turns is they do not say, and ours is the median.",
    {
        "Clients": (
            Row("clients", "clients", None, pool("clients")),
            Row("clients with 90 % of the calls", "clients", None, pool("clients_for_90")),
            Row("calls of the largest client", "share", None, pool("top_client_share")),
            Row("mean rate", "calls/s", None, pool("rate_rps")),
            Row("greatest rate of a window", "calls/s", None, pool("rate_max_rps")),
            Row("windows with a Gamma fit", "share", None, pool("gamma_windows")),
            Row("CV of the gaps, median by calls", "1", None, pool("client_cv_p50")),
            Row("calls at a CV above 1", "share", None, pool("load_above_cv_1")),
            Row("windows in which a client asks", "share", None, pool("active_windows")),
            Row("swings of the rate by those with 90 %", "share", None, pool("variance_of_top")),
            Row("input tokens, mean", "tokens", None, pool_length(_IN)),
            Row("output tokens, mean", "tokens", None, pool_length(_OUT)),
        ),
        "Requests": (
            Row("CV of the gaps", "1", None, value("arrivals", "gap_cv_deticked")),
            Row("windows with a CV above 1", "share", None, value("arrivals", "windows_above_1")),
            Row("correlation of input and output", "1", None, correlation()),
        ),
        "Conversations": (
            Row("turns, mean", "calls", 3.5, value("sessions", "turns_mean")),
            Row("time between turns", "s", 100, session("gap_s", "p50")),
        ),
    },
    {
        "client_concentration": "How few clients make most of the load",
        "clients": "The largest clients: rate and burstiness",
        "total_rate": "The rate of all clients and of the largest",
        "gap_windows": "CV of the gaps over time",
        "length_ccdf": "Input and output tokens",
        "length_drift": "Lengths over time",
    },
    of_pools="Clients",
)
