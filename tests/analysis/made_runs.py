"""Made-up runs of several classes, clients and programs, some of whose calls fail."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]


def mixed(call: Make, calls: int, seed: int, *, alone: bool = False) -> pl.DataFrame:
    """Return calls of programs of some turns, or each `alone`; a few fail, one is never due."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(calls):
        program = number if alone else int(rng.integers(max(1, calls // 3)))
        due = float(rng.integers(0, 40)) / 4 + program / 8
        first = due + rng.exponential(0.3)
        chunks = (first + np.cumsum(rng.lognormal(-3, 1, rng.integers(0, 9)))).tolist()
        counted = bool(rng.random() < 0.3)
        row = call(
            f"{number:04}",
            due,
            *chunks,
            program_id=f"p{program}",
            turn=number % 4,
            call_class=("chat", "code", None)[program % 3],
            client_id=f"client-{program % 5}",
            model="one",
            replica=f"r{rng.integers(2)}",
            priority=program % 2,
            output_tokens=len(chunks) * (2 if counted else 1) + int(rng.random() < 0.1),
            chunk_tokens=[2] * len(chunks) if counted else None,
        )
        if rng.random() < 0.1:
            row |= {"status": "http_503", "output_tokens": None}
        rows.append(row)
    if rows:
        rows[-1] |= {"due_s": None, "status": "not_sent", "sent_s": None}
    return frame_of_rows(rows)
