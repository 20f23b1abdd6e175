"""Differences that are known, and how often what is no difference is called one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from queues import pair
from scipy import stats

from servescope.analysis import evidence
from servescope.analysis.evidence import of_sections, paired
from servescope.analysis.sample import Sample

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def in_sections(values: list[float] | np.ndarray, sections: int = 10) -> Sample:
    count = len(values)
    return Sample.of(values, np.arange(count) * sections // count, sections)


def test_a_run_and_its_twin_differ_in_nothing() -> None:
    sample = in_sections(np.random.default_rng(0).lognormal(size=1000))
    for statistic in ("mean", 0.5, 0.99):
        found = paired(sample, sample, statistic)  # type: ignore[arg-type]
        assert found is not None
        assert found.ratio is not None
        assert (found.ratio.low, found.ratio.high) == (1.0, 1.0)
        assert found.p_value == found.wilcoxon == 1.0
        assert (found.superiority, found.cliffs_delta) == (0.5, 0.0)
        assert evidence.equivalence(found, 0.01) == 0.0


def test_twice_as_fast_in_every_section_is_as_sure_as_ten_sections_can_be() -> None:
    """Two of the 1,024 ways to flip ten signs are as extreme."""
    values = np.random.default_rng(0).lognormal(size=1000)
    found = paired(in_sections(values), in_sections(values / 2), 0.9)
    assert found is not None
    assert found.ratio is not None
    assert found.ratio.estimate == pytest.approx(0.5)
    assert found.p_value == pytest.approx(2 / 1024)
    assert (found.superiority, found.cliffs_delta) == (1.0, 1.0)


def test_the_order_of_the_runs_turns_everything_over() -> None:
    rng = np.random.default_rng(1)
    a, b = in_sections(rng.lognormal(size=500)), in_sections(rng.lognormal(size=500))
    there, back = paired(a, b, "mean"), paired(b, a, "mean")
    assert there is not None
    assert back is not None
    assert there.ratio is not None
    assert back.ratio is not None
    assert there.ratio.low == pytest.approx(1 / back.ratio.high)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.cliffs_delta == pytest.approx(-back.cliffs_delta)


def test_flipping_signs_is_exact_by_hand() -> None:
    """Of 1, 2 and 3 the sum is 6; of 8 ways only all plus and all minus reach it."""
    assert evidence.sign_flip(np.array([1.0, 2.0, 3.0])) == 2 / 8
    assert evidence.sign_flip(np.array([3.0, -2.0, -1.0])) == 1.0
    many = evidence.sign_flip(np.full(20, 1.0))
    assert many <= 3 / evidence.FLIPS


@given(P_VALUES)
def test_corrections_are_those_of_statsmodels_and_scipy(p_values: list[float]) -> None:
    order = np.argsort(p_values, kind="stable")
    by_hand, worst = np.empty(len(p_values)), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        by_hand[place] = worst
    assert evidence.holm(p_values) == pytest.approx(by_hand)
    bh = evidence.benjamini_hochberg(p_values)
    assert all(p <= b or p == pytest.approx(b) for p, b in zip(p_values, bh, strict=True))
    assert all(b <= h + 1e-12 for b, h in zip(bh, evidence.holm(p_values), strict=True))


def test_nothing_has_nothing_to_correct() -> None:
    assert evidence.holm([]) == evidence.benjamini_hochberg([]) == []


def test_equivalence_is_two_one_sided_t_tests() -> None:
    rng = np.random.default_rng(2)
    sections = rng.normal(0.01, 0.02, 10)
    found = of_sections(1.0, math.exp(sections.mean()), np.ones(10), np.exp(sections))
    expected = max(
        stats.ttest_1samp(sections, bound, alternative=side).pvalue
        for bound, side in ((-math.log(1.05), "greater"), (math.log(1.05), "less"))
    )
    assert evidence.equivalence(found, 0.05) == pytest.approx(expected)
    assert evidence.equivalence(found, 0.5) < evidence.equivalence(found, 0.02)


def test_how_long_to_run_goes_with_the_square_of_what_to_find() -> None:
    rng = np.random.default_rng(3)
    found = of_sections(1.0, 1.0, np.ones(10), rng.lognormal(0, 0.1, 10))
    tenth, fifth = evidence.times_longer(found, 0.1), evidence.times_longer(found, 0.2)
    assert tenth / fifth == pytest.approx((math.log(1.2) / math.log(1.1)) ** 2)


def test_shares_are_compared_by_their_difference_and_zeros_too() -> None:
    found = of_sections(0.0, 0.5, np.zeros(10), np.full(10, 0.5), logs=False)
    assert found.ratio is None
    assert found.effect.estimate == 0.5
    assert paired(in_sections([0.0] * 10), in_sections([1.0] * 10), "mean").ratio is None  # type: ignore[union-attr]


def test_empty_sections_and_sections_that_differ_have_no_evidence() -> None:
    ten = in_sections([1.0] * 10)
    assert paired(ten, Sample.of([1.0], [0], 10), "mean") is None
    assert paired(ten, in_sections([1.0] * 10, 5), "mean") is None
    assert paired(Sample.of([1.0]), Sample.of([1.0]), "mean") is None


def test_repeats_are_put_side_by_side() -> None:
    merged = evidence.merged([in_sections([1.0, 2.0], 2), in_sections([3.0, 0.5], 2)])
    assert merged.blocks == 4
    assert merged.block_means().tolist() == [1.0, 2.0, 3.0, 0.5]


STATISTICS = ("mean", 0.5, 0.9, 0.99)


@pytest.mark.parametrize(("load", "kind"), [(0.55, "poisson"), (0.85, "poisson")])
def test_two_equal_servers_are_rarely_told_apart_over_all_statistics(
    load: float, kind: str
) -> None:
    """Family-wise over 12 statistics after Holm; nominal 5 %, 150 pairs: benchmarks/coverage.py."""
    called = 0
    for replicate in range(150):
        a, b = pair(np.random.default_rng([1, replicate]), 3000, load, kind)
        p_values = [
            found.p_value
            for name in a
            for statistic in STATISTICS
            if (found := paired(in_sections(a[name]), in_sections(b[name]), statistic))  # type: ignore[arg-type]
        ]
        called += min(evidence.holm(p_values)) < 0.05
    assert called <= 12


def test_tests_that_take_calls_as_independent_tell_equal_servers_apart() -> None:
    called = 0
    for replicate in range(60):
        a, b = pair(np.random.default_rng([1, replicate]), 3000, 0.75, "poisson")
        called += stats.ttest_rel(a["e2e"], b["e2e"]).pvalue < 0.05
    assert called >= 20


def test_the_length_that_is_named_finds_a_difference_four_times_in_five() -> None:
    """The faster server's mean latency is 0.9 of the other's: of eight million calls."""
    found = 0
    for replicate in range(60):
        rng = np.random.default_rng([2, replicate])
        pilot = pair(rng, 1000, 0.55, "poisson", 0.9518)
        first = paired(in_sections(pilot[0]["e2e"]), in_sections(pilot[1]["e2e"]), "mean")
        assert first is not None
        calls = max(200, math.ceil(1000 * evidence.times_longer(first, 0.1)))
        a, b = pair(rng, calls, 0.55, "poisson", 0.9518)
        second = paired(in_sections(a["e2e"]), in_sections(b["e2e"]), "mean")
        assert second is not None
        found += second.p_value < 0.05 and second.effect.estimate < 0
    assert found >= 42
