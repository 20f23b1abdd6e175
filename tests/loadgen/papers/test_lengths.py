import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen.papers.lengths import Lengths, Lognormal, Quantiles, Zipf, tokens

EVEN = (np.arange(400_000) + 0.5) / 400_000
PUBLISHED = Quantiles(((0, 10), (0.5, 100), (0.9, 900), (1, 1000)))


@pytest.mark.parametrize(
    "law",
    [
        Lognormal.of(925, 900),
        PUBLISHED,
        Zipf(1.5, 511, 14.7, 6144),
        Zipf(1.1, 1024, tail=True),
    ],
)
def test_a_mean_and_a_deviation_are_those_of_what_the_quantiles_give(law: Lengths) -> None:
    drawn = law.quantile(EVEN)
    assert drawn.mean() == pytest.approx(law.mean, rel=2e-3)
    assert drawn.std() == pytest.approx(law.sd, rel=2e-2)


def test_a_lognormal_of_a_mean_and_a_deviation_has_them() -> None:
    law = Lognormal.of(0.925, 3.550)
    assert (law.mean, law.sd) == pytest.approx((0.925, 3.550))
    assert law.sigma == pytest.approx(1.66, abs=0.005)  # as Continuum's tools have it


def test_published_percentiles_come_out_as_they_are() -> None:
    assert PUBLISHED.quantile(np.array([0.5, 0.9])) == pytest.approx([100, 900])
    assert PUBLISHED.quantile(np.array([0.25])) == pytest.approx([math.sqrt(10 * 100)])


def test_one_stretch_even_in_the_logarithm_has_the_moments_of_the_reciprocal_law() -> None:
    """Of density 1 / (x ln(b / a)) on a..b the mean is (b - a) / ln(b / a)."""
    law = Quantiles(((0, 1), (1, math.e)))
    assert law.mean == pytest.approx(math.e - 1)
    assert law.sd == pytest.approx(math.sqrt((math.e**2 - 1) / 2 - (math.e - 1) ** 2))


def test_a_clipped_zipf_has_the_chance_of_all_that_is_beyond_at_its_end() -> None:
    """Of all whole numbers of a Zipf law of exponent 2, 6 / pi^2 are 1."""
    law = Zipf(2.0, 3, tail=True)
    share = 6 / math.pi**2
    drawn = law.quantile(np.array([share - 1e-9, share + 1e-9, 1.25 * share + 1e-9]))
    assert drawn.tolist() == [1, 2, 3]
    assert law.mean == pytest.approx(share + 2 * share / 4 + 3 * (1 - 1.25 * share))


def test_llumnix_zipf_is_scaled_to_its_mean_before_it_is_cut() -> None:
    uncut = Zipf.of(128, 2.0, 10**9)
    assert 128 <= uncut.mean <= 129  # lengths are rounded up
    assert Zipf.of(128, 2.0, 6144).mean < uncut.mean


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 500))
def test_tokens_are_whole_and_within_bounds(share: float, most: int) -> None:
    (drawn,) = tokens(Lognormal.of(100, 400), np.array([share]), most).tolist()
    assert isinstance(drawn, int)
    assert 1 <= drawn <= most
