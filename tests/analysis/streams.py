"""Made-up runs: drawn ones, and any streams, stretched in time, moved, or answered later."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from servescope.analysis import Measured
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]
STREAM = st.lists(st.integers(1, 200), min_size=2, max_size=12)  # gaps in units of 1/128 s
STREAMS = st.lists(STREAM, min_size=1, max_size=5)


def streams(
    call: Make,
    gaps: list[list[int]],
    *,
    stretch: float = 1.0,
    later: float = 0.0,
    delay: float = 0.0,
) -> Measured:
    """Return calls two by two in programs; every answer comes `delay` later than it did."""
    rows = []
    for number, gap in enumerate(gaps):
        due = number * 3 / 4
        moments = due + 0.25 + np.cumsum(gap) / 128
        first, *rest = (stretch * moments + later + delay).tolist()
        rows.append(
            call(
                str(number), stretch * due + later, first, *rest,
                sent_s=stretch * (due + 0.125) + later,
                dispatched_s=stretch * (due + 0.0625) + later,
                observed_queue_s=stretch * gap[0] / 256 + delay,
                program_id=f"p{number // 2}",
                parents=[str(number - 1)] if number % 2 else [],
            )
        )  # fmt: skip
    return Measured(frame_of_rows(rows).lazy())


def many(call: Make, calls: int = 60) -> list[dict[str, Any]]:
    """Return calls of seven programs, of up to 39 chunks each."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(calls):
        first = number + rng.exponential()
        chunks = first + np.cumsum(rng.lognormal(-4, 1, rng.integers(1, 40)))
        rows.append(
            call(f"{number:03}", float(number), first, *chunks, program_id=f"p{number % 7}")
        )
    return rows
