import math

import polars as pl

from servescope.reports import live_figures
from servescope.reports.canvas import MOST_POINTS

SECONDS = pl.DataFrame(
    {
        "t_s": [0.0, 1.0, 2.0],
        "planned": [5, 5, 5],
        "sent": [5, 4, 6],
        "done": [0, 3, 9],
        "failed": [0, 0, 1],
        "in_flight": [5, 6, 2],
        "ttft_p50_s": [None, 0.2, 0.3],
        "ttft_p99_s": [None, None, 0.9],
        "lag_p50_s": [0.001, 0.002, 0.003],
        "tbt_p50_s": pl.Series([None] * 3, dtype=pl.Float64),
    }
)
SERVERS = pl.DataFrame(
    {"t_s": [0.0, 1.0], "replica": "http://r:1", "running": [0.0, 4.0], "waiting": [None, 2.0],
     "kv_usage": pl.Series([None, None], dtype=pl.Float64)}
)  # fmt: skip


def test_counts_are_a_line_each() -> None:
    lines = {each.name: list(each.y) for each in live_figures.counts(SECONDS).data}
    assert lines == {
        "planned": [5, 5, 5], "sent": [5, 4, 6], "done": [0, 3, 9], "failed": [0, 0, 1],
    }  # fmt: skip


def test_rolling_quantiles_are_in_milliseconds_with_holes_where_nothing_is_known() -> None:
    figure = live_figures.latency(SECONDS, "ttft")
    assert figure is not None
    p50, p99 = figure.data
    assert (p50.name, p99.name) == ("p50", "p99")
    assert math.isnan(p50.y[0])
    assert list(p50.y[1:]) == [200, 300]
    assert p99.y[2] == 900
    assert live_figures.latency(SECONDS, "tbt") is None
    assert live_figures.latency(SECONDS, "tpot") is None


def test_the_pictures_are_those_of_what_is_known() -> None:
    made = live_figures.pictures("mine", SECONDS, SERVERS)
    axes = [each.figure.layout.yaxis.title.text for each in made]
    assert axes == [
        "calls /s", "calls in flight", "TTFT (ms)", "Schedule lag (ms)", "calls running",
        "calls waiting",
    ]  # fmt: skip
    assert list(made[-2].figure.data[0].y) == [0, 4]
    assert made[-2].figure.data[0].name == "mine"


def test_a_run_that_has_not_begun_has_no_pictures() -> None:
    assert live_figures.pictures("mine", SECONDS.clear(), SERVERS.clear()) == []


def test_hours_are_thinned_and_keep_the_worst_second() -> None:
    hours = pl.DataFrame({"t_s": range(20_000), "ttft_p99_s": [0.1] * 20_000}).with_columns(
        pl.when(pl.col("t_s") == 12_345).then(7.0).otherwise("ttft_p99_s").alias("ttft_p99_s"),
        t_s=pl.col("t_s").cast(pl.Float64),
    )
    figure = live_figures.latency(hours, "ttft")
    assert figure is not None
    (line,) = figure.data
    assert len(line.x) <= 2 * MOST_POINTS + 2
    assert max(line.y) == 7000


def test_few_calls_in_flight_are_counted_in_whole_ones() -> None:
    few = pl.DataFrame({"t_s": [0.0, 1.0], "in_flight": [0, 2]})
    many = few.with_columns(in_flight=pl.col("in_flight") * 50)
    assert live_figures.in_flight(few).layout.yaxis.dtick == 1
    assert live_figures.in_flight(many).layout.yaxis.dtick is None
