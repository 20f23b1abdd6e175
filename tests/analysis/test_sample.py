"""Samples against what numpy says of the same values written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.analysis.sample import Ranked, Sample

VALUES = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.integers(0, 2), st.integers(1, 4)), min_size=1, max_size=60
)


@given(VALUES, st.sampled_from((0.01, 0.07, 0.5, 0.9, 0.99)))
def test_a_weight_is_the_same_as_so_many_equal_values(
    rows: list[tuple[float, int, int]], q: float
) -> None:
    values, block, weights = (np.array(column) for column in zip(*rows, strict=True))
    sample = Sample.of(values, block, 3, weights)
    written_out, blocks = values.repeat(weights), block.repeat(weights)
    assert len(sample) == len(written_out)
    assert sample.mean() == pytest.approx(written_out.mean(), rel=1e-9, abs=1e-6)
    assert sample.max() == written_out.max()
    expected = np.sort(written_out)[max(0, int(np.ceil(q * len(written_out) - 1e-9)) - 1)]
    assert sample.quantile(q) == expected
    assert sample.sizes().tolist() == np.bincount(blocks, minlength=3).tolist()
    for number, (mean, quantile) in enumerate(
        zip(sample.block_means(), sample.block_quantiles(q)[0], strict=True)
    ):
        inside = written_out[blocks == number]
        if len(inside):
            assert mean == pytest.approx(inside.mean(), rel=1e-9, abs=1e-6)
            assert quantile in inside
        else:
            assert np.isnan(mean)
            assert np.isnan(quantile)


def test_a_quantile_is_the_smallest_value_with_its_share_at_or_below() -> None:
    """Of a hundred values the p7 is the seventh, though 0.07 * 100 is a little more than 7."""
    sample = Sample.of(range(1, 101))
    assert [sample.quantile(q) for q in (0.07, 0.5, 0.99, 1.0)] == [7, 50, 99, 100]
    assert Sample.of([3, 1, 2]).share_above(1) == pytest.approx(2 / 3)


@given(VALUES, st.sampled_from((0, 1, 25, 50, 90, 99, 99.9, 100)))
def test_percentiles_and_deviations_are_those_of_numpy(
    rows: list[tuple[float, int, int]], percent: float
) -> None:
    values, _, weights = (np.array(column) for column in zip(*rows, strict=True))
    sample, written_out = Sample.of(values, weights=weights), values.repeat(weights)
    close = {"rel": 1e-9, "abs": 1e-6}
    assert sample.percentile(percent) == pytest.approx(np.percentile(written_out, percent), **close)
    assert sample.percentile(percent, "lower") == np.percentile(
        written_out, percent, method="lower"
    )
    assert sample.percentile(percent, "order") in written_out
    assert sample.std() == pytest.approx(written_out.std(), **close)
    if len(written_out) > 1:
        assert sample.std(of_sample=True) == pytest.approx(written_out.std(ddof=1), **close)
    assert (sample.min(), sample.sum()) == (
        written_out.min(),
        pytest.approx(written_out.sum(), **close),
    )


def test_one_value_says_nothing_of_how_others_would_spread() -> None:
    assert Sample.of([3.0]).std() == 0
    assert Sample.of([3.0]).std(of_sample=True) is None


def test_nothing_has_no_statistic() -> None:
    nothing = Sample.of([])
    assert len(nothing) == 0
    assert (
        nothing.mean() is nothing.max() is nothing.quantile(0.5) is nothing.share_above(0) is None
    )
    assert nothing.min() is nothing.std() is nothing.percentile(50) is None
    assert nothing.sum() == 0


@pytest.mark.parametrize(("values", "block"), [([float("nan")], None), ([1.0], [2])])
def test_what_is_no_number_or_in_no_block_is_refused(
    values: list[float], block: list[int] | None
) -> None:
    with pytest.raises(ValueError, match=r"a (sample|block)"):
        Sample.of(values, block, 2)


@given(
    st.lists(
        st.tuples(st.none() | st.floats(-1e6, 1e6), st.booleans(), st.integers(0, 2)), max_size=40
    )
)
def test_chosen_rows_of_what_is_ranked_are_a_sample_of_them(
    rows: list[tuple[float | None, bool, int]],
) -> None:
    values = np.array([np.nan if value is None else value for value, _, _ in rows], np.float64)
    chosen = np.array([here for _, here, _ in rows], np.bool_)
    block = np.array([number for _, _, number in rows], np.int8)
    known = chosen & ~np.isnan(values)
    found = Ranked.of(values).sample(chosen, block, 3)
    expected = Sample.of(values[known], block[known], 3)
    assert found.values.tolist() == expected.values.tolist()
    assert found.sizes().tolist() == expected.sizes().tolist()
    means = found.block_means(), expected.block_means()
    assert means[0] == pytest.approx(means[1], nan_ok=True)
    everything = Ranked.of(values).sample(None)
    assert everything.values.tolist() == np.sort(values[~np.isnan(values)]).tolist()
