"""Traces with known laws, for tests of their comparison."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.sample import Floats, Ints
from servescope.traces.provenance import Provenance
from servescope.traces.trace import Trace


def trace_of(
    arrivals: Floats, inputs: Ints, outputs: Ints, **columns: pl.Series | list[object]
) -> Trace:
    """Make a trace of calls in order of arrival."""
    frame = pl.DataFrame(
        {"arrival_s": arrivals, "input_tokens": inputs, "output_tokens": outputs, **columns}
    )
    about = Provenance(
        format="none", source="made up", kind="synthetic", arrival_basis="trace", **_known(columns)
    )
    return Trace.of(frame, about)


def _known(columns: dict[str, object]) -> dict[str, object]:
    if "prefix_blocks" not in columns:
        return {}
    return {"block_tokens": 16, "block_rule": "floor", "block_scope": "global"}


def lengths(rng: np.random.Generator, calls: int) -> tuple[Ints, Ints]:
    """Draw prompts and answers that hang together."""
    x = rng.normal(size=calls)
    y = 0.6 * x + 0.8 * rng.normal(size=calls)
    return np.exp(6 + x).astype(np.int64) + 1, np.exp(4 + y).astype(np.int64) + 1


def poisson(seed: int, calls: int = 3000, rate_rps: float = 2.0) -> Trace:
    """Draw calls that come one by one, with log-normal lengths."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.exponential(1 / rate_rps, calls))
    return trace_of(at, *lengths(rng, calls))


def bursty(seed: int, calls: int = 3000, rate_rps: float = 2.0) -> Trace:
    """Draw calls that come ten at a time, with the same lengths as `poisson`."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum(rng.exponential(10 / rate_rps, calls // 10))
    at = np.sort(np.repeat(starts, 10) + rng.exponential(0.2, calls // 10 * 10))
    return trace_of(at, *lengths(rng, len(at)))


def sessions(seed: int, programs: int = 400) -> Trace:
    """Draw programs of one to five calls whose prompts grow, with the blocks that they share."""
    rng = np.random.default_rng(seed)
    rows = []
    for program, start_s in enumerate(np.cumsum(rng.exponential(2.0, programs))):
        at_s, tokens = start_s, 64
        for turn in range(rng.integers(1, 6)):
            blocks = [1, *range(1000 * program, 1000 * program + tokens // 16)]
            rows.append((at_s, tokens, rng.integers(5, 200), f"p{program}", turn, blocks))
            at_s += rng.lognormal(1, 1)
            tokens += int(rng.integers(64, 400))
    rows.sort(key=lambda row: row[0])
    at, inputs, outputs, *rest = zip(*rows, strict=True)
    names = ("program_id", "turn", "prefix_blocks")
    columns = {name: pl.Series(values) for name, values in zip(names, rest, strict=True)}
    return trace_of(np.array(at), np.array(inputs), np.array(outputs), **columns)
