import numpy as np
import pytest

from servescope.reports.slo_figures import over_threshold

GRID_S = np.array([0.1, 0.2, 0.4])


def test_a_curve_has_the_share_at_each_bound_and_a_line_where_the_bound_stands() -> None:
    curves = {"a": np.array([0.0, 0.5, 1.0]), "<b>": np.array([0.1, 0.2, 0.3])}
    figure = over_threshold(curves, GRID_S, "TTFT", what="attainment", at_s=0.25, per="programs")
    one, other = figure.data
    assert list(one.x) == pytest.approx([100, 200, 400])
    assert list(one.y) == [0.0, 0.5, 1.0]
    assert other.name == "&lt;b&gt;"
    assert figure.layout.shapes[0].x0 == 250
    assert figure.layout.xaxis.title.text == "TTFT below (ms)"
    assert figure.layout.yaxis.title.text == "programs within the SLO"


def test_goodput_is_drawn_a_second_and_no_bound_is_no_line() -> None:
    figure = over_threshold({"a": np.array([1.0, 3.0, 8.0])}, GRID_S, "JCT", what="goodput")
    assert list(figure.data[0].y) == [1.0, 3.0, 8.0]
    assert figure.layout.yaxis.title.text == "goodput (calls/s)"
    assert not figure.layout.shapes
