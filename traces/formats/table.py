"""Any table of calls: CSV, JSON lines or Parquet, with the columns that the user names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import polars as pl

from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats import cells, clock, columns, csv, jsonl, links, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import BATCH_ROWS, BATCH_WEIGHT, gather
from servescope.traces.formats.source import File, Source
from servescope.traces.formats.stamps import Stamps
from servescope.traces.schema import GROUPS, MOMENTS, SCHEMA
from servescope.traces.trace import Trace

NO_BLOCK_SIZE = (
    "Prefix blocks are there and left out: name --block-tokens to say how long a block is."
)
CHAINED = "the call before it in its program: the table names no parents"
_PARQUET = b"PAR1"
_ORDERED_BY = {"arrival_s", "parents", "program_id"}
_OWN = ("turn", "delay_s", "delay_kind")
# Fields that many a log has only where something went wrong.
_MAY_BE_EMPTY = ("status", "error")


def sniff(head: bytes) -> bool:
    """Recognise a table whose columns all have canonical names."""
    names = {path for path in peek.paths(head) if not path.endswith("[]")}
    names = names or set(csv.header(head))
    return (
        {"input_tokens", "output_tokens"} <= names <= SCHEMA.keys()
        and bool(names & _ORDERED_BY)
        and not head.startswith(_PARQUET)
    )


def read(source: Source) -> Trace:
    """Read a table: each canonical column from the source's column that the user names for it.

    Columns of canonical names need no naming. Calls of one program follow each other unless the
    table names parents; where it has no pauses either, they are the gaps between arrivals.
    """
    table = _opened(source)
    wanted = columns.resolve(source.options.columns, table.names)
    columns.require(wanted, table.names if table.complete else [*table.names, *wanted.values()])
    doubts = []
    if "prefix_blocks" in wanted and source.options.block_tokens is None:
        if "prefix_blocks" in source.options.columns:
            raise InputError(
                "Prefix blocks are named, and nothing says how many tokens a block has.",
                "Name it with --block-tokens.",
            )
        del wanted["prefix_blocks"]
        doubts.append(NO_BLOCK_SIZE)
    stamps = Stamps(wanted.get("arrival_s", ""), source.options.unit)
    calls = _calls(table.rows(wanted), wanted, stamps, source)
    facts: dict[str, Any] = {}
    if "prefix_blocks" in wanted:
        facts = {
            "block_tokens": source.options.block_tokens,
            "block_rule": source.options.block_rule or "ceil",
            "block_scope": "global",
        }
    chain, by_time = None, "arrival_s" in wanted and "delay_s" not in wanted
    if "program_id" in wanted and "parents" not in wanted:
        chain = _Chain()
        calls = calls if by_time else _linked_as_they_stand(calls, chain)
    # What is called arrival_s counts from the trace's zero already.
    zero_ns = 0 if wanted.get("arrival_s") == "arrival_s" else None
    trace = gather(
        source,
        calls,
        format="table",
        zero_ns=zero_ns,
        t0=stamps.t0,
        chain=chain if by_time else None,
        check_links="parents" in wanted,
        doubts=doubts,
        **facts,
    )
    trace = _on_its_clock(trace.doubting(*stamps.doubts), stamps, "arrival_s" in wanted)
    if chain is None:
        return trace
    if not chain.used:  # the column is there and empty, as in what Trace.write writes
        kept = [name for name in trace.columns if name not in GROUPS["program"]]
        return replace(trace, frame=trace.frame.select(kept))
    gaps = {"delay_s": links.GAPS} if by_time and "observed_e2e_s" not in wanted else {}
    return trace.known(inferred={"parents": CHAINED, **gaps})


def _calls(
    batches: Iterable[pl.DataFrame], wanted: Mapping[str, str], stamps: Stamps, source: Source
) -> Iterator[pl.DataFrame]:
    """Turn batches of source columns into canonical ones, with stamps."""
    arrival = wanted.get("arrival_s")
    rest = {name: column for name, column in wanted.items() if name != "arrival_s"}
    for batch in batches:
        made = cells.converted(batch, rest, source, source.options.unit)
        if arrival is not None:
            if made.height < batch.height:
                batch = batch.join(made.select("source_row"), on="source_row", how="semi")
            stamp = stamps.read(batch[arrival])
            timed = made.with_columns(stamp.alias("arrival_s"))
            made = cells.without(timed, batch, {"arrival_s": arrival}, source)
            made = made.rename({"arrival_s": "stamp_ns"})
        yield made


class _Chain(links.Chain):
    """Links calls as `links.Chain` does; what the table itself says of turns and pauses stays."""

    def __init__(self) -> None:
        super().__init__("unknown")
        self.used = False

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        self.used |= batch["program_id"].count() > 0
        own = [name for name in _OWN if name in batch.columns]
        linked = super().__call__(batch.drop(own))
        linked = linked.with_columns(batch[n].fill_null(linked[n]) for n in own)
        follows = pl.col("parents").list.len() > 0
        return linked.with_columns(pl.when(follows).then(pl.col("delay_s", "delay_kind")))


def _linked_as_they_stand(batches: Iterable[pl.DataFrame], chain: _Chain) -> Iterator[pl.DataFrame]:
    """Link calls in the order of the rows: not from arrivals, if any, do their pauses come."""
    for batch in batches:
        if "call_id" not in batch.columns:
            batch = batch.with_columns(call_id=pl.col("source_row").cast(pl.String))
        yield chain(batch.with_columns(arrival_s=pl.lit(None, pl.Float64))).drop("arrival_s")


def _on_its_clock(trace: Trace, stamps: Stamps, timed: bool) -> Trace:
    """Say what clock the arrivals are on, and count other moments from the trace's zero too."""
    zero_ns = trace.provenance.t0_ns
    if not timed or zero_ns is None:
        return trace
    trace = trace.known(units=stamps.units, clock=stamps.clock(zero_ns))
    zero_s = zero_ns / clock.NS_PER["s"]
    moved = [c for c in MOMENTS if c in trace.columns and c != "arrival_s"] if zero_s else []
    return replace(
        trace,
        frame=trace.frame.with_columns(
            pl.col(c).list.eval(pl.element() - zero_s)
            if isinstance(SCHEMA[c], pl.List)
            else pl.col(c) - zero_s
            for c in moved
        ),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """A source of rows: the columns that are seen in its head (all of them, if `complete`)."""

    names: Sequence[str]
    rows: Callable[[Mapping[str, str]], Iterator[pl.DataFrame]]
    complete: bool = True


def _opened(source: Source) -> _Table:
    head = source.head()
    if head.startswith(_PARQUET):
        frames = [_scanned(file) for file in source.files]
        return _Table(
            list(_leaves(frames[0])), lambda wanted: _parquet_rows(source, frames, wanted)
        )
    if head.lstrip().startswith((b"{", b"[")):
        return _Table(_fields(head), lambda wanted: _json_rows(source, wanted), complete=False)
    names = csv.header(head)
    return _Table(names, lambda wanted: _csv_rows(source, wanted))


def _csv_rows(source: Source, wanted: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    types: dict[str, type[pl.DataType]] = {}
    for name, column in wanted.items():
        # Whole numbers are read as reals: where one is missing, many programs write 12.0. Arrivals
        # stay text, of which every digit counts.
        number = name != "arrival_s" and columns.TARGETS[name] in (pl.Int64, pl.Float64)
        types[column] = pl.Float64 if number and types.get(column) != pl.String else pl.String
    return csv.batches(source, types)


def _json_rows(source: Source, wanted: Mapping[str, str]) -> Iterator[pl.DataFrame]:
    """Yield the fields as texts, numbers with every digit and lists and objects as JSON."""
    names = ("source_row", *dict.fromkeys(wanted.values()))
    types = {name: pl.String() if name != "source_row" else pl.Int64() for name in names}
    seen: set[str] = set()
    held: list[tuple[int | str | None, ...]] = []
    weight = 0
    for row, record in _records(source):
        try:
            texts = [_text(_at(record, name)) for name in names[1:]]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            source.reject(row, f"{error}.", jsonl.MEND_LINE, reason="not JSON")
            continue
        seen.update(n for n, text in zip(names[1:], texts, strict=True) if text is not None)
        held.append((row, *texts))
        weight += sum(map(len, filter(None, texts)))
        if len(held) >= BATCH_ROWS or weight >= BATCH_WEIGHT:
            yield pl.DataFrame(held, schema=types, orient="row")
            held, weight = [], 0
    if held:
        yield pl.DataFrame(held, schema=types, orient="row")
    for name, column in wanted.items():
        if column not in seen and name not in (column, *_MAY_BE_EMPTY):
            raise columns.lacking(name, column, _fields(source.head()))


def _records(source: Source) -> Iterator[tuple[int, dict[str, msgspec.Raw]]]:
    """Yield the objects of JSON lines, or of documents that are one list of them."""
    if not source.head().lstrip().startswith(b"["):
        yield from jsonl.records(source, dict[str, msgspec.Raw])
        return
    row = 0
    for file, members in jsonl.documents(source, list[msgspec.Raw]):
        source.begin(file, row + 1, unit="record")
        for member in members:
            row += 1
            try:
                yield row, msgspec.json.decode(member, type=dict[str, msgspec.Raw])
            except msgspec.DecodeError as error:
                source.reject(
                    row, f"{error}.", jsonl.MEND_LINE, reason="no object", shown=bytes(member)
                )


def _at(record: Mapping[str, msgspec.Raw], path: str) -> bytes | None:
    """Return the JSON at a dotted path; a name may hold dots itself."""
    if path in record:
        return bytes(record[path])
    at = path.find(".")
    while at > 0:
        if (inner := record.get(path[:at])) is not None and bytes(inner).startswith(b"{"):
            return _at(msgspec.json.decode(inner, type=dict[str, msgspec.Raw]), path[at + 1 :])
        at = path.find(".", at + 1)
    return None


def _text(value: bytes | None) -> str | None:
    if value is None or value == b"null":
        return None
    return msgspec.json.decode(value, type=str) if value.startswith(b'"') else value.decode()


def _fields(head: bytes) -> list[str]:
    """Return the fields of the first records as dotted paths, lists as one field."""
    lines = [head] if head.lstrip().startswith(b"[") else head.split(b"\n")
    found = dict.fromkeys(path for line in lines for path in peek.paths(line))
    return sorted({path.removeprefix("[].") for path in found if not path.endswith("[]")})


def _scanned(file: File) -> pl.LazyFrame:
    try:
        frame = pl.scan_parquet(file.path, glob=False)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _no_parquet(file.name, error) from None
    return frame


def _no_parquet(name: str, error: Exception) -> BadRow:
    return BadRow(
        f"{name} is not a readable Parquet file: {str(error).splitlines()[0]}.",
        "Unpack it if it is gzipped, or write it again.",
    )


def _parquet_rows(
    source: Source, frames: Sequence[pl.LazyFrame], wanted: Mapping[str, str]
) -> Iterator[pl.DataFrame]:
    row = 0
    for file, frame in zip(source.files, frames, strict=True):
        source.begin(file, row + 1, unit="row")
        there = _leaves(frame)
        columns.require(wanted, list(there))
        lists = {c for n, c in wanted.items() if isinstance(columns.TARGETS[n], pl.List)}
        query = frame.select(
            there[column].alias(column) for column in dict.fromkeys(wanted.values())
        )
        try:
            for batch in query.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
                numbers = pl.Series("source_row", range(row + 1, row + 1 + batch.height), pl.Int64)
                yield pl.DataFrame([numbers, *(_plain(values, lists, file) for values in batch)])
                row += batch.height
        except (pl.exceptions.PolarsError, OSError) as error:
            raise _no_parquet(file.name, error) from None


def _plain(values: pl.Series, lists: Collection[str], file: File) -> pl.Series:
    try:
        return cells.plain(values, lists=values.name in lists)
    except (pl.exceptions.PolarsError, TypeError, msgspec.MsgspecError):
        raise BadRow(
            f"Column {values.name} of {file.name} holds {values.dtype}.",
            "Write it as a number, a date and time, a text or a list.",
        ) from None


def _leaves(frame: pl.LazyFrame) -> dict[str, pl.Expr]:
    """Return the columns of a Parquet file by name, those inside of structs by dotted path."""
    found: dict[str, pl.Expr] = {}

    def add(path: str, values: pl.Expr, dtype: object) -> None:
        found[path] = values
        for field in dtype.fields if isinstance(dtype, pl.Struct) else ():
            add(f"{path}.{field.name}", values.struct.field(field.name), field.dtype)

    for name, dtype in frame.collect_schema().items():
        add(name, pl.col(name), dtype)
    return found


FORMAT = Format(
    sniff,
    read,
    "any CSV, JSON lines or Parquet, its columns named by the user",
    "columns that all have canonical names, input_tokens and output_tokens among them",
)
