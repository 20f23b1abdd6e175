"""From batches of rows to a trace: every row checked, in order of arrival, on disk where many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import polars as pl

from servescope.traces.errors import BadRow
from servescope.traces.formats import clock
from servescope.traces.formats.links import Chain, cycles
from servescope.traces.formats.source import Source
from servescope.traces.formats.spool import Spool
from servescope.traces.provenance import Provenance
from servescope.traces.schema import SCHEMA
from servescope.traces.tokens import Tokenizer
from servescope.traces.trace import Trace

MOVED = "The rows were not in order of arrival; they are now."
BATCH_ROWS = 50_000
BATCH_WEIGHT = 4_000_000
# Besides canonical columns a batch may hold the moment of arrival and the text of the call.
TEXTS: Final = ("input_text", "input_messages", "output_text")
TYPES: Final[dict[str, Any]] = {
    **SCHEMA,
    "stamp_ns": pl.Int64(),
    **dict.fromkeys(TEXTS, pl.String()),
}
_UNCOUNTED: Final = pl.col("content_ref").is_not_null() & (
    pl.col("input_tokens").is_null() | pl.col("output_tokens").is_null()
)
_CLAIMED: Final = ("input_tokens", "output_tokens", "delay_s", "observed_e2e_s", "observed_ttft_s")


def tabulate(
    source: Source, rows: Iterable[Mapping[str, Any]], *columns: str
) -> Iterator[pl.DataFrame]:
    """Collect rows of Python values into batches; a column that a row lacks is null there.

    Every row has its `source_row`; the other columns are canonical, `stamp_ns`, or texts. A number
    that does not fit its column (over 63 or, for block ids, 64 bits) rejects its row.
    """
    names = ("source_row", *columns)
    held: dict[str, list[Any]] = {name: [] for name in names}
    weight = 0
    for row in rows:
        for name in names:
            value = row.get(name)
            held[name].append(value)
            if isinstance(value, list | str):
                weight += len(value)
        if len(held["source_row"]) >= BATCH_ROWS or weight >= BATCH_WEIGHT:
            yield _batch(source, held)
            held, weight = {name: [] for name in names}, 0
    if held["source_row"]:
        yield _batch(source, held)


def gather(
    source: Source,
    batches: Iterable[pl.DataFrame],
    *,
    zero_ns: int | None = None,
    t0: Callable[[int], str] = clock.text_of,
    chain: Chain | None = None,
    check_links: bool = False,
    **facts: Any,
) -> Trace:
    """Make a trace of batches, each with `source_row` and, where calls arrive, `stamp_ns`.

    The trace's zero is its first stamp, or `zero_ns`; `t0` says it in the source's words. Rows are
    put in order of arrival unless `facts` say that every program has a zero of its own. `chain`
    makes each call wait for the one before it in its program; `check_links` refuses cycles among
    the parents that the source names, and forgets parents that are not there. `facts` are fields
    of the Provenance.
    """
    spool, texts = Spool(), Spool()
    tokenizer = Tokenizer.of(source.options.tokenizer)
    blocks = facts.get("block_tokens"), facts.get("block_rule")
    first: int | None = None
    latest, ordered, uncounted = None, True, False
    names: set[str] = set()
    for batch in _ahead(batches):
        if "call_id" in batch.columns:
            batch = _with_one_of_each_name(batch, names, source)
        else:
            batch = batch.with_columns(call_id=pl.col("source_row").cast(pl.String))
        batch = _sound(batch, source, *blocks)
        if any(name in batch.columns for name in TEXTS):
            batch, text = _without_text(batch, tokenizer)
            texts.add(text)
            uncounted |= tokenizer is None and _any(batch, [_UNCOUNTED])
        if "stamp_ns" in batch.columns:
            stamps = batch["stamp_ns"].drop_nulls()
            if len(stamps):
                least: int = stamps.min()  # type: ignore[assignment]
                first = least if first is None else min(first, least)
                ordered &= stamps.is_sorted() and (latest is None or stamps[0] >= latest)
                latest = stamps[-1]
        spool.add(batch)
    if not spool.height:
        raise BadRow(
            f"{source.name} has no row that can be read.",
            f"See {source.rejects.aside} for why." if source.rejects.total else "Give another.",
        )
    doubts = list(facts.pop("doubts", ()))
    by_trace = facts.get("arrival_basis", "trace") == "trace"
    if by_trace and not ordered:
        spool = spool.sorted("stamp_ns")
        doubts.insert(0, MOVED)
    if check_links:
        spool, said = _with_sound_links(spool, source)
        doubts += said
    frame = spool.frame()
    if "stamp_ns" in frame.collect_schema().names():
        zero = zero_ns if zero_ns is not None else first or 0
        if first is not None and by_trace:
            facts = {"t0": t0(zero), "t0_ns": zero, **facts}
        if chain is not None:
            chained = spool.map(lambda batch: chain(_with_arrivals(batch, zero)))
            frame = chained.frame()
            if chain.overlapping:
                doubts.append(
                    f"{chain.overlapping} turns arrived before the turn before them had ended;"
                    " their pause is taken as 0."
                )
        else:
            frame = _with_arrivals(frame, zero)
    if uncounted:
        doubts.append(
            "The source holds text where others hold token counts; name a --tokenizer to count"
            " what it leaves out."
        )
    counted = facts.pop("tokenizer", None)
    if tokenizer is not None and texts.height:
        counted = tokenizer.name
    provenance = Provenance(
        source=source.name,
        files=len(source.files) if len(source.files) > 1 else None,
        sha256=source.sha256,
        rows_read=spool.height + source.rejects.total,
        rows_kept=spool.height,
        rows_dropped=dict(source.rejects.counts),
        tokenizer=counted,
        doubts=tuple(doubts),
        **facts,
    )
    tables = {"contents": texts.frame()} if texts.height else {}
    return Trace.of(frame, provenance, tables, checked=True)


def _ahead(batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Read the next batch while the last one is worked on: both are mostly outside of Python."""
    rest = iter(batches)
    with ThreadPoolExecutor(1, "servescope-read") as reader:
        coming = reader.submit(next, rest, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, rest, None)
            yield batch


Frame = Any  # a DataFrame or a LazyFrame: the same expressions work on both


def _with_arrivals(frame: Frame, zero_ns: int) -> Frame:
    """Turn stamps into seconds since zero.

    A column divided by a column is rounded correctly; by a constant, polars would multiply with
    the inverse and lose the last bit.
    """
    since = pl.col("stamp_ns") - zero_ns
    second = (since * 0 + clock.NS_PER["s"]).cast(pl.Float64)
    return frame.with_columns(arrival_s=since.cast(pl.Float64) / second).drop("stamp_ns")


def _batch(source: Source, held: dict[str, list[Any]]) -> pl.DataFrame:
    types = {name: TYPES[name] for name in held}
    try:
        return pl.DataFrame(held, schema=types)
    except (OverflowError, TypeError, pl.exceptions.PolarsError):
        pass
    rows = (dict(zip(held, values, strict=True)) for values in zip(*held.values(), strict=True))
    return pl.DataFrame([row for row in rows if _fits(source, row)], schema=types)


def _fits(source: Source, row: dict[str, Any]) -> bool:
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        bits = 64 if name == "prefix_blocks" else 63
        wide = next((v for v in values if isinstance(v, int) and v.bit_length() > bits), None)
        if wide is not None or (name == "prefix_blocks" and any(v < 0 for v in value or ())):
            source.reject(
                row["source_row"],
                f"{name} holds {_written(min(values) if wide is None else wide)}, which has no"
                f" place in {bits} bits.",
                "Mend the number; block ids can be numbered anew, only sameness matters.",
                reason=f"{name} does not fit",
            )
            return False
    return True


def _written(number: int) -> str:
    """Write a number out, unless that would be a line of digits (or more than Python writes)."""
    return str(number) if number.bit_length() < 256 else f"a number of {number.bit_length()} bits"


def _sound(
    batch: pl.DataFrame, source: Source, block_tokens: int | None, rule: str | None
) -> pl.DataFrame:
    """Reject rows with negative or endless numbers, or with blocks that do not fit the prompt."""
    there = set(batch.columns)
    claimed = {name: _impossible(batch, name) for name in _CLAIMED if name in there}
    for name, bad in claimed.items() if _any(batch, claimed.values()) else ():
        batch = _refuse(
            batch,
            source,
            bad,
            _bad_value(name),
            "Counts and times are 0 or more; mend the row, or leave it empty if unknown.",
            f"{name} is negative" if SCHEMA[name] == pl.Int64 else f"{name} is no time",
        )
    if block_tokens and rule in ("ceil", "floor") and "prefix_blocks" in there:
        up = block_tokens - 1 if rule == "ceil" else 0
        fit = (pl.col("input_tokens") + up) // block_tokens
        batch = _refuse(
            batch,
            source,
            pl.col("prefix_blocks").list.len() != fit,
            lambda row: (
                f"{len(row['prefix_blocks'])} prefix blocks do not fit {row['input_tokens']} tokens"
                f" in blocks of {block_tokens}."
            ),
            "The file uses another block size or rule: name it with --block-tokens, --block-rule.",
            "blocks do not fit",
        )
    return batch


def _impossible(batch: pl.DataFrame, name: str) -> pl.Expr:
    column = pl.col(name)
    return ~column.is_between(
        0, math.inf, closed="left" if batch[name].dtype.is_float() else "both"
    )


def _any(batch: pl.DataFrame, flags: Iterable[pl.Expr]) -> bool:
    """Say whether any row has any of the flags: one pass for what is nearly always in order."""
    return bool(batch.select(pl.any_horizontal(False, *flags).any()).item())


def _bad_value(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: f"{name} is {row[name]}."


def _with_one_of_each_name(batch: pl.DataFrame, names: set[str], source: Source) -> pl.DataFrame:
    """Reject a call without a name, or with that of an earlier one."""
    fresh = []
    for name, row in zip(batch["call_id"], batch["source_row"], strict=True):
        fresh.append(name is not None and name not in names)
        if not fresh[-1]:
            source.reject(
                row,
                "the call has no name." if name is None else f"a call named {name} came before.",
                "Give every call a name of its own.",
                reason="name repeats",
            )
        names.add(name)
    return batch.filter(pl.Series(fresh, dtype=pl.Boolean))


def _refuse(
    batch: pl.DataFrame,
    source: Source,
    bad: pl.Expr,
    problem: Callable[[dict[str, Any]], str],
    mend: str,
    reason: str,
) -> pl.DataFrame:
    found = batch.filter(bad.fill_null(False))
    if not found.height:
        return batch
    for row in found.iter_rows(named=True):
        source.reject(row["source_row"], problem(row), mend, reason=reason, shown=str(row).encode())
    return batch.filter(~bad.fill_null(False))


def _without_text(
    batch: pl.DataFrame, tokenizer: Tokenizer | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part the texts from the calls, and count the tokens that the source does not."""
    batch = batch.with_columns(
        pl.lit(None, pl.String).alias(name) for name in TEXTS if name not in batch.columns
    )
    has_text = pl.any_horizontal(pl.col(TEXTS).is_not_null())
    batch = batch.with_columns(content_ref=pl.when(has_text).then("call_id"))
    texts = batch.filter(has_text).select("content_ref", *TEXTS)
    for name in ("input_tokens", "output_tokens"):
        if name not in batch.columns:
            batch = batch.with_columns(pl.lit(None, pl.Int64).alias(name))
    if tokenizer is not None:
        asked = pl.Series(tokenizer.count_prompts(batch["input_text"], batch["input_messages"]))
        given = pl.Series(tokenizer.count_texts(batch["output_text"]))
        batch = batch.with_columns(
            input_tokens=pl.coalesce("input_tokens", asked.cast(pl.Int64)),
            output_tokens=pl.coalesce("output_tokens", given.cast(pl.Int64)),
        )
    return batch.drop(TEXTS), texts


def _with_sound_links(spool: Spool, source: Source) -> tuple[Spool, list[str]]:
    """Reject calls that wait for themselves, and forget parents that are not there."""
    links = spool.frame().select("call_id", "parents", "source_row").collect()
    names = set(links["call_id"])
    waits = {name: parents or [] for name, parents, _ in links.iter_rows()}
    rows = dict(zip(links["call_id"], links["source_row"], strict=True))
    stuck = list(cycles(waits.items()))
    for name in stuck:
        source.reject(
            rows[name],
            f"call {name} waits for itself through its parents ({', '.join(waits[name])}).",
            "Mend the parents; a call can only wait for calls that ended before it.",
            reason="parents form a cycle",
        )
    names -= set(stuck)
    lost = sum(any(p not in names for p in waits[name]) for name in names)
    if not lost and not stuck:
        return spool, []
    said = f"{lost} calls wait for calls that are not in the trace; those parents are forgotten."

    def mend(batch: pl.DataFrame) -> pl.DataFrame:
        kept = batch.filter(~pl.col("call_id").is_in(stuck))
        found = [None if p is None else [n for n in p if n in names] for p in kept["parents"]]
        root_now = (pl.col("parents").list.len() > 0) & (pl.col("_found").list.len() == 0)
        pauses = [name for name in ("delay_s", "delay_kind") if name in kept.columns]
        return (
            kept.with_columns(_found=pl.Series(found, dtype=pl.List(pl.String)))
            .with_columns(pl.when(~root_now.fill_null(False)).then(pl.col(pauses)))
            .with_columns(parents="_found")
            .drop("_found")
        )

    return spool.map(mend), [said] if lost else []
