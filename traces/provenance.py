"""Where a trace came from, how it was read, and what was done to it since."""

from __future__ import annotations

from typing import Literal

import msgspec


class Provenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known about a trace besides its calls; it travels in the Parquet file's metadata.

    `sha256` is the digest of the unpacked source; of several files, of the lines that `sha256sum`
    prints for them. `rows_read` is `rows_kept` plus all `rows_dropped` (by reason).

    `t0` is the moment that `arrival_s` 0 stands for, as the source writes it; `t0_ns` is the same
    in whole nanoseconds on `clock`: of Unix time ("utc"), of a wall clock without a zone read as if
    it were UTC ("local"), or from the source's own zero ("source"). Where `arrival_basis` is
    "program", every program has a zero of its own. `tick_s` is the resolution of that clock.

    `block_*` say what an id of `prefix_blocks` stands for; with the rule "component" each id is a
    part of the prompt of its own length. `inferred` names columns that the source does not record
    and how they were made up. `steps` are the transforms since, in order.
    """

    format: str
    source: str
    kind: Literal["real", "derived", "synthetic", "measured"] = "real"
    files: int | None = None
    sha256: str | None = None
    licence: str | None = None
    attribution: str | None = None
    recognised_by: str | None = None
    rows_read: int | None = None
    rows_kept: int | None = None
    rows_dropped: dict[str, int] = {}
    t0: str | None = None
    t0_ns: int | None = None
    clock: Literal["utc", "local", "source"] | None = None
    arrival_basis: Literal["trace", "program"] = "trace"
    units: str | None = None
    tick_s: float | None = None
    block_tokens: int | None = None
    block_rule: Literal["ceil", "floor", "component"] | None = None
    block_scope: Literal["global", "program"] | None = None
    tokenizer: str | None = None
    inferred: dict[str, str] = {}
    doubts: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
