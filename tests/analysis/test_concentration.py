"""Concentration: by hand."""

import pytest

from servescope.analysis.concentration import Concentration


def test_equal_holdings_and_one_holder() -> None:
    even = Concentration.of([2, 2, 2, 2])
    assert even is not None
    assert even.gini == pytest.approx(0)
    assert even.share_holding(0.5) == 0.5
    one = Concentration.of([0, 0, 9, 0])
    assert one is not None
    assert one.gini == pytest.approx(0.75)
    assert one.holders_of(0.9) == 1


def test_the_fewest_holders_and_the_curve_by_hand() -> None:
    held = Concentration.of([1, 6, 3])
    assert held is not None
    assert [held.holders_of(s) for s in (0.6, 0.61, 0.9, 1.0)] == [1, 2, 2, 3]
    shares, upto = held.curve()
    assert shares.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert upto.tolist() == pytest.approx([0.6, 0.9, 1.0])
    assert held.gini == pytest.approx(2 * (0.6 + 0.9 + 1) / 3 - 1 - 1 / 3)


def test_nothing_is_held_by_nobody() -> None:
    assert Concentration.of([]) is None
    assert Concentration.of([0, 0]) is None
