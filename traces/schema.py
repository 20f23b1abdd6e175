"""The canonical table: one row a call, in a trace (what was asked) and in a run (what came back).

Units are in the names: `_s` seconds as floats, `_tokens` counts. Missing is null, never 0. Columns
come in groups; a group is there whole or not at all, so code asks for one and never half finds it.
"""

from dataclasses import dataclass
from typing import Final

import polars as pl

from servescope.traces.errors import BadRow, MissingColumns


@dataclass(frozen=True, slots=True)
class Column:
    """One canonical column: its name, type, group and meaning."""

    name: str
    dtype: pl.DataType
    group: str
    says: str


_TEXT, _INT, _REAL = pl.String(), pl.Int64(), pl.Float64()

COLUMNS: Final = (
    Column("call_id", _TEXT, "identity", "name of the call, unique in the table"),
    Column("program_id", _TEXT, "identity", "the program (session, agent task) it belongs to"),
    Column("turn", _INT, "identity", "its place in the program, from 0"),
    Column("client_id", _TEXT, "identity", "who asked"),
    Column("model", _TEXT, "identity", "the model that was asked"),
    Column("call_class", _TEXT, "identity", "the kind of call: conversation, API, code, ..."),
    Column("source_row", _INT, "identity", "row of the source it came from, from 1"),
    Column("arrival_s", _REAL, "demand", "when it arrived, seconds since the trace's t0"),
    Column("input_tokens", _INT, "demand", "tokens of the prompt"),
    Column("output_tokens", _INT, "demand", "tokens of the answer"),
    Column("prefix_blocks", pl.List(pl.UInt64()), "prefix", "ids of the prompt's blocks in order"),
    Column("parents", pl.List(_TEXT), "program", "calls it waits for; null unknown, [] a root"),
    Column("delay_s", _REAL, "program", "pause between its last parent's end and its own start"),
    Column("delay_kind", _TEXT, "program", "whose pause that is: user, tool, unknown"),
    Column("image_count", _INT, "modality", "images in the prompt"),
    Column("status", _TEXT, "outcome", "ok, or the kind of failure: error, http_503, timeout, ..."),
    Column("error", _TEXT, "outcome", "what the failure said"),
    Column("priority", _INT, "service class", "smaller is served first"),
    Column("deadline_s", _REAL, "service class", "when it must be done, seconds since t0"),
    Column(
        "due_s", _REAL, "service", "when the plan wanted it sent (after its parents: end + delay)"
    ),
    Column("ready_s", _REAL, "service", "when its last parent had ended"),
    Column("admitted_s", _REAL, "service", "when it might be sent: due, or a slot had come free"),
    Column("dispatched_s", _REAL, "service", "when the client picked it up"),
    Column("sent_s", _REAL, "service", "just before the request was written to the socket"),
    Column("first_byte_s", _REAL, "service", "when the response's status line had arrived"),
    Column("first_token_s", _REAL, "service", "when the first non-empty piece of answer arrived"),
    Column("first_answer_s", _REAL, "service", "the same, after reasoning and calls of tools"),
    Column("last_token_s", _REAL, "service", "when the last non-empty piece of answer arrived"),
    Column("end_s", _REAL, "service", "when the response had ended or the call had failed"),
    Column("chunk_s", pl.List(_REAL), "service", "arrival of every non-empty chunk"),
    Column("chunk_tokens", pl.List(_INT), "service", "tokens in each, where the server says them"),
    Column(
        "empty_s",
        pl.List(_REAL),
        "service",
        "arrival of every chunk with a choice and no piece of answer: a role, an end",
    ),
    Column("cached_tokens", _INT, "service", "prompt tokens the server took from its cache"),
    Column("reasoning_tokens", _INT, "service", "answer tokens spent on reasoning"),
    Column("replica", _TEXT, "service", "the replica that served it"),
    Column("worker", _INT, "service", "the client process that sent it"),
    Column("connection_calls", _INT, "service", "calls that its connection had carried before"),
    Column("retries", _INT, "service", "how often it was sent again, as the user asked"),
    Column("response_id", _TEXT, "service", "what the server calls it"),
    Column("finish_reason", _TEXT, "service", "why the answer ended, in the server's word"),
    Column("observed_ttft_s", _REAL, "observed", "TTFT that the source itself recorded"),
    Column("observed_e2e_s", _REAL, "observed", "end-to-end time that the source itself recorded"),
    Column("observed_queue_s", _REAL, "observed", "time in a queue that the source recorded"),
    Column("observed_cached_tokens", _INT, "observed", "prompt tokens that came from its cache"),
    Column("observed_reasoning_tokens", _INT, "observed", "answer tokens spent on reasoning"),
    Column("content_ref", _TEXT, "content", "where the call's text is kept"),
)
SCHEMA: Final[dict[str, pl.DataType]] = {column.name: column.dtype for column in COLUMNS}
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    group: tuple(column.name for column in COLUMNS if column.group == group)
    for group in dict.fromkeys(column.group for column in COLUMNS)
}
# Columns that say when, on one clock; all others that end in _s say how long.
MOMENTS: Final = (
    "arrival_s",
    "deadline_s",
    *(name for name in GROUPS["service"] if name.endswith("_s")),
)
# What check_rows looks at, besides call_id.
CHECKED: Final = ("input_tokens", "output_tokens", "delay_s", "arrival_s")


def conform(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return `frame` with canonical types and order, and every group that it touches made whole.

    The one column that stays away is `arrival_s`: without it, calls are placed by their parents.
    Raises MissingColumns for a table without demand or order, and for a column of no known name;
    BadRow for a column of another type, fractions where whole numbers belong included.
    """
    found = frame.collect_schema()
    names = found.names()
    unknown = sorted(set(names) - SCHEMA.keys())
    if unknown:
        raise MissingColumns(
            f"The table has columns that the canonical schema does not know: {', '.join(unknown)}.",
            "Rename or drop them; docs/reference/schema.md lists the canonical columns.",
        )
    require(names, "input_tokens", "output_tokens")
    if "arrival_s" not in names and "parents" not in names:
        raise MissingColumns(
            "The table has neither arrival_s (when calls arrive) nor parents (what they wait for).",
            "Add one of the two columns.",
        )
    for name, have in found.items():
        if not _fits(have, SCHEMA[name]):
            raise BadRow(
                f"Column {name} holds {have}, not {SCHEMA[name]}.",
                "Cast it first; docs/reference/schema.md says what each column holds.",
            )
    whole = {name for group in GROUPS.values() if set(group) & set(names) for name in group}
    return frame.select(
        (pl.col(name) if name in names else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in SCHEMA.items()
        if name in whole and (name in names or name != "arrival_s")
    )


def _fits(have: pl.DataType, want: pl.DataType) -> bool:
    """Say whether a column of type `have` can become `want` without losing anything."""
    if isinstance(have, pl.Null):
        return True
    if isinstance(want, pl.List):
        return isinstance(have, pl.List) and (
            have.inner == pl.Null or have.inner == want.inner or have.inner.is_integer()
        )
    if want == pl.String:
        return have.is_integer() or have in (pl.String, pl.Categorical, pl.Enum)
    return have.is_integer() or (want == pl.Float64 and have.is_float())


def require(names: list[str], *needed: str) -> None:
    """Raise MissingColumns unless every column of `needed` is among `names`."""
    missing = [name for name in needed if name not in names]
    if missing:
        raise MissingColumns(
            f"The table has no {' and no '.join(missing)}.",
            f"It has {', '.join(names)}; rename what means the same, or choose another source.",
        )


def check(frame: pl.DataFrame) -> None:
    """Raise BadRow for negative or endless numbers, and call ids that are missing or repeat."""
    check_rows(frame)
    if frame["call_id"].n_unique() < frame.height:
        raise repeated(frame.filter(pl.col("call_id").is_duplicated())["call_id"][0])


def repeated(name: str) -> BadRow:
    """Return the error of two calls of one name."""
    return BadRow(f"Two calls are named {name}.", "Give every call a call_id of its own.")


def check_rows(frame: pl.DataFrame) -> None:
    """Raise BadRow for negative or endless numbers and missing call ids: what one row shows."""
    for name in CHECKED[:-1]:
        if name not in frame.columns:
            continue
        bad = frame.filter((pl.col(name) < 0) | ~pl.col(name).is_finite())
        if bad.height:
            raise BadRow(
                f"Call {bad['call_id'][0]} has {bad[name][0]} {name}.",
                "Tokens and pauses are 0 or more; mend the row, or leave it empty if unknown.",
            )
    if "arrival_s" in frame.columns:
        bad = frame.filter(~pl.col("arrival_s").is_finite())
        if bad.height:
            raise BadRow(
                f"Call {bad['call_id'][0]} arrives at {bad['arrival_s'][0]} seconds.",
                "Arrivals are finite numbers; mend the row.",
            )
    if frame["call_id"].null_count():
        raise BadRow("A call has no call_id.", "Name every call, or leave the column out.")
