import polars as pl
import pytest

from servescope.reports import paired_figures
from servescope.reports.canvas import INK


def pairs(*differences: float, tokens: int = 100) -> pl.DataFrame:
    count = len(differences)
    return pl.DataFrame(
        {
            "call_id": [str(n) for n in range(count)],
            "due_s": [float(n) for n in range(count)],
            "input_tokens": [tokens] * count,
            "difference": differences,
        },
        schema_overrides={"difference": pl.Float64},
    )


def test_a_challenger_that_became_slower_halfway_lies_above_zero_from_there_on() -> None:
    """100 calls as quick, then 100 that take 0.2 s longer: 6 bins, 3 on either side."""
    figure = paired_figures.over_time({"b": pairs(*[0.0] * 100, *[0.2] * 100)}, "ttft", "a")
    assert figure is not None
    band, line = figure.data
    assert list(line.y) == [0.0] * 3 + [200.0] * 3
    assert set(band.y) == {0.0, 200.0}
    assert sum(line.customdata) == 200
    assert figure.layout.shapes[0].y0 == 0
    assert figure.layout.shapes[0].line.color == INK
    assert figure.layout.yaxis.title.text == "TTFT, less a's (ms)"


def test_the_band_holds_eight_of_ten_differences() -> None:
    table = pairs(*[n / 1000 for n in range(1, 11)] * 80)  # 1 to 10 ms, over and over
    figure = paired_figures.over_time({"b": table}, "e2e", "a")
    assert figure is not None
    band, line = figure.data
    assert (min(band.y), max(band.y)) == pytest.approx((1, 9), abs=1)
    assert all(y == pytest.approx(5, abs=1) for y in line.y)


def test_over_length_each_length_has_its_own_difference() -> None:
    table = pl.concat([pairs(*[-0.1] * 40, tokens=10), pairs(*[0.3] * 40, tokens=10_000)])
    figure = paired_figures.over_length({"b": table, "c": pairs(*[0.5] * 3)}, "ttft", "a")
    assert figure is not None
    lines = {each.name: each for each in figure.data if each.name}
    assert list(lines["b"].x) == [10, 10_000]
    assert list(lines["b"].y) == [-100, 300]
    assert list(lines["c"].y) == [500]


def test_nothing_in_common_is_no_figure() -> None:
    assert paired_figures.over_time({"b": pairs()}, "ttft", "a") is None
