"""Renewal shapes: their laws, what is fitted of them, and how a window begins."""

import math

import msgspec
import numpy as np
import pytest
from scipy import integrate

from servescope.analysis.models.renewal import Law, Poisson, Renewal, WindowedRenewal
from servescope.traces.errors import InputError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


SHAPES = [
    Renewal(gaps="gamma", shape=0.3),
    Renewal(gaps="gamma", shape=4.0),
    Renewal(gaps="weibull", shape=0.5),
    Renewal(gaps="exponential", shape=1.0),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_window_has_as_many_arrivals_as_the_rate_says(shape: Renewal) -> None:
    """A stationary renewal process has the expected count rate x width in any window."""
    random = rng()
    counts = [len(shape.sample(random, 5.0, 0.4)) for _ in range(20_000)]
    assert np.mean(counts) == pytest.approx(2.0, abs=4 * np.std(counts) / math.sqrt(len(counts)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_chances_of_all_windows_add_up_to_one(shape: Renewal) -> None:
    """No arrival, one or two in a short window: their probabilities are nearly all there is."""
    width, rate = 0.05, 2.0

    def density(*times: float) -> float:
        return math.exp(shape.log_score(np.array(sorted(times)), width, rate))

    none = density()
    one = integrate.quad(density, 0, width)[0]
    counts = [len(shape.sample(rng(seed), rate, width)) for seed in range(20_000)]
    assert none == pytest.approx(np.mean(np.equal(counts, 0)), abs=0.01)
    assert one == pytest.approx(np.mean(np.equal(counts, 1)), abs=0.01)


def test_exponential_gaps_score_as_a_poisson_process() -> None:
    at = Poisson().sample(rng(), 3.0, 50.0)
    expected = Poisson().log_score(at, 50.0, 2.5)
    for gaps in ("gamma", "weibull", "exponential"):
        assert Renewal(gaps=gaps, shape=1.0).log_score(at, 50.0, 2.5) == pytest.approx(expected)
    assert expected == pytest.approx(len(at) * math.log(2.5) - 125)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_the_shape_is_found_again_whatever_the_rate_of_windows(shape: Renewal) -> None:
    random = rng(1)
    parts = [
        600 * k + shape.sample(random, rate, 600.0)
        for k, rate in enumerate((2.0, 8.0, 4.0, 16.0, 1.0))
    ]
    found = Renewal.fit(np.concatenate(parts), 3000.0, 600.0, gaps=shape.gaps)
    assert found.shape == pytest.approx(shape.shape, rel=0.05)


def test_gamma_gaps_can_have_the_cv_that_was_seen() -> None:
    at = np.cumsum(rng().lognormal(0, 1, 50_000))
    gaps = np.diff(at)
    assert Renewal.of_cv(at).cv == pytest.approx(gaps.std() / gaps.mean(), rel=1e-4)


def test_filled_windows_have_the_count_that_was_asked_for() -> None:
    at = Renewal(gaps="gamma", shape=0.2).filled(rng(), 40, 600.0)
    assert len(at) == 40
    assert 0 < at[0] <= at[-1] < 600.0


def test_each_window_has_the_law_that_it_was_drawn_from() -> None:
    truth = WindowedRenewal(
        window_s=600.0,
        laws=(
            Law(gaps="gamma", shape=0.25, windows=2),
            Law(gaps="exponential", shape=1.0, windows=2),
            Law(gaps="weibull", shape=0.5, windows=1),
        ),
    )
    random = rng(2)
    at = np.concatenate([600 * k + truth.at(k).sample(random, 2.0, 600.0) for k in range(5)])
    found = WindowedRenewal.fit(at, 3000.0)
    assert [found.at(k).gaps for k in (0, 1, 4)] == ["gamma", "gamma", "weibull"]
    assert [found.at(k).cv for k in range(5)] == pytest.approx(
        [truth.at(k).cv for k in range(5)], rel=0.3
    )
    assert found.at(5) == found.at(0)


def test_sparse_windows_are_joined_until_they_say_enough() -> None:
    at = Poisson().sample(rng(), 0.02, 60_000.0)  # 12 a window
    found = WindowedRenewal.fit(at, 60_000.0, fewest=50)
    assert sum(law.windows for law in found.laws) == 100
    assert min(law.windows for law in found.laws) >= 2


def test_a_mixture_of_laws_scores_better_than_one_of_them() -> None:
    laws = (Law(gaps="gamma", shape=0.2, windows=1), Law(gaps="gamma", shape=5.0, windows=1))
    shape = WindowedRenewal(window_s=600.0, laws=laws)
    at = shape.sample(rng(4), 1.0, 6000.0)
    score = shape.log_score(at, 6000.0, 1.0)
    assert all(score > law.renewal().log_score(at, 6000.0, 1.0) for law in laws)


def test_a_saved_shape_is_the_same() -> None:
    for shape in (
        *SHAPES,
        WindowedRenewal(window_s=600.0, laws=(Law(gaps="gamma", shape=0.5, windows=3),)),
    ):
        again = msgspec.json.decode(msgspec.json.encode(shape), type=type(shape))
        assert again == shape
        assert (again.sample(rng(), 2.0, 60.0) == shape.sample(rng(), 2.0, 60.0)).all()


@pytest.mark.parametrize("at", [np.arange(5.0), np.full(100, 3.0), np.arange(100.0) + 90])
def test_what_says_too_little_is_refused(at: np.ndarray) -> None:
    with pytest.raises(InputError):
        Renewal.fit(at, 100.0)
    with pytest.raises(InputError):
        WindowedRenewal.fit(at, 100.0)


@pytest.mark.parametrize(
    "laws",
    [
        "[]",
        '[{"gaps":"gamma","shape":0,"windows":1}]',
        '[{"gaps":"gamma","shape":1,"windows":0}]',
    ],
)
def test_laws_that_make_no_sense_are_refused(laws: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(
            f'{{"type":"windowed_renewal","window_s":600,"laws":{laws}}}', type=WindowedRenewal
        )


def test_a_stream_keeps_the_laws_of_its_windows() -> None:
    regular, bursty = (Law(gaps="gamma", shape=s, windows=2) for s in (25.0, 0.1))
    shape = WindowedRenewal(window_s=600.0, laws=(regular, bursty))
    assert shape.windows == 4
    assert [law.shape for law in shape.each(np.array([0, 1, 2, 3, 4, 7]))] == [
        *(25.0, 25.0, 0.1, 0.1, 25.0, 0.1)
    ]
