"""A run as the client of another tool would have met it: the calls that were sent, their streams.

Nothing here is of one tool; a profile chooses from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl
from polars import col

from servescope.analysis.measured import Measured
from servescope.analysis.metrics import CHUNK_IS_TOKEN, CHUNKS_ARE_COUNTED
from servescope.analysis.slo import SLO
from servescope.traces.run import Run
from servescope.traces.schema import SCHEMA
from servescope.traces.status import MISCOUNTED, NOT_SENT, OK, SERVER, TRUNCATED

# Answers of status 200 whose stream was read to its end. Most clients take them for successes,
# whether or not the stream said that it was complete.
WHOLE = (OK, TRUNCATED, MISCOUNTED)
STREAMED = (*WHOLE, SERVER)
# What the server aborted is an error here; another client sees an end with a reason.
ABORTED = (col("finish_reason") == "abort").fill_null(False)

NO_USAGE = "the server sent no usage, and the text that the tool would tokenize is not kept"
NO_COUNTS = "a run does not tell how many tokens each chunk held"

_EMPTIES = col("empty_s")
_FIRST, _LAST = col("chunk_s").list.first(), col("chunk_s").list.last()


def _count(moments: pl.Expr) -> pl.Expr:
    """Count the values of a list of truths."""
    return moments.list.sum().fill_null(0).cast(pl.Int64)


_OF_CALLS = (
    "call_id", "status", "error", "finish_reason", "due_s", "admitted_s", "dispatched_s", "sent_s",
    "first_token_s", "first_answer_s", "last_token_s", "end_s", "input_tokens", "output_tokens",
    "reasoning_tokens",
)  # fmt: skip
_OF_LISTS = {
    "empties": _EMPTIES.list.len(),
    "first_empty_s": _EMPTIES.list.first(),
    "last_empty_s": _EMPTIES.list.last(),
    "second_chunk_s": col("chunk_s").list.get(1, null_on_oob=True),
    # reasoning comes before the answer, so what is not before its first chunk is answer
    "answer_chunks": _count((col("chunk_s") - col("first_answer_s")).list.eval(pl.element() >= 0)),
    "chunks_counted": (col("chunk_tokens").list.len() > 0).fill_null(False),
    "first_chunk_tokens": pl.when(CHUNK_IS_TOKEN)
    .then(1)
    .when(CHUNKS_ARE_COUNTED)
    .then(col("chunk_tokens").list.first()),
}

# Chunks between the first and the last that brings a piece of answer, and bring none themselves.
_BEFORE = _count((_EMPTIES - _FIRST).list.eval(pl.element() <= 0))
_AFTER = _count((_EMPTIES - _LAST).list.eval(pl.element() >= 0))
_BETWEEN = _EMPTIES.list.slice(_BEFORE, _EMPTIES.list.len() - _BEFORE - _AFTER)


def _with(empties: pl.Expr) -> pl.Expr:
    """Return the moments of chunks and of some empty ones, in order."""
    both = pl.concat_list(col("chunk_s").fill_null([]), empties).list.sort()
    return pl.when((empties.list.len() > 0).fill_null(False)).then(both).otherwise(col("chunk_s"))


CHUNKS = col("chunk_s")
ALL_CHUNKS = _with(_EMPTIES)
CHUNKS_AND_EMPTIES_BETWEEN = _with(_BETWEEN)
# Moments since the first chunk of the answer itself; needs first_answer_s beside the lists.
ANSWER_CHUNKS = (col("chunk_s") - col("first_answer_s")).list.eval(
    pl.element().filter(pl.element() >= 0)
)


def gaps(moments: pl.Expr) -> pl.Expr:
    """Return the gaps between moments."""
    return moments.list.eval(pl.element().diff(null_behavior="drop"))


@dataclass(frozen=True, eq=False)
class Seen:
    """The calls of a run that were sent, with what their streams say.

    `run` is None for a table that is no run, of which no plan is known; `slo` is what goodput is
    counted by.
    """

    measured: Measured
    run: Run | None = None
    slo: SLO | None = None

    @cached_property
    def backend(self) -> str:
        """The dialect that was spoken, and its path where another was asked; "" of no endpoint."""
        asked = self.run.info.asked if self.run else {}
        return f"{asked.get('backend') or ''} {asked.get('path') or ''}".strip()

    @property
    def chat(self) -> bool:
        """Whether the endpoint was one of chats, whose streams begin with a role."""
        return "chat" in self.backend or "transformers" in self.backend

    @cached_property
    def empties_kept(self) -> bool:
        """Whether the run holds the moments of chunks that bring no piece of answer."""
        virtual = self.run is not None and self.run.info.clock == "virtual"
        return virtual or "empty_s" in self.measured.rows.collect_schema().names()

    @cached_property
    def uncounted(self) -> bool:
        """Whether there are answers without usage, so that output_tokens may count chunks."""
        if self.run is None:
            return False
        info = self.run.info
        return bool(info.client.get("uncounted")) or info.probe.get("output_tokens", 0) is None

    @cached_property
    def calls(self) -> pl.DataFrame:
        """One row a call that was sent, in the order of due times: the columns of `_OF_CALLS`.

        Besides: start_s (the client turned to it), counted (output_tokens is the server's count),
        planned_input_tokens and planned_output_tokens, and what `_OF_LISTS` names.
        """
        all_calls = self.measured.calls
        calls = all_calls.filter(col("status").ne_missing(NOT_SENT)).select(
            "row",
            "chunks",
            *(
                (col(name) if name in all_calls.columns else pl.lit(None))
                .cast(SCHEMA[name])
                .alias(name)
                for name in _OF_CALLS
            ),
        )
        lists = self.measured.lists("first_answer_s", "output_tokens").select("row", **_OF_LISTS)
        calls = calls.join(lists.collect(engine="streaming"), on="row", maintain_order="left")
        # as many tokens as chunks may be chunks that were counted for want of usage
        surely = col("chunks_counted") | col("output_tokens").ne_missing(col("chunks"))
        told = (col("status") == OK).fill_null(False) & (not self.uncounted)
        return self._with_plan(calls).with_columns(
            start_s=pl.coalesce("dispatched_s", "sent_s"),
            counted=(told | surely) & col("output_tokens").is_not_null(),
        )

    def _with_plan(self, calls: pl.DataFrame) -> pl.DataFrame:
        plan = self.run.plan if self.run is not None else calls.clear()
        planned = plan.select(
            "call_id",
            *(
                (col(name) if name in plan.columns else pl.lit(None, pl.Int64)).alias(
                    f"planned_{name}"
                )
                for name in ("input_tokens", "output_tokens")
            ),
        )
        return calls.join(planned, on="call_id", how="left", maintain_order="left")

    @cached_property
    def span_s(self) -> float | None:
        """Seconds from the first call that was sent to the last end; None of nothing."""
        first, last = self.calls.select(first=col("start_s").min(), last=col("end_s").max()).row(0)
        return None if first is None or last is None else last - first
