"""Calls drawn of a model: any part alone, in pieces of any size, at the rate that was asked for."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import made_sessions
import made_traces
import msgspec
import numpy as np
import polars as pl
import pytest

from servescope.analysis import characterize
from servescope.analysis.models import synthesis
from servescope.analysis.models.fitting import fit
from servescope.analysis.models.model import Model
from servescope.analysis.models.presets import load_preset
from servescope.analysis.models.synthesis import Synthesis, synthesize
from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.simulate import simulate
from servescope.traces import Trace, inspect, load
from servescope.traces.catalog import BUNDLED
from servescope.traces.errors import InputError, OutputExists

SHAPES = ("cascade", "gamma renewal")
SOURCES: dict[str, Callable[[], Trace]] = {
    "single": lambda: made_traces.bursty(0, 600),
    "prefixes": lambda: load("mooncake:sample"),
    "programs": lambda: made_sessions.chats(0, 400),
    "agents": lambda: made_sessions.agents(0, 150),
    "programs with prefixes": lambda: made_traces.sessions(0, 150),
    "clients": lambda: _of_clients(),
}
MODELS: dict[tuple[str, str], Model] = {}


def _of_clients() -> Trace:
    calls = 1500
    at = np.sort(np.random.default_rng(0).uniform(0, 900, calls))
    names = np.random.default_rng(1).permutation(["a"] * 700 + ["b"] * 600 + ["c", "d"] * 100)
    lengths = made_traces.lengths(np.random.default_rng(2), calls)
    return made_traces.trace_of(at, *lengths, client_id=pl.Series(names))


def model_of(source: str, shape: str) -> Model:
    if (source, shape) not in MODELS:
        MODELS[source, shape] = fit(SOURCES[source](), shape=shape)
    return MODELS[source, shape]


def span_of(model: Model) -> float:
    assert model.about.span_s is not None
    return model.about.span_s


def drawn(model: Model, duration_s: float, start_s: float = 0.0, seed: int = 0) -> pl.DataFrame:
    return pl.concat(Synthesis(model, duration_s, seed, start_s).pieces())


def in_parts(model: Model, edges: Sequence[float]) -> pl.DataFrame:
    return pl.concat([drawn(model, end - begin, begin) for begin, end in pairwise(edges)])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("source", SOURCES)
def test_any_part_alone_is_that_of_the_whole(source: str, shape: str) -> None:
    """To the bit: calls, lengths, parents, shared prefixes, and programs that began before."""
    model = model_of(source, shape)
    span = span_of(model)
    whole = drawn(model, 2 * span)
    edges = [0, 0.13 * span, 0.5 * span, 1.01 * span, 1.7 * span, 2 * span]
    assert in_parts(model, edges).equals(whole)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("calls", [20, 500])
def test_pieces_of_any_size_hold_the_same_calls(
    source: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(source, "cascade").scaled(3.0)
    whole = drawn(model, 2 * span_of(model))
    monkeypatch.setattr(synthesis, "PIECE", calls)
    pieces = list(Synthesis(model, 2 * span_of(model)).pieces())
    assert len(pieces) > 1
    assert pl.concat(pieces).equals(whole)


@pytest.mark.parametrize("source", SOURCES)
def test_a_longer_draw_begins_with_the_same_calls(source: str) -> None:
    model = model_of(source, "gamma renewal")
    short, long = (drawn(model, times * span_of(model)) for times in (0.7, 1.5))
    assert long.head(short.height).equals(short)
    assert long["arrival_s"][short.height] >= 0.7 * span_of(model)


@pytest.mark.parametrize("source", SOURCES)
def test_calls_are_in_order_and_named_once(source: str) -> None:
    calls = drawn(model_of(source, "cascade"), 1.5 * span_of(model_of(source, "cascade")))
    assert calls["arrival_s"].is_sorted()
    assert calls["call_id"].is_unique().all()
    if "parents" in calls.columns:
        parents = calls["parents"].explode().drop_nulls()
        assert parents.is_in(calls["call_id"].implode()).all()


def test_seeds_differ_and_one_seed_does_not() -> None:
    model = model_of("single", "cascade")
    once, again, other = (drawn(model, 200.0, seed=seed) for seed in (1, 1, 2))
    assert once.equals(again)
    assert not once["arrival_s"].equals(other["arrival_s"])


def test_a_part_of_a_trace_begins_at_zero() -> None:
    model = model_of("single", "cascade")
    late = synthesize(model, 50.0, start_s=120.0).collect()
    same = drawn(model, 50.0, 120.0)
    assert late["arrival_s"].to_numpy() == pytest.approx(same["arrival_s"].to_numpy() - 120)
    assert 0 <= late["arrival_s"].min() < late["arrival_s"].max() < 50  # type: ignore[operator]


@pytest.mark.parametrize("source", SOURCES)
def test_the_rate_comes_out(source: str) -> None:
    """At four times the rate of the trace, over six times its span."""
    model = model_of(source, "cascade")
    asked = (model.rate_rps or 0.0) * 4
    lasts = 6 * span_of(model)
    calls = drawn(model.at_rate(asked), lasts)
    assert calls.height / lasts == pytest.approx(asked, rel=0.1)


@pytest.mark.parametrize("by", ["users", "busier", "faster"])
def test_calls_come_at_another_rate_by_all_ways(by: str) -> None:
    model = model_of("single", "cascade")
    calls = drawn(model.at_rate(20.0, by), 600.0)  # type: ignore[arg-type]
    assert calls.height / 600 == pytest.approx(20, rel=0.1)


def test_rates_that_are_exact_come_out_in_every_window() -> None:
    model = fit(SOURCES["single"](), shape="cascade", window_s=60.0, exact=True)
    arrivals = model.streams[0].arrivals
    assert arrivals is not None
    width, rates = arrivals.schedule.window_s, np.array(arrivals.schedule.rates_rps)
    at = drawn(model, width * len(rates))["arrival_s"].to_numpy()
    counts = np.bincount((at / width).astype(int), minlength=len(rates))
    assert counts == pytest.approx(rates * width, abs=0.51)


def test_a_trace_of_programs_with_their_own_clocks_needs_a_rate() -> None:
    whole = made_sessions.chats(0, 100)
    frame = whole.frame.with_columns(
        pl.col("arrival_s") - pl.col("arrival_s").min().over("program_id")
    )
    about = msgspec.structs.replace(whole.provenance, arrival_basis="program")
    model = fit(Trace.of(frame, about))
    with pytest.raises(InputError, match="does not know when programs start") as error:
        synthesize(model, 100.0)
    assert "--rate" in error.value.mend
    with pytest.raises(InputError, match="how long to go on"):
        synthesize(model)
    calls = drawn(model.at_rate(1.0), 4000.0)
    assert calls.height == pytest.approx(4000, rel=0.2)


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_trace_lasts_a_time(duration_s: float) -> None:
    with pytest.raises(InputError, match="cannot last"):
        synthesize(model_of("single", "cascade"), duration_s)


def test_a_rate_of_0_makes_nothing() -> None:
    model = fit(SOURCES["single"](), shape="poisson")
    content = model.to_json()
    rate = model.streams[0].arrivals.schedule.rates_rps[0]  # type: ignore[union-attr]
    silent = Model.from_json(content.replace(str(rate).encode(), b"0.0"))
    with pytest.raises(InputError, match="has the rate 0"):
        synthesize(silent, 10.0)


def test_where_it_comes_from_and_what_is_doubted_is_said() -> None:
    model = model_of("prefixes", "cascade")
    about = synthesize(model, 2 * span_of(model), seed=3).provenance
    assert (about.kind, about.format) == ("synthetic", "model")
    assert about.source == "mooncake:sample, seed 3"
    assert (about.block_tokens, about.block_rule) == (512, "ceil")
    assert about.doubts[0].startswith("This is no real traffic")
    assert "begin again after that" in about.doubts[-1]
    assert len(synthesize(model).provenance.doubts) == 1


@pytest.mark.slow
def test_a_trace_is_written_alike_by_any_number_of_processes(tmp_path: Path) -> None:
    part = Synthesis(model_of("programs", "gamma renewal"), 20_000.0, 5)
    counts = [part.write(tmp_path / f"{jobs}.parquet", jobs=jobs) for jobs in (1, 2)]
    one, two = (pl.read_parquet(tmp_path / f"{jobs}.parquet") for jobs in (1, 2))
    assert counts[0] == counts[1] == one.height
    assert one.equals(two)


# --- synthetic traces do what real ones do -------------------------------------------------------


def doubts_of(trace: Trace) -> set[str]:
    """Return what is doubted of a trace but that it is synthetic, whatever the numbers."""
    doubts = inspect(trace).doubts
    return {re.sub(r"[\d.,]+", "#", doubt) for doubt in doubts if "is no real" not in doubt}


REPLAYED = {**SOURCES, **{name: partial(load, name) for name in BUNDLED}}


@pytest.mark.slow
@pytest.mark.parametrize("source", REPLAYED)
def test_a_synthetic_trace_loads_inspects_characterises_and_replays(
    source: str, tmp_path: Path
) -> None:
    """Without a warning (an error here), and without a doubt that its source is free of."""
    model = fit(REPLAYED[source](), shape="gamma renewal")
    lasts = min(span_of(model), 200 / (model.rate_rps or 1.0))
    synthesize(model, lasts, seed=1).write(tmp_path / "trace.parquet")
    trace = load(tmp_path / "trace.parquet")
    drawn_calls = synthesize(model, lasts, seed=1).collect()
    assert trace.collect().select(drawn_calls.columns).equals(drawn_calls)
    quality = inspect(trace)
    assert doubts_of(trace) <= doubts_of(REPLAYED[source]())
    assert (quality.duplicates, quality.out_of_order, quality.inconsistent) == (0, 0, {})
    found = characterize(trace)
    assert found.calls == quality.calls == drawn_calls.height
    run = simulate(
        Experiment(
            name="replay",
            workload=WorkloadSpec(trace=str(tmp_path / "trace.parquet")),
            engine=EngineSpec(tp=8),
            slo="ttft<2s",
        ),
        tmp_path / "run",
    )
    sendable = drawn_calls.filter((pl.col("input_tokens") > 0) & (pl.col("output_tokens") > 0))
    ended = run.trace.collect()
    assert ended.height == sendable.height
    assert (ended["status"] == "ok").mean() > 0.98


def test_a_place_that_is_taken_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    taken = tmp_path / "taken.parquet"
    taken.write_bytes(b"mine")
    drawn: list[int] = []
    synthesis = Synthesis(load_preset("azure-code"), 60.0)
    for jobs in (1, 2):
        with pytest.raises(OutputExists):
            synthesis.write(taken, jobs=jobs, on_progress=drawn.append)
    assert not drawn
    assert taken.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [taken]
