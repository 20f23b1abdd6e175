"""How counts are halved: the laws of a split, what is drawn of them, and what is fitted."""

import numpy as np
import pytest
from scipy import stats

from servescope.analysis.models.splits import FAIR, Seen, Split, Table, beta_binomial, fair, fitted
from servescope.analysis.sample import Floats, Ints

LEANING = Split(lean=0.4, spread=1.5, growth=0.6)
EVEN = Split(lean=0.0, spread=12.0, growth=0.0, even=0.7)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pmf(split: Split, number: int, before: int = 3, after: int = 3, mean: float = 10.0) -> Floats:
    """Return the probabilities that 0, 1, ... `number` go left."""
    left = np.arange(number + 1.0)
    of = np.full(number + 1, float(number))
    share = split.share(np.full(number + 1, before), np.full(number + 1, after))
    return np.exp(split.log_pmf(mean, 1.0, left, of, share))


def drawn(split: Split, number: int, before: int, after: int, many: int = 15_000) -> Ints:
    whole = np.ones(many, np.int64)
    u = rng().random(many)
    return Table(split, 10.0, 1.0).left(number * whole, before * whole, after * whole, u)


@pytest.mark.parametrize("split", [LEANING, FAIR, EVEN])
@pytest.mark.parametrize("number", [1, 2, 5, 40, 48])
@pytest.mark.parametrize(("before", "after"), [(3, 3), (0, 9), (20, 1)])
def test_probabilities_add_up_to_one(split: Split, number: int, before: int, after: int) -> None:
    assert pmf(split, number, before, after).sum() == pytest.approx(1)


@pytest.mark.parametrize("split", [LEANING, EVEN])
def test_probabilities_of_large_counts_add_up_to_one(split: Split) -> None:
    assert pmf(split, 3000).sum() == pytest.approx(1, abs=1e-6)


def test_a_beta_binomial_count_has_its_probabilities() -> None:
    left = np.arange(13.0)
    found = np.exp(beta_binomial(left, np.full(13, 12.0), np.full(13, 2.0), np.full(13, 3.0)))
    assert found == pytest.approx(stats.betabinom.pmf(left, 12, 2, 3))


def test_a_fair_split_is_that_of_coins() -> None:
    left = np.arange(31.0)
    coins = stats.binom.pmf(left, 30, 0.5)
    assert pmf(FAIR, 30) == pytest.approx(coins, abs=1e-4)
    assert np.exp(fair(left, np.full(31, 30.0))) == pytest.approx(coins)


def test_the_share_leans_to_the_busier_side() -> None:
    """lean 1 gives (p + 1/2) / (p + q + 1) to the left."""
    split = Split(lean=1.0, spread=0.0, growth=0.0)
    assert split.share(np.array([4, 0]), np.array([1, 9])) == pytest.approx([0.75, 0.5 / 10])


def test_shares_of_more_clients_vary_less() -> None:
    """The variance of a beta share is p (1 - p) / (concentration + 1): k times less of k times."""
    one, four = (LEANING.concentration(10.0, users, np.array([20.0])) for users in (1.0, 4.0))
    assert four + 1 == pytest.approx(4 * (one + 1))


@pytest.mark.parametrize("split", [LEANING, FAIR, EVEN])
@pytest.mark.parametrize("number", [1, 2, 7, 30, 48, 60, 400])
def test_draws_follow_the_probabilities(split: Split, number: int) -> None:
    """Chi-square over groups of counts that are expected 50 times or more."""
    found = np.bincount(drawn(split, number, 4, 4), minlength=number + 1)
    law = pmf(split, number, 4, 4) * found.sum()
    group = (np.cumsum(law) / 50).astype(int)
    seen, expected = (np.bincount(group, w) for w in (found, law))
    kept = expected > 25
    off = (seen[kept] - expected[kept]) ** 2 / expected[kept]
    assert off.sum() < stats.chi2.ppf(0.999, max(1, kept.sum() - 1))


def test_draws_lean_to_the_busier_side_as_the_share_does() -> None:
    """Between the logits for which there are tables the nearest is taken."""
    for before, after in ((12, 2), (2, 12), (1, 0)):
        share = float(LEANING.share(np.array(before), np.array(after)))
        for number in (1, 10, 200):
            left = drawn(LEANING, number, before, after)
            assert left.mean() / number == pytest.approx(share, abs=0.02)


def test_even_pairs_make_counts_less_dispersed_than_chance() -> None:
    """Of pairs that part with the probability e the variance is (1 - e) n / 4, for even n."""
    for number in (20, 300):
        left = drawn(EVEN, number, 3, 3)
        assert left.mean() == pytest.approx(number / 2, rel=0.01)
        assert left.var() == pytest.approx((1 - EVEN.even) * number / 4, rel=0.05)


def test_nobody_is_lost() -> None:
    number = rng().integers(1, 100, 5000)
    before, after = rng(1).integers(0, 50, (2, 5000))
    for split in (LEANING, EVEN, FAIR):
        left = Table(split, 10.0, 1.0).left(number, before, after, rng(2).random(5000))
        assert ((left >= 0) & (left <= number)).all()


def rows(split: Split, mean: float, many: int) -> Floats:
    """Draw splits of counts around a mean: rows of (left, number, before, after)."""
    number = rng(3).poisson(rng(4).gamma(2, mean / 2, many)) + 1
    before, after = rng(5).poisson(mean, (2, many))
    left = Table(split, mean, 1.0).left(number, before, after, rng(6).random(many))
    return np.stack([left, number, before, after], axis=1).astype(np.float64)


@pytest.mark.parametrize("split", [LEANING, Split(lean=0.9, spread=0.5, growth=0.0)])
def test_the_law_of_splits_is_found_again(split: Split) -> None:
    found = fitted(Seen(rows(split, 10.0, 20_000), 10.0), 1.0)
    assert found.lean == pytest.approx(split.lean, abs=0.05)
    assert found.spread == pytest.approx(split.spread, abs=0.15)
    assert found.growth == pytest.approx(split.growth, abs=0.15)
    assert found.even == 0


def test_evenness_is_found_again() -> None:
    found = fitted(Seen(rows(EVEN, 10.0, 20_000), 10.0), 1.0)
    assert found.even == pytest.approx(EVEN.even, abs=0.03)


def test_coins_are_found_to_be_fair() -> None:
    """Their shares vary so little that no count shows it."""
    seen = Seen(rows(FAIR, 10.0, 20_000), 10.0)
    found = fitted(seen, 1.0)
    assert abs(found.lean) < 0.05
    assert found.even < 0.03
    assert found.even or found.spread > 4
    assert abs(seen.gain(found)) < 8


def test_a_law_that_fits_gains_over_coins() -> None:
    seen = Seen(rows(LEANING, 10.0, 2000), 10.0)
    assert seen.gain(LEANING) > 100
    assert seen.gain(FAIR) == pytest.approx(0, abs=1)


@pytest.mark.parametrize("users", [0.5, 0.1, 0.001])
def test_few_clients_go_one_way_together_at_most(users: float) -> None:
    """Of a bursty trace's clients a part can be no burstier than one that comes all at once."""
    bursty = Split(lean=0.0, spread=-1.0, growth=0.0)
    number = np.full(4000, 100)
    assert (bursty.concentration(10.0, users, number.astype(np.float64)) > 0).all()
    none = np.zeros(len(number), np.int64)
    left = Table(bursty, 10.0, users).left(number, none, none, rng().random(len(number)))
    assert ((left >= 0) & (left <= 100)).all()
    assert left.mean() == pytest.approx(50, abs=4)
    assert left.var() <= 2500
