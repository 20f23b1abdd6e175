"""BurstGPT: requests to ChatGPT and GPT-4 at a university (Wang et al., KDD 2025, arXiv 2401.17644)."""

import polars as pl

from servescope.traces.formats import csv
from servescope.traces.formats.source import Source
from servescope.traces.schema import FAILED, OK
from servescope.traces.trace import Provenance, Trace

_BOTH = {"Timestamp", "Model", "Request tokens", "Response tokens", "Log Type"}
_SESSIONS = {"Session ID", "Elapsed time"}


def sniff(head: bytes) -> bool:
    """Recognise the columns of every BurstGPT version."""
    return set(csv.header(head)) >= _BOTH


def read(source: Source) -> Trace:
    """Read BurstGPT v1, v2 or v3, by column name.

    Zero response tokens mark a failed request, which is kept. In v3 the Session ID is the program,
    a turn follows the turn before it, and its delay is the gap after that turn's Elapsed time.
    """
    text = csv.read_text(source)
    stamps = csv.numbers(text, "Timestamp", pl.Float64, source)
    t0 = stamps.min()
    output = csv.numbers(text, "Response tokens", pl.Int64, source)
    calls = pl.DataFrame(
        {
            "source_row": pl.int_range(1, text.height + 1, eager=True),
            "model": text["Model"],
            "call_class": text["Log Type"].str.strip_suffix(" log").str.to_lowercase(),
            "arrival_s": stamps - t0,
            "input_tokens": csv.numbers(text, "Request tokens", pl.Int64, source),
            "output_tokens": output,
            "status": (output > 0).replace_strict(
                {True: OK, False: FAILED}, return_dtype=pl.String
            ),
        }
    ).with_columns(call_id=pl.col("source_row").cast(pl.String))
    if set(text.columns) >= _SESSIONS:
        elapsed = csv.numbers(text, "Elapsed time", pl.Float64, source)
        calls = _with_sessions(
            calls.with_columns(
                program_id=text["Session ID"].replace("", None), observed_e2e_s=elapsed
            )
        )
    ordered = calls.sort("arrival_s", maintain_order=True)
    doubts = ["Arrivals are stamped in whole seconds: nothing finer than 2 s can be said of them."]
    if not calls["arrival_s"].is_sorted():
        doubts.append("The rows were not in order of arrival; they are now.")
    if "program_id" in calls.columns:
        doubts.append(
            "Sessions are recorded, prefixes are not: how much of a prompt repeats is not known."
        )
    provenance = Provenance(
        format="burstgpt",
        source=source.name,
        sha256=source.sha256,
        licence="CC-BY-4.0",
        attribution="Wang et al., BurstGPT, KDD 2025 (arXiv 2401.17644)",
        rows_read=text.height,
        t0=f"{t0:.0f} s after 00:00 of the source's first day, local time",
        tick_s=1.0,
        doubts=tuple(doubts),
    )
    return Trace.of(ordered, provenance)


def _with_sessions(calls: pl.DataFrame) -> pl.DataFrame:
    in_session = pl.col("program_id").is_not_null()
    before = pl.col("call_id").shift(1).over("program_id", order_by="arrival_s")
    free_s = (pl.col("arrival_s") + pl.col("observed_e2e_s")).shift(1)
    gap_s = pl.col("arrival_s") - free_s.over("program_id", order_by="arrival_s")
    follows = in_session & before.is_not_null()
    return calls.with_columns(
        turn=pl.when(in_session).then(
            pl.int_range(pl.len()).over("program_id", order_by="arrival_s")
        ),
        parents=pl.when(in_session).then(
            pl.when(before.is_not_null())
            .then(pl.concat_list(before))
            .otherwise(pl.lit([], dtype=pl.List(pl.String)))
        ),
        # The stamps are whole seconds, so a gap can come out a second below zero: no pause is negative.
        delay_s=pl.when(follows).then(gap_s.clip(lower_bound=0.0)),
        delay_kind=pl.when(follows).then(pl.lit("user")),
    )
