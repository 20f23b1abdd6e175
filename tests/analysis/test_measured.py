"""Measurements read in batches are those of the whole, and stay right when they are counted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import many

from servescope.analysis import METRICS, Measured, measured
from servescope.analysis.metrics import ANSWERED, of_call
from servescope.analysis.sample import Sample
from servescope.traces import Run
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]


def test_batches_are_the_whole(call: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = many(call)
    gaps = np.concatenate([np.diff(row["chunk_s"]) for row in rows])
    monkeypatch.setattr(measured, "BATCH_CALLS", 7)
    for name in ("tbt", "icl"):
        sample = Measured(frame_of_rows(rows).lazy()).sample(name)
        assert np.array_equal(sample.values, np.sort(gaps))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("ok", "error", "not_sent")),
            st.lists(st.sampled_from((0.0, 0.25, 1.5)), max_size=5) | st.none(),
            st.sampled_from((None, 1, 2, 4, 6)),
            st.booleans(),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_what_is_read_in_one_pass_is_what_the_registry_defines(
    calls: list[tuple[str, list[float] | None, int | None, bool]],
) -> None:
    rows = []
    for number, (status, gaps, tokens, counted) in enumerate(calls):
        chunks = None if gaps is None else list(np.cumsum([float(number), *gaps]))[: len(gaps)]
        rows.append(
            {
                "call_id": f"{number:02}",
                "status": status,
                "due_s": float(number),
                "chunk_s": chunks,
                "chunk_tokens": [2] * len(chunks) if chunks is not None and counted else None,
                "output_tokens": tokens,
            }
        )
    frame = frame_of_rows(rows)
    run = Measured(frame.lazy())
    defined = frame.filter(ANSWERED).select(icl=METRICS["icl"].expr, tbt=METRICS["tbt"].expr)
    for name in ("icl", "tbt"):
        expected = defined[name].explode().drop_nulls().sort()
        assert run.sample(name).values.tolist() == expected.to_list()
    stalls = frame.select(of_call(METRICS["stall"])).to_series()
    assert run.calls["stall"].to_list() == stalls.to_list()
    assert run.calls["chunks"].to_list() == frame["chunk_s"].list.len().to_list()


def test_owners_say_which_programs_count_and_where_they_belong(call: Make) -> None:
    rows = [call("a", 0.0, 1.0, 1.5), call("b", 1.0, 2.0, 2.25), call("c", 2.0, 3.0, 3.125)]
    owners = pl.DataFrame({"program_id": ["program of a", "program of c"], "block": [1, 0]})
    samples = Measured(frame_of_rows(rows).lazy()).samples(("icl", "ttft", "jct"), owners, 2)
    assert list(samples) == ["icl", "ttft", "jct"]
    icl = samples["icl"]
    assert list(zip(icl.values, icl.block, strict=True)) == [(0.125, 0), (0.5, 1)]
    assert all(sample.sizes().tolist() == [1, 1] for sample in samples.values())


def test_the_warm_up_and_calls_that_are_not_asked_for_count_nowhere(
    call: Make, a_run: MakeRun
) -> None:
    """A program that began in the warm-up is left out whole, its later calls too."""
    rows = [
        call("a", 0.0, 1.0, 1.1, program_id="p"),
        call("b", 9.0, 10.0, 10.2, program_id="p"),
        call("c", 5.0, 6.0, 6.4, program_id="q", turn=0),
        call("d", 8.0, 9.0, 9.8, program_id="q", turn=1),
    ]
    run = Measured.of(a_run(rows, warmup_s=2.0))
    assert run.calls["call_id"].to_list() == ["c", "d"]
    assert run.sample("icl").values.tolist() == pytest.approx([0.4, 0.8])
    later = run.where(pl.col("turn") == 1)
    assert later.calls["call_id"].to_list() == ["d"]
    assert later.sample("icl").values.tolist() == pytest.approx([0.8])
    assert later.fluidity(1.0, 1.0).to_list() == [1.0]


def test_a_run_that_was_killed_is_measured_as_far_as_it_came(call: Make, a_run: MakeRun) -> None:
    run = a_run([call("a", 0.0, 1.0, 1.5)])
    table = pl.read_parquet(run.path / "calls.parquet")
    (run.path / "calls.parquet").unlink()
    reopened = Run.open(run.path)
    reopened.append(table)
    assert Measured.of(reopened).sample("tbt").values.tolist() == [0.5]


def test_nothing_has_a_row_for_every_metric_and_no_value(a_run: MakeRun) -> None:
    run = Measured.of(a_run([]))
    assert run.summary["metric"].to_list() == list(METRICS)
    assert set(run.summary["n"]) == {0}
    assert all(isinstance(sample, Sample) for sample in run.distributions.values())


def test_what_is_made_of_chunks_is_pooled_over_the_calls_that_are_asked_for(
    call: Make, a_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "BATCH_CALLS", 2)
    rows = [call(str(n), float(n), n + 1.0, n + 1.5, empty_s=[n + 0.5]) for n in range(5)]
    run = Measured.of(a_run(rows))
    asked = run.calls.filter(pl.col("call_id").is_in(["1", "4"])).select("row", "due_s")
    since = run.pooled((pl.col("chunk_s") - pl.col("due_s")).list.slice(0, 1), asked)
    assert since.values.tolist() == [1.0, 1.0]
    assert run.pooled(pl.col("empty_s"), asked).values.tolist() == [1.5, 4.5]


def test_a_run_of_before_empty_chunks_were_kept_has_none(call: Make) -> None:
    rows = frame_of_rows([call("a", 0.0, 1.0)]).drop("empty_s")
    run = Measured(rows.lazy())
    assert len(run.pooled(pl.col("empty_s"), run.calls.select("row"))) == 0
    assert run.sample("ttft").values.tolist() == [1.0]
