"""Scores of a model's own draw, of traces with and without times."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.models.fitting import fit
from servescope.analysis.models.scoring import scored
from servescope.traces import Provenance, Trace, load


def test_a_draw_of_a_trace_is_scored_by_what_both_have() -> None:
    trace = load("azure:sample").head(300)
    model = scored(fit(trace, shape="poisson"), trace)
    assert {"rate", "idc", "ks input_tokens", "spearman"} <= set(model.about.fidelity)
    assert model.about.fidelity["ks input_tokens"] < 0.15
    assert scored(model, trace) == model


def test_lengths_are_scored_without_times() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "call_id": [str(k) for k in range(2000)],
            "input_tokens": rng.integers(10, 1000, 2000),
            "output_tokens": rng.integers(1, 500, 2000),
            "parents": [[]] * 2000,
        },
        schema_overrides={"parents": pl.List(pl.String)},
    )
    trace = Trace.of(frame, Provenance(format="table", source="lengths", kind="synthetic"))
    scores = scored(fit(trace), trace).about.fidelity
    assert "rate" not in scores
    assert scores["ks input_tokens"] < 0.05
    assert scores["spearman"] < 0.1
