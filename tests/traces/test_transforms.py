"""The transforms of a trace, in Python and in words; what they do to burstiness is measured."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces import Provenance, Trace, inspect, load, transform
from servescope.traces.errors import InputError, MissingColumns

HERE = Provenance(format="test", source="here", tick_s=1.0, t0_ns=5_000_000_000, clock="utc")


def a_trace(arrivals: list[float], provenance: Provenance = HERE, **columns: object) -> Trace:
    counts = {"input_tokens": [8] * len(arrivals), "output_tokens": [2] * len(arrivals)}
    table = pl.DataFrame({"arrival_s": arrivals, **counts, **columns}, strict=False)
    return Trace.of(table.cast({"arrival_s": pl.Float64}), provenance)


def chats(starts: list[float], turns: int = 3, apart_s: float = 10.0) -> Trace:
    """Programs of some turns, each ten seconds after the one before."""
    rows = sorted(
        (start + turn * apart_s, f"p{number}", turn)
        for number, start in enumerate(starts)
        for turn in range(turns)
    )
    return a_trace(
        [at for at, _, _ in rows],
        call_id=[f"{program}.{turn}" for _, program, turn in rows],
        program_id=[program for _, program, _ in rows],
        turn=[turn for _, _, turn in rows],
        parents=[[] if turn == 0 else [f"{program}.{turn - 1}"] for _, program, turn in rows],
        delay_s=[None if turn == 0 else apart_s - 1 for _, _, turn in rows],
    )


def of(trace: Trace, column: str) -> list[object]:
    return trace.collect()[column].to_list()


def cv(trace: Trace) -> float:
    gaps = np.diff(np.sort(trace.collect()["arrival_s"].drop_nulls().to_numpy()))
    return float(gaps.std(ddof=1) / gaps.mean())


def bursts(seed: int = 0, calls: int = 20_000) -> Trace:
    """A Gamma renewal process of shape 1/16: CV 4."""
    gaps = np.random.default_rng(seed).gamma(1 / 16, 16.0, calls)
    return a_trace(np.cumsum(gaps).tolist())


# --- which calls ----------------------------------------------------------------------------------


def test_where_keeps_what_is_wanted_and_forgets_lost_parents() -> None:
    trace = a_trace(
        [0, 1, 2, 3],
        call_id=["a", "b", "c", "d"],
        model=["x", "y", None, "x"],
        status=["ok", "ok", "error", None],
        parents=[[], ["a"], ["b"], ["a", "b"]],
    )
    assert of(trace.where(model="x"), "call_id") == ["a", "d"]
    assert of(trace.where(model="x"), "parents") == [[], ["a"]]
    assert of(trace.where(model=["y", None]), "call_id") == ["b", "c"]
    assert of(trace.where(model="x", status=None), "call_id") == ["d"]
    assert of(transform(trace, ["where=model:y|unknown"]), "call_id") == ["b", "c"]
    assert trace.where(model=["y", None]).provenance.steps == ("where model is y or unknown",)


def test_where_takes_columns_of_text_alone() -> None:
    with pytest.raises(MissingColumns, match="no input_tokens"):
        a_trace([0.0]).where(input_tokens="8")
    with pytest.raises(MissingColumns, match="no modell"):
        transform(a_trace([0.0]), ["where=modell:x"])


def test_a_sample_keeps_programs_whole() -> None:
    trace = chats([float(start) for start in range(0, 4000, 2)])
    kept = trace.sample(0.3, seed=4).collect()
    sizes = kept.group_by("program_id").len()["len"]
    assert set(sizes) == {3}
    assert len(sizes) == pytest.approx(600, abs=4 * math.sqrt(2000 * 0.3 * 0.7))
    again = trace.window(1000.0).sample(0.3, seed=4).collect()
    assert set(again["program_id"]) <= set(kept["program_id"])
    other = trace.sample(0.3, seed=5).collect()
    assert set(other["program_id"]) != set(kept["program_id"])


def test_a_call_outside_every_program_is_sampled_alone() -> None:
    kept = bursts(calls=5000).sample(0.5).collect()
    assert kept.height == pytest.approx(2500, abs=4 * math.sqrt(1250))
    assert bursts(calls=50).sample(1.0).collect().height == 50
    assert bursts(calls=50).sample(0.0).collect().height == 0


# --- when they come -------------------------------------------------------------------------------


def test_thinning_superposition_and_compression_change_burstiness_as_theory_says() -> None:
    """Of a renewal process with CV c, thinned to p: CV^2 is 1 + p (c^2 - 1) (Cox 1962).

    Superposing k independent copies comes nearer to 1 too; compression keeps the CV as it is.
    """
    trace = bursts()
    assert cv(trace) == pytest.approx(4, rel=0.08)
    squared = cv(trace) ** 2
    for p in (0.5, 0.1):
        assert cv(trace.scale_rate(p, "thin")) ** 2 == pytest.approx(1 + p * (squared - 1), rel=0.2)
    doubled, four = trace.scale_rate(2, "superpose"), trace.scale_rate(4, "superpose")
    assert cv(trace) > cv(doubled) > cv(four) > 1
    assert cv(trace.scale_rate(4, "compress")) == pytest.approx(cv(trace), rel=1e-9)


@pytest.mark.parametrize(("factor", "by"), [(0.25, "thin"), (3, "superpose"), (2.5, "superpose")])
def test_a_rate_is_scaled_by_its_factor(factor: float, by: str) -> None:
    trace = bursts()
    scaled = trace.scale_rate(factor, by)  # type: ignore[arg-type]
    before, after = inspect(trace), inspect(scaled)
    assert after.calls == pytest.approx(factor * before.calls, rel=0.03)
    assert after.span_s == pytest.approx(before.span_s, rel=0.01)
    assert after.out_of_order == 0


def test_compression_brings_programs_nearer_and_leaves_their_inside_alone() -> None:
    fast = chats([0.0, 100.0]).scale_rate(4, "compress")
    assert of(fast, "arrival_s") == [0.0, 10.0, 20.0, 25.0, 35.0, 45.0]
    assert of(fast, "delay_s") == [None, 9.0, 9.0, None, 9.0, 9.0]
    assert fast.provenance.steps == ("rate x 4 by compression",)


def test_a_superposed_program_stays_together_and_has_names_of_its_own() -> None:
    laid = chats([0.0, 40.0, 90.0]).scale_rate(2, "superpose", seed=3).collect()
    assert laid["call_id"].n_unique() == laid.height == 18
    assert laid["program_id"].n_unique() == 6
    steps = laid.sort("program_id", "turn").with_columns(
        apart=pl.col("arrival_s").diff().over("program_id")
    )
    assert steps["apart"].drop_nulls().to_list() == pytest.approx([10.0] * 12)
    parents = {p for (ps,) in laid.select("parents").iter_rows() for p in ps}
    assert parents <= set(laid["call_id"])
    assert laid["arrival_s"].is_sorted()


def test_thinning_makes_no_rate_higher() -> None:
    with pytest.raises(InputError, match="Thinning cannot make a rate 2 times as high"):
        a_trace([0.0]).scale_rate(2, "thin")


def test_programs_with_a_clock_each_have_no_common_rate() -> None:
    apart = Provenance(format="t", source="t", arrival_basis="program")
    with pytest.raises(InputError, match="a clock each"):
        a_trace([0.0], apart).scale_rate(2)
    with pytest.raises(InputError, match="a clock each"):
        a_trace([0.0], apart).jitter()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=60).map(sorted), st.integers(0, 99))
def test_jitter_stays_within_the_tick_and_keeps_the_order(stamps: list[int], seed: int) -> None:
    trace = a_trace([float(stamp) for stamp in stamps])
    spread = trace.jitter(seed).collect()
    assert [int(at) for at in spread["arrival_s"]] == stamps
    assert spread["arrival_s"].is_sorted()
    assert spread["call_id"].to_list() == of(trace, "call_id")


def test_jitter_is_uniform_in_the_tick_and_said_as_a_doubt() -> None:
    stamps = np.repeat(np.arange(500.0), 8).tolist()
    spread = a_trace(stamps).jitter(seed=1)
    inside = np.sort(np.asarray(of(spread, "arrival_s")) % 1)
    expected = (np.arange(inside.size) + 0.5) / inside.size
    assert np.abs(inside - expected).max() < 1.95 / math.sqrt(inside.size)
    assert any("drawn at random" in doubt for doubt in spread.provenance.doubts)
    with pytest.raises(InputError, match="resolution of the trace's clock is not known"):
        a_trace([0.0], Provenance(format="t", source="t")).jitter()


def test_the_first_call_is_moved_to_zero_and_the_zero_with_it() -> None:
    moved = a_trace([3.5, 4.0]).shift_to_zero()
    assert of(moved, "arrival_s") == [0.0, 0.5]
    assert moved.provenance.t0_ns == 8_500_000_000


# --- how long they are ----------------------------------------------------------------------------


def test_lengths_are_cut_and_the_blocks_with_them() -> None:
    sample = load("mooncake:sample")
    cut = sample.clip(input_tokens=1000, output_tokens=50).collect()
    assert cut["input_tokens"].max() == 1000
    assert cut["output_tokens"].max() == 50
    fit = (cut["input_tokens"] + 511) // 512
    assert (cut["prefix_blocks"].list.len() == fit).all()
    assert transform(sample, ["clip=input:1000,output:50"]).collect().equals(cut)


# --- words ----------------------------------------------------------------------------------------


def test_words_are_applied_in_order_and_recorded() -> None:
    trace = transform(
        load("burstgpt:sessions"), ["window=0:20000", "sample=0.5", "time=2", "zero", "head=9"], 3
    )
    assert trace.provenance.steps[1:] == (
        "window 0 s to 20000 s",
        "sample 0.5 of the programs, seed 3",
        "time x 2",
        "shift to zero",
        "first 9 calls",
    )
    assert trace.provenance.kind == "derived"
    assert trace.collect().height == 9


def test_sessions_are_inferred_or_forgotten_by_a_word() -> None:
    assert "parents" in transform(load("mooncake:sample"), ["sessions=infer"]).columns
    assert "parents" not in transform(load("burstgpt:sessions"), ["sessions=none"]).columns


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("shrink=2", "There is no transform 'shrink'"),
        ("window=a:b", "'window=a:b' is not understood. Write window=START:END"),
        ("rate=2:loud", "Write rate=FACTOR"),
        ("clip=middle:3", "Write clip=input:N"),
        ("head", "Write head=N"),
        ("sessions=maybe", "Write sessions=infer"),
    ],
)
def test_a_word_that_is_none_says_how_it_is_written(step: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("|", r"\|")):
        transform(a_trace([0.0]), [step])
