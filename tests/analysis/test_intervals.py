"""Intervals of one run: known answers, and how often they hold the truth in a queue."""

import math

import numpy as np
import pytest
from queues import latencies
from scipy import stats

from servescope.analysis import intervals
from servescope.analysis.intervals import FEWEST_PROGRAMS, SECTIONS, Interval
from servescope.analysis.sample import Sample


def test_an_interval_excludes_what_lies_outside_its_bounds() -> None:
    assert Interval(1.0, 0.9, 1.1).excludes(0.89)
    assert Interval(1.0, 0.9, 1.1).excludes(1.11)
    assert not Interval(1.0, 0.9, 1.1).excludes(0.9)


def test_sections_are_equal_in_number_and_in_order_of_time() -> None:
    starts = np.arange(FEWEST_PROGRAMS)[::-1]
    section = intervals.sections_of(starts)
    assert section is not None
    assert np.bincount(section).tolist() == [FEWEST_PROGRAMS // SECTIONS] * SECTIONS
    assert (np.diff(section[::-1]) >= 0).all()


def test_too_few_programs_make_no_sections() -> None:
    assert intervals.sections_of(np.arange(FEWEST_PROGRAMS - 1)) is None
    assert intervals.sections_of(np.arange(10), 2) is not None


def test_a_program_without_a_start_comes_last() -> None:
    starts = np.arange(float(FEWEST_PROGRAMS))
    starts[0] = np.nan
    section = intervals.sections_of(starts)
    assert section is not None
    assert (section[0], section[1]) == (SECTIONS - 1, 0)


@pytest.mark.parametrize(("q", "needed"), [(0.5, 5), (0.9, 29), (0.99, 299), (0.999, 2995)])
def test_a_quantile_needs_so_many_values_that_the_largest_likely_lies_above_it(
    q: float, needed: int
) -> None:
    assert intervals.fewest(q) == intervals.fewest(1 - q) == needed
    assert 1 - q**needed >= 0.95 > 1 - q ** (needed - 1)


def test_the_mean_of_constants_is_sure_and_of_two_sections_is_students() -> None:
    block = np.repeat(np.arange(10), 3)
    assert intervals.of_mean(Sample.of(np.full(30, 2.0), block, 10)) == Interval(2.0, 2.0, 2.0)
    found = intervals.of_mean(Sample.of([-1.0, 1.0], [0, 1], 2))  # not above 0: no logs
    reach = stats.t.ppf(0.975, 1) * math.sqrt(2) / math.sqrt(2)
    assert found == Interval(0.0, pytest.approx(-reach), pytest.approx(reach))


def test_what_cannot_be_cut_or_holds_too_little_has_no_interval() -> None:
    assert intervals.of_mean(Sample.of([1.0, 2.0])) is None
    assert intervals.of_mean(Sample.of([1.0], [0], 2)) is None  # an empty section
    assert intervals.of_quantile(Sample.of(np.arange(50.0)), 0.5) is None
    block = np.repeat(np.arange(10), 29)
    assert intervals.of_quantile(Sample.of(np.arange(290.0), block, 10), 0.99) is None
    assert intervals.of_quantile(Sample.of([], [], 10), 0.5) is None


def test_neighbours_that_are_alike_widen_and_others_do_not() -> None:
    up_and_down = np.array([1.0, -1.0] * 5)
    slow = np.array([1.0] * 5 + [-1.0] * 5)
    assert intervals.alikeness(up_and_down) == 1.0
    assert intervals.alikeness(slow) > 2
    assert intervals.alikeness(np.zeros(10)) == 1.0


def test_an_interval_scales_with_its_values_and_holds_its_estimate() -> None:
    rng = np.random.default_rng(0)
    values, block = rng.lognormal(size=5000), np.repeat(np.arange(10), 500)
    for q in (0.5, 0.9, 0.99):
        once = intervals.of_quantile(Sample.of(values, block, 10), q)
        ten = intervals.of_quantile(Sample.of(values * 10, block, 10), q)
        assert once is not None
        assert ten is not None
        assert (ten.low, ten.high) == pytest.approx((once.low * 10, once.high * 10))
        assert once.low <= once.estimate <= once.high


@pytest.mark.parametrize(
    ("load", "kind", "truth"),
    # of 20 million calls each: benchmarks/coverage.py measures all six regimes with 500 runs
    [(0.3, "poisson", (0.0287, 0.0909, 0.2094)), (0.75, "poisson", (0.1898, 0.6712, 1.398))],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    load: float, kind: str, truth: tuple[float, float, float]
) -> None:
    """Nominal 0.95; 100 runs have a standard error of 0.022."""
    held = np.zeros(3)
    block = np.arange(36_000) * SECTIONS // 36_000
    for replicate in range(100):
        values = latencies(np.random.default_rng([7, replicate]), 36_000, load, kind)
        sample = Sample.of(values, block, SECTIONS)
        for place, (q, true) in enumerate(zip((0.5, 0.9, 0.99), truth, strict=True)):
            found = intervals.of_quantile(sample, q)
            held[place] += found is not None and not found.excludes(true)
    assert (held >= 88).all(), held


def test_intervals_that_take_calls_as_independent_are_far_too_sure() -> None:
    """What the sections are for: order statistics of independent calls, at 75 % load."""
    held = 0
    n, q, true = 36_000, 0.9, 0.6712
    reach = 1.96 * math.sqrt(n * q * (1 - q))
    for replicate in range(100):
        values = np.sort(latencies(np.random.default_rng([7, replicate]), n, 0.75, "poisson"))
        held += values[int(n * q - reach)] <= true <= values[int(n * q + reach)]
    assert held < 60
