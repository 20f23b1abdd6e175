"""What follows what: transitions come back, and rare ones are not kept."""

import numpy as np
import pytest

from servescope.analysis.models.succession import Succession


def test_shares_and_transitions_come_back() -> None:
    rng = np.random.default_rng(0)
    known = Succession(first=(0.7, 0.3), after=((0.9, 0.1), (0.4, 0.6)))
    states = [known.begin(rng.random(2000))]
    states += [states[-1]]
    for step in range(1, 10):
        following = known.follow(states[step], rng.random(2000))
        states.append(following)
    walked = np.stack(states[1:], axis=1).ravel()
    found = Succession.fit(walked, np.repeat(np.arange(2000), 10), 2)
    assert found.first == pytest.approx(known.first, abs=0.03)
    for row, other in zip(found.after, known.after, strict=True):
        assert row == pytest.approx(other, abs=0.02)


def test_steps_that_are_seldom_never_come() -> None:
    states = np.array([0, 0] * 50 + [0, 1] * 5)
    found = Succession.fit(states, np.repeat(np.arange(55), 2), 2, min_count=10)
    assert found.after[0] == (1.0, 0.0)
    assert found.after[1] == (1.0, 0.0)
