"""Transforms of a trace in words, for the command line: `window=0:600`, `rate=2:superpose`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from servescope.traces.errors import InputError
from servescope.traces.sessions import forget_sessions, infer_sessions
from servescope.traces.trace import Trace

_LENGTHS = {"input": "input_tokens", "output": "output_tokens"}


@dataclass(frozen=True, slots=True)
class Transform:
    """One word of the language: how it is written, what it does, and the function behind it."""

    form: str
    says: str
    apply: Callable[[Trace, str, int], Trace]


def _window(trace: Trace, text: str, seed: int) -> Trace:
    start, _, end = text.partition(":")
    return trace.window(float(start or 0), float(end) if end else None)


def _where(trace: Trace, text: str, seed: int) -> Trace:
    column, _, values = text.partition(":")
    wanted = [None if value == "unknown" else value for value in values.split("|")]
    return trace.where(**{column: wanted})


def _rate(trace: Trace, text: str, seed: int) -> Trace:
    factor, _, by = text.partition(":")
    match by:
        case "" | "compress":
            return trace.scale_rate(float(factor), "compress", seed)
        case "thin":
            return trace.scale_rate(float(factor), "thin", seed)
        case "superpose":
            return trace.scale_rate(float(factor), "superpose", seed)
    raise ValueError


def _clip(trace: Trace, text: str, seed: int) -> Trace:
    limits = dict(part.split(":") for part in text.split(","))
    return trace.clip(**{_LENGTHS[name]: int(limit) for name, limit in limits.items()})


TRANSFORMS = {
    "window": Transform("window=START:END", "calls that arrive in [START, END) seconds", _window),
    "where": Transform(
        "where=COLUMN:VALUE|VALUE", "calls of a model, call_class, client_id, status, ...", _where
    ),
    "head": Transform("head=N", "the first N calls", lambda t, text, seed: t.head(int(text))),
    "sample": Transform(
        "sample=SHARE",
        "each program with this probability, whole",
        lambda t, text, seed: t.sample(float(text), seed),
    ),
    "time": Transform(
        "time=FACTOR",
        "everything takes FACTOR times as long, pauses too",
        lambda t, text, seed: t.scale_time(float(text)),
    ),
    "rate": Transform(
        "rate=FACTOR[:thin|superpose|compress]", "programs arrive FACTOR times as often", _rate
    ),
    "jitter": Transform(
        "jitter[=SECONDS]",
        "arrivals spread over the tick of their clock",
        lambda t, text, seed: t.jitter(seed, float(text) if text else None),
    ),
    "clip": Transform("clip=input:N,output:N", "prompts and answers cut to N tokens", _clip),
    "zero": Transform(
        "zero", "the first call arrives at 0", lambda t, text, seed: t.shift_to_zero()
    ),
    "sessions": Transform(
        "sessions=infer|none",
        "sessions inferred from shared prefixes, or forgotten",
        lambda t, text, seed: {"infer": infer_sessions, "none": forget_sessions}[text](t),
    ),
}


def transform(trace: Trace, steps: Sequence[str], seed: int = 0) -> Trace:
    """Apply transforms written as `NAME=VALUE`, in order.

    Raises InputError for a word or a value that is none, before any row is read.
    """
    for step in steps:
        name, _, text = step.partition("=")
        known = TRANSFORMS.get(name)
        if known is None:
            raise InputError(f"There is no transform '{name}'.", f"Known: {', '.join(TRANSFORMS)}.")
        try:
            trace = known.apply(trace, text, seed)
        except (ValueError, KeyError):
            raise InputError(f"'{step}' is not understood.", f"Write {known.form}.") from None
    return trace
