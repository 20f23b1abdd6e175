"""The calls of programs, one after the other: what models of sessions and agents are fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl
from polars import col

from servescope.analysis.demand import Demand
from servescope.analysis.models.quantiles import MIN_COUNT
from servescope.analysis.sample import Floats, Ints
from servescope.traces.errors import InputError


def unnamed() -> InputError:
    """Return what to raise of a trace without programs."""
    return InputError(
        "No call of the trace names the session or program it belongs to.",
        "Model its calls as independent, or name the column with program_id.",
    )


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What calls were for: a model and a class, null where the trace does not say."""

    model: str | None = None
    call_class: str | None = None


@dataclass(frozen=True, slots=True)
class Sequences:
    """Calls of programs as arrays, ordered by program and turn; programs count from 0.

    Pauses, gaps between arrivals and times of calls are nan where unknown. Kinds of pauses and
    labels of calls are places among the commonest, others count as the first of them.
    """

    program: Ints
    turn: Ints
    pause_s: Floats
    gap_s: Floats
    service_s: Floats
    inputs: Floats | None
    outputs: Floats | None
    kind: Ints
    kinds: tuple[str, ...]
    label: Ints
    labels: tuple[Label, ...]

    @classmethod
    def of(cls, calls: pl.DataFrame, min_count: int = MIN_COUNT) -> Sequences:
        """Take a table as `timed` returns it; raises InputError of an empty one.

        What fewer than `min_count` calls have is no kind or label of its own.
        """
        if not calls.height:
            raise InputError("There are no sessions to fit.", "Give a trace that has some.")
        program = calls["program_id"].rle_id().cast(pl.Int64).to_numpy()
        begins = np.flatnonzero(np.diff(program, prepend=-1))
        turn = np.arange(len(program)) - begins[program]

        kind = np.zeros(len(turn), np.int64)
        kinds: list[str] = []
        if calls["pause_s"].count():
            named = calls.with_columns(_text(calls, "delay_kind").fill_null("unknown"))[
                "delay_kind"
            ]
            kind, kinds = _codes(named, calls["pause_s"].is_not_null(), min_count)
        texts = [_text(calls, name) for name in ("model", "call_class")]
        named = calls.with_columns(label=pl.struct(texts).struct.json_encode())["label"]
        label, names = _codes(named, named.is_not_null(), min_count)
        return cls(
            program=program,
            turn=turn,
            pause_s=_numbers(calls["pause_s"]),
            gap_s=_numbers(calls["gap_s"]),
            service_s=_numbers(calls["service_s"]),
            inputs=_tokens(calls, "input_tokens"),
            outputs=_tokens(calls, "output_tokens"),
            kind=kind,
            kinds=tuple(kinds),
            label=label,
            labels=tuple(msgspec.json.decode(name, type=Label) for name in names),
        )


def in_order(demand: Demand) -> pl.DataFrame:
    """Return the calls that name a program, by program and turn, as `timed` does.

    Raises InputError if no call names one.
    """
    if "program_id" not in demand.columns:
        raise unnamed()
    order = [name for name in ("turn", "arrival_s") if name in demand.columns]
    calls = demand.calls.filter(col("program_id").is_not_null())
    return timed(calls.sort("program_id", *order, maintain_order=True))


def timed(calls: pl.DataFrame) -> pl.DataFrame:
    """Add times to calls that are ordered by program and turn.

    `gap_s` is since the call before arrived, `pause_s` since it ended, and `service_s` how long a
    call took: measured, or what lies between two arrivals besides the pause.
    """
    inside = col("program_id") == col("program_id").shift(1)
    gap, took, pause = (
        col(name).cast(pl.Float64) if name in calls.columns else pl.lit(None, pl.Float64)
        for name in ("arrival_s", "observed_e2e_s", "delay_s")
    )
    if "arrival_s" in calls.columns:
        gap = gap.diff()
    if "delay_s" not in calls.columns:
        pause = gap - took.shift(1).fill_null(0.0)
    calls = calls.with_columns(
        # a source may say a pause that is longer than the time between two calls
        pause_s=pl.when(inside).then(pl.min_horizontal(pause, gap)).clip(0.0),
        gap_s=pl.when(inside).then(gap),
        service_s=took,
    )
    if "observed_e2e_s" in calls.columns:
        return calls
    besides = (col("gap_s") - col("pause_s")).clip(0.0)
    return calls.with_columns(service_s=besides.shift(-1))


def _text(calls: pl.DataFrame, name: str) -> pl.Expr:
    there = name in calls.columns
    return (col(name).cast(pl.String) if there else pl.lit(None, pl.String)).alias(name)


def _numbers(series: pl.Series) -> Floats:
    return series.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _tokens(calls: pl.DataFrame, name: str) -> Floats | None:
    """Return token counts, those unknown as the one before; None where all are."""
    if name not in calls.columns or not calls[name].count():
        return None
    return _numbers(calls[name].fill_null(strategy="forward").fill_null(strategy="backward"))


def _codes(names: pl.Series, counted: pl.Series, min_count: int) -> tuple[Ints, list[str]]:
    """Return the place of each name among those counted often, and these, the commonest first."""
    names = names.alias("name")
    ranked = names.filter(counted).value_counts().sort(["count", "name"], descending=[True, False])
    often = (
        ranked.filter(col("count") >= min_count)["name"].to_list() or ranked["name"].to_list()[:1]
    )
    places = names.replace_strict(often, list(range(len(often))), default=0, return_dtype=pl.Int64)
    return places.to_numpy(), often
