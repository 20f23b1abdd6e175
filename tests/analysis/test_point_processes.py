"""Arrival processes against their laws: gaps, counts and their dispersion at several scales."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from servescope.analysis.point_processes import (
    MMPP,
    Constant,
    Drawn,
    Gamma,
    Hawkes,
    Immediately,
    Poisson,
    Times,
    Weibull,
)
from servescope.analysis.rate_functions import Piecewise, Ramp
from servescope.traces.errors import InputError

ALL: list[Any] = [
    Immediately(),
    Constant(7),
    Poisson(7),
    Gamma(7, 0.2),
    Gamma(7, math.inf),
    Weibull(7, 0.6),
    MMPP((1, 40), (10, 2)),
    MMPP((1, 0, 40), (10, 3, 2), "random"),
    Hawkes(7, 0.7, 2.0),
    Hawkes(7, 0.0, 2.0),
    Piecewise((0, 10, 10, 30), (1, 9, 0, 7)),
    Ramp(0, 9, 60),
    Ramp(1, 9, 60, "exponential", burstiness=0.5),
]
RANDOM = [process for process in ALL if not isinstance(process, Immediately | Constant)]
every = pytest.mark.parametrize("process", ALL, ids=repr)


def drawn(process: Drawn, seed: int = 1, **bounds: Any) -> Times:
    return process.sample(np.random.default_rng(seed), **bounds)


def dispersion(times: Times, span_s: float, scale_s: float) -> float:
    """Variance over mean of the counts in windows of a length: the index of dispersion."""
    edges = np.arange(0, span_s + scale_s / 2, scale_s)
    counts = np.histogram(times, edges)[0]
    return float(counts.var(ddof=1) / counts.mean())


# --- what all of them promise --------------------------------------------------------------------


@every
def test_the_same_seed_gives_the_same_times_in_order(process: Drawn) -> None:
    times = drawn(process, count=9000)
    assert len(times) == 9000
    assert times.dtype == np.float64
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert (times == drawn(process, count=9000)).all()


@pytest.mark.parametrize("process", RANDOM, ids=repr)
def test_another_seed_gives_other_times(process: Drawn) -> None:
    same = isinstance(process, Gamma) and math.isinf(process.burstiness)
    assert (drawn(process, 1, count=50) == drawn(process, 2, count=50)).all() == same


@every
def test_drawing_more_leaves_the_earlier_times_as_they_were(process: Drawn) -> None:
    many = drawn(process, count=20_000)
    for count in (0, 1, 10, 4096, 4097, 12_000):
        assert (drawn(process, count=count) == many[:count]).all()


@pytest.mark.parametrize("process", ALL[1:], ids=repr)
def test_a_bound_in_time_cuts_the_same_times(process: Drawn) -> None:
    many = drawn(process, count=20_000)
    until_s = float(many[15_000])
    assert (drawn(process, until_s=until_s) == many[many < until_s]).all()
    assert (drawn(process, until_s=until_s, count=10) == many[:10]).all()
    assert len(drawn(process, until_s=0.0)) == 0


@every
def test_times_without_any_bound_are_refused(process: Drawn) -> None:
    for bounds in ({}, {"until_s": math.inf}):
        with pytest.raises(InputError):
            drawn(process, **bounds)


# --- laws ----------------------------------------------------------------------------------------


def test_constant_is_exactly_constant() -> None:
    """A peer calls exponential gaps constant."""
    times = drawn(Constant(3.0), count=100_000)
    assert times.tolist() == [k / 3.0 for k in range(100_000)]


def test_immediately_is_all_at_0_and_needs_a_count() -> None:
    assert drawn(Immediately(), count=5).tolist() == [0, 0, 0, 0, 0]
    assert Immediately().rate_rps == math.inf
    with pytest.raises(InputError, match="endlessly many"):
        drawn(Immediately(), until_s=5)


@pytest.mark.parametrize(
    ("process", "law"),
    [
        (Poisson(5), stats.expon(scale=1 / 5)),
        (Gamma(5, 0.25), stats.gamma(0.25, scale=4 / 5)),
        (Gamma(5, 4), stats.gamma(4, scale=1 / 20)),
        (Weibull(5, 0.5), stats.weibull_min(0.5, scale=1 / 10)),  # gamma(1 + 1 / 0.5) is 2
        (Weibull(5, 2), stats.weibull_min(2, scale=1 / (5 * math.sqrt(math.pi) / 2))),
    ],
)
def test_gaps_have_their_law_and_know_nothing_of_each_other(process: Drawn, law: Any) -> None:
    gaps = np.diff(drawn(process, count=50_001), prepend=0.0)
    assert stats.kstest(gaps, law.cdf).pvalue > 0.01
    assert stats.spearmanr(gaps[1:], gaps[:-1]).pvalue > 0.01
    assert gaps.mean() == pytest.approx(1 / 5, rel=4 * law.std() / law.mean() / 50_001**0.5)


@pytest.mark.parametrize(("burstiness", "cv"), [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5)])
def test_burstiness_is_the_shape_so_the_cv_is_one_over_its_root(
    burstiness: float, cv: float
) -> None:
    gaps = np.diff(drawn(Gamma(5, burstiness), count=200_000))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.02)


def test_infinite_burstiness_is_regular() -> None:
    assert np.diff(drawn(Gamma(4, math.inf), count=100)).tolist() == [0.25] * 99


@pytest.mark.parametrize("scale_s", [1.0, 10.0, 100.0])
def test_poisson_counts_have_dispersion_1_at_every_scale(scale_s: float) -> None:
    span_s = 20_000.0
    got = dispersion(drawn(Poisson(5), until_s=span_s), span_s, scale_s)
    assert got == pytest.approx(1.0, abs=4 * math.sqrt(2 * scale_s / span_s))


@pytest.mark.parametrize("process", [Gamma(5, 0.2), Weibull(5, 0.6)], ids=repr)
def test_counts_of_a_renewal_process_are_dispersed_as_its_gaps_in_the_long_run(
    process: Gamma | Weibull,
) -> None:
    """Cox 1962: the index of dispersion tends to the squared CV of the gaps."""
    if isinstance(process, Gamma):
        squared_cv = 1 / process.burstiness
    else:
        first, second = (math.gamma(1 + k / process.shape) for k in (1, 2))
        squared_cv = second / first**2 - 1
    got = dispersion(drawn(process, until_s=400_000.0), 400_000.0, 200.0)
    assert got == pytest.approx(squared_cv, rel=4 * math.sqrt(2 / 2000))


@pytest.mark.parametrize("scale_s", [0.5, 5.0, 50.0])
def test_mmpp_counts_are_dispersed_as_fischer_and_meier_hellstern_say(scale_s: float) -> None:
    fast, slow, hold_fast, hold_slow = 30.0, 2.0, 2.0, 10.0
    process = MMPP((slow, fast), (hold_slow, hold_fast))
    mean = (fast * hold_fast + slow * hold_slow) / (hold_fast + hold_slow)
    assert process.rate_rps == pytest.approx(mean)
    out_slow, out_fast = 1 / hold_slow, 1 / hold_fast
    both = out_slow + out_fast
    long_run = (
        2 * out_slow * out_fast * (slow - fast) ** 2
        / (both**2 * (slow * out_fast + fast * out_slow))
    )  # fmt: skip
    faded = (1 - math.exp(-both * scale_s)) / (both * scale_s)
    span_s = 200_000.0
    times = drawn(process, until_s=span_s)
    assert len(times) / span_s == pytest.approx(mean, rel=0.02)
    assert dispersion(times, span_s, scale_s) == pytest.approx(1 + long_run * (1 - faded), rel=0.1)


@pytest.mark.parametrize("switch", ["cyclic", "random"])
def test_states_of_an_mmpp_weigh_by_how_long_they_last(switch: Any) -> None:
    process = MMPP((0, 3, 30), (4, 10, 1), switch)
    assert process.rate_rps == pytest.approx(4.0)
    assert len(drawn(process, until_s=100_000)) == pytest.approx(400_000, rel=0.02)


@pytest.mark.parametrize("scale_s", [0.5, 5.0, 100.0])
def test_hawkes_counts_are_dispersed_as_theory_says(scale_s: float) -> None:
    """Hawkes 1971; over long times the index of dispersion tends to 1 / (1 - branching)^2."""
    branching, decay, rate, span_s = 0.6, 2.0, 10.0, 40_000.0
    times = drawn(Hawkes(rate, branching, decay), until_s=span_s)
    long_run, fade = 1 / (1 - branching) ** 2, decay * (1 - branching) * scale_s
    expected = long_run + (1 - long_run) * (1 - math.exp(-fade)) / fade
    assert len(times) / span_s == pytest.approx(rate, rel=0.02)
    got = dispersion(times, span_s, scale_s)
    assert got == pytest.approx(expected, rel=max(0.05, 4 * math.sqrt(2 * scale_s / span_s)))


def test_hawkes_without_followers_is_poisson() -> None:
    gaps = np.diff(drawn(Hawkes(5, 0.0, 1.0), count=20_001), prepend=0.0)
    assert stats.kstest(gaps, stats.expon(scale=1 / 5).cdf).pvalue > 0.01


@pytest.mark.parametrize("process", [MMPP((0, 50), (9, 1)), Hawkes(5, 0.8, 1.0)], ids=repr)
def test_the_first_second_is_like_any_other(process: Drawn) -> None:
    """Begun in the stationary law: neither always in the first state, nor without a past."""
    counts = [len(drawn(process, seed, until_s=1.0)) for seed in range(4000)]
    error = np.std(counts) / math.sqrt(len(counts))
    assert np.mean(counts) == pytest.approx(5.0, abs=4 * error)


def test_followers_come_over_the_border_between_two_pieces() -> None:
    """The correlation of counts is the same across it as within: nothing is lost or doubled."""
    process = Hawkes(10, 0.6, 0.05)
    width_s = 4096 / 10
    before, after = [], []
    for seed in range(300):
        times = drawn(process, seed, until_s=width_s + 10)
        before.append(np.sum((times >= width_s - 10) & (times < width_s)))
        after.append(np.sum(times >= width_s))
    assert np.mean(after) == pytest.approx(np.mean(before), rel=0.05)
    assert np.corrcoef(before, after)[0, 1] > 0.3


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Constant(0), "rate_rps cannot be 0. Give a number above 0."),
        (lambda: Poisson(math.nan), "rate_rps cannot be nan."),
        (lambda: Poisson(math.inf), "rate_rps cannot be inf."),
        (lambda: Gamma(1, 0), "burstiness cannot be 0."),
        (lambda: Gamma(1, math.nan), "burstiness cannot be nan."),
        (lambda: Weibull(1, 0.01), "are nearly all 0. Give 0.1 or more."),
        (lambda: MMPP((1,), (1,)), "make no MMPP"),
        (lambda: MMPP((1, 2), (1, 2, 3)), "2 rates and 3 holds"),
        (lambda: MMPP((0, 0), (1, 2)), "cannot all be 0"),
        (lambda: MMPP((-1, 2), (1, 2)), "rates_rps cannot hold -1"),
        (lambda: MMPP((1, 2), (1, 0)), "hold_s cannot be 0"),
        (lambda: MMPP((1, 2), (1, 1), "often"), "cannot be 'often'"),  # type: ignore[arg-type]
        (lambda: MMPP((1, 2), (1e-9, 1e-9)), "Give a larger hold_s"),
        (lambda: Hawkes(1, 1.0, 1), "branching cannot be 1: starts would set off ever more"),
        (lambda: Hawkes(1, -0.1, 1), "branching cannot be -0.1"),
        (lambda: Hawkes(100, 0.999999, 0.001), "Give a larger decay_per_s"),
    ],
)
def test_parameters_that_make_no_process_are_refused(make: Any, says: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert says in str(error.value)
