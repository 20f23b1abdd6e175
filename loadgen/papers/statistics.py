"""What programs are like, in the figures that papers print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from servescope.loadgen.papers.generator import Published
from servescope.loadgen.papers.lengths import Reals
from servescope.loadgen.program import Program
from servescope.traces.errors import InputError


def figure(programs: Sequence[Program], quantity: str, statistic: str) -> float | None:
    """Return one figure of programs, such as the `p90` of `input_tokens of revise`.

    None where there is nothing to count.

    A quantity is one of `QUANTITIES`, of calls of the class that follows ` of `, of pauses for that
    tool, or of programs that have calls of that class. Statistics: `mean`, `sd`, `pNN`; `corr` with
    the prompts; `=N`, the share that is N; `slowest tenth`, the share of the sum that the largest
    tenth has; `present`, the share of programs that have any. Raises InputError for a name that is
    none.
    """
    values = _values(programs, quantity)
    if statistic == "present":
        return len(values) / len(programs)
    if len(values) < 2:
        return float(values[0]) if len(values) and statistic == "mean" else None
    if statistic == "corr":
        prompts = _values(programs, "input_tokens")
        return float(np.corrcoef(prompts, values)[0, 1])
    if statistic == "slowest tenth":
        slowest = np.sort(values)[-max(1, len(values) // 10) :]
        return float(slowest.sum() / values.sum())
    if statistic == "mean":
        return float(values.mean())
    if statistic == "sd":
        return float(values.std())
    kind, number = statistic[:1], statistic[1:]
    if kind == "p":
        return float(np.percentile(values, float(number)))
    if kind == "=":
        return float(np.mean(values == float(number)))
    raise InputError(f"'{statistic}' is no statistic.", "Take mean, sd, or p50.")


def beside(
    programs: Sequence[Program], published: Published
) -> Iterator[tuple[str, str, float, float | None]]:
    """Yield quantity, statistic, the published figure, and that of the programs."""
    for quantity, figures in published.items():
        for statistic, value in figures.items():
            yield quantity, statistic, value, figure(programs, quantity, statistic)


def _values(programs: Sequence[Program], quantity: str) -> Reals:
    name, _, whose = quantity.partition(" of ")
    if name not in QUANTITIES:
        raise InputError(f"'{name}' is no quantity.", f"Known: {', '.join(QUANTITIES)}.")
    each = QUANTITIES[name]
    found = [
        value for program in programs for named, value in each(program) if (named or "") == whose
    ]
    return np.array(found, dtype=np.float64)


Named = Iterable[tuple[str | None, float]]


def _twice(values: Iterable[tuple[str | None, float]]) -> Named:
    """Yield each value among all, and among those of its name if it has one."""
    for name, value in values:
        yield None, value
        if name:
            yield name, value


def _pauses(program: Program) -> Named:
    tools = {call.id: call.tool for call in program.calls}
    return _twice((tools[call.parents[-1]], call.delay_s) for call in program.calls if call.pause)


def _counts(program: Program) -> Named:
    yield None, len(program.calls)
    yield from Counter(call.call_class for call in program.calls if call.call_class).items()


def _news(program: Program) -> Named:
    said = {call.id: call.input_tokens + call.output_tokens for call in program.calls}
    return _twice(
        (call.call_class, call.input_tokens - sum(said[parent] for parent in call.parents))
        for call in program.calls
    )


QUANTITIES: Mapping[str, Callable[[Program], Named]] = {
    "input_tokens": lambda p: _twice((call.call_class, call.input_tokens) for call in p.calls),
    "output_tokens": lambda p: _twice((call.call_class, call.output_tokens) for call in p.calls),
    # of a prompt, past what was said up to the answer before
    "new_tokens": _news,
    # from a prompt to the one after
    "growth_tokens": lambda p: (
        (None, after.input_tokens - before.input_tokens) for before, after in pairwise(p.calls)
    ),
    "first_input_tokens": lambda p: [(None, p.calls[0].input_tokens)],
    "later_input_tokens": lambda p: ((None, call.input_tokens) for call in p.calls[1:]),
    "pause_s": _pauses,
    "calls": _counts,
    "program_tokens": lambda p: [(None, sum(c.input_tokens + c.output_tokens for c in p.calls))],
    "program_input_tokens": lambda p: [(None, sum(call.input_tokens for call in p.calls))],
    "program_output_tokens": lambda p: [(None, sum(call.output_tokens for call in p.calls))],
}

# What is said of every workload, published or not.
TOLD = (
    ("calls", "mean"), ("input_tokens", "mean"), ("input_tokens", "p50"), ("input_tokens", "p90"),
    ("output_tokens", "mean"), ("output_tokens", "p50"), ("output_tokens", "p90"),
    ("program_tokens", "mean"),
)  # fmt: skip
