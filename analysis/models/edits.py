"""Models changed and put together: what if answers were twice as long, or agents came besides?

Each edit returns another model, which says in its `about.edits` what was done. In words, for the
command line: `outputs=2`, `flat`, `mix=azure-code:0.3`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeAlias

import msgspec
import numpy as np

from servescope.analysis.models.lengths import Lengths
from servescope.analysis.models.longer import longer_marks, longer_programs
from servescope.analysis.models.marks import Kind
from servescope.analysis.models.model import About, Model, Stream
from servescope.analysis.models.quantiles import MIN_COUNT, rounded
from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError
from servescope.traces.status import OK

Load: TypeAlias = Callable[[str], Model]
"""Takes the name or the path of a model."""

_DRAWN = 20_000  # calls whose lengths stand for those of several kinds
_SEED = 7  # of these
_FINE = (None, OK, "unknown")  # how calls end that did not fail
_replace = msgspec.structs.replace


def added(model: Model, other: Model, rate_rps: float | None = None) -> Model:
    """Return the calls of both together, of the other with so many a second if that is given."""
    if rate_rps is not None:
        other = other.at_rate(rate_rps)
    said = "" if other.rate_rps is None else f", {other.rate_rps:.6g} calls/s"
    return _together([model, other], f"added {other.name}{said}")


def mixed(models: Sequence[Model], shares: Sequence[float], rate_rps: float | None = None) -> Model:
    """Return a mix in which each model has its share of the calls.

    There are so many calls a second as the first one has, unless `rate_rps` says. Raises InputError
    for shares that are none, and where no rate is known.
    """
    usable = len(models) == len(shares) > 0 and all(0 < share < math.inf for share in shares)
    if not usable:
        raise InputError(
            f"{len(models)} models cannot have the shares {', '.join(f'{s:g}' for s in shares)}.",
            "Give each a share above 0.",
        )
    rate = models[0].rate_rps if rate_rps is None else rate_rps
    if rate is None:
        raise InputError(
            f"The rate of {models[0].name} is not known.", "Give the rate of the mix in calls/s."
        )
    whole = sum(shares)
    parts = [each.at_rate(rate * s / whole) for each, s in zip(models, shares, strict=True)]
    said = [f"{100 * s / whole:.4g} % {each.name}" for each, s in zip(models, shares, strict=True)]
    return _together(parts, f"mixed: {', '.join(said)}; {rate:.6g} calls/s")


def with_lengths_of(model: Model, other: Model) -> Model:
    """Return the model with the prompts and answers of another, whatever kind they are of there.

    Calls that failed keep their lengths, and how long prompts follow each other stays. Raises
    InputError for a model with sessions, whose prompts grow from those before.
    """
    bound = [stream.name for stream in model.streams if stream.marks is None]
    if bound:
        raise InputError(
            f"The prompts of '{bound[0]}' grow from turn to turn, so they cannot be those of"
            f" {other.name}.",
            "Scale them with inputs=FACTOR and outputs=FACTOR, or take the other model itself.",
        )
    lengths = _lengths_of(other)
    return _edited(
        model,
        f"lengths of {other.name}",
        streams=tuple(_relengthened(stream, lengths) for stream in model.streams),
        doubts=other.about.doubts,
    )


def longer(model: Model, inputs: float = 1.0, outputs: float = 1.0) -> Model:
    """Return the model with prompts and answers so many times as long.

    In sessions it is what each turn adds to the prompt that is scaled; where prompts hold the
    answers before, they grow with these.
    """
    for factor in (inputs, outputs):
        if not 0 < factor < math.inf:
            raise InputError(f"Lengths cannot be scaled by {factor:g}.", "Give a number above 0.")
    streams = tuple(
        _replace(
            stream,
            marks=stream.marks and longer_marks(stream.marks, inputs, outputs),
            programs=stream.programs and longer_programs(stream.programs, inputs, outputs),
        )
        for stream in model.streams
    )
    said = [f"{n} x {f:.6g}" for n, f in (("inputs", inputs), ("outputs", outputs)) if f != 1]
    return _edited(model, ", ".join(said) or "lengths x 1", streams=streams)


def flattened(model: Model) -> Model:
    """Return the model without its course of time: one rate, and lengths that do not drift."""
    return _edited(model, "flat", streams=tuple(_flat(stream) for stream in model.streams))


def without(model: Model, *names: str) -> Model:
    """Return the model without streams or classes of calls; the rate of the others stays.

    Raises InputError for a name that is neither, for a class that is a part of programs with
    others, and if nothing is left.
    """
    return _reduced(model, names, keep=False)


def only(model: Model, *names: str) -> Model:
    """Return the model with these streams and classes of calls alone; see `without`."""
    return _reduced(model, names, keep=True)


# --- in words ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Edit:
    """One word of the language: how it is written, what it does, and the function behind it."""

    form: str
    says: str
    apply: Callable[[Model, str, Load], Model]


def _add(model: Model, text: str, load: Load) -> Model:
    name, rate = _with_number(text)
    return added(model, load(name), rate)


def _mix(model: Model, text: str, load: Load) -> Model:
    name, share = _with_number(text)
    if share is None or not 0 < share < 1:
        raise ValueError
    return mixed([model, load(name)], [1 - share, share])


def _rate(model: Model, text: str, load: Load) -> Model:
    factor, _, by = text.partition(":")
    match by:
        case "":
            return model.scaled(float(factor))
        case "users" | "busier" | "faster":
            return model.scaled(float(factor), by)
    raise ValueError


def _flatten(model: Model, text: str, load: Load) -> Model:
    if text:
        raise ValueError
    return flattened(model)


EDITS = {
    "add": Edit("add=MODEL[:RATE]", "the calls of another model besides, RATE a second", _add),
    "mix": Edit("mix=MODEL:SHARE", "another model has this share of the calls", _mix),
    "lengths": Edit(
        "lengths=MODEL",
        "prompts and answers as long as another model's",
        lambda m, text, load: with_lengths_of(m, load(_named(text))),
    ),
    "inputs": Edit(
        "inputs=FACTOR",
        "prompts FACTOR times as long",
        lambda m, text, load: longer(m, inputs=float(text)),
    ),
    "outputs": Edit(
        "outputs=FACTOR",
        "answers FACTOR times as long",
        lambda m, text, load: longer(m, outputs=float(text)),
    ),
    "flat": Edit("flat", "one rate all the time, no hours of the day", _flatten),
    "rate": Edit("rate=FACTOR[:users|busier|faster]", "FACTOR times as many calls", _rate),
    "without": Edit(
        "without=NAME|NAME",
        "no calls of these streams or classes",
        lambda m, text, load: without(m, *_named(text).split("|")),
    ),
    "only": Edit(
        "only=NAME|NAME",
        "calls of these streams or classes alone",
        lambda m, text, load: only(m, *_named(text).split("|")),
    ),
}


def edited(model: Model, step: str, load: Load | None = None) -> Model:
    """Apply an edit written as `NAME=VALUE`; `load` finds the models that it names.

    Raises InputError for a word or a value that is none.
    """
    name, _, text = step.partition("=")
    known = EDITS.get(name)
    if known is None:
        raise InputError(f"There is no edit '{name}'.", f"Known: {', '.join(EDITS)}.")
    try:
        return known.apply(model, text, load or _none)
    except ValueError:
        raise InputError(f"'{step}' is not understood.", f"Write {known.form}.") from None


def _with_number(text: str) -> tuple[str, float | None]:
    """Part a model's name, which may have colons, from the number behind the last one."""
    name, _, number = _named(text).rpartition(":")
    try:
        return _named(name), float(number)
    except ValueError:
        return text, None


def _named(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _none(source: str) -> Model:
    raise InputError(f"There is no model '{source}' here.", "Say how models are loaded.")


# --- parts ---------------------------------------------------------------------------------------


def _edited(
    model: Model, step: str, streams: tuple[Stream, ...], doubts: Iterable[str] = ()
) -> Model:
    """Return the model with other streams, and with doubts besides its own."""
    said = tuple(dict.fromkeys((*model.about.doubts, *doubts)))
    about = _replace(model.about, doubts=said)
    return _replace(model, about=about).edited(step, streams=streams)


def _together(models: Sequence[Model], step: str) -> Model:
    """Return the streams of models in one, with names of their own."""
    blocks = {stream.blocks for each in models for stream in each.streams if stream.blocks}
    if len(blocks) > 1:
        raise InputError(
            "The models count shared prefixes in different blocks.",
            "Put models together whose traces have blocks of one size and rule.",
        )
    names: set[str] = set()
    clients: set[str] = set()
    streams = []
    for each in models:
        mine = [
            _replace(
                stream,
                name=_new(stream.name, names),
                client=stream.client and _new(stream.client, clients),
            )
            for stream in each.streams
        ]
        names |= {stream.name for stream in mine}
        clients |= {stream.client for stream in mine if stream.client}
        streams += mine
    abouts = [each.about for each in models]
    about = _replace(
        abouts[0],
        source=_joined([about.source for about in abouts], " + ") or "",
        calls=sum(about.calls for about in abouts),
        span_s=max((about.span_s for about in abouts if about.span_s), default=None),
        sha256=abouts[0].sha256 if len({about.sha256 for about in abouts}) == 1 else None,
        licence=_joined([about.licence for about in abouts], "; "),
        attribution=_joined([about.attribution for about in abouts], "; "),
        min_count=min(about.min_count for about in abouts),
        inferred=_inferred(abouts),
        doubts=tuple(dict.fromkeys(doubt for about in abouts for doubt in about.doubts)),
        edits=(
            *abouts[0].edits,
            *(f"{each.name}: {edit}" for each in models[1:] for edit in each.about.edits),
        ),
    )
    return _replace(models[0], about=about).edited(step, streams=tuple(streams))


def _new(name: str, taken: set[str]) -> str:
    """Return the name, with a number behind it if it is taken."""
    number = 1
    new = name
    while new in taken:
        number += 1
        new = f"{name} {number}"
    return new


def _joined(texts: Iterable[str | None], by: str) -> str | None:
    return by.join(dict.fromkeys(text for text in texts if text)) or None


def _inferred(abouts: Sequence[About]) -> dict[str, str]:
    columns = dict.fromkeys(column for about in abouts for column in about.inferred)
    return {
        column: _joined([about.inferred.get(column) for about in abouts], "; ") or ""
        for column in columns
    }


def _relengthened(stream: Stream, lengths: Lengths) -> Stream:
    assert stream.marks is not None
    kinds = tuple(
        _replace(kind, lengths=lengths) if kind.status in _FINE else kind
        for kind in stream.marks.kinds
    )
    return _replace(stream, marks=_replace(stream.marks, kinds=kinds))


def _lengths_of(model: Model) -> Lengths:
    """Return how long prompts and answers of a model are, those of failed calls left out."""
    kinds: list[tuple[float, Kind]] = []
    programs: list[tuple[float, Stream]] = []
    for stream in model.streams:
        weight = 1.0 if model.rate_rps is None else stream.rate_rps or 0.0
        if stream.marks is None:
            programs.append((weight, stream))
        else:
            kinds += [(weight * k.share, k) for k in stream.marks.kinds if k.status in _FINE]
    if not kinds and not programs:
        raise InputError(f"All calls of {model.name} fail.", "Take the lengths of another model.")
    if len(kinds) == 1 and not programs:
        return kinds[0][1].lengths
    rng = np.random.default_rng(_SEED)
    whole = sum(weight for weight, _ in (*kinds, *programs)) or 1.0
    drawn = [
        kind.lengths.at(*rng.random((2, round(_DRAWN * weight / whole)))) for weight, kind in kinds
    ]
    drawn += [
        _of_programs(stream, rng, round(_DRAWN * weight / whole)) for weight, stream in programs
    ]
    inputs, outputs = (np.concatenate(each) for each in zip(*drawn, strict=True))
    return Lengths.fit(inputs, outputs, MIN_COUNT)


def _of_programs(stream: Stream, rng: np.random.Generator, calls: int) -> tuple[Floats, Floats]:
    """Draw so many calls of programs, about: their prompts and answers."""
    assert stream.programs is not None
    drawn = stream.programs.sample(rng, max(1, round(calls / stream.calls_each)))
    inputs, outputs = (drawn[name].to_numpy() for name in ("input_tokens", "output_tokens"))
    return inputs.astype(np.float64), outputs.astype(np.float64)


def _flat(stream: Stream) -> Stream:
    changes: dict[str, Any] = {}
    if stream.arrivals is not None:
        schedule = stream.arrivals.schedule.flat()
        changes["arrivals"] = _replace(stream.arrivals, schedule=schedule)
    if stream.marks is not None:
        changes["marks"] = _replace(stream.marks, parts=1, input_drift=(), output_drift=())
    return _replace(stream, **changes)


def _reduced(model: Model, names: Sequence[str], *, keep: bool) -> Model:
    parts = {stream.name for stream in model.streams}.union(
        *(_classes(stream) - {None} for stream in model.streams)
    )
    known = sorted(str(part) for part in parts)
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.3) or known
            raise InputError(
                f"{model.name} has no stream and no class of calls '{name}'.",
                f"It has: {', '.join(near)}.",
            )
    left = [part for stream in model.streams if (part := _part(stream, names, keep)) is not None]
    step = f"{'only' if keep else 'without'} {', '.join(names)}"
    if not left:
        raise InputError(f"{model.name} {step} has no calls.", "Leave something of it.")
    return _edited(model, step, streams=tuple(left))


def _part(stream: Stream, names: Sequence[str], keep: bool) -> Stream | None:
    """Return what is left of a stream with the calls that are named, or with all others."""
    if stream.name in names:
        return stream if keep else None
    classes = _classes(stream)
    left = {each for each in classes if (each in names) == keep}
    if left == classes:
        return stream
    if not left:
        return None
    if stream.marks is None:
        raise InputError(
            f"The programs of '{stream.name}' have calls of {_said(left)}, which hang together with"
            f" those of {_said(classes - left)}.",
            "Name whole streams.",
        )
    kinds = [kind for kind in stream.marks.kinds if kind.call_class in left]
    share = sum(kind.share for kind in kinds)
    marks = _replace(
        stream.marks,
        kinds=tuple(_replace(kind, share=rounded(kind.share / share)) for kind in kinds),
    )
    thinned = stream if stream.arrivals is None else stream.scaled(share, "busier")
    return _replace(thinned, marks=marks)


def _classes(stream: Stream) -> set[str | None]:
    if stream.marks is not None:
        return {kind.call_class for kind in stream.marks.kinds}
    return {label.call_class for label in stream.programs.labels} if stream.programs else set()


def _said(classes: set[str | None]) -> str:
    return ", ".join(sorted(each or "no class" for each in classes))
