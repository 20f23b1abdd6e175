"""Prompts grow from what came before, or are cut as they become long."""

import numpy as np
import pytest
from scipy import stats

from servescope.analysis.models.growth import Growth
from servescope.analysis.sample import Floats

LIMIT = 5000.0


def steps(seed: int, size: int = 20_000) -> tuple[Floats, Floats, Floats]:
    """Draw prompts, those before and their answers: cut to a tenth above a limit, half of them."""
    rng = np.random.default_rng(seed)
    last = np.rint(rng.uniform(100, 2 * LIMIT, size))
    answer = np.rint(rng.lognormal(5, 1, size))
    cut = (last > LIMIT) & (rng.random(size) < 0.5)
    grown = last + answer + rng.poisson(50, size)
    return np.where(cut, np.rint(last / 10), grown), last, answer


def test_cuts_come_above_the_limit() -> None:
    prompt, last, answer = steps(0)
    model = Growth.fit(prompt, last, answer)
    drawn = model.at(last, answer, np.random.default_rng(1).random(len(last)))
    short = drawn < last
    assert short[last < 0.8 * LIMIT].mean() < 0.03
    assert short[last > 1.2 * LIMIT].mean() == pytest.approx(0.5, abs=0.03)
    left = np.quantile((drawn / last)[short & (last > 1.2 * LIMIT)], [0.05, 0.95])
    assert left == pytest.approx(0.1, abs=0.01)


def test_growth_counts_the_answer() -> None:
    prompt, last, answer = steps(2)
    model = Growth.fit(prompt, last, answer)
    assert model.base == "context"
    drawn = model.at(last, answer, np.random.default_rng(3).random(len(last)))
    longer, grew = drawn >= last, prompt >= last
    real, made = (prompt - last)[grew], (drawn - last)[longer]
    assert np.quantile(made, [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(real, [0.1, 0.5, 0.9]), rel=0.05
    )


def test_prompts_that_only_grow_are_never_cut() -> None:
    rng = np.random.default_rng(4)
    last = np.rint(rng.uniform(100, 1000, 2000))
    prompt = last + rng.poisson(20, 2000)
    model = Growth.fit(prompt, last, None)
    assert model.base == "prompt"
    assert model.kept is None
    assert (model.at(last, None, rng.random(2000)) >= np.minimum(last, model.bounds[1])).all()


def test_ranks_are_uniform() -> None:
    prompt, last, answer = steps(5)
    ranks = Growth.fit(prompt, last, answer).rank(prompt, last, answer)
    assert stats.kstest(ranks, "uniform").statistic < 0.03
