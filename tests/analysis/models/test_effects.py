"""What calls share: an effect of the program and what is carried on are told apart."""

import numpy as np
import pytest
from scipy.special import ndtr

from servescope.analysis.models.effects import Effects
from servescope.analysis.sample import Floats, Ints


def scores_of(known: Effects, calls: int, programs: int) -> tuple[Floats, Floats, Ints]:
    """Draw scores of programs of as many calls each, ordered by program."""
    rng = np.random.default_rng(0)
    lengths = rng.normal(size=programs)
    many = len(known.length)
    level = np.tile(np.repeat(lengths[:, None], many, axis=1), (calls, 1))
    drawn = known.sample(rng, level, [programs] * calls)
    order = np.arange(calls * programs).reshape(calls, programs).T.ravel()
    return drawn[order], level[order], np.repeat(np.arange(programs), calls)


KNOWN = Effects(
    length=(0.3, 0.0),
    program=((0.4, 0.1), (0.1, 0.2)),
    call=((0.6, 0.2), (0.2, 0.8)),
    carried=((0.5, 0.0), (0.3, 0.1)),
)


def test_scores_are_standard_normal() -> None:
    drawn, _, _ = scores_of(KNOWN, 12, 3000)
    assert drawn.mean(axis=0) == pytest.approx([0, 0], abs=0.05)
    assert drawn.std(axis=0) == pytest.approx([1, 1], abs=0.03)


def test_the_parts_are_found_again() -> None:
    drawn, level, program = scores_of(KNOWN, 40, 1500)
    found = Effects.fit(ndtr(drawn), ndtr(level), program)
    assert found.length == pytest.approx(KNOWN.length, abs=0.05)
    for name in ("program", "call", "carried"):
        assert np.array(getattr(found, name)) == pytest.approx(
            np.array(getattr(KNOWN, name)), abs=0.08
        )


def test_what_adds_up_has_no_effect_of_the_program() -> None:
    drawn, level, program = scores_of(KNOWN, 20, 500)
    found = Effects.fit(ndtr(drawn), ndtr(level), program, (1,))
    assert found.program[1] == (0.0, 0.0)
    assert found.program[0][1] == 0.0
    assert found.call[1][1] == pytest.approx(1.0)


def test_numbers_that_are_not_there_have_no_part() -> None:
    ranks = np.full((500, 2), np.nan)
    ranks[:, 0] = np.random.default_rng(0).random(500)
    found = Effects.fit(ranks, np.full((500, 2), 0.5), np.repeat(np.arange(50), 10))
    assert found.length[1] == 0
    assert found.carried[1] == (0.0, 0.0)
    assert np.isfinite(found.program).all()
