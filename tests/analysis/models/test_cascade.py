"""The cascade of counts: dispersion at every scale, at other rates, and window by window."""

import numpy as np
import pytest

from servescope.analysis import point_processes
from servescope.analysis.models.cascade import Cascade
from servescope.analysis.sample import Floats

SPAN_S = 6 * 3600.0
SCALES_S = np.array([1.0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def times(process: point_processes.Drawn, seed: int = 1) -> Floats:
    return process.sample(rng(seed), until_s=SPAN_S)


def dispersion(arrivals: Floats, scales_s: Floats) -> Floats:
    """Return variance over mean of the counts at each scale, over windows that begin anywhere."""
    fine = np.bincount((arrivals * 4).astype(np.int64), minlength=int(SPAN_S * 4))
    upto = np.concatenate(([0], np.cumsum(fine)))
    found = np.empty(len(scales_s))
    for k, scale in enumerate(scales_s):
        width = round(scale * 4)
        rows = []
        for begin in {0, width // 4, width // 2, 3 * width // 4}:
            counts = np.diff(upto[begin::width])
            rows.append(counts.var() / counts.mean())
        found[k] = np.mean(rows)
    return found


def drawn_like(cascade: Cascade, arrivals: Floats, seed: int) -> Floats:
    """Draw windows with Poisson counts around those of the arrivals."""
    width = cascade.width_s
    counts = np.bincount((arrivals / width).astype(np.int64))
    keys = rng(seed).integers(0, 2**64, len(counts), np.uint64)
    window, at = cascade.placed(keys, rng(seed + 1).poisson(counts))
    return np.asarray(window * width + at)


def steady(cascade: Cascade, factor: float, scales_s: Floats) -> Floats:
    """Return the dispersion of draws at `factor` times the rate of the fit."""
    rate = MMPP_RATE * factor
    many = 3 if factor <= 1 else 2
    drawn = [cascade.sample(rng(seed), rate, SPAN_S) for seed in range(many)]
    return np.mean([dispersion(at, scales_s) for at in drawn], axis=0)


MMPP = times(point_processes.MMPP((2.0, 10.0), (5.0, 10.0)))
MMPP_RATE = len(MMPP) / SPAN_S
BURSTY = Cascade.fit(MMPP, SPAN_S)
AS_FITTED = steady(BURSTY, 1.0, SCALES_S)


def test_poisson_arrivals_stay_poisson_at_every_scale() -> None:
    cascade = Cascade.fit(times(point_processes.Poisson(5.0)), SPAN_S)
    scales = SCALES_S[:9]
    found = [dispersion(cascade.sample(rng(seed), 5.0, SPAN_S), scales) for seed in range(4)]
    assert np.mean(found, axis=0) == pytest.approx(np.ones(9), abs=0.1)


def test_poisson_arrivals_score_as_those_of_the_exact_law() -> None:
    arrivals, held_out = (times(point_processes.Poisson(5.0), seed) for seed in (1, 2))
    cascade = Cascade.fit(arrivals, SPAN_S)
    exact = len(held_out) * np.log(5.0) - 5.0 * SPAN_S
    score = cascade.log_score(held_out, SPAN_S, 5.0)
    assert score / len(held_out) == pytest.approx(exact / len(held_out), abs=0.002)
    assert Cascade(width_s=600.0, rate_rps=5.0, splits=()).log_score(
        held_out, SPAN_S
    ) == pytest.approx(exact)


def test_bursts_score_better_than_as_independent_calls() -> None:
    held_out = times(point_processes.MMPP((2.0, 10.0), (5.0, 10.0)), 3)
    independent = len(held_out) * np.log(MMPP_RATE) - MMPP_RATE * SPAN_S
    assert BURSTY.log_score(held_out, SPAN_S) - independent > 0.08 * len(held_out)


@pytest.mark.parametrize(
    "process",
    [
        point_processes.MMPP((2.0, 10.0), (20.0, 40.0)),
        point_processes.Hawkes(5.0, 0.7, 0.5),
        point_processes.Hawkes(5.0, 0.8, 2.0),
    ],
)
def test_bursts_keep_their_dispersion_at_every_scale(process: point_processes.Drawn) -> None:
    """Up to a twentieth of the span; there few windows are left, and 20 % are chance."""
    arrivals = times(process, 11)
    cascade = Cascade.fit(arrivals, SPAN_S)
    found = [dispersion(drawn_like(cascade, arrivals, seed), SCALES_S) for seed in range(0, 8, 2)]
    off = np.log(np.mean(found, axis=0) / dispersion(arrivals, SCALES_S))
    assert np.abs(off).mean() < 0.1
    assert np.abs(off[:8]).max() < 0.15
    assert np.abs(off).max() < 0.25


def test_regular_calls_stay_more_regular_than_chance() -> None:
    cascade = Cascade.fit(times(point_processes.Constant(5.0)), SPAN_S)
    found = dispersion(cascade.sample(rng(), 5.0, SPAN_S), SCALES_S[:6])
    assert found.max() < 0.2
    assert any(split.even > 0.9 for split in cascade.splits)


def test_what_a_window_gets_depends_on_its_key_and_count_alone() -> None:
    keys = rng().integers(0, 2**64, 12, np.uint64)
    counts = rng(1).poisson(MMPP_RATE * 600, 12)
    counts[3], counts[5] = 0, 1
    window, at = BURSTY.placed(keys, counts)
    assert np.array_equal(np.bincount(window, minlength=12), counts)
    assert (np.diff(window * 600.0 + at) >= 0).all()
    for cut in (1, 4, 11):
        parts = [BURSTY.placed(keys[s], counts[s]) for s in (slice(0, cut), slice(cut, 12))]
        assert np.array_equal(np.concatenate([part[1] for part in parts]), at)
    backwards = BURSTY.placed(keys[::-1], counts[::-1])
    assert np.array_equal(backwards[1][backwards[0] == 11 - 7], at[window == 7])


def test_times_lie_within_their_window() -> None:
    window, at = BURSTY.placed(np.arange(50, dtype=np.uint64), np.full(50, 2000))
    assert at.min() >= 0
    assert at.max() < BURSTY.width_s
    assert len(at) == 50 * 2000
    assert np.bincount(window).tolist() == [2000] * 50


def test_no_calls_are_placed_nowhere() -> None:
    window, at = BURSTY.placed(np.arange(3, dtype=np.uint64), np.zeros(3, np.int64))
    assert len(window) == len(at) == 0


def test_counts_are_those_of_the_rate() -> None:
    counts = [len(BURSTY.sample(rng(seed), 0.5, 1500.0)) for seed in range(150)]
    assert np.mean(counts) == pytest.approx(750, rel=0.01)


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_busier_clients_raise_the_excess_over_poisson_as_much(factor: float) -> None:
    """Intensity times a: IDC - 1 becomes a (IDC - 1)."""
    scales = SCALES_S[:7]
    found = steady(BURSTY.busier(factor), factor, scales) - 1
    assert found / (AS_FITTED[:7] - 1) == pytest.approx(np.full(7, factor), rel=0.1)


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_more_clients_leave_the_dispersion_alone(factor: float) -> None:
    """Independent copies add variances and means alike."""
    scales = SCALES_S[:7]
    found = steady(BURSTY.crowded(factor), factor, scales)
    assert found == pytest.approx(AS_FITTED[:7], rel=0.06)


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_a_faster_clock_moves_the_dispersion_to_shorter_times(factor: float) -> None:
    """IDC at w becomes what it was at a w."""
    scales = SCALES_S[2:5]
    found = steady(BURSTY.faster(factor), factor, scales)
    same = np.isin(SCALES_S, scales * factor)
    assert found == pytest.approx(AS_FITTED[same], rel=0.06)


def test_arrivals_of_one_instant_are_a_burst_at_every_scale() -> None:
    arrivals = np.sort(np.concatenate([np.full(200, 300.0), np.full(200, 900.0)]))
    cascade = Cascade.fit(arrivals, 1200.0)
    at = cascade.placed(np.arange(4, dtype=np.uint64), np.full(4, 200))[1]
    assert len(at) == 800
    assert np.isfinite(at).all()


def test_few_arrivals_say_nothing_of_bursts() -> None:
    cascade = Cascade.fit(np.array([1.0, 500.0]), 1000.0, 600.0)
    assert len(cascade.sample(rng(), 2.0, 600.0)) == pytest.approx(1200, rel=0.15)
    assert np.isfinite(cascade.log_score(np.array([3.0]), 600.0))
