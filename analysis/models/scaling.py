"""What another rate does to how bursty a model's calls are, said before anything is written."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.counts import Counts
from servescope.analysis.models.model import Model
from servescope.analysis.models.synthesis import Synthesis
from servescope.analysis.sample import Floats

SCALES_S = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0)
_CALLS = 200_000  # that one draw looks at, about
_DRAWS = 8
_FEWEST = 20  # windows of a scale
_SEED = 1_000_003


def told(before: Model, after: Model) -> pl.DataFrame:
    """Return the index of dispersion of counts of a model, and that expected of another of it.

    Columns: scale_s, before, expected, by the mean of some draws of each. More independent clients
    leave dispersion as it is but for what all of them share, the course of rates; the same clients
    that ask a times as often multiply what is above 1 by a; a clock that is a times as fast moves
    it to windows a times as short.
    """
    first, second = (dispersion(model) for model in (before, after))
    joined = first.rename({"idc": "before"}).join(
        second.rename({"idc": "expected"}), on="scale_s", how="inner", maintain_order="left"
    )
    return joined.select("scale_s", "before", "expected")


def dispersion(model: Model) -> pl.DataFrame:
    """Return the index of dispersion of counts, by drawing: scale_s, idc (mean over the draws)."""
    rate = model.rate_rps or 1.0
    lasts = min(model.about.span_s or model.span_s or _CALLS / rate, _CALLS / rate)
    draws = [_arrivals(Synthesis(model, lasts, _SEED + k)) for k in range(_DRAWS)]
    rows = [
        (scale, float(np.mean([_index(at, scale, lasts) for at in draws])))
        for scale in SCALES_S
        if lasts / scale >= _FEWEST and rate * scale > 0.01
    ]
    return pl.DataFrame(rows, schema={"scale_s": pl.Float64, "idc": pl.Float64}, orient="row")


def _arrivals(synthesis: Synthesis) -> Floats:
    return np.concatenate([piece["arrival_s"].to_numpy() for piece in synthesis.pieces()])


def _index(arrivals: Floats, scale_s: float, span_s: float) -> float:
    counts = Counts.of(arrivals, scale_s, 0.0).number
    windows = int(span_s / scale_s)
    mean = counts.sum() / windows
    return float(((counts**2).sum() / windows - mean**2) / mean)
