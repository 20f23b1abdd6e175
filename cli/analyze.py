"""`servescope analyze`: what the traffic is like."""

from __future__ import annotations

from servescope.cli import console, reading
from servescope.cli.options import Format, Json


def analyze(
    trace: reading.Files,
    format: Format = None,
    unit: reading.Unit = None,
    block_tokens: reading.BlockTokens = None,
    block_rule: reading.BlockRule = None,
    column: reading.Columns = None,
    tokenizer: reading.TokenizerName = None,
    on_error: reading.OnError = "raise",
    rejected: reading.Rejected = None,
    transforms: reading.Transforms = None,
    seed: reading.StepSeed = 0,
    as_json: Json = False,
) -> None:
    """Summarise a trace: rate, burstiness, lengths, turns, failures.

    Example:  servescope analyze azure:sample
    """
    from servescope.analysis import describe

    with console.working(f"reading {trace}"):
        loaded = reading.read(
            trace, format, unit, block_tokens, block_rule, column, tokenizer, on_error, rejected,
            transforms, seed,
        )  # fmt: skip
        found = describe(loaded)
    if as_json:
        console.json(found)
        return
    rate = f"{found.rate_rps:.3g} calls/s" if found.rate_rps else None
    span = f"{found.span_s:,.1f} s" if found.span_s else None
    multi = f"{found.multi_turn_share:.0%} of calls" if found.multi_turn_share is not None else None
    console.table(
        ["", trace],
        [
            ("calls", found.calls),
            ("programs", found.programs),
            ("in programs of several calls", multi),
            ("failed", found.failed),
            ("span", span),
            ("rate", rate),
        ],
    )
    console.out.print()
    spreads = {
        "inter-arrival (s)": found.iat,
        "input tokens": found.input_tokens,
        "output tokens": found.output_tokens,
        "turns": found.turns,
    }
    console.table(
        ["", "mean", "p50", "p90", "p99", "max", "CV"],
        (
            (name, *(f"{x:.4g}" for x in (s.mean, s.p50, s.p90, s.p99, s.max)), _cv(s.cv))
            for name, s in spreads.items()
            if s
        ),
    )
    if found.iat and found.iat.cv:
        word = (
            "burstier than"
            if found.iat.cv > 1.1
            else "calmer than"
            if found.iat.cv < 0.9
            else "near"
        )
        console.out.print(f"\nArrivals are {word} Poisson (CV {found.iat.cv:.2f}; Poisson is 1).")
    for doubt in found.doubts:
        console.doubt(doubt)


def _cv(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
