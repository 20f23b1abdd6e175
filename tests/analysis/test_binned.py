"""What is thinned to be drawn still shows what was there."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis.binned import peaks, quantiles_over, rate_over, sampled


def test_each_bin_has_the_quantiles_of_its_own_values() -> None:
    calls = pl.DataFrame({"t": [0.0] * 300 + [10.0] * 5, "y": [*range(1, 301), 7, 8, 9, 10, None]})
    table = quantiles_over(calls, "t", "y", bins=2)
    assert table.rows() == [(0.0, 300, 150.0, 270.0, 297.0), (10.0, 4, 8.0, None, None)]


def test_other_quantiles_need_as_many_values_on_either_side() -> None:
    calls = pl.DataFrame({"t": [0.0] * 29 + [10.0] * 28, "y": [*range(1, 30), *range(1, 29)]})
    table = quantiles_over(calls, "t", "y", bins=2, quantiles={"p10": 0.1, "p50": 0.5})
    assert table.rows() == [(0.0, 29, 3.0, 15.0), (10.0, 28, None, 14.0)]


def test_bins_on_a_log_scale_tell_short_from_long() -> None:
    calls = pl.DataFrame({"x": [0, 1, 10, 100, 1000], "y": [1.0, 2.0, 3.0, 4.0, 5.0]})
    table = quantiles_over(calls, "x", "y", bins=3, logarithmic=True)
    assert table["n"].to_list() == [2, 1, 2]


def test_nothing_and_one_value_have_bins_too() -> None:
    nothing = pl.DataFrame(schema={"t": pl.Float64, "y": pl.Float64})
    assert quantiles_over(nothing, "t", "y").is_empty()
    one = pl.DataFrame({"t": [3.0], "y": [4.0]})
    assert quantiles_over(one, "t", "y")["p50"].to_list() == [4.0]
    assert rate_over(nothing["t"]).is_empty()


@pytest.mark.parametrize("span", [0.0, 0.5, 30.0, 5000.0])
def test_rates_over_all_bins_count_every_moment(span: float) -> None:
    moments = pl.Series(np.random.default_rng(0).uniform(10, 10 + span, 1000))
    table = rate_over(moments)
    width = (table["t_s"][1] - table["t_s"][0]) if table.height > 1 else None
    if width:
        assert table["per_s"].sum() * width == pytest.approx(1000)
    assert table.height <= 202


def test_a_thinned_line_keeps_its_ends_and_its_extremes() -> None:
    rng = np.random.default_rng(1)
    moments, values = np.arange(100_000.0), rng.normal(size=100_000)
    values[77_777], values[31_415] = 99.0, -99.0
    few, kept = peaks(moments, values, 500)
    assert len(few) <= 502
    assert (few[0], few[-1], kept.max(), kept.min()) == (0, 99_999, 99.0, -99.0)
    assert (np.diff(few) > 0).all()
    same, _ = peaks(moments[:10], values[:10], 500)
    assert len(same) == 10


def test_sampled_rows_are_spread_and_always_the_same() -> None:
    table = pl.DataFrame({"n": range(1000)})
    assert sampled(table, 10)["n"].to_list() == sampled(table, 10)["n"].to_list()
    assert sampled(table, 10)["n"].to_list()[0::9] == [0, 999]
    assert sampled(table, 5000).height == 1000
