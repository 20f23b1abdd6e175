"""Client pools as models: what is published of clients comes out of what is drawn."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.analysis.models.model import Model
from servescope.analysis.models.renewal import WindowedRenewal
from servescope.analysis.models.servegen import INDEPENDENT, ONLY_TEXT, of_pool
from servescope.analysis.models.synthesis import synthesize
from servescope.traces import load
from servescope.traces.errors import InputError
from servescope.traces.trace import Trace

REAL = Path(__file__).parents[4] / "shared/data/servegen/language/m-small"
WINDOW_S = 600
RATES = [10.0, 0.0, 20.0, 10.0, 0.0, 40.0]
A, B, C = (f"made/pool/chunk-{k}" for k in range(3))
Line = tuple[float, str, float]


def window(start_s: int, rate: float, pattern: str, shape: float) -> str:
    """One line of a client's rates, as ServeGen writes them."""
    if not rate:
        return f"{start_s},0,0,,0,0"
    return f"{start_s},{rate},1.0,{pattern},{shape},{1 / (rate * shape)}"


def client(folder: Path, chunk: int, lines: Sequence[Line], **lengths: dict[int, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [window(WINDOW_S * k, *line) for k, line in enumerate(lines)]
    (folder / f"chunk-{chunk}-trace.csv").write_text("\n".join(rows) + "\n")
    if lengths:
        text = {"0": {field: str(histogram) for field, histogram in lengths.items()}}
        (folder / f"chunk-{chunk}-dataset.json").write_text(json.dumps(text))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """Three clients: one idles at times, one is regular, one has no lengths of its own."""
    folder = tmp_path_factory.mktemp("clients") / "made" / "pool"
    bursty = [(rate, "Gamma", 0.25 if k < 3 else 4.0) for k, rate in enumerate(RATES)]
    client(
        folder,
        0,
        bursty,
        input_tokens={100: 0.5, 200: 0.25, 300: 0.25},
        output_tokens={10: 0.9, 110: 0.1},
    )
    client(
        folder,
        1,
        [(5.0, "Weibull", 2.0)] * 6,
        input_tokens={1000: 1.0},
        output_tokens={1: 0.5, 3: 0.5},
    )
    client(folder, 2, [(2.0, "Gamma", 1.0)] * 6)
    return load(folder)


@pytest.fixture(scope="module")
def model(pool: Trace) -> Model:
    return of_pool(pool)


@pytest.fixture(scope="module")
def drawn(model: Model) -> pl.DataFrame:
    return synthesize(model, seed=1).frame.collect()


def test_each_client_is_a_stream_the_heaviest_first(model: Model) -> None:
    assert model.name == "made/pool"
    assert [stream.name for stream in model.streams] == [A, B, C]
    assert [stream.client for stream in model.streams] == [A, B, C]
    assert model.rate_rps == pytest.approx(np.mean(RATES) + 5 + 2)
    assert model.about.calls == (sum(RATES) + 6 * 7) * WINDOW_S
    assert model.about.span_s == model.span_s == 6 * WINDOW_S
    assert model.about.licence == "Apache-2.0"
    assert Model.from_json(model.to_json()).to_json() == model.to_json()


def test_windows_have_their_rates_and_idle_ones_stay_idle(drawn: pl.DataFrame) -> None:
    mine = drawn.filter(pl.col("client_id") == A)
    counts = np.bincount((mine["arrival_s"].to_numpy() // WINDOW_S).astype(int), minlength=6)
    for k, (count, rate) in enumerate(zip(counts.tolist(), RATES, strict=True)):
        cv = 2.0 if k < 3 else 0.5
        assert count == pytest.approx(rate * WINDOW_S, abs=4 * cv * math.sqrt(rate * WINDOW_S))


def test_windows_have_gaps_of_their_own_law(drawn: pl.DataFrame) -> None:
    at = drawn.filter(pl.col("client_id") == A)["arrival_s"].to_numpy()
    for k, cv in ((0, 2.0), (2, 2.0), (3, 0.5), (5, 0.5)):
        gaps = np.diff(at[(at >= k * WINDOW_S) & (at < (k + 1) * WINDOW_S)])
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.08)
    at = drawn.filter(pl.col("client_id") == B)["arrival_s"].to_numpy()
    gaps = np.diff(at)
    assert gaps.std() / gaps.mean() == pytest.approx(math.sqrt(4 / math.pi - 1), rel=0.05)


def test_lengths_come_as_often_as_in_the_histograms(drawn: pl.DataFrame) -> None:
    mine = drawn.filter(pl.col("client_id") == A)
    for column, expected in (
        ("input_tokens", {100: 0.5, 200: 0.25, 300: 0.25}),
        ("output_tokens", {10: 0.9, 110: 0.1}),
    ):
        shares = dict(mine[column].value_counts(normalize=True).iter_rows())
        assert {k: v for k, v in shares.items() if v > 0.001} == pytest.approx(expected, abs=0.01)
    correlation = np.corrcoef(mine["input_tokens"], mine["output_tokens"])[0, 1]
    assert correlation == pytest.approx(0, abs=4 / math.sqrt(mine.height))


def test_a_client_of_unknown_lengths_has_those_of_the_others(
    model: Model, drawn: pl.DataFrame
) -> None:
    mine = drawn.filter(pl.col("client_id") == C)["input_tokens"]
    share = sum(RATES) / (sum(RATES) + 30)  # of the calls whose lengths are known
    assert (mine < 500).mean() == pytest.approx(share, abs=0.02)
    assert mine.mean() == pytest.approx(share * 175 + (1 - share) * 1000, rel=0.05)
    assert INDEPENDENT in model.about.doubts
    assert any("1 of 3 clients, whose lengths are not known" in d for d in model.about.doubts)


def test_a_span_of_windows_and_the_heaviest_clients_alone(pool: Trace) -> None:
    model = of_pool(pool, span=(1200, 2400), clients=1)
    (stream,) = model.streams
    assert stream.arrivals is not None
    assert stream.arrivals.schedule.rates_rps == (20.0, 10.0)
    assert isinstance(stream.arrivals.shape, WindowedRenewal)
    assert [law.shape for law in stream.arrivals.shape.laws] == [0.25, 4.0]
    assert (
        "The 1 heaviest of 3 clients are kept, with 68.2 % of the calls; the others are left out."
        in model.about.doubts
    )


def test_a_window_without_calls_at_the_end_of_the_span_is_a_part_of_it(pool: Trace) -> None:
    stream = of_pool(pool, span=(0, 1200), clients=1).streams[0]
    assert stream.arrivals is not None
    assert stream.arrivals.schedule.rates_rps == (10.0, 0.0)


def test_laws_of_few_calls_are_kept_within_reason(tmp_path: Path) -> None:
    lengths = {"text_tokens": {5: 1.0}, "image_tokens": {9: 1.0}, "output_tokens": {7: 1.0}}
    client(tmp_path, 0, [(1.0, "Gamma", 1e-6), (1.0, "Weibull", 900.0)], **lengths)
    model = of_pool(load(tmp_path))
    assert ONLY_TEXT in model.about.doubts
    arrivals = model.streams[0].arrivals
    assert arrivals is not None
    assert isinstance(arrivals.shape, WindowedRenewal)
    assert [law.shape for law in arrivals.shape.laws] == [0.02, 100.0]
    calls = synthesize(model).frame.collect()
    assert set(calls["input_tokens"]) == {5}
    assert set(calls["output_tokens"]) == {7}


def test_what_is_no_pool_is_refused(pool: Trace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no pool of clients"):
        of_pool(load("azure:sample"))
    with pytest.raises(InputError, match=r"No client asks anything in the windows .* 9000 s"):
        of_pool(pool, span=(9000, 9600))
    with pytest.raises(InputError, match=r"0 clients cannot be kept"):
        of_pool(pool, clients=0)
    client(tmp_path, 0, [(1.0, "Gamma", 1.0)])
    with pytest.raises(InputError, match=r"does not say of any client how long"):
        of_pool(load(tmp_path))


def test_a_pool_without_rates_is_given_one(tmp_path: Path) -> None:
    client(tmp_path, 0, [], input_tokens={5: 1.0}, output_tokens={7: 1.0})
    (tmp_path / "chunk-0-trace.csv").unlink()
    model = of_pool(load(tmp_path))
    assert model.rate_rps is None
    assert synthesize(model.at_rate(2.0), 1000.0).frame.collect().height == pytest.approx(
        2000, abs=200
    )


@pytest.mark.skipif(not REAL.exists(), reason="needs ../shared/data/servegen")
def test_a_day_of_a_real_pool_is_a_small_file() -> None:
    model = of_pool(load(REAL), span=(0, 86_400))
    assert model.rate_rps == pytest.approx(985, rel=0.01)
    assert len(model.streams) == 29
    assert len(model.to_json()) < 1_000_000
