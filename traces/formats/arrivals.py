"""Putting the rows of a source in order of arrival."""

import polars as pl

MOVED = "The rows were not in order of arrival; they are now."


def in_order(calls: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Sort calls by arrival, ties as they stood, and return what to doubt if that moved any."""
    if calls["arrival_s"].is_sorted():
        return calls, ()
    return calls.sort("arrival_s", maintain_order=True), (MOVED,)
