"""Which shape is chosen of arrivals whose shape is known, and what of arrivals that say nothing."""

import numpy as np
import pytest

from servescope.analysis.models.clusters import Clusters
from servescope.analysis.models.modulated import Modulated
from servescope.analysis.models.renewal import Poisson, Renewal
from servescope.analysis.models.selection import choose, goodness
from servescope.analysis.models.shapes import SHAPES, AnyShape

CANDIDATES = {name: fit for name, fit in SHAPES.items() if name != "cascade"}
KNOWN: dict[str, AnyShape] = {
    "poisson": Poisson(),
    "gamma renewal": Renewal(gaps="gamma", shape=0.3),
    "weibull renewal": Renewal(gaps="weibull", shape=0.5),
    "modulated": Modulated(levels=(0.02, 3.94), hold_s=(15.0, 5.0), jumps=((0.0, 1.0), (1.0, 0.0))),
    "clusters": Clusters(size=8.0, spread_s=2.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["poisson", "weibull renewal", "modulated", "clusters"])
def test_the_family_that_was_drawn_from_is_chosen(family: str) -> None:
    rng = np.random.default_rng(5)
    at = np.concatenate(
        [100 * k + KNOWN[family].sample(rng, rate, 100.0) for k, rate in enumerate([2, 4] * 6)]
    )
    choice = choose(
        at,
        1200.0,
        {name: CANDIDATES[name] for name in KNOWN},
        window_s=100.0,
        folds=2,
        resamples=99,
    )
    assert choice.family == family
    assert choice.doubt is None
    row = choice.table.filter(choice.table["family"] == family).row(0, named=True)
    assert row["verdict"].startswith("chosen")
    assert row["p_value"] >= 0.05
    assert row["gain_low"] <= row["gain"] <= row["gain_high"]


def test_the_same_seed_makes_the_same_choice() -> None:
    at = KNOWN["modulated"].sample(np.random.default_rng(0), 3.0, 600.0)
    few = {name: CANDIDATES[name] for name in ("poisson", "gamma renewal", "windowed renewal")}
    first, second = (choose(at, 600.0, few, seed=3, resamples=19) for _ in range(2))
    assert first.shape == second.shape
    assert first.table.equals(second.table)


def test_when_every_shape_is_rejected_the_choice_says_so() -> None:
    at = KNOWN["modulated"].sample(np.random.default_rng(0), 5.0, 2400.0)
    few = {name: CANDIDATES[name] for name in ("poisson", "gamma renewal")}
    choice = choose(at, 2400.0, few, resamples=99)
    assert choice.family == "gamma renewal"
    assert "rejected" in (choice.doubt or "")


@pytest.mark.slow
def test_goodness_of_fit_rejects_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    p = [
        goodness(
            CANDIDATES["gamma renewal"],
            KNOWN["gamma renewal"].sample(rng, 5.0, 1200.0),
            1200.0,
            rng,
            100.0,
            39,
        )
        for _ in range(40)
    ]
    assert np.mean(np.array(p) < 0.1) <= 0.18
    assert np.median(p) > 0.3


def test_too_few_arrivals_become_a_poisson_process() -> None:
    for at in (np.empty(0), np.array([1.0]), np.sort(np.random.default_rng(0).random(40)) * 60):
        choice = choose(at, 60.0)
        assert choice.family == "poisson"
        assert "too few" in choice.reason
        assert choice.doubt is not None


def test_arrivals_at_one_instant_become_a_poisson_process() -> None:
    choice = choose(np.full(500, 2.0), 60.0)
    assert choice.family == "poisson"
    assert "one instant" in choice.reason


def test_constant_gaps_stay_nearly_constant() -> None:
    choice = choose(np.arange(500) * 0.1, 50.0)
    gaps = np.diff(choice.shape.sample(np.random.default_rng(0), 10.0, 50.0))
    assert gaps.std() / gaps.mean() == pytest.approx(0.01, rel=0.1)
    assert "alike" in choice.reason


def test_what_cannot_be_fitted_has_its_reason_in_the_table() -> None:
    """All arrivals come in the last tenth: nothing was there to learn from before."""
    at = 540 + 60 * np.sort(np.random.default_rng(0).random(500))
    choice = choose(at, 600.0, CANDIDATES, resamples=19)
    verdicts = choice.table.filter(choice.table["verdict"].str.starts_with("cannot be fitted"))
    assert choice.family == "poisson"
    assert len(verdicts) == 7
