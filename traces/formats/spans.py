"""From recorded spans to calls: which calls of a program had to end before another could start.

A tracing tool records when each call started and ended, not what it waited for. Two calls of a
program that overlap in time did not wait for each other; a call that starts after another has ended
is taken to have waited for it. That order needs few links: a call waits for those that had ended,
less those that one of them already waited for.
"""

from __future__ import annotations

import bisect
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import polars as pl

from servescope.traces.formats import clock
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.links import Chain
from servescope.traces.formats.messages import Texts
from servescope.traces.formats.source import Source
from servescope.traces.formats.spool import Spool
from servescope.traces.trace import Trace

INFERRED: Final = {
    "parents": (
        "from times: a call waits for the calls of its program that had ended when it started,"
        " less those that they waited for; a call whose answer a prompt repeats had ended by then"
    ),
    "delay_s": "start less the end of the last call that it waits for",
    "delay_kind": "tool where a span of a tool ended in the pause",
}
COLUMNS: Final = (
    "call_id",
    "program_id",
    "stamp_ns",
    "observed_e2e_s",
    "parents",  # here at most one name: the span around the call
)
_END: Final = (
    pl.col("stamp_ns")
    + (pl.col("observed_e2e_s") * clock.NS_PER["s"]).round().cast(pl.Int64, strict=False)
).alias("end_ns")


class OddValue(ValueError):
    """A value is not of its kind; says which one."""

    def reject(self, source: Source, row: int) -> None:
        """Refuse the row that holds it."""
        name, value, wanted = self.args
        source.reject(
            row,
            f"'{name}' is {str(value)[:80]!r}, not {wanted}.",
            "Mend the record, or leave the value out if it is unknown.",
            reason=f"{name} is not {wanted}",
        )


def count(values: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of `names` that has a value, as a whole number; raises OddValue."""
    name = next((name for name in names if values.get(name) is not None), None)
    if name is None:
        return None
    value = values[name]
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or isinstance(value, bool) or (isinstance(value, float) and whole != value):
        raise OddValue(name, value, "a whole number")
    return whole


def moment(name: str, value: str | float | None, unit: str = "ms") -> int | None:
    """Return a date and time, or a number of `unit`, as Unix nanoseconds; raises OddValue."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        stamp = clock.from_iso(value)
        found = stamp[0] if stamp else None
    else:
        found = clock.from_number(value, unit)
    if found is None or not -(2**63) <= found < 2**63:
        raise OddValue(name, value, "a date and time")
    return found


def seconds(start_ns: int, end_ns: int | None) -> float | None:
    """Return the time between two moments."""
    return None if end_ns is None else (end_ns - start_ns) / clock.NS_PER["s"]


class Order(Chain):
    """Makes each call wait for the calls of its program that had ended when it started.

    Calls come in order of start. Of all that had ended, those are left out that another one of them
    waited for. Before that, what is known besides the times: conversations that span traces, when
    tools ended, and which prompts repeat an answer: the call that gave it had ended by then,
    whatever its recorded end says.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conversations: dict[str, str] = {}
        self.endless = 0
        self._tools: dict[str, list[int]] = defaultdict(list)
        self._answers: dict[str, int] = {}
        self._given: set[tuple[str, int]] = set()
        self._common: set[int] = set()
        self._repeated: dict[tuple[str, int], int] = {}
        self._programs: dict[str, _Program] = defaultdict(_Program)

    def tool(self, program: str, end_ns: int) -> None:
        """Note that a tool of a program ended."""
        self._tools[program].append(end_ns)

    def said(self, program: str, call_id: str, start_ns: int, texts: Texts) -> None:
        """Note what the prompt of a call repeats, and what it answered."""
        for text in texts.repeated:
            key = program, hash(text)
            self._repeated[key] = min(start_ns, self._repeated.get(key, start_ns))
        answer = texts.columns["output_text"]
        if answer:
            self._answers[call_id] = hash(answer)
            if (program, hash(answer)) in self._given:  # who was repeated is not known
                self._common.add(hash(answer))
            self._given.add((program, hash(answer)))

    def settle(self) -> None:
        """Put what is known of traces under the conversations that they are part of."""
        tools, repeated = self._tools, self._repeated
        self._tools, self._repeated = defaultdict(list), {}
        for program, ends in tools.items():
            self._tools[self.conversations.get(program, program)] += ends
        for ends in self._tools.values():
            ends.sort()
        for (program, text), start_ns in repeated.items():
            key = self.conversations.get(program, program), text
            self._repeated[key] = min(start_ns, self._repeated.get(key, start_ns))

    def __call__(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Link one batch, knowing those before."""
        wanted = batch.select("program_id", "call_id", "start_ns", "end_ns")
        links = [self._link(*row) for row in wanted.iter_rows()]
        return batch.drop("start_ns", "end_ns").with_columns(
            turn=pl.Series([turn for turn, _, _, _ in links], dtype=pl.Int64),
            parents=pl.Series([names for _, names, _, _ in links], dtype=pl.List(pl.String)),
            delay_s=pl.Series([pause for _, _, pause, _ in links], dtype=pl.Float64),
            delay_kind=pl.Series([kind for _, _, _, kind in links], dtype=pl.String),
        )

    def _link(
        self, program: str | None, call_id: str, start_ns: int, end_ns: int | None
    ) -> tuple[int | None, list[str] | None, float | None, str | None]:
        if program is None:
            return None, None, None, None
        self.endless += end_ns is None
        answer = self._answers.get(call_id)
        known = None
        if answer is not None and answer not in self._common:
            known = self._repeated.get((program, answer))
        if known is not None and known > start_ns:
            end_ns = known if end_ns is None else min(end_ns, known)
        calls = self._programs[program]
        turn, waits_for = calls.add(start_ns, end_ns, call_id)
        if not waits_for:
            return turn, [], None, None
        last = max(ended for ended, _ in waits_for)
        tools = self._tools.get(program, [])
        at = bisect.bisect_left(tools, last)
        used = at < len(tools) and tools[at] <= start_ns
        names = [name for _, name in waits_for]
        return turn, names, seconds(last, start_ns), "tool" if used else "unknown"


class _Program:
    """The calls of one program, in order of start, as far as later ones may wait for them."""

    def __init__(self) -> None:
        self._begun = 0
        self._running: list[tuple[int, int, int, str]] = []  # by end; then turn, end, name
        self._front: list[tuple[int, int, str]] = []  # first turn to see it ended, end, name
        self._latest = -1  # the last turn among those that have ended

    def add(
        self, start_ns: int, end_ns: int | None, name: str
    ) -> tuple[int, list[tuple[int, str]]]:
        """Return the call's turn, and the end and the name of every call that it waits for."""
        turn = self._begun
        self._begun += 1
        while self._running and self._running[0][0] <= start_ns:
            _, began, ended, which = heapq.heappop(self._running)
            self._latest = max(self._latest, began)
            self._front.append((turn, ended, which))
        # If any ended call came when this one had ended, waiting for that call is enough.
        self._front = [call for call in self._front if call[0] > self._latest]
        if end_ns is not None:  # an empty span counts as 1 ns, so that no two wait for each other
            heapq.heappush(self._running, (max(end_ns, start_ns + 1), turn, end_ns, name))
        return turn, [(ended, which) for _, ended, which in self._front]


def gather_spans(
    source: Source,
    rows: Iterable[Mapping[str, Any]],
    *columns: str,
    order: Order | None = None,
    **facts: Any,
) -> Trace:
    """Make a trace of calls that are spans: rows of COLUMNS and `columns`, linked by their times.

    A call around another call of the same trace is the same request, recorded by two tools at
    once; the inner one is kept.
    """
    order = order or Order()
    spool = Spool().extend(tabulate(source, rows, *COLUMNS, *columns))
    order.settle()
    around = _around(spool.frame()) if spool.height else pl.Series(dtype=pl.String)

    def calls() -> Iterator[pl.DataFrame]:
        for batch in spool.batches():
            kept = batch.filter(~pl.col("call_id").is_in(around.implode()))
            yield kept.with_columns(
                pl.col("program_id").replace(order.conversations),
                _END,
                start_ns=pl.col("stamp_ns"),
            ).drop("parents")

    trace = gather(source, calls(), chain=order, inferred=INFERRED, **facts)
    doubts = []
    if len(around):
        doubts.append(
            f"{len(around)} calls enclose another record of the same request;"
            " only the inner records are kept."
        )
    if order.endless:
        doubts.append(f"{order.endless} calls have no recorded end; no call waits for them.")
    return trace.doubting(*doubts)


def _around(calls: pl.LazyFrame) -> pl.Series:
    """Return the names of calls with a call directly inside them, in the tree and in time."""
    spans = calls.select("call_id", "parents", "stamp_ns", _END)
    inner = spans.select(
        call_id=pl.col("parents").list.first(),
        inner_start_ns=pl.col("stamp_ns"),
        inner_end_ns=pl.col("end_ns"),
    ).drop_nulls("call_id")
    within = (pl.col("inner_start_ns") >= pl.col("stamp_ns")) & (
        pl.col("inner_end_ns") <= pl.col("end_ns")
    )
    return spans.join(inner, on="call_id").filter(within).collect()["call_id"].unique()
