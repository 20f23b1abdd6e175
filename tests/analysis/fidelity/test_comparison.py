"""Whole comparisons: of a trace with itself, with another draw, and with planted differences."""

import numpy as np
import polars as pl
import pytest
from made_traces import bursty, poisson, trace_of

from servescope.analysis import fidelity
from servescope.analysis.fidelity import ASPECTS, Fidelity
from servescope.analysis.fidelity.comparison import SCHEMA, band, inside
from servescope.traces import Trace
from servescope.traces.errors import InputError
from servescope.traces.schema import SCHEMA as SCHEMAS


@pytest.fixture(scope="module")
def alike() -> Fidelity:
    return fidelity.compare(poisson(1), [poisson(2), poisson(3)])


def test_a_trace_is_like_itself() -> None:
    """Every distance is exactly 0, and a classifier can only guess; all windows are copies."""
    one = poisson(1)
    found = fidelity.compare(one, [one])
    distances = found.table.filter(~pl.col("measure").is_in(["auc", "copies"]))
    assert distances["value"].unique().to_list() == [0.0]
    assert found.value("auc") == pytest.approx(0.5, abs=1e-9)
    assert found.value("copies") == 1.0


def test_two_draws_of_one_law_are_as_alike_as_two_halves(alike: Fidelity) -> None:
    for measure, most in (("ks", 0.06), ("idc", 0.3), ("spearman", 0.06), ("copula", 0.03)):
        assert (alike.value(measure) or 0.0) < most
    assert 0.4 < (alike.value("auc") or 0.0) < 0.6
    assert (alike.value("copies") or 0.0) < 0.1


def test_every_row_says_what_it_is(alike: Fidelity) -> None:
    assert alike.table.schema == SCHEMA
    known = {m: about.unit for aspect in ASPECTS.values() for m, about in aspect.measures.items()}
    for row in alike.table.iter_rows(named=True):
        assert row["unit"] == known[row["measure"]]
        assert row["floor"] is not None
        if not row["measure"].endswith("mean_curve"):
            assert row["low"] <= row["value"] <= row["high"]


def test_bursts_are_found() -> None:
    """Ten calls at once have an index of dispersion near 10 where Poisson's is 1: ln 10 = 2.3."""
    found = fidelity.compare(bursty(1), [poisson(1)])
    curve = found.curves["idc"].filter(pl.col("x") > 10)
    assert curve["real"].to_numpy() == pytest.approx(10, rel=0.4)
    assert 1.5 < (found.value("idc") or 0.0) < 2.5
    assert (found.value("auc") or 0.0) > 0.95
    assert found.value("idc_mean_curve") == pytest.approx(found.value("idc"))


def test_shuffled_answers_are_found() -> None:
    calls = poisson(1).collect()
    mixed = calls["output_tokens"].shuffle(seed=1)
    found = fidelity.compare(
        Trace.of(calls, poisson(1).provenance),
        [Trace.of(calls.with_columns(output_tokens=mixed), poisson(1).provenance)],
    )
    assert found.value("ks", "output_tokens") == 0.0
    assert (found.value("spearman") or 0.0) == pytest.approx(0.58, abs=0.06)
    assert (found.value("copula") or 0.0) > 0.1
    assert (found.value("auc") or 0.0) > 0.9


def test_halved_answers_are_found() -> None:
    calls = poisson(1).collect()
    halved = calls.with_columns(pl.col("output_tokens") // 2 + 1)
    found = fidelity.compare(poisson(1), [Trace.of(halved, poisson(1).provenance)])
    assert found.value("mean", "output_tokens") == pytest.approx(0.5, abs=0.02)
    assert (found.value("ks", "output_tokens") or 0.0) > 0.2
    assert found.value("ks", "input_tokens") == 0.0
    assert found.value("conditional_p90") == pytest.approx(0.5, abs=0.02)


def test_a_clock_gives_nothing_away() -> None:
    """Stamps of whole seconds against fine ones of the same law are as alike as two fine ones."""
    real = poisson(1, calls=4000)
    floored = real.frame.with_columns(pl.col("arrival_s").floor())
    found = fidelity.compare(Trace.of(floored, real.provenance), [poisson(2, calls=4000)])
    assert found.tick is not None
    assert found.tick.step_s == pytest.approx(1.0)
    assert (found.value("ks", "gap_s") or 1.0) < 0.06
    assert 0.4 < (found.value("auc") or 0.0) < 0.6
    assert any("tick of 1 s" in doubt for doubt in found.doubts)


def test_what_traces_do_not_have_is_left_out_with_the_reason() -> None:
    found = fidelity.compare(poisson(1, calls=200), [poisson(2, calls=200)])
    left = dict(zip(found.left_out["what"], found.left_out["why"], strict=True))
    assert left["sessions"] == "the real trace names no programs"
    assert left["prefix reuse"] == "nothing says which prompts share a prefix"
    assert "640 calls" in left["classifier"]


@pytest.mark.parametrize("calls", [1, 2, 25])
def test_few_calls_leave_much_out(calls: int) -> None:
    found = fidelity.compare(poisson(1, calls=calls), [poisson(2, calls=calls)])
    assert found.left_out.height
    assert found.value("ks", "input_tokens") is not None


def test_calls_at_one_moment_have_no_gaps() -> None:
    same = trace_of(np.full(500, 3.0), np.full(500, 10), np.full(500, 5))
    found = fidelity.compare(same, [poisson(1, calls=500)])
    assert found.value("idc") is None
    assert found.value("ks", "input_tokens") is not None


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(InputError, match="no synthetic trace"):
        fidelity.compare(poisson(1, calls=10), [])
    empty = Trace.of(poisson(1, calls=10).frame.head(0), poisson(1).provenance)
    with pytest.raises(InputError, match="no calls"):
        fidelity.compare(poisson(1, calls=10), [empty])


def test_one_draw_in_ten_is_outside_the_band_of_twenty_others() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(4000):
        values = rng.normal(size=21)
        low, high = band(values[1:])
        hits += low <= values[0] <= high
    assert hits / 4000 == pytest.approx(0.9, abs=0.015)


def test_numbers_in_the_band_are_counted_of_ten_traces_or_more() -> None:
    found = fidelity.compare(poisson(0, calls=700), [poisson(k, calls=700) for k in range(1, 11)])
    within, of = found.inside
    assert of == found.table["real"].is_not_null().sum()
    assert within / of > 0.5
    few = fidelity.compare(poisson(0, calls=700), [poisson(k, calls=700) for k in (1, 2)])
    assert inside(few.table) == (0, 0)


ODD = {
    "constant lengths": {"input_tokens": [10] * 900, "output_tokens": [5] * 900},
    "no answers": {"output_tokens": [0] * 900},
    "no lengths": {"input_tokens": [None] * 900, "output_tokens": [None] * 900},
    "ties": {"arrival_s": [float(k // 30) for k in range(900)]},
    "one moment": {"arrival_s": [0.0] * 900},
    "one program": {"program_id": ["p"] * 900},
    "no prefixes": {"prefix_blocks": [[]] * 900},
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_traces_are_compared_as_far_as_they_go(odd: str) -> None:
    frame = poisson(1, calls=900).collect().with_columns(
        pl.Series(name, values, dtype=SCHEMAS[name]) for name, values in ODD[odd].items()
    )  # fmt: skip
    trace = Trace.of(frame, poisson(1).provenance)
    for real, other in ((trace, poisson(2, calls=900)), (poisson(2, calls=900), trace)):
        found = fidelity.compare(real, [other])
        assert found.table["value"].is_finite().all()
    own = fidelity.compare(trace, [trace]).table
    distances = own.filter(~pl.col("measure").is_in(["auc", "copies"]))
    assert set(distances["value"]) <= {0.0}
