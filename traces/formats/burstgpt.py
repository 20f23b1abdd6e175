"""BurstGPT: a university's requests to ChatGPT and GPT-4 (Wang et al., KDD 2025)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from servescope.traces.formats import clock, csv
from servescope.traces.formats.export import losses, new_file, placed, stamps
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather
from servescope.traces.formats.links import Chain
from servescope.traces.formats.source import Source
from servescope.traces.schema import SCHEMA
from servescope.traces.status import FAILED, OK
from servescope.traces.trace import Trace

_NEEDED = {
    "Timestamp": pl.Float64,
    "Model": pl.String,
    "Request tokens": pl.Int64,
    "Response tokens": pl.Int64,
    "Log Type": pl.String,
}
_OPTIONAL = {"Total tokens": pl.Int64, "Session ID": pl.String, "Elapsed time": pl.Float64}
_SECONDS = "Arrivals are stamped in whole seconds: nothing finer than 2 s can be said of them."
_NO_PREFIX = "Sessions are recorded, prefixes are not: how much of a prompt repeats is not known."


def sniff(head: bytes) -> bool:
    """Recognise the columns of every BurstGPT version."""
    return set(csv.header(head)) >= _NEEDED.keys()


def read(source: Source) -> Trace:
    """Read BurstGPT v1, v2 or v3, by column name.

    Zero response tokens mark a failed request, which is kept. In v3 the Session ID is the program,
    a turn follows the turn before it, and its delay is the gap after that turn's Elapsed time.
    """
    batches = csv.batches(source, _NEEDED, _OPTIONAL)
    first = next(batches)
    sessions = "Session ID" in first.columns
    unequal, whole = 0, True

    def calls() -> Iterator[pl.DataFrame]:
        nonlocal unequal, whole
        for batch in itertools.chain([first], batches):
            if "Total tokens" in batch.columns:
                sums = pl.col("Request tokens") + pl.col("Response tokens")
                unequal += batch.filter(pl.col("Total tokens") != sums).height
            batch = _placed(batch, source)
            whole &= bool((batch["Timestamp"] % 1 == 0).all())
            yield _renamed(batch, sessions)

    trace = gather(
        source,
        calls(),
        chain=Chain() if sessions else None,
        format="burstgpt",
        licence="CC-BY-4.0",
        attribution="Wang et al., BurstGPT, KDD 2025 (arXiv 2401.17644)",
        t0=lambda ns: (
            f"{ns / clock.NS_PER['s']:.15g} s after 00:00 of the source's first day, local time"
        ),
        clock="source",
        units="seconds, as published",
    )
    # The published files have no fractions; one that was made from another trace may.
    if whole:
        trace = trace.known(tick_s=1.0).doubting(_SECONDS)
    if sessions:
        trace = trace.doubting(_NO_PREFIX)
    if unequal:
        trace = trace.doubting(f"In {unequal} rows Total tokens is not the sum of the other two.")
    return trace


def _placed(batch: pl.DataFrame, source: Source) -> pl.DataFrame:
    for row in batch.filter(pl.col("Timestamp").is_null())["source_row"]:
        source.reject(
            row,
            "'Timestamp' is empty.",
            "Every BurstGPT row says when it arrived; mend the row.",
            reason="Timestamp is empty",
        )
    return batch.drop_nulls("Timestamp")


def _renamed(batch: pl.DataFrame, sessions: bool) -> pl.DataFrame:
    output = pl.col("Response tokens")
    columns = {
        "source_row": pl.col("source_row"),
        "stamp_ns": (pl.col("Timestamp") * clock.NS_PER["s"]).round().cast(pl.Int64),
        "model": csv.words("Model"),
        "call_class": pl.col("Log Type").str.strip_suffix(" log").str.to_lowercase(),
        "input_tokens": pl.col("Request tokens"),
        "output_tokens": output,
        "status": pl.when(output > 0).then(pl.lit(OK)).when(output == 0).then(pl.lit(FAILED)),
    }
    if sessions:
        columns["program_id"] = csv.words("Session ID")
        columns["observed_e2e_s"] = (
            pl.col("Elapsed time") if "Elapsed time" in batch.columns else pl.lit(None, pl.Float64)
        )
    return batch.select(**columns)


def write(trace: Trace, path: Path) -> list[str]:
    """Write v1, or v3 if calls name programs; stamps go on from the source's own zero if known.

    A stamp is written with as many digits as it has. Response tokens are 0 where a call failed.
    """
    calls, doubts = placed(trace, "arrival_s", "input_tokens")
    there = set(calls.columns)
    programs = "program_id" in there and bool(
        calls.frame.select(pl.col("program_id").count()).collect().item()
    )
    stamp = clock.decimal_text(stamps(trace), "s")
    known = [c for c in (*_HELD, *(_HELD_V3 if programs else ())) if c in there]
    answered = "output_tokens is more than 0 though the call failed"
    spoilt = 0
    with new_file(path) as file:
        for number, batch in enumerate(calls.batches(*known)):
            batch = batch.with_columns(
                pl.lit(None, SCHEMA[c]).alias(c) for c in (*_HELD, *_HELD_V3) if c not in known
            )
            failed = (pl.col("status") != OK).fill_null(False)
            spoilt += batch.filter(failed & (pl.col("output_tokens") > 0)).height
            rows = _as_published(batch, stamp, failed, programs)
            file.write(rows.write_csv(include_header=number == 0).encode())
    if spoilt:
        doubts.append(f"In {spoilt} calls {answered}; it is written as 0.")
    return doubts + losses(calls, *known)


_HELD = ("arrival_s", "input_tokens", "output_tokens", "model", "call_class", "status")
_HELD_V3 = ("program_id", "delay_s", "observed_e2e_s")


def _as_published(
    batch: pl.DataFrame, stamp: pl.Expr, failed: pl.Expr, programs: bool
) -> pl.DataFrame:
    kind = pl.col("call_class")
    output = pl.when(failed).then(0).otherwise(pl.col("output_tokens"))
    columns = {
        "Timestamp": stamp,
        "Session ID": pl.col("program_id"),
        "Elapsed time": pl.col("observed_e2e_s"),
        "Model": pl.col("model"),
        "Request tokens": pl.col("input_tokens"),
        "Response tokens": output,
        "Total tokens": pl.col("input_tokens") + output,
        "Log Type": pl.when(kind == "api")
        .then(pl.lit("API log"))
        .when(kind.is_not_null())
        .then(pl.concat_str(kind.str.to_titlecase(), pl.lit(" log"))),
    }
    if not programs:
        del columns["Session ID"], columns["Elapsed time"]
    return batch.select(**columns)


FORMAT = Format(
    sniff,
    read,
    "BurstGPT CSV v1, v2 and v3 (with sessions)",
    "the columns Timestamp, Model, Request tokens, Response tokens and Log Type",
    write,
)
