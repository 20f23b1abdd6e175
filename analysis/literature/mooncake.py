"""Mooncake (Qin et al., FAST 2025): conversations, tools and agents, a synthetic mix."""

from __future__ import annotations

from typing import Final

from servescope.analysis.literature.layout import Layout, Row
from servescope.analysis.literature.quantities import (
    count,
    curve_at,
    length,
    value,
)

_IN, _OUT = "input_tokens", "output_tokens"


LAYOUT: Final = Layout(
    "Mooncake",
    "Qin et al., Mooncake, FAST 2025",
    "Published values are those of the paper's table of its three traces, quoted from memory; they"
    " stand beside whatever trace is read, so look at the one that is yours. Its cache ratio may"
    " count partial blocks in another way.",
    {
        "Conversation": (
            Row("requests", "calls", 12_031, count()),
            Row("input length, mean", "tokens", 12_035, length(_IN, "mean")),
            Row("output length, mean", "tokens", 343, length(_OUT, "mean")),
            Row("cache ratio", "share", 0.40, value("prefixes", "hit_rate")),
        ),
        "Tool and agent": (
            Row("requests", "calls", 23_608, count()),
            Row("input length, mean", "tokens", 8596, length(_IN, "mean")),
            Row("output length, mean", "tokens", 182, length(_OUT, "mean")),
            Row("cache ratio", "share", 0.59, value("prefixes", "hit_rate")),
        ),
        "Synthetic": (
            Row("requests", "calls", 3993, count()),
            Row("input length, mean", "tokens", 15_325, length(_IN, "mean")),
            Row("output length, mean", "tokens", 149, length(_OUT, "mean")),
            Row("cache ratio", "share", 0.66, value("prefixes", "hit_rate")),
        ),
        "Cache": (
            *(
                Row(f"hit rate with {n:,.0f} tokens", "share", None, curve_at(n))
                for n in (1e5, 1e6, 3e6, 1e7, 5e7)
            ),
            Row(
                "blocks asked for more than once", "share", None, value("prefixes", "shared_blocks")
            ),
        ),
    },
    {
        "length_ccdf": "Input and output lengths",
        "hit_curve": "Hit rate against the size of the cache",
        "reuse_quantiles": "How soon a prefix is used again",
    },
)
