"""Quantile functions of few knots: what is stored, what is drawn, and what it is worth."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from servescope.analysis.models.quantiles import Quantiles, Tail, all_rounded, rounded
from servescope.traces.errors import InputError

many = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)
whole = st.lists(st.integers(0, 40) | st.integers(0, 10**5), min_size=1, max_size=400)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_six_digits_are_stored() -> None:
    assert rounded(1234567.0) == 1234570.0
    assert all_rounded([1 / 3, 2e-12 / 3]) == (0.333333, 6.66667e-13)


def test_knots_are_those_that_a_hand_computes() -> None:
    """Of 1 ... 100 in five groups: the mean of the ten least, then the middles between groups.

    The last group's mean excess over 80.5 is 10, that of the lesser of two 20/3: PWM gives a shape
    of -1 (even), which is kept at -1/2, and the scale with which the mean is 10 still.
    """
    law = Quantiles.fit(np.arange(1.0, 101), min_count=10, knots=5)
    assert law.levels == (0.0, 0.2, 0.4, 0.6, 0.8)
    assert law.values == (5.5, 20.5, 40.5, 60.5, 80.5)
    assert law.tail == Tail(shape=-0.5, scale=15.0, share=0.025)
    assert law.at(np.array([0.0, 0.1, 0.7])) == pytest.approx([5.5, 13.0, 70.5])


def test_what_is_frequent_has_just_its_share() -> None:
    values = np.concatenate([np.full(300, 16.0), np.arange(100, 500), np.full(300, 512.0)])
    law = Quantiles.fit(values, whole=True)
    drawn = law.at((np.arange(100_000) + 0.5) / 100_000)
    assert (drawn == 16).mean() == pytest.approx(0.3, abs=0.002)
    assert (drawn == 512).mean() == pytest.approx(0.3, abs=0.002)
    assert drawn.max() == 512
    assert law.tail is None


def test_ten_positive_values_above_350_zeros() -> None:
    """What is rare above an atom comes as often as it did, and the atom too."""
    values = np.concatenate([np.zeros(350), np.arange(100, 110)])
    law = Quantiles.fit(values, min_count=10, whole=True)
    drawn = law.at((np.arange(36_000) + 0.5) / 36_000)
    assert (drawn == 0).mean() == pytest.approx(350 / 360, abs=2e-3)
    assert law.mean == pytest.approx(values.mean(), rel=0.05)


def test_fewer_positive_values_than_may_be_told_count_as_zeros() -> None:
    law = Quantiles.fit(np.concatenate([np.zeros(350), np.full(9, 1e6)]), min_count=10)
    assert set(law.sample(rng(), 1000)) == {0.0}


def test_a_cap_at_the_top_is_no_tail() -> None:
    """Prompts that are cut at 4096 tokens come as often as that."""
    values = np.minimum(np.rint(rng().lognormal(7.5, 1, 20_000)), 4096)
    law = Quantiles.fit(values, whole=True)
    drawn = law.sample(rng(1), 100_000)
    assert (drawn == 4096).mean() == pytest.approx((values == 4096).mean(), abs=0.01)
    assert drawn.max() == 4096
    assert drawn.mean() == pytest.approx(values.mean(), rel=0.01)


@pytest.mark.parametrize("alpha", [1.8, 3.0])
def test_the_tail_of_a_pareto_law_is_found_again(alpha: float) -> None:
    """P(X > x) = x^-alpha has the mean alpha / (alpha - 1) times q above any q."""
    values = rng(2).pareto(alpha, 200_000) + 1
    law = Quantiles.fit(values)
    assert law.tail is not None
    assert law.tail.shape == pytest.approx(1 / alpha, abs=0.05)
    u = 0.99 + (np.arange(100_000) + 0.5) / 1e7
    far = 0.01 ** (-1 / alpha)
    assert law.at(u).mean() == pytest.approx(far * alpha / (alpha - 1), rel=0.06)
    assert law.at(np.array([0.9, 0.99, 0.999])) == pytest.approx(
        np.array([0.1, 0.01, 0.001]) ** (-1 / alpha), rel=0.05
    )
    assert law.mean == pytest.approx(values.mean(), rel=0.02)


def test_draws_are_distributed_as_the_values_were() -> None:
    values = rng(3).lognormal(5, 1.5, 20_000)
    drawn = Quantiles.fit(values).sample(rng(4), 20_000)
    assert stats.ks_2samp(values, drawn).pvalue > 0.01


def test_ranks_undo_quantiles() -> None:
    law = Quantiles.fit(rng().lognormal(5, 1.5, 5000))
    u = np.linspace(0.0005, 0.9995, 999)
    assert law.rank(law.at(u)) == pytest.approx(u, abs=1e-6)


def test_ranks_undo_quantiles_of_whole_numbers_with_atoms() -> None:
    values = np.concatenate([np.zeros(500), rng().geometric(0.01, 4000), np.full(500, 900)])
    law = Quantiles.fit(values, whole=True)
    x = np.unique(law.at(np.linspace(0.0005, 0.9995, 9999)))
    assert np.array_equal(law.at(law.rank(x)), x)


def test_ranks_of_draws_are_even() -> None:
    values = np.concatenate([np.zeros(2000), rng().geometric(0.02, 4000), np.full(1000, 300)])
    law = Quantiles.fit(values, whole=True)
    ranks = law.rank(law.sample(rng(1), 20_000), rng(2).random(20_000))
    assert stats.kstest(ranks, "uniform").pvalue > 0.01


def test_probabilities_of_whole_numbers_add_up_to_one() -> None:
    values = np.concatenate([np.full(300, 7), rng().geometric(0.05, 3000), np.full(200, 64)])
    law = Quantiles.fit(np.minimum(values, 64), whole=True)
    score = [np.exp(law.log_score(np.array([float(k)]))) for k in range(65)]
    assert sum(score) == pytest.approx(1, abs=1e-3)
    assert score[64] == pytest.approx((values >= 64).mean(), abs=0.01)
    both = law.log_score(np.array([7.0, 64.0]))
    assert both == pytest.approx(np.log(score[7]) + np.log(score[64]))


def test_densities_score_as_those_of_the_law() -> None:
    """Held-out values of an exponential law have the log-density -1 on average."""
    law = Quantiles.fit(rng().exponential(1, 50_000))
    held_out = rng(1).exponential(1, 20_000)
    exact = float(stats.expon.logpdf(held_out).mean())
    assert law.log_score(held_out) / len(held_out) == pytest.approx(exact, abs=0.01)


def test_what_cannot_come_has_a_millionth() -> None:
    law = Quantiles.fit(np.full(100, 5.0), whole=True)
    assert law.log_score(np.array([9.0])) == pytest.approx(np.log(1e-6))
    assert law.log_score(np.array([5.0])) == 0


def test_one_value_is_all_there_is() -> None:
    law = Quantiles.fit(np.full(1000, 128.0), whole=True)
    assert set(law.sample(rng(), 100)) == {128.0}
    assert law.mean == 128
    assert law.rank(np.array([128.0])) == pytest.approx([0.5])


def test_fewer_than_twice_min_count_are_their_median() -> None:
    law = Quantiles.fit(np.arange(19.0), min_count=10)
    assert law == Quantiles(levels=(0.0, 1.0), values=(9.0, 9.0))


def test_nothing_has_no_quantiles() -> None:
    with pytest.raises(InputError, match="no values"):
        Quantiles.fit([])


@pytest.mark.parametrize(
    ("levels", "values"),
    [((0.0, 1.0), (2.0, 1.0)), ((0.5, 0.2), (1.0, 2.0)), ((0.0,), (1.0, 2.0)), ((), ()),
     ((-0.1, 1.0), (1.0, 2.0)), ((0.0, 1.1), (1.0, 2.0)), ((0.0, float("nan")), (1.0, 2.0))],
)  # fmt: skip
def test_levels_and_values_that_do_not_rise_are_refused(
    levels: tuple[float, ...], values: tuple[float, ...]
) -> None:
    with pytest.raises(InputError, match="do not rise together"):
        Quantiles(levels=levels, values=values)


@given(whole, st.integers(2, 30))
def test_no_knot_rests_on_few_values(values: list[int], min_count: int) -> None:
    """Each is an atom of enough values, or has enough of them up to its neighbours."""
    x = np.array(values, np.float64)
    law = Quantiles.fit(x, min_count, whole=True)
    if len(x) < 2 * min_count:
        assert len(set(law.values)) == 1
        return
    number, often = np.unique(x, return_counts=True)
    atoms = set(number[often >= min_count].tolist())
    ranks = np.array([*law.levels, 1.0]) * len(x)
    held = [*law.values, np.inf]
    for k in range(len(law.values)):
        between = ranks[k + 1] - ranks[k] > min_count - 0.01
        same = held[k] == held[k + 1] or ranks[k + 1] == ranks[k]
        assert between or same or {held[k], held[k + 1]} <= atoms
    if law.tail is not None:
        assert len(x) - law.levels[-1] * len(x) > min_count - 0.01


@given(st.integers(20, 300), st.integers(2, 10), st.integers(0, 100))
def test_no_extreme_value_is_stored(count: int, min_count: int, seed: int) -> None:
    """One value far off moves the mean of the extreme ones, and does not stand in the file."""
    x = rng(seed).normal(0, 1, count)
    x[:2] = -87654.0, 98765.0
    law = Quantiles.fit(x, min_count)
    assert -87654.0 not in law.values
    assert law.tail is None or law.values[-1] + law.tail.beyond(np.ones(1))[0] != 98765.0
    assert max(law.values) < 98765.0


@given(many)
def test_quantiles_rise(values: list[float]) -> None:
    law = Quantiles.fit(values)
    assert (np.diff(law.at(np.linspace(0, 1, 501))) >= 0).all()


@given(many)
def test_draws_stay_near_what_was_seen(values: list[float]) -> None:
    """None lies below the least, none further above the last knot than a law of the tail goes."""
    law = Quantiles.fit(values)
    drawn = law.at(np.linspace(0, 1, 101))
    assert drawn[0] >= min(values) - 1e-5 * max(1.0, abs(min(values)))
    if law.tail is None:
        assert drawn[-1] <= max(values) + 1e-5 * max(1.0, abs(max(values)))
    assert np.isfinite(drawn).all()


@given(many, st.booleans())
def test_a_file_holds_what_is_drawn(values: list[float], are_whole: bool) -> None:
    law = Quantiles.fit(values, whole=are_whole)
    again = msgspec.json.decode(msgspec.json.encode(law), type=Quantiles)
    assert again == law
    assert np.array_equal(again.sample(rng(7), 50), law.sample(rng(7), 50))


@given(many)
def test_ranks_lie_between_0_and_1_and_rise(values: list[float]) -> None:
    law = Quantiles.fit(values)
    x = np.sort(np.concatenate([values, np.linspace(-2e6, 2e6, 41)]))
    ranks = law.rank(x)
    assert ((ranks >= 0) & (ranks <= 1)).all()
    assert (np.diff(ranks) >= -1e-12).all()
