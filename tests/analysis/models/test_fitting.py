"""A model learnt from a trace: which parts it has, what it leaves out, and what it refuses."""

from typing import Any

import made_sessions
import made_traces
import numpy as np
import polars as pl
import pytest

from servescope.analysis.models.cascade import Cascade
from servescope.analysis.models.fitting import NO_TIMES, fit
from servescope.analysis.models.model import Model
from servescope.analysis.models.synthesis import synthesize
from servescope.traces import Provenance, Trace, load
from servescope.traces.errors import InputError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def trace(calls: int, span_s: float = 600.0, **columns: Any) -> Trace:
    """Make a trace of independent calls at any time of a span."""
    at = np.sort(rng().uniform(0, span_s, calls))
    return made_traces.trace_of(at, *made_traces.lengths(rng(1), calls), **columns)


def simple(source: Trace, **options: Any) -> Model:
    return fit(source, **{"shape": "poisson", **options})


def without_times(source: Trace) -> Trace:
    frame = source.frame.drop("arrival_s")
    return Trace.of(
        frame.with_columns(parents=pl.lit([], pl.List(pl.String))),
        Provenance(format="none", source="made up", kind="synthetic"),
    )


def test_it_is_said_where_a_model_comes_from() -> None:
    about = simple(load("azure:sample"), min_count=25).about
    assert about.source == "azure:sample"
    assert about.calls == 1500
    assert about.min_count == 25
    assert about.made_by.startswith("servescope ")
    assert about.licence == load("azure:sample").provenance.licence
    assert about.span_s == pytest.approx(604.198)


def test_arrivals_are_chosen_among_families() -> None:
    """What was tried is kept with its score, and the best one is what the model has."""
    model = fit(trace(120))
    arrivals = model.streams[0].arrivals
    assert arrivals is not None
    assert arrivals.candidates
    assert any("poisson" in each.family for each in arrivals.candidates)
    assert all(each.verdict for each in arrivals.candidates)


def test_a_family_that_is_named_is_taken() -> None:
    arrivals = fit(made_traces.bursty(0, 200), shape="cascade").streams[0].arrivals
    assert arrivals is not None
    assert isinstance(arrivals.shape, Cascade)
    assert arrivals.candidates == ()


def test_windows_are_as_wide_as_is_asked_for_and_exact() -> None:
    source = trace(2000, 3600.0)
    model = fit(source, shape="cascade", window_s=60.0, exact=True)
    arrivals = model.streams[0].arrivals
    assert arrivals is not None
    assert arrivals.schedule.window_s == pytest.approx(60, rel=1e-3)
    counts = np.bincount((source.collect()["arrival_s"].to_numpy() / 60).astype(int))
    drawn = synthesize(model).collect()["arrival_s"].to_numpy()
    assert (
        np.abs(np.bincount((drawn / 60).astype(int)) - counts).max() <= 3
    )  # the first window begins at a call


def test_calls_are_single_or_of_programs() -> None:
    single = simple(trace(200)).streams[0]
    assert single.marks is not None
    assert single.calls_each == 1
    programs = simple(made_traces.sessions(0, 100)).streams[0]
    assert programs.programs is not None
    assert programs.calls_each == pytest.approx(len(made_traces.sessions(0, 100).collect()) / 100)
    assert programs.prefixes is not None
    assert programs.blocks is not None
    assert (programs.blocks.tokens, programs.blocks.rule) == (16, "floor")


def test_programs_of_one_call_are_single_calls() -> None:
    names = pl.Series([f"p{number}" for number in range(200)])
    model = simple(trace(200, program_id=names, turn=pl.Series([0] * 200)))
    assert model.streams[0].marks is not None


def test_failures_of_programs_are_apart_from_those_that_were_served() -> None:
    status = pl.Series(["ok", "ok", "ok", "timeout"] * 2000)
    whole = made_sessions.chats(0, 600)
    frame = whole.collect()
    failing = Trace.of(frame.with_columns(status=status[: frame.height]), whole.provenance)
    stream = simple(failing).streams[0]
    assert stream.failures is not None
    assert stream.failures.status == "timeout"
    assert stream.failures.share == pytest.approx(0.25, abs=0.01)


def test_kinds_of_calls_are_kept_by_model_class_and_status() -> None:
    status = ["ok"] * 450 + ["error"] * 50
    models = ["a", "b"] * 250
    model = simple(trace(500, model=pl.Series(models), status=pl.Series(status)))
    assert model.streams[0].marks is not None
    found = {(k.model, k.status): k.share for k in model.streams[0].marks.kinds}
    assert found == pytest.approx(
        {("a", "ok"): 0.45, ("b", "ok"): 0.45, ("a", "error"): 0.05, ("b", "error"): 0.05}
    )


# --- clients -------------------------------------------------------------------------------------


def test_large_clients_have_a_stream_each_and_others_share_one() -> None:
    names = rng(2).permutation(["acme"] * 900 + ["busy"] * 600 + ["c", "d"] * 50)
    model = simple(trace(1600, client_id=pl.Series(names)))
    assert [stream.name for stream in model.streams] == ["client 1", "client 2", "other clients"]
    assert [stream.client for stream in model.streams] == ["client-1", "client-2", None]
    assert model.streams[2].clients is not None
    assert model.streams[2].clients.shares == (0.5, 0.5)
    rates = [stream.rate_rps for stream in model.streams]
    assert rates == pytest.approx([900 / 600, 600 / 600, 100 / 600], rel=0.01)


@pytest.mark.parametrize(("calls", "name"), [(100, "calls"), (700, "client 1")])
def test_one_client_is_enough(calls: int, name: str) -> None:
    model = simple(trace(calls, client_id=pl.Series(["acme"] * calls)))
    assert [stream.name for stream in model.streams] == [name]
    assert set(synthesize(model).collect()["client_id"]) == {"client-1"}


def test_calls_of_nobody_are_kept_beside_those_of_clients() -> None:
    names = pl.Series(["acme", None] * 600)
    model = simple(trace(1200, client_id=names))
    assert model.rate_rps == pytest.approx(2.0, rel=0.01)
    drawn = synthesize(model).collect()["client_id"]
    assert drawn.null_count() / len(drawn) == pytest.approx(0.5, abs=0.05)


def test_a_few_calls_of_others_are_left_out_and_that_is_said() -> None:
    names = pl.Series(["acme"] * 600 + ["other"] * 20)
    model = simple(trace(620, client_id=names))
    assert [stream.name for stream in model.streams] == ["client 1"]
    assert model.about.doubts == ("20 calls of other clients are left out: too few to learn from.",)


# --- privacy -------------------------------------------------------------------------------------


def test_a_model_names_nobody_and_no_call() -> None:
    """Neither clients nor programs nor calls nor blocks are in the file by their names."""
    source = made_traces.sessions(0, 100)
    frame = source.collect().with_columns(
        client_id=pl.lit("secret-client"),
        program_id="secret-program-" + pl.col("program_id"),
        call_id="secret-call-" + pl.int_range(pl.len()).cast(pl.String),
    )
    model = simple(Trace.of(frame, source.provenance))
    assert b"secret" not in model.to_json()
    single = simple(trace(900, client_id=pl.Series(["secret"] * 700 + ["secret too"] * 200)))
    assert b"secret" not in single.to_json()


def test_kinds_of_few_calls_are_not_named() -> None:
    models = pl.Series(["usual"] * 490 + ["secret"] * 10)
    assert b"secret" not in simple(trace(500, model=models), min_count=10).to_json()
    assert b"secret" in simple(trace(500, model=models), min_count=5).to_json()


def test_larger_groups_store_less() -> None:
    sizes = [len(simple(trace(3000), min_count=least).to_json()) for least in (2, 10, 50, 300)]
    assert sizes == sorted(sizes, reverse=True)


# --- what is missing or odd ----------------------------------------------------------------------


@pytest.mark.parametrize("calls", [0, 1, 29])
def test_too_few_calls_are_refused(calls: int) -> None:
    with pytest.raises(InputError, match=f"{calls} programs are too few") as error:
        simple(trace(calls))
    assert error.value.mend == "Give a trace with 30 or more."


def test_thirty_calls_are_enough() -> None:
    for shape in ("poisson", "cascade"):
        assert 10 < len(synthesize(simple(trace(30), shape=shape)).collect()) < 60


def test_one_long_program_is_too_few() -> None:
    names = {"program_id": pl.Series(["p"] * 500), "turn": pl.Series(range(500))}
    with pytest.raises(InputError, match="1 programs are too few"):
        simple(trace(500, **names))


@pytest.mark.parametrize("shape", ["auto", "poisson", "cascade"])
def test_programs_that_all_start_at_one_instant_tell_no_rate(shape: str) -> None:
    together = made_traces.trace_of(np.zeros(500), *made_traces.lengths(rng(), 500))
    with pytest.raises(InputError, match="at one instant") as error:
        fit(together, shape=shape)
    assert "a longer time" in error.value.mend


def test_two_instants_are_a_model() -> None:
    at = np.repeat([0.0, 100.0], 250)
    for shape in ("poisson", "cascade", "windowed renewal"):
        model = simple(made_traces.trace_of(at, *made_traces.lengths(rng(), 500)), shape=shape)
        assert len(synthesize(model).collect()) == pytest.approx(500, rel=0.5)


def test_without_arrivals_a_rate_has_to_be_given() -> None:
    model = simple(without_times(trace(200)))
    assert model.rate_rps is None
    assert model.about.doubts == (NO_TIMES,)
    assert model.at_rate(2.0).rate_rps == 2


def test_constant_lengths_are_drawn_again() -> None:
    at = np.sort(rng().uniform(0, 600, 300))
    model = simple(made_traces.trace_of(at, np.full(300, 512), np.full(300, 64)))
    drawn = synthesize(model).collect()
    assert (set(drawn["input_tokens"]), set(drawn["output_tokens"])) == ({512}, {64})


def test_a_trace_without_lengths_is_refused() -> None:
    frame = trace(100).collect().with_columns(output_tokens=pl.lit(None, pl.Int64))
    with pytest.raises(InputError, match="how long prompts and answers are"):
        simple(Trace.of(frame, trace(100).provenance))


def test_a_min_count_of_one_and_unknown_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="min_count cannot be 1"):
        simple(trace(100), min_count=1)
    with pytest.raises(InputError, match="no arrival shape 'hawks'") as error:
        simple(trace(100), shape="hawks")
    assert "self-exciting" in error.value.mend


def test_the_same_trace_makes_the_same_model() -> None:
    source = made_traces.bursty(0, 200)
    assert fit(source, shape="cascade").to_json() == fit(source, shape="cascade").to_json()
