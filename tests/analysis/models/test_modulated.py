"""A rate that jumps among states: exact scores, and what is found again of planted states."""

import math

import msgspec
import numpy as np
import pytest
from scipy import linalg

from servescope.analysis.models.modulated import Modulated
from servescope.analysis.models.renewal import Poisson
from servescope.analysis.point_processes import MMPP
from servescope.traces.errors import InputError

TWO = Modulated(levels=(0.2, 3.4), hold_s=(15.0, 5.0), jumps=((0.0, 1.0), (1.0, 0.0)))
THREE = Modulated(
    levels=(0.1, 1.0, 4.0),
    hold_s=(10.0, 6.0, 3.0),
    jumps=((0.0, 0.8, 0.2), (0.5, 0.0, 0.5), (0.1, 0.9, 0.0)),
)


def test_the_score_is_that_of_the_matrix_exponential() -> None:
    rate, width = 3.0, 4.0
    at = np.array([0.3, 0.35, 1.9, 3.2])
    shares, levels, generator = THREE._law()
    rates = np.diag(rate * levels)
    state, now = shares, 0.0
    for time in at:
        state = state @ linalg.expm((generator - rates) * (time - now)) @ rates
        now = time
    state = state @ linalg.expm((generator - rates) * (width - now))
    assert THREE.log_score(at, width, rate) == pytest.approx(math.log(state.sum()))
    assert THREE.log_score(at[:0], width, rate) == pytest.approx(
        math.log((shares @ linalg.expm((generator - rates) * width)).sum())
    )


@pytest.mark.parametrize("shape", [TWO, THREE])
def test_windows_begin_in_the_stationary_law(shape: Modulated) -> None:
    random = np.random.default_rng(0)
    counts = [len(shape.sample(random, 5.0, 2.0)) for _ in range(2000)]
    assert np.mean(counts) == pytest.approx(10, abs=4 * np.std(counts) / math.sqrt(2000))


def test_two_states_are_found_again() -> None:
    at = MMPP((20.0, 1.0), (5.0, 15.0)).sample(np.random.default_rng(3), until_s=2500.0)
    found = Modulated.fit(at, 2500.0, 2500.0)
    assert len(found.levels) == 2
    assert found.levels[1] / found.levels[0] == pytest.approx(20, rel=0.15)
    assert found.hold_s == pytest.approx((15.0, 5.0), rel=0.3)
    truth = Modulated(levels=(1.0, 20.0), hold_s=(15.0, 5.0), jumps=((0.0, 1.0), (1.0, 0.0)))
    rate = len(at) / 2500
    assert found.log_score(at, 2500.0, rate) > truth.log_score(at, 2500.0, rate) - 0.002 * len(at)


def test_independent_arrivals_have_no_states_to_speak_of() -> None:
    at = Poisson().sample(np.random.default_rng(0), 5.0, 1000.0)
    found = Modulated.fit(at, 1000.0)
    gain = found.log_score(at, 1000.0, 5.0) - Poisson().log_score(at, 1000.0, 5.0)
    assert abs(gain) < 10


def test_a_saved_shape_draws_the_same() -> None:
    again = msgspec.json.decode(msgspec.json.encode(THREE), type=Modulated)
    first, second = (shape.sample(np.random.default_rng(1), 5.0, 100.0) for shape in (THREE, again))
    assert (first == second).all()


def test_states_that_do_not_agree_are_refused() -> None:
    with pytest.raises(InputError):
        Modulated(levels=(1.0, 2.0), hold_s=(1.0,), jumps=((0.0, 1.0), (1.0, 0.0)))
    with pytest.raises(InputError):
        Modulated(levels=(0.0, 0.0), hold_s=(1.0, 1.0), jumps=((0.0, 1.0), (1.0, 0.0)))
    with pytest.raises(InputError):
        Modulated.fit(np.arange(5.0), 10.0)
