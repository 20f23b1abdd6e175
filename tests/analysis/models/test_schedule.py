"""Rates of windows: how a span is cut, what small windows share, and where rates begin again."""

import math

import numpy as np
import pytest

from servescope.analysis.models.schedule import Schedule, width_for
from servescope.traces.errors import InputError

DAY_S = 86_400.0


def test_an_hour_is_cut_into_six_windows_that_have_their_rates() -> None:
    counts = [60, 600, 120, 30, 0, 90]
    starts = np.concatenate([600 * k + np.linspace(1, 599, n) for k, n in enumerate(counts)])
    schedule = Schedule.fit(starts, 3600.0, exact=True)
    assert schedule.window_s == pytest.approx(600, rel=1e-5)
    assert schedule.rates_rps == pytest.approx([0.1, 1.0, 0.2, 0.05, 0.0, 0.15], rel=1e-4)
    assert schedule.mean_rps == pytest.approx(0.25, rel=1e-4)


@pytest.mark.parametrize("span_s", [1.0, 599.0, 3599.9, 3600.0, 4000.0, 86_399.0])
def test_windows_cut_less_than_a_day_into_equal_parts(span_s: float) -> None:
    """They are ten minutes long, or as near to it as equal parts allow."""
    width = width_for(10**6, span_s)
    assert span_s / width == pytest.approx(max(1, round(span_s / 600)), rel=1e-4)
    assert width * round(span_s / width) >= span_s


@pytest.mark.parametrize("window_s", [None, 60.0, 601.0, 1000.0, 5000.0, 80_000.0])
def test_windows_cut_a_day_into_equal_parts(window_s: float | None) -> None:
    width = width_for(10**6, 3.3 * DAY_S, window_s)
    assert DAY_S / width == pytest.approx(round(DAY_S / width))
    assert width >= (window_s or 600.0)


def test_windows_that_were_asked_for_are_kept_where_they_part_a_day() -> None:
    assert width_for(10**6, 2 * DAY_S, 1200.0) == 1200.0
    assert width_for(10**6, 5 * DAY_S, 100_000.0) == 2 * DAY_S


def test_windows_of_rare_programs_hold_twenty_on_average() -> None:
    assert width_for(200, 3600.0 * 10) == pytest.approx(3600, rel=1e-4)


def test_neighbours_share_their_rate_until_they_hold_enough() -> None:
    """Of 4, 4, 4, 0, 0, 25 and 3 programs the first three share, and the last ones."""
    counts = [4, 4, 4, 0, 0, 25, 3]
    starts = np.concatenate([600 * k + np.linspace(1, 599, n) for k, n in enumerate(counts)])
    schedule = Schedule.fit(starts, 4200.0, window_s=600.0, min_count=10, exact=True)
    rate = np.array(schedule.rates_rps) * 600
    assert rate == pytest.approx([4, 4, 4, 0, 0, 14, 14], rel=1e-4)


def test_no_rate_rests_on_few_programs() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        counts = rng.poisson(rng.gamma(0.5, 8.0, 40))
        starts = np.concatenate(
            [60 * k + np.sort(rng.uniform(0, 60, n)) for k, n in enumerate(counts)]
        )
        schedule = Schedule.fit(starts, 2400.0, window_s=60.0, min_count=10, exact=True)
        rates = np.array(schedule.rates_rps)
        assert rates.sum() * schedule.window_s == pytest.approx(len(starts), rel=1e-3)
        edges = np.flatnonzero(np.diff(rates)) + 1
        for group in np.split(counts, edges):
            assert group.sum() >= 10 or group.sum() == 0


def test_a_last_window_that_is_cut_short_has_the_rate_of_what_it_covers() -> None:
    width = DAY_S / 144
    starts = np.arange(0, DAY_S + width / 2, 1.0)
    schedule = Schedule.fit(starts, DAY_S + width / 2)
    assert schedule.rates_rps == pytest.approx(np.ones(145), rel=0.01)


def test_rates_begin_again_after_the_last_whole_day() -> None:
    """Hours of the day stay hours of the day: a day and a half begins again after the day."""
    rates = tuple(float(k) for k in range(36))
    schedule = Schedule(window_s=3600.0, rates_rps=rates)
    assert schedule.cycle == 24
    assert schedule.span_s == DAY_S
    assert schedule.rates(np.array([0, 23, 24, 35, 36, 48, -1])).tolist() == [
        0.0, 23.0, 24.0, 35.0, 12.0, 0.0, 23.0,
    ]  # fmt: skip


def test_less_than_a_day_begins_again_where_it_ends() -> None:
    schedule = Schedule(window_s=600.0, rates_rps=(1.0, 2.0, 3.0))
    assert schedule.cycle == 3
    assert schedule.place(np.array([0, 2, 3, 7, -1])).tolist() == [0, 2, 0, 1, 2]


def test_another_rate_a_faster_clock_and_no_course() -> None:
    schedule = Schedule(window_s=600.0, rates_rps=(1.0, 3.0), exact=True)
    assert schedule.scaled(2.0) == Schedule(window_s=600.0, rates_rps=(2.0, 6.0), exact=True)
    assert schedule.faster(2.0) == Schedule(window_s=300.0, rates_rps=(2.0, 6.0), exact=True)
    assert schedule.flat() == Schedule(window_s=600.0, rates_rps=(2.0,))


def test_counts_are_poisson_around_the_rate_or_just_that() -> None:
    schedule = Schedule(window_s=10.0, rates_rps=(0.5, 2.0))
    windows = np.arange(20_000)
    rngs = [np.random.default_rng(window) for window in windows]
    counts = schedule.counts(windows, rngs)
    for first, mean in ((0, 5.0), (1, 20.0)):
        assert counts[first::2].mean() == pytest.approx(mean, rel=0.02)
        assert counts[first::2].var() == pytest.approx(mean, rel=0.05)
    exact = Schedule.fit(np.linspace(0, 3599, 1234), 3600.0, exact=True)
    found = exact.counts(np.arange(6), [])
    assert found.sum() == 1234


@pytest.mark.parametrize(
    ("window_s", "rates"),
    [(0.0, (1.0,)), (math.inf, (1.0,)), (600.0, ()), (600.0, (-1.0,)), (600.0, (math.inf,)),
     (600.0, (math.nan,)), (math.nan, (1.0,))],
)  # fmt: skip
def test_a_schedule_that_makes_no_sense_is_refused(window_s: float, rates: tuple[float]) -> None:
    with pytest.raises(InputError, match="windows longer than 0 s") as error:
        Schedule(window_s=window_s, rates_rps=rates)
    assert "window_s" in error.value.mend


def test_drawn_counts_vary_as_those_of_the_trace_do() -> None:
    """Poisson counts around counts would vary twice as much as a Poisson process does."""
    ratios = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        starts = np.sort(rng.uniform(0, 60_000, 6000))
        schedule = Schedule.fit(starts, 60_000.0)
        windows = np.arange(100)
        drawn = [schedule.counts(windows, [rng] * 100) for _ in range(20)]
        ratios.append(np.var(drawn) / np.mean(drawn))
    assert np.mean(ratios) == pytest.approx(1, abs=0.15)


def test_windows_without_programs_stay_without() -> None:
    starts = np.concatenate([np.linspace(0, 599, 300), np.linspace(1201, 1799, 200)])
    assert Schedule.fit(starts, 1800.0).rates_rps[1] == 0
