"""Sessions and agent programs with known laws."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.traces.provenance import Provenance
from servescope.traces.trace import Trace

MEDIAN_S = 30.0  # of pauses
SIGMA = 1.5
EFFECT = 0.5  # share of the variance of log pauses that is the session's
ADDED = 100  # tokens, on average, by which a prompt exceeds the context before


def chats(
    seed: int, programs: int = 4000, mean_turns: float = 3.0, service_s: float = 0.0
) -> Trace:
    """Draw geometric turns, log-normal pauses with an effect of the session, growing prompts."""
    rng = np.random.default_rng(seed)
    turns = rng.geometric(1 / mean_turns, programs)
    program = np.repeat(np.arange(programs), turns)
    first = np.cumsum(turns) - turns
    turn = np.arange(len(program)) - first[program]
    score = np.sqrt(EFFECT) * rng.normal(size=programs)[program]
    score += np.sqrt(1 - EFFECT) * rng.normal(size=len(program))
    pause = np.where(turn > 0, MEDIAN_S * np.exp(SIGMA * score), 0.0)
    output = rng.poisson(200, len(program)) + 1
    added = rng.poisson(ADDED, len(program)) + 1
    steps = np.where(turn > 0, added + np.roll(output, 1), 500)
    base = np.cumsum(steps)
    inputs = base - (base - steps)[first][program]
    gap = pause + np.where(turn > 0, service_s, 0.0)
    since = np.cumsum(gap)
    start = np.sort(rng.uniform(0, 100.0 * programs, programs))
    at = start[program] + since - since[first][program]
    frame = pl.DataFrame(
        {
            "call_id": np.arange(len(program)).astype(str),
            "arrival_s": at,
            "program_id": program.astype(str),
            "turn": turn,
            "input_tokens": inputs,
            "output_tokens": output,
            "delay_s": np.where(turn > 0, pause, np.nan),
            "delay_kind": np.where(turn > 0, "user", ""),
            "parents": [[] if t == 0 else [str(row - 1)] for row, t in enumerate(turn.tolist())],
        }
    ).with_columns(pl.col("delay_s").fill_nan(None), pl.col("delay_kind").replace("", None))
    return _trace(frame)


def agents(seed: int, programs: int = 1500, steps: int = 10, fan_out: int = 3) -> Trace:
    """Draw chains of calls: half of them start sub-agents of two calls, at one of their calls.

    The call after that waits for all of them. Calls take 2 s, pauses 1 s, launches 0.5 s.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []

    def add(program: int, at: float, parents: list[str], delay: float | None, tokens: int) -> str:
        name = str(len(rows))
        rows.append(
            {
                "call_id": name,
                "program_id": str(program),
                "arrival_s": at,
                "parents": parents,
                "delay_s": delay,
                "delay_kind": None if delay is None else "tool",
                "observed_e2e_s": 2.0,
                "input_tokens": tokens,
                "output_tokens": 50,
            }
        )
        return name

    for program in range(programs):
        at = 1000.0 * program
        forks = int(rng.integers(0, steps - 1)) if rng.random() < 0.5 else -1
        last, waits = add(program, at, [], None, 1000), []
        for step in range(1, steps):
            ready = at + 2.0
            if step - 1 == forks:
                for _ in range(fan_out):
                    inner = add(program, ready + 0.5, [last], 0.5, 300)
                    waits.append(add(program, ready + 3.5, [inner], 1.0, 400))
                ready += 5.5
            at = ready + 1.0
            last, waits = add(program, at, [last, *waits], 1.0, 1000 + 100 * step), []
    numbered = pl.DataFrame(rows, infer_schema_length=None)
    return _trace(numbered.with_columns(turn=pl.int_range(pl.len()).over("program_id")))


def _trace(frame: pl.DataFrame) -> Trace:
    about = Provenance(format="none", source="made up", kind="synthetic", arrival_basis="trace")
    return Trace.of(frame.sort("arrival_s", maintain_order=True), about)
