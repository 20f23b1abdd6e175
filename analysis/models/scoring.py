"""How far a model's own draw is from the trace that it was learnt from, to be written into it."""

from __future__ import annotations

import msgspec

from servescope.analysis import fidelity
from servescope.analysis.models.model import Model
from servescope.analysis.models.quantiles import rounded
from servescope.analysis.models.synthesis import on_own_clocks, synthesize
from servescope.traces.trace import Trace

ASPECTS = ("marginals", "temporal", "joint", "sessions", "prefixes")
_SEED = 1


def scored(model: Model, trace: Trace) -> Model:
    """Return the model with scores of one draw against the trace.

    They are those of `fidelity.compare`, the classifier left out; a smaller score is better. If no
    rate is known, what does not depend on it is scored.
    """
    drawn = _drawn(model)
    found = fidelity.compare(trace, [Trace.of(drawn.collect(), drawn.provenance)], aspects=ASPECTS)
    scores = {
        " ".join(filter(None, (row["measure"], row["subject"]))): rounded(row["value"])
        for row in found.table.iter_rows(named=True)
        if row["value"] is not None
    }
    about = msgspec.structs.replace(model.about, fidelity=scores)
    return msgspec.structs.replace(model, about=about)


def _drawn(model: Model) -> Trace:
    """Draw as much as the trace had: time, or programs or calls if their times are not known."""
    if model.rate_rps is not None:
        return synthesize(model, seed=_SEED)
    known = [stream.programs.main.programs for stream in model.streams if stream.programs]
    if len(known) == len(model.streams):
        return on_own_clocks(model, sum(known), _SEED)
    return synthesize(model.at_rate(1.0), float(model.about.calls), _SEED)
