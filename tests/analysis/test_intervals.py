"""Intervals: known answers, and how often they hold the truth when calls share a queue."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, stats

from servescope.analysis import intervals
from servescope.analysis.intervals import BLOCKS, FEWEST_PROGRAMS, Floats, Interval

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
Arms = Callable[[np.random.Generator, int], tuple[Floats, Floats]]


# --- known answers ---------------------------------------------------------------------------


def test_an_interval_excludes_what_lies_outside_its_bounds() -> None:
    assert Interval(1.0, 0.9, 1.1).excludes(0.89)
    assert Interval(1.0, 0.9, 1.1).excludes(1.11)
    assert not Interval(1.0, 0.9, 1.1).excludes(0.9)


def test_blocks_are_equal_in_number_and_in_order_of_time() -> None:
    starts = np.arange(FEWEST_PROGRAMS)[::-1]
    block = intervals.blocks_of(starts)
    assert block is not None
    assert np.bincount(block).tolist() == [FEWEST_PROGRAMS // BLOCKS] * BLOCKS
    assert (np.diff(block[::-1]) >= 0).all()


def test_too_few_programs_make_no_blocks() -> None:
    assert intervals.blocks_of(np.arange(FEWEST_PROGRAMS - 1)) is None


def test_a_program_without_a_start_comes_last() -> None:
    starts = np.arange(float(FEWEST_PROGRAMS))
    starts[0] = np.nan
    block = intervals.blocks_of(starts)
    assert block is not None
    assert (block[0], block[1]) == (BLOCKS - 1, 0)


def test_every_resample_draws_as_many_blocks_as_there_are_and_the_second_half_draws_pairs() -> None:
    counts = intervals.resampled_counts(seed=0, resamples=50)
    assert counts.shape == (100, BLOCKS)
    assert (counts.sum(axis=1) == BLOCKS).all()
    assert (counts[50:, ::2] == counts[50:, 1::2]).all()
    assert (counts[:50, ::2] != counts[:50, 1::2]).any()
    assert (counts == intervals.resampled_counts(seed=0, resamples=50)).all()
    assert (counts != intervals.resampled_counts(seed=1, resamples=50)).any()


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=60),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
    st.integers(0, 9),
)
def test_a_resampled_quantile_is_the_order_statistic_of_the_values_written_out(
    numbers: list[int], q: float, seed: int
) -> None:
    """As numpy's inverted CDF of the resample with every value repeated as often as drawn."""
    values = np.array(numbers, dtype=float)
    block = np.random.default_rng(seed).integers(0, BLOCKS, len(values))
    counts = intervals.resampled_counts(seed, resamples=3)
    found = intervals.quantiles(values, block, counts, q)
    for row, drawn in enumerate(counts):
        written_out = values.repeat(drawn[block])
        if len(written_out):
            assert found[row] == np.quantile(written_out, q, method="inverted_cdf")
        else:
            assert np.isnan(found[row])


def test_resampled_means_weigh_values_not_blocks() -> None:
    """Block 0 holds 1 and 3, block 1 holds 8: drawn twice and once they make (4 + 4 + 8) / 5."""
    counts = np.array([[2, 1], [0, 1]])
    means = intervals.means(np.array([1.0, 3.0, 8.0]), np.array([0, 0, 1]), counts)
    assert means.tolist() == [16 / 5, 8]


def test_a_resample_without_a_value_has_neither_mean_nor_quantile() -> None:
    counts, value, block = np.array([[0, 2]]), np.array([1.0]), np.array([0])
    assert np.isnan(intervals.means(value, block, counts)[0])
    assert np.isnan(intervals.quantiles(value, block, counts, 0.5)[0])


def test_no_values_at_all_have_no_quantile() -> None:
    nothing = np.array([], dtype=float)
    found = intervals.quantiles(nothing, nothing.astype(np.intp), np.array([[1, 1]]), 0.5)
    assert np.isnan(found).all()


def test_the_wider_of_singles_and_pairs_gives_the_interval() -> None:
    """Two resamples of each kind at -x and +x have a standard error of sqrt(2) x."""
    singles, pairs = (
        stats.t.ppf(0.975, n - 1) * math.sqrt(2) * math.sqrt(n / (n - 1)) for n in (8, 4)
    )
    wide_singles = intervals.around(5.0, np.array([4.0, 6.0, 5.0, 5.0]))
    wide_pairs = intervals.around(5.0, np.array([5.0, 5.0, 4.0, 6.0]))
    assert wide_singles is not None
    assert wide_pairs is not None
    assert wide_singles.high - 5 == pytest.approx(5 - wide_singles.low) == pytest.approx(singles)
    assert wide_pairs.high - 5 == pytest.approx(pairs)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_has_no_interval(bad: float) -> None:
    assert intervals.around(bad, np.array([1.0, 1.0])) is None
    assert intervals.around(1.0, np.array([1.0, bad])) is None


def test_a_ratio_of_constants_is_sure() -> None:
    two, three = np.full(4, 2.0), np.full(4, 3.0)
    found = intervals.ratio(2.0, 3.0, two, three)
    assert found is not None
    assert (found.low, found.estimate, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_a_ratio_and_its_inverse_have_inverse_bounds() -> None:
    a, b = np.array([1.0, 2.0, 2.0, 2.5]), np.array([3.0, 3.0, 5.0, 4.0])
    there, back = intervals.ratio(2.0, 4.0, a, b), intervals.ratio(4.0, 2.0, b, a)
    assert there is not None
    assert back is not None
    assert (there.low, there.high) == pytest.approx((1 / back.high, 1 / back.low))


def test_a_ratio_with_a_zero_in_it_has_no_interval() -> None:
    ones, zero = np.ones(4), np.array([1.0, 1.0, 0.0, 1.0])
    assert intervals.ratio(0.0, 1.0, ones, ones) is None
    assert intervals.ratio(1.0, 0.0, ones, ones) is None
    assert intervals.ratio(1.0, 1.0, zero, ones) is None
    assert intervals.ratio(1.0, 1.0, ones, zero) is None


# --- coverage: docs/explanation/comparing.md tells what 300 replicates of these measured ----------


def modulated(rng: np.random.Generator, programs: int) -> tuple[Floats, Floats]:
    """Lognormal latencies that swell and ebb over some 20 programs; B takes 0.9 of A's time.

    Half of the slow movement is common to both arms, some is each arm's own.
    """
    burn, phi = 200, 0.9
    noise = rng.standard_normal((3, programs + burn)) * math.sqrt(1 - phi * phi)
    common, of_a, of_b = signal.lfilter([1], [1, -phi], noise)[:, burn:]
    quick = rng.standard_normal((2, programs))
    a, b = (
        np.exp(0.5 * common + 0.25 * own + 0.5 * quick[i]) for i, own in enumerate((of_a, of_b))
    )
    return a, 0.9 * b


def modulated_truth() -> dict[str, float]:
    """Both arms are lognormal with variance 0.5^2 + 0.25^2 + 0.5^2 of the logarithm."""
    within = stats.norm(0, 0.75).cdf(np.log([2.5, 2.5 / 0.9]))
    return {"mean": 0.9, "p50": 0.9, "p99": 0.9, "share": float(within[1] - within[0])}


def queues(speed: float) -> Arms:
    """One server at 70 % load, first come, first served; B's is `speed` times as fast.

    The same arrivals and demands in both; the service takes 10 % of noise in either.
    """

    def arms(rng: np.random.Generator, programs: int) -> tuple[Floats, Floats]:
        burn = 3000
        gaps = rng.exponential(1 / 0.7, programs + burn)
        demand = rng.lognormal(-0.32, 0.8, programs + burn)
        found = []
        for arm_speed in (1.0, speed):
            service = demand / arm_speed * rng.lognormal(-0.005, 0.1, programs + burn)
            steps = np.concatenate([[0.0], service[:-1] - gaps[1:]])
            walk = np.cumsum(steps)  # Lindley: the wait is the walk above its lowest so far
            found.append((walk - np.minimum.accumulate(walk) + service)[burn:])
        return found[0], found[1]

    return arms


NO_DIFFERENCE = {"mean": 1.0, "p50": 1.0, "p99": 1.0, "share": 0.0}


def coverage(
    arms: Arms,
    truth: dict[str, float],
    within: float,
    programs: int,
    replicates: int,
    resamples: int,
) -> dict[str, float]:
    """Return how often the 95 % interval of each statistic held the truth."""
    block = intervals.blocks_of(np.arange(programs))
    assert block is not None
    once = np.ones((1, BLOCKS), dtype=np.int64)
    held = dict.fromkeys(truth, 0)
    for replicate in range(replicates):
        a, b = arms(np.random.default_rng([replicate, programs]), programs)
        counts = intervals.resampled_counts(replicate, resamples)
        for statistic, true in truth.items():

            def drawn(values: Floats, by: intervals.Counts, of: str = statistic) -> Floats:
                if of in SHARES:
                    return intervals.quantiles(values, block, by, SHARES[of])
                return intervals.means(values, block, by)

            if statistic == "share":
                met = [(arm < within).astype(float) for arm in (a, b)]
                less = drawn(met[1], counts) - drawn(met[0], counts)
                found = intervals.around(met[1].mean() - met[0].mean(), less)
            else:
                at, bt = (float(drawn(arm, once)[0]) for arm in (a, b))
                found = intervals.ratio(at, bt, drawn(a, counts), drawn(b, counts))
            held[statistic] += found is not None and not found.excludes(true)
    return {statistic: count / replicates for statistic, count in held.items()}


@pytest.mark.parametrize("programs", [60, 300, 1000])
def test_intervals_hold_the_truth_as_often_as_they_say(programs: int) -> None:
    """Nominal 0.95; 200 replicates have a standard error of about 0.02."""
    found = coverage(modulated, modulated_truth(), 2.5, programs, replicates=200, resamples=150)
    for statistic, share in found.items():
        assert 0.88 <= share < 1, statistic


@pytest.mark.parametrize("programs", [300, 1000])
def test_two_equal_servers_are_rarely_told_apart(programs: int) -> None:
    found = coverage(queues(1.0), NO_DIFFERENCE, 5.0, programs, replicates=200, resamples=150)
    for statistic, share in found.items():
        assert share >= 0.91, statistic


def test_a_queue_whose_server_is_faster_is_held_less_often_than_nominal() -> None:
    """The truth is that of three million calls of `queues(1.1)`."""
    truth = {"mean": 0.751, "p50": 0.751, "p99": 0.756, "share": 0.0805}
    found = coverage(queues(1.1), truth, 5.0, 300, replicates=200, resamples=150)
    for statistic, share in found.items():
        assert share >= 0.84, statistic


def test_independent_resampling_would_be_far_too_sure() -> None:
    """What the blocks are for: the textbook interval of a ratio of means holds the truth rarely."""
    held = 0
    for replicate in range(100):
        a, b = modulated(np.random.default_rng(replicate), 300)
        error = math.sqrt(a.var() / a.mean() ** 2 / 300 + b.var() / b.mean() ** 2 / 300)
        held += abs(math.log(b.mean() / a.mean()) - math.log(0.9)) < 1.96 * error
    blocks = coverage(modulated, {"mean": 0.9}, 2.5, 300, replicates=100, resamples=150)["mean"]
    assert held / 100 < 0.85 < blocks
