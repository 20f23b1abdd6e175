"""The Azure LLM inference traces of 2023 (Patel et al., Splitwise, ISCA 2024)."""

from __future__ import annotations

from typing import Final

from servescope.analysis.literature.layout import Layout, Row
from servescope.analysis.literature.quantities import (
    count,
    dispersion,
    length,
    rate,
    silence,
    value,
)

_IN, _OUT = "input_tokens", "output_tokens"


LAYOUT: Final = Layout(
    "Azure LLM inference 2023",
    "Patel et al., Splitwise, ISCA 2024",
    "Published values are the medians that the paper names for its two services, quoted from"
    " memory; read the"
    " trace of one service at a time.",
    {
        "Coding": (
            Row("prompt, median", "tokens", 1500, length(_IN, "p50")),
            Row("generated, median", "tokens", 13, length(_OUT, "p50")),
        ),
        "Conversation": (
            Row("prompt, median", "tokens", 1020, length(_IN, "p50")),
            Row("generated, median", "tokens", 129, length(_OUT, "p50")),
        ),
        "Arrivals": (
            Row("calls", "calls", None, count()),
            Row("rate", "calls/s", None, rate()),
            Row("CV of the gaps", "1", None, value("arrivals", "gap_cv")),
            *(
                Row(f"index of dispersion at {w:g} s", "1", None, dispersion(w))
                for w in (1.0, 10.0, 60.0, 300.0)
            ),
            Row("silences over 20 s", "silences", None, silence(20.0, "silences")),
            Row("time that they hold", "share", None, silence(20.0, "share")),
        ),
    },
    {
        "length_ccdf": "Prompt and generated tokens",
        "rate": "Requests over time",
        "conditional_output": "Generated tokens against the prompt",
    },
)
