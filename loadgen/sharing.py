"""How much of a plan's prompts a prefix cache can know: what no earlier prompt held is new."""

from __future__ import annotations

import polars as pl


def shareable_tokens(calls: pl.DataFrame, block_tokens: int | None) -> pl.Series:
    """Return, for each call in order of its sending, how many tokens of its prompt came before.

    `calls` has the plan's columns. It is a bound: a recorded text may be known as a whole, and of a
    stream the answers that it was given too. A cache that knows more has seen the prompts of
    another run.
    """
    said = (pl.col("input_tokens") + pl.col("output_tokens")).cum_max().shift(1, fill_value=0)
    in_stream = pl.min_horizontal("input_tokens", said.over("prompt_stream"))
    bound = (
        pl.when(pl.col("prompt_sha256").is_not_null())
        .then("input_tokens")
        .when(pl.col("prefix_blocks").list.len() > 0)
        .then(pl.min_horizontal("input_tokens", pl.col("known_blocks") * (block_tokens or 0)))
        .otherwise(in_stream)
    )
    return calls.with_columns(known_blocks=_known_blocks(calls)).select(shareable=bound).to_series()


def _known_blocks(calls: pl.DataFrame) -> pl.Series:
    """Return how many blocks from the start of each prompt stood there in an earlier one."""
    blocks = (
        calls.select("prefix_blocks")
        .with_row_index("row")
        .explode("prefix_blocks", empty_as_null=False)
        .with_columns(place=pl.int_range(pl.len()).over("row"))
        .with_columns(known=pl.col("row").min().over("place", "prefix_blocks") < pl.col("row"))
        .group_by("row", maintain_order=True)
        .agg(known=pl.col("known").cum_prod().sum())
    )
    rows = calls.select(row=pl.int_range(pl.len(), dtype=pl.UInt32))
    return rows.join(blocks, on="row", how="left").select(pl.col("known").fill_null(0)).to_series()
