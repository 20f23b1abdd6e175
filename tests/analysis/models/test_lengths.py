"""The joint law of prompts and answers: rank correlation and conditional quantiles."""

import msgspec
import numpy as np
import pytest
from scipy import stats

from servescope.analysis.models.lengths import Lengths, normal
from servescope.analysis.models.quantiles import Quantiles
from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError

CALLS = 20_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pairs(rho: float, calls: int = CALLS) -> tuple[Floats, Floats]:
    """Draw lengths of a Gaussian copula of correlation rho with log-normal margins."""
    x, noise = rng(1).normal(size=(2, calls))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    return np.rint(np.exp(6 + x)) + 1, np.rint(np.exp(4 + 0.8 * y)) + 1


def drawn(lengths: Lengths, calls: int = CALLS) -> tuple[Floats, Floats]:
    return lengths.at(*rng(2).random((2, calls)))


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.3, 0.8, 0.95])
def test_the_rank_correlation_of_a_gaussian_copula_is_kept(rho: float) -> None:
    """Spearman's is 6 / pi asin(rho / 2)."""
    found = stats.spearmanr(*drawn(Lengths.fit(*pairs(rho)))).statistic
    assert found == pytest.approx(6 / np.pi * np.arcsin(rho / 2), abs=0.02)


def test_margins_are_kept() -> None:
    seen = pairs(0.6)
    for real, made in zip(seen, drawn(Lengths.fit(*seen)), strict=True):
        assert stats.ks_2samp(real, made).statistic < 0.02
        assert made.mean() == pytest.approx(real.mean(), rel=0.03)


def test_answers_to_prompts_of_each_length_have_the_quantiles_that_they_had() -> None:
    real, made = pairs(0.6), drawn(Lengths.fit(*pairs(0.6)))
    for low, high in ((0, 150), (150, 400), (400, 1000), (1000, 1e9)):
        levels = [
            np.quantile(outputs[(inputs >= low) & (inputs < high)], (0.1, 0.5, 0.9))
            for inputs, outputs in (real, made)
        ]
        assert levels[1] == pytest.approx(levels[0], rel=0.08, abs=1)


def test_a_dependence_that_no_correlation_shows_is_kept() -> None:
    """Short and long prompts have long answers, those between short ones."""
    x = rng().permutation(CALLS) / CALLS
    inputs, outputs = np.rint(1 + 1000 * x), np.rint(1 + 2000 * np.abs(x - 0.5))
    made_in, made_out = drawn(Lengths.fit(inputs, outputs))
    assert stats.spearmanr(made_in, made_out).statistic == pytest.approx(0, abs=0.03)
    between = np.abs(made_in - 500) < 100
    assert made_out[between].max() < 330
    assert made_out[made_in > 900].min() > 700


def test_ranks_of_the_calls_are_even_and_undone() -> None:
    inputs, outputs = pairs(0.5)
    lengths = Lengths.fit(inputs, outputs)
    said, answered = lengths.ranks(inputs, outputs, rng())
    assert stats.kstest(said, "uniform").statistic < 0.02
    assert stats.kstest(answered, "uniform").statistic < 0.02
    assert stats.spearmanr(said, answered).statistic == pytest.approx(0, abs=0.03)
    again = lengths.at(said, answered)
    inside = (said > 0.001) & (said < 0.98)  # beyond, the ends and the tail are smooth
    assert again[0][inside] == pytest.approx(inputs[inside], rel=0.02, abs=1)
    assert np.isfinite(normal(said)).all()


def test_prompts_of_one_length_are_one_group() -> None:
    outputs = rng().geometric(0.01, 1000).astype(float)
    lengths = Lengths.fit(np.full(1000, 512.0), outputs)
    made_in, made_out = drawn(lengths)
    assert lengths.edges == ()
    assert set(made_in) == {512.0}
    assert made_out.mean() == pytest.approx(outputs.mean(), rel=0.05)


def test_constant_lengths_stay_what_they_are() -> None:
    made = drawn(Lengths.fit(np.full(100, 512.0), np.full(100, 64.0)))
    assert [set(each) for each in made] == [{512.0}, {64.0}]


def test_few_prompts_of_two_lengths_have_groups_that_are_large_enough() -> None:
    """985 prompts of 8 tokens and 15 of 900: the few do not make a group."""
    inputs = np.concatenate([np.full(985, 8.0), np.full(15, 900.0)])
    outputs = np.concatenate([np.full(985, 1.0), np.full(15, 77.0)])
    lengths = Lengths.fit(inputs, outputs, min_count=10)
    assert len(lengths.outputs) == 1
    twice = Lengths.fit(np.repeat(inputs, 2), np.repeat(outputs, 2), min_count=10)
    assert {77.0} == set(drawn(twice)[1][drawn(twice)[0] == 900]) or len(twice.outputs) == 1


@pytest.mark.parametrize("min_count", [2, 10, 100])
def test_no_group_of_prompts_is_small(min_count: int) -> None:
    inputs = np.concatenate([rng().geometric(0.3, 3000), np.full(50, 4096)]).astype(float)
    lengths = Lengths.fit(inputs, rng(1).geometric(0.05, 3050).astype(float), min_count)
    group = np.searchsorted(lengths.edges, lengths.inputs.rank(inputs), side="right")
    assert np.bincount(group, minlength=len(lengths.outputs)).min() >= 2 * min_count


def test_independent_calls_score_as_the_entropy_says() -> None:
    """Of geometric lengths, per call; steps of ten answers cost some 1 / 20 nats each way."""
    law = stats.geom(0.02)
    fitted = Lengths.fit(*rng(3).geometric(0.02, (2, CALLS)).astype(float))
    score = fitted.log_score(*rng(4).geometric(0.02, (2, CALLS)).astype(float)) / CALLS
    assert score == pytest.approx(-2 * float(law.entropy()), abs=0.15)


def test_answers_that_depend_on_prompts_score_better_with_them() -> None:
    inputs, outputs = pairs(0.9)
    alone = Quantiles.fit(outputs, whole=True).log_score(outputs)
    law = Lengths.fit(inputs, outputs)
    assert law.log_score(inputs, outputs) - law.inputs.log_score(inputs) > alone + 0.5 * CALLS


def test_a_file_holds_what_is_drawn() -> None:
    lengths = Lengths.fit(*pairs(0.5))
    again = msgspec.json.decode(msgspec.json.encode(lengths), type=Lengths)
    assert again == lengths
    assert np.array_equal(drawn(again), drawn(lengths))


def test_edges_have_to_part_the_laws_of_answers() -> None:
    law = Quantiles.fit(np.arange(100.0))
    with pytest.raises(InputError, match="1 edges do not part 1 laws"):
        Lengths(inputs=law, edges=(0.5,), outputs=(law,))
