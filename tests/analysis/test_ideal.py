"""The unloaded server, read off a run whose unloaded server is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from servescope.analysis import Measured
from servescope.analysis.ideal import with_ideal
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]


def test_the_ideal_is_found_under_a_load_that_half_of_the_calls_met(call: Make) -> None:
    """TTFT is 0.1 s + 1 ms a prompt token, TPOT 20 ms; half of the calls queue besides."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(4000):
        tokens = int(rng.integers(10, 2000))
        queue = rng.exponential(2.0) if rng.random() < 0.5 else 0.0
        due = float(number)
        first = due + 0.1 + 0.001 * tokens + queue
        rows.append(call(str(number), due, first, first + 0.02, first + 0.04, input_tokens=tokens))
    table = with_ideal(Measured(frame_of_rows(rows).lazy()).calls)
    known = table.with_columns(truth=0.1 + 0.001 * pl.col("input_tokens") + 2 * 0.02)
    off = (known["ideal_s"] - known["truth"]).abs() / known["truth"]
    assert off.mean() < 0.03
    assert off.quantile(0.95) < 0.15


def test_a_longer_prompt_is_never_quicker(call: Make) -> None:
    rows = [
        call(str(n), float(n), n + (5.0 if n < 200 else 1.0), input_tokens=n) for n in range(400)
    ]
    table = with_ideal(Measured(frame_of_rows(rows).lazy()).calls).sort("input_tokens")
    assert (table["ideal_s"].diff().drop_nulls() >= 0).all()


def test_what_came_from_the_cache_was_not_computed(call: Make) -> None:
    rows = [call(str(n), float(n), n + 1.0, input_tokens=1000, cached_tokens=990) for n in range(3)]
    rows += [call("x", 9.0, 10.0 + 4.0, input_tokens=1000)]
    rows += [call("y", 9.0, 10.0 + 4.0, input_tokens=1000, cached_tokens=None)]
    assert with_ideal(Measured(frame_of_rows(rows).lazy()).calls)["ideal_s"].min() == 1.0


def test_nothing_answered_shows_no_ideal(failed: Make) -> None:
    table = with_ideal(Measured(frame_of_rows([failed("x", 0.0)]).lazy()).calls)
    assert table["ideal_s"].to_list() == [None]


@pytest.mark.parametrize("slower", [1.0, 3.0])
def test_slowdown_is_one_on_an_idle_server_and_grows_with_the_wait(
    call: Make, slower: float
) -> None:
    """Nine calls in ten are served alone in 1 s; the tenth takes `slower` times as long."""
    rows = [call(str(n), 10.0 * n, 10.0 * n + (slower if n % 10 == 0 else 1.0)) for n in range(100)]
    sample = Measured(frame_of_rows(rows).lazy()).sample("slowdown")
    assert sample.quantile(0.5) == pytest.approx(1.0)
    assert sample.max() == pytest.approx(slower)
