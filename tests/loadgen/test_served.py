"""Service compared: a trace against itself, and against what a server must notice."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis.fidelity.comparison import SCHEMA
from servescope.loadgen import served
from servescope.loadgen.served import Served
from servescope.loadgen.workload import Workload
from servescope.traces import Trace
from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance


def trace_of(seed: int = 1, calls: int = 300, each: int = 1, **columns: object) -> Trace:
    """Calls of two a second, `each` of them at once, with log-normal lengths."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum(rng.exponential(each / 2, calls // each))
    frame = pl.DataFrame(
        {
            "arrival_s": np.repeat(starts, each),
            "input_tokens": rng.lognormal(7, 1, calls).astype(np.int64) + 1,
            "output_tokens": rng.lognormal(4, 1, calls).astype(np.int64) + 1,
            **columns,
        }
    )
    return Trace.of(frame, Provenance(format="none", source="made up"))


def value(found: Served, measure: str, load: float = 0.5) -> float:
    rows = found.table.filter(measure=measure, subject=f"load {load:g}")
    return float(rows["value"][0])


def test_a_trace_is_served_as_itself() -> None:
    """Every error is exactly 0, at every load, and nothing is drawn."""
    one = trace_of()
    found = served.compare(one, [one])
    assert found.table.schema == SCHEMA
    assert found.table["value"].unique().to_list() == [0.0]
    assert set(found.table["subject"]) == {"load 0.3", "load 0.5", "load 0.7"}
    assert (found.table["floor"] > 0).all()


def test_the_same_draws_are_served_the_same_whatever_does_it() -> None:
    real, others = trace_of(1, 100), [trace_of(seed, 100) for seed in (2, 3)]
    alone, together = (served.compare(real, others, (0.5,), jobs=jobs) for jobs in (1, 2))
    assert alone.table.equals(together.table)
    assert alone.curves["ttft, load 0.5"].equals(together.curves["ttft, load 0.5"])


def test_bursts_make_calls_wait() -> None:
    found = served.compare(trace_of(each=10), [trace_of()], (0.5,))
    row = found.table.filter(measure="ttft_p99").row(0, named=True)
    assert row["real"] > row["synthetic"]
    assert row["value"] == pytest.approx(1 - row["synthetic"] / row["real"])


def test_longer_answers_take_longer() -> None:
    one = trace_of()
    longer = Trace.of(one.frame.with_columns(pl.col("output_tokens") * 2), one.provenance)
    found = served.compare(one, [longer], (0.3,))
    assert value(found, "e2e_p50", 0.3) > 0.8


def test_a_load_is_work_over_time() -> None:
    """At half the load the same calls take twice as long to come, and wait less for a place."""
    one = trace_of()
    found = served.compare(one, [one], (0.25, 0.5))
    queue = found.table.filter(measure="queue_mean")["real"].to_list()
    assert 0 < queue[0] < queue[1]


def test_the_error_of_the_median_is_told_of_several_traces() -> None:
    found = served.compare(trace_of(1), [trace_of(2), trace_of(3), trace_of(4)], (0.5,))
    rows = found.table.filter(measure="of_median")
    assert "ttft_p99, load 0.5" in rows["subject"].to_list()
    of = found.table.filter(measure="ttft_p99").row(0, named=True)
    median = rows.filter(subject="ttft_p99, load 0.5")["value"][0]
    assert median == pytest.approx(abs(of["synthetic"] / of["real"] - 1))
    assert of["low"] <= of["value"] <= of["high"]


def test_programs_wait_for_their_own_calls() -> None:
    """Two calls that follow each other: the program takes the time of both and the pause."""
    pair = {
        "call_id": ["a", "b"],
        "program_id": ["p", "p"],
        "parents": pl.Series([[], ["a"]], dtype=pl.List(pl.String)),
        "delay_s": [None, 3.0],
        "arrival_s": [0.0, 10.0],
        "input_tokens": [100, 100],
        "output_tokens": [10, 10],
    }
    one = Trace.of(pl.DataFrame(pair), Provenance(format="none", source="made up"))
    got = served.service_of(Workload.of(one), served.ENGINE, shares=False)
    assert got.metrics["jct_p50"] == pytest.approx(2 * got.metrics["e2e_p50"] + 3.0, rel=1e-6)


def test_calls_that_no_context_holds_are_dropped_on_both_sides() -> None:
    one = trace_of()
    huge = pl.when(pl.int_range(pl.len()) == 5).then(200_000).otherwise(pl.col("input_tokens"))
    found = served.compare(Trace.of(one.frame.with_columns(input_tokens=huge), one.provenance),
                           [one], (0.5,))  # fmt: skip
    assert "1 real and 0 synthetic calls" in found.left_out["what"].to_list()


def test_prefixes_are_cached_where_they_are_known() -> None:
    blocks = pl.Series([[*range(40)]] * 300, dtype=pl.List(pl.Int64))
    one = trace_of(prefix_blocks=blocks, input_tokens=[640] * 300).known(
        block_tokens=16, block_rule="floor", block_scope="global"
    )
    unlike = pl.Series([[*range(40 * k, 40 * k + 40)] for k in range(1, 301)])
    other = Trace.of(
        one.frame.with_columns(prefix_blocks=unlike.cast(pl.List(pl.Int64))), one.provenance
    )
    found = served.compare(one, [other], (0.5,))
    assert found.engine.prefix_cache
    assert value(found, "ttft_p50") > 0.2


def test_programs_with_a_clock_each_begin_evenly_apart() -> None:
    one = trace_of(program_id=[f"p{k // 2}" for k in range(300)]).known(arrival_basis="program")
    found = served.compare(one, [one], (0.5,))
    assert found.table["value"].max() == 0.0
    assert "a clock each" in found.doubts[0]


@pytest.mark.parametrize("loads", [(), (0.0,), (-1.0,), (float("inf"),)])
def test_loads_must_be_above_0(loads: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="Loads"):
        served.compare(trace_of(), [trace_of()], loads)


def test_nothing_to_serve_is_said() -> None:
    one = trace_of(output_tokens=[0] * 300)
    with pytest.raises(InputError, match="can be sent"):
        served.compare(one, [one])
