import numpy as np
import pytest

from servescope.analysis.buckets import BOUNDS_S, BUCKETS, Buckets, bucket_of, quantile_of


def test_bounds_name_the_powers_of_ten_and_are_no_wider_than_said() -> None:
    for power in range(-5, 4):
        assert 10.0**power in BOUNDS_S
    assert (BOUNDS_S[1:] / BOUNDS_S[:-1]).max() < 1.0234
    assert (BOUNDS_S[6::6] / BOUNDS_S[:-6:6]).max() < 1.15


def test_a_bound_belongs_to_the_bucket_that_it_closes() -> None:
    bound = BOUNDS_S[300]
    below, at, above = bucket_of(np.array([np.nextafter(bound, 0), bound, np.nextafter(bound, 1)]))
    assert (below, at, above) == (300, 300, 301)
    assert bucket_of(np.array([-1.0, 0.0, 1e9])).tolist() == [0, 0, BUCKETS - 1]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_is_the_order_statistic_to_one_and_a_quarter_percent(share: float) -> None:
    values = np.random.default_rng(5).lognormal(-3, 2, 5000).clip(2e-5, 900)
    durations = Buckets()
    for part in np.array_split(values, 7):
        durations.add(part)
    exact = np.quantile(values, share, method="inverted_cdf")
    assert durations.quantile(share) == pytest.approx(exact, rel=0.0125)
    assert len(durations) == 5000
    assert durations.sum_s == pytest.approx(values.sum())
    assert durations.longest_s == values.max()


def test_every_row_of_counts_has_its_own_quantile_and_nothing_has_none() -> None:
    counts = np.zeros((3, BUCKETS), dtype=np.uint32)
    counts[0, bucket_of(np.full(100, 0.05))] = 100
    counts[2] = np.bincount(bucket_of(np.array([0.1, 0.1, 7.0])), minlength=BUCKETS)
    median = quantile_of(counts, 0.5)
    assert median[[0, 2]] == pytest.approx([0.05, 0.1], rel=0.0125)
    assert np.isnan(median[1])
    assert quantile_of(counts, 0.99)[2] == pytest.approx(7.0, rel=0.0125)
    assert Buckets().quantile(0.5) is None


def test_the_outermost_buckets_say_their_bound_and_never_more_than_the_longest() -> None:
    durations = Buckets()
    durations.add(np.array([0.0, 2e-6]))
    assert durations.quantile(0.5) == 2e-6
    durations.add(np.array([5000.0]))
    assert durations.quantile(0.99) == 1000.0
