"""The definitions of `vllm bench serve`."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from polars import col

from servescope.analysis.profiles import seen as streams
from servescope.analysis.profiles.peaks import most_at_once, most_in_a_second
from servescope.analysis.profiles.profile import (
    Field,
    Profile,
    Quantity,
    deviation,
    mean,
    percentile,
    spread,
)
from servescope.analysis.profiles.seen import Seen

STATISTICS = (mean(), percentile(50, "median"), deviation("std"), percentile(99, "p99"))


def moments(seen: Seen) -> pl.Expr:
    """Return the list of the moments that it stamps.

    Of completions those are all chunks with a choice. Of chats, not the role, and of other empty
    ones those that carry an empty content: what lies between the first and the last piece.
    """
    return streams.CHUNKS_AND_EMPTIES_BETWEEN if seen.chat else streams.ALL_CHUNKS


def first(seen: Seen) -> pl.Expr:
    """Return the first moment that it stamps."""
    if seen.chat:
        return col("first_token_s")
    return pl.min_horizontal("first_token_s", "first_empty_s")


def _last(seen: Seen) -> pl.Expr:
    return col("last_token_s") if seen.chat else pl.max_horizontal("last_token_s", "last_empty_s")


def _counts(seen: Seen) -> pl.Expr:
    return col("status").is_in(streams.STREAMED) & first(seen).is_not_null()


def _quantities(seen: Seen) -> dict[str, Quantity]:
    unknown, why = ~col("counted"), streams.NO_USAGE
    tokens, span = col("output_tokens"), _last(seen) - first(seen)
    return {
        "ttft": Quantity(expr=first(seen) - col("start_s")),
        "tpot": Quantity(
            expr=pl.when(tokens > 1).then(span / (tokens - 1)), unknown=unknown, why=why
        ),
        "itl": Quantity(expr=streams.gaps(moments(seen)), per="gap"),
        "e2el": Quantity(expr=_last(seen) - col("start_s")),
        "input_tokens": Quantity(expr=col("input_tokens")),
        "output_tokens": Quantity(expr=tokens, unknown=unknown, why=why),
        "queue": Quantity(expr=col("admitted_s") - col("due_s")),
    }


def _meets(bounds: Mapping[str, float]) -> pl.Expr:
    # of a call of one token the TPOT is 0, and of a call whose tokens are not known it is null
    tpot = pl.when(col("output_tokens") <= 1).then(0.0).otherwise(col("tpot"))
    found = {"ttft": col("ttft"), "tpot": tpot, "e2e": col("e2el")}
    return pl.all_horizontal(found[name] <= bound for name, bound in bounds.items())


_TTFT = (
    "from before the request is posted, a new connection included, to the first chunk with a"
    " choice; of a chat, to the first with content, reasoning or a tool call"
)
_TPOT = "(E2EL - TTFT) / (tokens - 1) of calls of more than one token"
_ITL = "every gap between two stamped chunks, pooled over calls, whatever the tokens in them"
_E2EL = "from before the request is posted to the last stamped chunk; usage and [DONE] do not count"

VLLM = Profile(
    name="vllm",
    tool="vllm bench serve",
    version="vLLM 0.33.0",
    counts=_counts,
    quantities=_quantities,
    duration_s=lambda reading: reading.seen.span_s,
    meets=_meets,
    stamps_empties=True,
    fields=(
        Field("duration", "s", "from the first call that is sent to the last end, failed calls"
              " included", lambda r: r.lasted, ours="span"),
        Field("completed", "count", "calls of status 200 with a stamped chunk, whether or not the"
              " stream was whole", lambda r: r.count),
        Field("failed", "count", "all other calls that were sent",
              lambda r: r.failed, ours="failed"),
        Field("total_input_tokens", "tokens", "prompt tokens of completed calls, as the server"
              " counts or else as planned", lambda r: r.total("input_tokens")),
        Field("total_output_tokens", "tokens", "tokens of completed calls, as the server counts or"
              " else by the client's tokenizer", lambda r: r.total("output_tokens")),
        Field("request_throughput", "1/s", "completed over duration", lambda r: r.rate(r.count),
              ours="calls_rps"),
        Field("request_goodput", "1/s", "calls within the bounds over duration; a call of one"
              " token has a TPOT of 0, and a failed call is in no denominator",
              lambda r: r.rate(r.good), ours="goodput"),
        Field("output_throughput", "tokens/s", "total_output_tokens over duration",
              lambda r: r.rate(r.total("output_tokens")), ours="output_tps"),
        Field("total_token_throughput", "tokens/s", "tokens of prompts and answers over duration",
              lambda r: r.rate(r.total("input_tokens", "output_tokens")), ours="total_tps"),
        Field("max_output_tokens_per_s", "chunks/s", "most chunks, not tokens, in one second from"
              " the first start", lambda r: most_in_a_second(r, moments(r.seen))),
        Field("max_concurrent_requests", "count", "most completed calls that touch one second",
              lambda r: most_at_once(r, "e2el"), ours="concurrency_peak"),
        *spread("{}_ttft_ms", "ttft", STATISTICS, "ms", _TTFT, "ttft"),
        *spread("{}_tpot_ms", "tpot", STATISTICS, "ms", _TPOT, "tpot"),
        *spread("{}_itl_ms", "itl", STATISTICS, "ms", _ITL, "icl"),
        *spread("{}_e2el_ms", "e2el", STATISTICS, "ms", _E2EL, "e2e"),
    ),
    doubts=(
        "Without usage vLLM tokenizes the text, which is not kept: such calls have no tokens here.",
        "In a chat, an empty chunk before the first piece of answer is taken for the role and one"
        " after the last for the end. vLLM stamps an end that carries an empty content, as its own"
        " server sends when a stop token is met: E2EL then ends there.",
        "vLLM reads reasoning from the field `reasoning` and passes over `reasoning_content`, which"
        " other servers send; a run does not tell them apart, and here both are stamped.",
        "Its client waits up to six hours; a call that was given up sooner is a failed one here.",
        "Where nothing was measured vLLM writes 0, and here it is null.",
    ),
)  # fmt: skip
