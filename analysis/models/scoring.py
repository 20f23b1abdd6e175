"""How far a model's own draw is from the trace that it was learnt from, to be written into it."""

from __future__ import annotations

import msgspec

from servescope.analysis import fidelity
from servescope.analysis.models.model import Model
from servescope.analysis.models.quantiles import rounded
from servescope.analysis.models.synthesis import synthesize
from servescope.traces.trace import Trace

ASPECTS = ("marginals", "temporal", "joint", "sessions", "prefixes")
_SEED = 1


def scored(model: Model, trace: Trace) -> Model:
    """Return the model with scores of one draw against the trace; unchanged if it has no rate.

    They are those of `fidelity.compare`, the classifier left out; a smaller score is better.
    """
    if model.rate_rps is None:
        return model
    drawn = synthesize(model, seed=_SEED)
    found = fidelity.compare(trace, [Trace.of(drawn.collect(), drawn.provenance)], aspects=ASPECTS)
    scores = {
        " ".join(filter(None, (row["measure"], row["subject"]))): rounded(row["value"])
        for row in found.table.iter_rows(named=True)
        if row["value"] is not None
    }
    about = msgspec.structs.replace(model.about, fidelity=scores)
    return msgspec.structs.replace(model, about=about)
