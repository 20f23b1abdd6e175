"""What runs of other tools were sent, as far as their files show it, and whether it was the same.

A file that keeps its prompts shows it. One that keeps only lengths shows it where lengths differ
enough that no other requests would have had the same ones in the same order.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import polars as pl

from servescope.traces.errors import InputError
from servescope.traces.run import Imported, Run

# So unlikely (one in 2^n) must it be that other requests had the same lengths in the same order.
BITS: Final = 20.0
# What says how an answer is to be sent, and by whom, and nothing of what is asked.
_NOT_ASKED = ("model", "stream", "stream_options", "user")


def prompt_sha256(body: Mapping[str, Any]) -> str:
    """Return the digest of what the body of a request asks.

    Earlier answers are left out: they are the server's, and differ between two.
    """
    asked = {name: value for name, value in body.items() if name not in _NOT_ASKED}
    messages = asked.get("messages")
    if isinstance(messages, list):
        asked["messages"] = [
            message
            for message in messages
            if not (isinstance(message, dict) and message.get("role") == "assistant")
        ]
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()


def asked_tokens(body: Mapping[str, Any]) -> int | None:
    """Return how long an answer the body of a request asks for; None if it does not say it."""
    for key in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        most = body.get(key)
        if isinstance(most, int) and 0 <= most < 2**63:
            return most
    return None


def bits(lengths: Sequence[int]) -> float:
    """Return how telling lengths are: -log2 of the chance that others like them come in this order.

    The chance that two calls drawn from them are equally long, to the power of their number.
    """
    if not lengths:
        return 0.0
    total = len(lengths)
    alike = sum((count / total) ** 2 for count in Counter(lengths).values())
    return -total * math.log2(alike)


def digest(plan: pl.DataFrame, imported: Imported) -> str:
    """Return the digest of what was sent: equal ones mean the same requests under the same load.

    Where the file does not show its requests, it is that of the file: a run is like itself alone.
    """
    if imported.known_by is None:
        known: list[Any] = [imported.file, imported.sha256, imported.part]
    else:
        shown = "prompt_sha256" if imported.known_by == "prompts" else "input_tokens"
        known = [imported.load, plan.select("call_id", "parents", shown).rows()]
    return hashlib.sha256(msgspec.json.encode([imported.tool, *known], order="sorted")).hexdigest()


def refuse_unlike(ours: Run, theirs: Run) -> None:
    """Raise InputError unless two runs, one of them imported at least, were sent the same.

    Calls of which one file does not show what they were sent, mostly those that failed, do not
    count against it.
    """
    if ours.info.plan_sha256 == theirs.info.plan_sha256:
        return
    a, b = ours.info.imported, theirs.info.imported
    if a is None or b is None or a.tool != b.tool:
        of_a, of_b = (f"of {i.tool}" if i else "of servescope" for i in (a, b))
        raise InputError(
            f"{ours.path} is a run {of_a} and {theirs.path} one {of_b}: nothing shows that they"
            " were sent the same.",
            "Compare runs of one tool, or replay one trace with servescope on both systems.",
        )
    if a.load != b.load:
        differing = (n for n in dict.fromkeys((*a.load, *b.load)) if a.load.get(n) != b.load.get(n))
        told = ", ".join(f"{n} {a.load.get(n)} against {b.load.get(n)}" for n in differing)
        raise InputError(
            f"{ours.path} and {theirs.path} were not sent the same load: {told}.",
            "Compare runs of the same load.",
        )
    if a.known_by is None or b.known_by is None:
        blind = ours if a.known_by is None else theirs
        raise InputError(
            f"Nothing in {blind.path} shows which requests it was sent: {a.tool} kept no prompts,"
            " and their lengths are too much alike to tell.",
            "Benchmark both with prompts of different lengths, or so that the tool keeps them.",
        )
    if a.known_by != b.known_by or not _same(ours.plan, theirs.plan, a.known_by):
        raise InputError(
            f"{ours.path} and {theirs.path} were not sent the same requests in the same order:"
            f" their {a.known_by} differ.",
            "Run both with the same data, seed and number of requests.",
        )


def unknown(ours: Run, theirs: Run) -> int:
    """Return how many calls one of two runs does not show, and the pairing takes for the same."""
    imported = ours.info.imported
    if imported is None or imported.known_by is None:
        return 0
    if ours.info.plan_sha256 == theirs.info.plan_sha256:
        return 0
    both = _shown(ours.plan, theirs.plan, imported.known_by)
    return ours.plan.height - both.height


def _same(ours: pl.DataFrame, theirs: pl.DataFrame, known_by: str) -> bool:
    """Say whether two plans have the same calls, and what both show is the same and enough."""
    columns = ("call_id", "parents")
    if ours.select(columns).rows() != theirs.select(columns).rows():
        return False
    both = _shown(ours, theirs, known_by)
    if (both["ours"] != both["theirs"]).any():
        return False
    if known_by == "prompts":
        return both.height > ours.height / 2
    return bits(both["ours"].to_list()) >= BITS


def _shown(ours: pl.DataFrame, theirs: pl.DataFrame, known_by: str) -> pl.DataFrame:
    """Return what both plans show of their calls: ours, theirs."""
    shown = "prompt_sha256" if known_by == "prompts" else "input_tokens"
    return pl.DataFrame({"ours": ours[shown], "theirs": theirs[shown]}).drop_nulls()


def known_by(plan: pl.DataFrame) -> Literal["prompts", "lengths"] | None:
    """Say what shows which requests a plan has: their prompts, their lengths, or nothing."""
    if plan["prompt_sha256"].count():
        return "prompts"
    return "lengths" if bits(plan["input_tokens"].drop_nulls().to_list()) >= BITS else None
