"""The critical path of each program: the calls that made it take as long as it did.

From the call that ended last, back from call to call to the parent whose end released it (the
critical path of a DAG; Autellix and Parrot use it of LLM programs).
"""

from __future__ import annotations

import numpy as np
import polars as pl
from polars import col

from servescope.analysis.sample import Ints


def with_path(calls: pl.DataFrame) -> pl.DataFrame:
    """Add `on_path`, `path_from_s` and `path_until_s` to a table of calls.

    A call on the path may start at `path_from_s`: its critical parent's end, or the program's first
    due moment. `path_until_s` is its own end if another call of the path waited for that; both are
    null off the path.
    """
    numbered = calls.with_row_index("place")
    parent = _critical_parents(numbered)
    on_path, follows = _walk(numbered, parent)
    end_s = calls["end_s"].to_numpy() if calls.height else np.empty(0)
    from_parent = np.where(parent >= 0, end_s[parent] if len(end_s) else np.nan, np.nan)
    return (
        calls.with_columns(
            on_path=pl.Series(on_path, dtype=pl.Boolean),
            _from_parent=pl.Series(from_parent, dtype=pl.Float64).fill_nan(None),
            _follows=pl.Series(follows, dtype=pl.Boolean),
        )
        .with_columns(
            path_from_s=pl.when("on_path").then(
                pl.coalesce("_from_parent", col("due_s").min().over("program_id"))
            ),
            path_until_s=pl.when(col("on_path") & col("_follows")).then("end_s"),
        )
        .drop("_from_parent", "_follows")
    )


def _critical_parents(numbered: pl.DataFrame) -> Ints:
    """Return for each call the place of the parent that ended last, -1 for none: shape (calls,)."""
    found = np.full(numbered.height, -1, dtype=np.int64)
    if "parents" not in numbered.columns:
        return found
    pairs = (
        numbered.select("place", call_id="parents")
        .filter(col("call_id").list.len() > 0)
        .explode("call_id")
        .join(numbered.select("call_id", "end_s", parent="place"), on="call_id")
        .drop_nulls("end_s")
        .sort("end_s", "parent")
        .unique("place", keep="last", maintain_order=True)
    )
    found[pairs["place"].to_numpy()] = pairs["parent"].to_numpy()
    return found


def _walk(numbered: pl.DataFrame, parent: Ints) -> tuple[Ints, Ints]:
    """Mark the calls on the paths, and those that another one on a path follows."""
    on_path = np.zeros(numbered.height, dtype=np.bool_)
    follows = np.zeros(numbered.height, dtype=np.bool_)
    last = (
        numbered.select("program_id", "place", "last_token_s")
        .drop_nulls("last_token_s")
        .sort("last_token_s", "place")
        .unique("program_id", keep="last")
    )
    here = last["place"].to_numpy().astype(np.int64)
    while len(here):  # one round a call of the longest path, over all programs at once
        here = here[~on_path[here]]  # a circle of parents would never end
        on_path[here] = True
        here = parent[here]
        here = here[here >= 0]
        follows[here] = True
    return on_path.astype(np.bool_), follows.astype(np.bool_)
