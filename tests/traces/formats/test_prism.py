from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from servescope.traces import load
from servescope.traces.formats.prism import RESAMPLED

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "prism.csv"


def test_the_sample_is_read_digit_by_digit() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert calls["arrival_s"].to_list() == [0.0, 0.412345679]
    assert calls["model"].to_list() == ["dummy-lora-7b-rank-8-0", "dummy-lora-7b-rank-8-3"]
    assert calls["client_id"].equals(calls["model"], check_names=False)
    assert (trace.provenance.kind, trace.provenance.doubts) == ("derived", (RESAMPLED,))


def test_the_first_half_of_the_trace(original: Callable[[str], Path]) -> None:
    """The figures published beside the file are those of all 1,500 requests but for the rate."""
    trace = load(original("prism_arena/arena_multi_lora.first750.csv"))
    calls = trace.collect()
    assert (calls.height, calls["call_id"].n_unique()) == (750, 750)
    assert calls["model"].n_unique() <= 27
    assert 749 / calls["arrival_s"].max() == pytest.approx(2.33, abs=0.005)  # type: ignore[operator]
    lines = pl.read_csv(original("prism_arena/arena_multi_lora.first750.csv"))
    assert calls["input_tokens"].sum() == lines["prompt_len"].sum()
    assert calls["output_tokens"].sum() == lines["output_len"].sum()
