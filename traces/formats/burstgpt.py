"""BurstGPT: a university's requests to ChatGPT and GPT-4 (Wang et al., KDD 2025)."""

import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats import csv
from servescope.traces.formats.arrivals import in_order
from servescope.traces.formats.source import Source
from servescope.traces.schema import FAILED, OK
from servescope.traces.trace import Provenance, Trace

_BOTH = ("Timestamp", "Model", "Request tokens", "Response tokens", "Log Type")
_SESSIONS = {"Session ID", "Elapsed time"}


def sniff(head: bytes) -> bool:
    """Recognise the columns of every BurstGPT version."""
    return set(csv.header(head)) >= set(_BOTH)


def read(source: Source) -> Trace:
    """Read BurstGPT v1, v2 or v3, by column name.

    Zero response tokens mark a failed request, which is kept. In v3 the Session ID is the program,
    a turn follows the turn before it, and its delay is the gap after that turn's Elapsed time.
    """
    text = csv.read_text(source, *_BOTH)
    stamps = csv.numbers(text, "Timestamp", pl.Float64, source)
    if stamps.null_count():
        row = text["source_row"][stamps.is_null().arg_max() or 0]
        raise BadRow(
            f"{source.name}, row {row}: 'Timestamp' is empty.",
            "Every BurstGPT row says when it arrived; mend the row.",
        )
    first = stamps.arg_min() or 0
    output = csv.numbers(text, "Response tokens", pl.Int64, source)
    columns = {
        "call_id": text["source_row"],
        "source_row": text["source_row"],
        "model": csv.words(text, "Model"),
        "call_class": csv.words(text, "Log Type").str.strip_suffix(" log").str.to_lowercase(),
        "arrival_s": stamps - stamps[first],
        "input_tokens": csv.numbers(text, "Request tokens", pl.Int64, source),
        "output_tokens": output,
        "status": (output > 0).replace_strict({True: OK, False: FAILED}, return_dtype=pl.String),
    }
    doubts = ["Arrivals are stamped in whole seconds: nothing finer than 2 s can be said of them."]
    recorded = set(text.columns) >= _SESSIONS
    if recorded:
        columns["program_id"] = csv.words(text, "Session ID")
        columns["observed_e2e_s"] = csv.numbers(text, "Elapsed time", pl.Float64, source)
    calls, moved = in_order(pl.DataFrame(columns))
    doubts.extend(moved)
    if recorded:
        calls, overlapping = _with_sessions(calls)
        doubts.append(
            "Sessions are recorded, prefixes are not: how much of a prompt repeats is not known."
        )
        if overlapping:
            doubts.append(
                f"{overlapping} turns arrived before the turn before them had ended; their pause"
                " is taken as 0."
            )
    provenance = Provenance(
        format="burstgpt",
        source=source.name,
        sha256=source.sha256,
        licence="CC-BY-4.0",
        attribution="Wang et al., BurstGPT, KDD 2025 (arXiv 2401.17644)",
        rows_read=text.height,
        t0=f"{text['Timestamp'][first]} s after 00:00 of the source's first day, local time",
        tick_s=1.0,
        doubts=tuple(doubts),
    )
    return Trace.of(calls, provenance)


def _with_sessions(calls: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Link the turns of each session, and count those that overlap the turn before.

    The calls are in order of arrival, ties as they stood in the file, and so are the turns.
    """
    calls = calls.with_columns(call_id=pl.col("call_id").cast(pl.String))
    in_session = pl.col("program_id").is_not_null()
    before = pl.col("call_id").shift(1).over("program_id")
    ended_s = (pl.col("arrival_s") + pl.col("observed_e2e_s")).shift(1).over("program_id")
    follows = in_session & before.is_not_null()
    gap_s = pl.when(follows).then(pl.col("arrival_s") - ended_s)
    linked = calls.with_columns(
        turn=pl.when(in_session).then(pl.int_range(pl.len()).over("program_id")),
        parents=pl.when(follows)
        .then(pl.concat_list(before))
        .when(in_session)
        .then(pl.lit([], dtype=pl.List(pl.String))),
        # Both stamps are whole seconds, so a pause of nothing can come out as -1 s.
        delay_s=gap_s.clip(lower_bound=0.0),
        delay_kind=pl.when(follows).then(pl.lit("user")),
    )
    return linked, calls.filter(gap_s < -1).height
