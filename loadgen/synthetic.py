"""Programs that no trace holds: made of lengths drawn from a seed, and starts from a process."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from servescope.loadgen.experiment import ArrivalSpec, SyntheticSpec, WorkloadSpec
from servescope.loadgen.program import Call, Program
from servescope.loadgen.timing import starts, stream
from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance

CALLS = 1000  # as many as vLLM's benchmark sends, where nothing says how many
AT_ONCE = ArrivalSpec(process="immediately")


def programs_of(spec: WorkloadSpec, seed: int) -> tuple[Program, ...]:
    """Return the programs of a synthetic workload, in order of their start.

    Without `arrivals` they all begin at once. More programs of the same seed begin with the same
    ones. Raises InputError if none begins in time.
    """
    asked = spec.synthetic
    assert asked is not None
    begin_s = starts(
        spec.arrivals or AT_ONCE, seed, count=_count(spec, asked), until_s=spec.duration_s
    )
    if not len(begin_s):
        raise InputError("No program starts in that time.", "Give more time, or a higher rate.")
    shape = len(begin_s), asked.turns
    said = _lengths(seed, "input lengths", asked.input_tokens, asked.range_ratio, shape)
    answers = _lengths(seed, "output lengths", asked.output_tokens, asked.range_ratio, shape)
    # every prompt holds all turns before it, with their answers
    prompts = asked.prefix_tokens + np.cumsum(said, axis=1)
    prompts[:, 1:] += np.cumsum(answers, axis=1)[:, :-1]
    programs, number = [], 0
    for row, start_s in enumerate(begin_s.tolist()):
        turns = min(asked.turns, (spec.calls or math.inf) - number)
        if turns <= 0:
            break
        name = f"program-{row}"
        calls = tuple(
            Call(
                id=f"{name}-{turn}" if asked.turns > 1 else name,
                program_id=name,
                turn=turn,
                input_tokens=int(prompts[row, turn]),
                output_tokens=int(answers[row, turn]),
                parents=(f"{name}-{turn - 1}",) if turn else (),
                delay_s=asked.think_s if turn else 0.0,
                prompt_stream=name,
                prefix_blocks=_blocks(row, int(prompts[row, turn]), asked),
                pause="user" if turn else None,
                last=turn == turns - 1,
                number=number + turn,
            )
            for turn in range(int(turns))
        )
        number += len(calls)
        programs.append(Program(name, start_s, calls))
    return tuple(programs)


def provenance_of(spec: SyntheticSpec) -> Provenance:
    """Say of a synthetic workload what a trace says of itself."""
    return Provenance(
        format="synthetic",
        source=f"{spec.input_tokens} tokens in, {spec.output_tokens} out",
        kind="synthetic",
        block_tokens=spec.prefix_tokens or None,
        block_rule="floor" if spec.prefix_tokens else None,
        block_scope="global" if spec.prefix_tokens else None,
    )


def _count(spec: WorkloadSpec, asked: SyntheticSpec) -> int | None:
    """Return how many programs are asked for, at most; None if their starts alone say."""
    if asked.programs is not None:
        return asked.programs
    if spec.calls is None and spec.duration_s is not None and spec.arrivals is not None:
        return None
    return math.ceil((spec.calls or CALLS) / asked.turns)


def _lengths(
    seed: int, purpose: str, mean: int, ratio: float, shape: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Draw lengths evenly from mean x (1 - ratio) to mean x (1 + ratio), as vLLM's benchmark."""
    low, high = math.floor(mean * (1 - ratio)), math.ceil(mean * (1 + ratio))
    return stream(seed, purpose).integers(max(1, low), high, size=shape, endpoint=True)


def _blocks(row: int, tokens: int, asked: SyntheticSpec) -> tuple[int, ...]:
    """Return blocks as long as the common prefix: that is the first, the others are a program's."""
    if not asked.prefix_tokens:
        return ()
    if asked.turns == 1:
        return (0,)
    own = 1 + (row << 32)
    return (0, *range(own, own + math.ceil(tokens / asked.prefix_tokens) - 1))
