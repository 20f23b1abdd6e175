import numpy as np
import polars as pl
import pytest

from servescope.analysis.sample import Sample
from servescope.reports import Story, figures, timelines
from servescope.reports.canvas import MOST_POINTS


def test_a_ccdf_ends_at_the_maximum_and_starts_with_all(pair: Story) -> None:
    values = Sample.of([0.1, 0.2, 0.3, 0.4])
    (line,) = figures.ccdf({"a": values}, "ttft").data
    assert list(line.x) == pytest.approx([100, 200, 300, 400])
    assert list(line.y) == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_long_ccdf_is_thinned_but_keeps_both_ends_and_the_tail() -> None:
    values = Sample.of(np.arange(1, 100_001) / 1000)
    (line,) = figures.ccdf({"a": values}, "tbt").data
    assert len(line.x) <= MOST_POINTS
    assert (line.x[0], line.x[-1]) == (1.0, 100_000.0)
    assert sum(x > 99_900 for x in line.x) > 40  # of the 100 largest


def test_in_flight_is_a_step_at_every_send_and_end() -> None:
    steps = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 1.0, 0.0])
    (line,) = timelines.in_flight({"a": steps}).data
    assert (list(line.x), list(line.y)) == ([0, 1, 2, 3], [1, 2, 1, 0])


def test_the_forest_has_a_point_for_every_difference_with_an_interval(pair: Story) -> None:
    assert pair.comparison is not None
    drawn = sum(len(trace.x) for trace in figures.forest(pair.comparison).data)
    (challenge,) = pair.comparison.challenges
    known = [row for row in challenge.differences if row.ratio is not None]
    assert drawn == len(known) > 5


def test_failed_calls_are_not_drawn_as_zero() -> None:
    calls = pl.DataFrame({"call_id": ["a", "b"], "due_s": [0.0, 1.0], "ttft": [None, 0.2]})
    dots, _ = timelines.latency({"a": calls}, "ttft", {}).data
    assert list(dots.y) == [200.0]
