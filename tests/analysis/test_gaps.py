"""Gaps that are counted in buckets stay right to a twentieth of a percent."""

from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from streams import many

from servescope.analysis import METRICS, Measured, gaps
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]


def test_counted_in_buckets_every_quantile_is_right_to_a_twentieth_of_a_percent(
    call: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = many(call)
    owners = pl.DataFrame(
        {"program_id": [f"p{n}" for n in range(7)], "block": [0, 1, 2, 0, 1, 2, 0]}
    )
    run = Measured(frame_of_rows(rows).lazy())
    exact = run.sample("icl", owners, 3)
    monkeypatch.setattr(gaps, "EXACT_VALUES", 100)
    counted = run.sample("icl", owners, 3)
    assert len(counted) == len(exact)
    assert counted.sizes().tolist() == exact.sizes().tolist()
    for q in (0.001, 0.1, 0.5, 0.9, 0.99, 1.0):
        assert counted.quantile(q) == pytest.approx(exact.quantile(q), rel=0.0005)
        assert counted.block_quantiles(q)[0] == pytest.approx(exact.block_quantiles(q)[0], rel=5e-4)
    assert counted.mean() == pytest.approx(exact.mean(), rel=0.0005)


def test_a_bucket_holds_what_no_clock_could_tell_apart(
    call: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No time at all stays no time, and a day is not cut off."""
    monkeypatch.setattr(gaps, "EXACT_VALUES", 0)
    sample = Measured(frame_of_rows([call("x", 0.0, 1.0, 1.0, 86401.0)]).lazy()).sample("icl")
    assert sample.values.tolist() == [0.0, pytest.approx(86400.0, rel=0.0005)]


@pytest.mark.parametrize("name", ["icl", "tbt", "stall"])
def test_calls_without_chunks_end_no_streamed_query(name: str) -> None:
    """Of lists that are all null, polars' difference forgot the type, and panicked."""
    rows = [
        {"call_id": str(n), "status": "ok", "chunk_s": each} for n, each in enumerate((None, []))
    ]
    found = frame_of_rows(rows).lazy().select(METRICS[name].expr).collect(engine="streaming")
    assert found.height == 2
