"""Longer or shorter prompts and answers: every part of a model that counts tokens, scaled."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from servescope.analysis.models.agents import Agents
from servescope.analysis.models.given import Given
from servescope.analysis.models.growth import Growth
from servescope.analysis.models.lengths import Lengths
from servescope.analysis.models.marks import Marks
from servescope.analysis.models.quantiles import Quantiles, all_rounded, rounded
from servescope.analysis.models.sessions import Sessions

_replace = msgspec.structs.replace


def longer_marks(marks: Marks, inputs: float, outputs: float) -> Marks:
    """Return calls with prompts and answers so many times as long; which go together stays."""
    return _replace(
        marks,
        kinds=tuple(
            _replace(kind, lengths=_of_lengths(kind.lengths, inputs, outputs))
            for kind in marks.kinds
        ),
    )


def longer_programs(programs: Agents, inputs: float, outputs: float) -> Agents:
    """Return programs whose answers, and what each turn adds to the prompt, are so much longer.

    Prompts that hold the answers before grow with them, up to the longest prompts of the trace.
    """
    return _replace(
        programs,
        main=_of_sessions(programs.main, inputs, outputs),
        subs=None if programs.subs is None else _of_sessions(programs.subs, inputs, outputs),
    )


def _of_lengths(lengths: Lengths, inputs: float, outputs: float) -> Lengths:
    # edges are ranks, which stay
    return _replace(
        lengths,
        inputs=_of_law(lengths.inputs, inputs),
        outputs=tuple(_of_law(law, outputs) for law in lengths.outputs),
    )


def _of_sessions(sessions: Sessions, inputs: float, outputs: float) -> Sessions:
    changes: dict[str, Any] = {}
    if sessions.first_inputs is not None:
        changes["first_inputs"] = _of_given(sessions.first_inputs, 1.0, inputs)
    if sessions.growth is not None:
        changes["growth"] = _of_growth(sessions.growth, inputs, outputs)
    if sessions.outputs is not None:
        changes["outputs"] = _of_given(sessions.outputs, inputs, outputs)
    # a longer answer takes the time that answers of that length take, so `service` stays
    return _replace(sessions, **changes)


def _of_growth(growth: Growth, inputs: float, outputs: float) -> Growth:
    of = outputs if growth.of == "answer" else inputs
    return _replace(
        growth,
        edges=_times(growth.edges, inputs),
        kept=None if growth.kept is None else _of_given(growth.kept, inputs, 1.0),
        places=_times(growth.places, inputs),
        grown=tuple(_of_given(law, of, inputs) for law in growth.grown),
        bounds=(
            rounded(growth.bounds[0] * min(inputs, 1.0)),
            rounded(growth.bounds[1] * max(inputs, 1.0)),
        ),
    )


def _of_given(given: Given, x: float, y: float) -> Given:
    return _replace(given, law=_of_law(given.law, y), edges=_times(given.edges, x))


def _of_law(law: Quantiles, factor: float) -> Quantiles:
    """Return the law of values times `factor`; whole values of 1 or more stay so."""
    values = np.array(law.values)
    scaled = values * factor
    if law.whole:
        scaled = np.where(values >= 1, np.maximum(scaled, 1.0), scaled)
    tail = law.tail
    if tail is not None:
        tail = _replace(tail, scale=rounded(tail.scale * factor))
    return _replace(law, values=all_rounded(scaled), tail=tail)


def _times(edges: tuple[float, ...], factor: float) -> tuple[float, ...]:
    return all_rounded(np.array(edges) * factor)
