"""Whole traces: real ones by what is known of them, odd ones by what must not happen."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.analysis import characterize
from servescope.analysis.arrivals import process
from servescope.analysis.aspects import ASPECTS
from servescope.analysis.characterization import Characterization
from servescope.analysis.server_shape import ServerShape
from servescope.analysis.summary import sentences
from servescope.reports import characterization as pages
from servescope.reports.trace_sections import sections_of
from servescope.traces import Trace, load
from servescope.traces.provenance import Provenance

DATA = Path(__file__).parents[3] / "shared" / "data"
Real = Callable[[str], Characterization]
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is not here")


def trace_of(about: Provenance | None = None, **columns: object) -> Trace:
    size = len(next(iter(columns.values())))  # type: ignore[arg-type]
    base = {"input_tokens": [10] * size, "output_tokens": [5] * size}
    frame = pl.DataFrame({**base, **columns}, strict=False)
    return Trace.of(frame, about or Provenance(format="test", source="test"))


def said(found: Characterization) -> str:
    return " ".join(sentence.text for sentence in sentences(found))


def bursty(calls: int = 3000) -> np.ndarray:
    return process("mmpp", rates_rps=(20, 1), hold_s=(5, 15)).sample(
        np.random.default_rng(1), count=calls
    )


ODD = {
    "nothing": trace_of(arrival_s=pl.Series([], dtype=pl.Float64)),
    "one row": trace_of(arrival_s=[0.0]),
    "two rows": trace_of(arrival_s=[0.0, 1.0]),
    "constant lengths": trace_of(arrival_s=bursty()),
    "one moment": trace_of(arrival_s=[5.0] * 500),
    "ties everywhere": trace_of(arrival_s=np.repeat(np.arange(30.0), 40)),
    "ten seconds": trace_of(arrival_s=np.linspace(0, 10, 200)),
    "all failures": trace_of(
        arrival_s=bursty(), status=["error"] * 3000, output_tokens=[0] * 3000, model=["m"] * 3000
    ),
    "no failures": trace_of(arrival_s=bursty(), status=["ok"] * 3000),
    "zero tokens": trace_of(arrival_s=bursty(), input_tokens=[0] * 3000, output_tokens=[0] * 3000),
    "no tokens": trace_of(
        arrival_s=bursty(), input_tokens=[None] * 3000, output_tokens=[None] * 3000
    ),
    "no times": trace_of(parents=[[]] * 300, program_id=[f"p{k % 7}" for k in range(300)]),
    "one client": trace_of(arrival_s=bursty(), client_id=["a"] * 3000),
    "sessions of one turn": trace_of(
        arrival_s=bursty(), program_id=[f"p{k}" for k in range(3000)], turn=[0] * 3000
    ),
    "one session": trace_of(arrival_s=bursty(), program_id=["p"] * 3000, turn=range(3000)),
    "metronome": trace_of(arrival_s=np.arange(5000) * 0.5),
    "before zero and long": trace_of(arrival_s=[-1e9, 0.0, 1e9]),
    "a week of daily calls": trace_of(arrival_s=np.arange(2000) * 300.0),
    "empty prefixes": trace_of(arrival_s=bursty(), prefix_blocks=[[]] * 3000),
    "one prefix": trace_of(arrival_s=bursty(), prefix_blocks=[[1, 2, 2]] * 3000),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_traces_say_what_can_be_said_and_nothing_warns(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = characterize(ODD[name], server=ServerShape("s", 1e5, 1e5, 1e4, 0.02))
        page = sections_of([found])
        told = json.loads(pages.json([found]))
    assert page[0].name == "summary"
    assert told["traces"][0]["calls"] == found.calls
    values = found.statistics["value"]
    assert values.is_finite().all()
    assert capfd.readouterr().err == ""


def test_every_table_has_the_columns_of_its_definition_and_every_number_its_unit() -> None:
    found = characterize(load("burstgpt:sessions"))
    units = {name: list(t.units) for a in ASPECTS.values() for name, t in a.tables.items()}
    assert {name: table.columns for name, table in found.tables.items()} == {
        name: units[name] for name in found.tables
    }
    assert found.statistics["unit"].null_count() == 0
    assert found.statistics["estimator"].str.len_chars().min() > 3  # type: ignore[operator]


def test_the_same_trace_gives_the_same_numbers() -> None:
    a, b = (characterize(load("azure:sample")) for _ in range(2))
    assert a.statistics.equals(b.statistics)
    assert all(a.tables[name].equals(b.tables[name]) for name in a.tables)


def test_no_interval_lies_beside_its_value() -> None:
    found = characterize(load("burstgpt:sessions")).statistics.drop_nulls(["low", "high"])
    assert found.height > 10
    assert (found["low"] <= found["value"] + 1e-9).all()
    assert (found["value"] <= found["high"] + 1e-9).all()


def test_nothing_is_said_below_twice_the_tick() -> None:
    rng = np.random.default_rng(2)
    found = characterize(
        trace_of(arrival_s=np.floor(np.cumsum(rng.exponential(0.2, 5000)) / 3) * 3)
    )
    assert found.audit.finest_s == 6
    assert found.tables["dispersion"]["scale_s"].min() == 6
    assert found.tables["token_dispersion"]["scale_s"].min() == 6
    assert found.tables["poisson_test"]["scale_s"].min() == 6
    assert found.tables["count_autocorrelation"]["lag_s"].min() >= 6  # type: ignore[operator]
    for name, table in found.tables.items():
        if "t_s" in table.columns and name not in ("rate_changes", "gap_fits", "gap_windows"):
            apart = np.diff(np.unique(table["t_s"]))
            assert apart.min(initial=6.0) >= 5.9, name
    gaps = found.tables.get("gap_distribution")
    assert gaps is None or not (gaps["gap_s"] < 6).any()
    assert "gap_fits" not in found.tables
    assert found.value("arrivals", "gap_cv") == pytest.approx(3.75, abs=0.3)
    assert found.value("arrivals", "gap_cv_deticked") == pytest.approx(1.0, abs=0.05)
    assert "is 1.0" in said(found)


# --- what is planted is found ---------------------------------------------------------------------


def test_dependence_bursts_and_failures_that_were_planted_are_found() -> None:
    rng = np.random.default_rng(3)
    at = bursty(20_000)
    prompt = np.rint(rng.lognormal(6, 1, 20_000)).astype(int) + 1
    answer = np.rint(0.2 * prompt * rng.lognormal(0, 0.3, 20_000)).astype(int) + 1
    failing = rng.random(20_000) < 0.05 * (prompt / np.median(prompt)).clip(0.1, 10)
    found = characterize(
        trace_of(
            arrival_s=at,
            input_tokens=prompt,
            output_tokens=np.where(failing, 0, answer),
            status=np.where(failing, "error", "ok"),
        )
    )
    r = found.value("dependence", "spearman", "answered")
    assert r is not None
    assert r > 0.9
    assert found.value("failures", "failure_share") == pytest.approx(failing.mean())
    odds = found.rows("failures", "length_effect").row(0, named=True)
    assert odds["low"] > 2
    assert found.value("failures", "clustering") == pytest.approx(1.0, abs=0.25)
    assert "depends strongly" in said(found)
    assert "burstier than Poisson" in said(found)


def test_failures_that_come_together_are_said_to() -> None:
    rng = np.random.default_rng(4)
    outage = np.repeat(rng.random(100) < 0.1, 50)
    found = characterize(trace_of(arrival_s=bursty(5000), status=np.where(outage, "error", "ok")))
    row = found.rows("failures", "clustering").row(0, named=True)
    assert row["value"] > 5
    assert row["p_value"] < 1e-6
    assert "right after another" in said(found)


def test_few_bursty_clients_are_found_to_bring_the_swings() -> None:
    rng = np.random.default_rng(5)
    bursty_one = process("mmpp", rates_rps=(40, 0.1), hold_s=(30, 60)).sample(rng, until_s=3600)
    steady = [process("poisson", rate_rps=0.5).sample(rng, until_s=3600) for _ in range(10)]
    at = np.concatenate([bursty_one, *steady])
    who = np.repeat(["loud", *(f"c{k}" for k in range(10))], [len(bursty_one), *map(len, steady)])
    order = np.argsort(at)
    found = characterize(trace_of(arrival_s=at[order], client_id=who[order]))
    table = found.tables["clients"]
    assert table["client"][0] == "loud"
    assert table["cv"][0] > 2
    assert table["variance_share"][0] > 0.95
    assert table["variance_share"].sum() == pytest.approx(1.0)
    assert table["cv"][1] == pytest.approx(1.0, abs=0.15)


def test_programs_have_the_shape_they_have() -> None:
    # a root, three calls beside each other, one that waits for all: twice, a minute apart
    calls = [
        (f"{p}{c}", p, [f"{p}{x}" for x in parents], t + 60.0 * k, 1.0)
        for k, p in enumerate("ab")
        for c, parents, t in (
            ("r", "", 0.0), ("x", "r", 1.0), ("y", "r", 1.0), ("z", "r", 1.0), ("j", "xyz", 2.0),
        )
    ]  # fmt: skip
    ids, programs, parents, at, took = zip(*calls, strict=True)
    found = characterize(
        trace_of(
            call_id=ids, program_id=programs, parents=parents, arrival_s=at, observed_e2e_s=took,
            turn=[0, 1, 2, 3, 4] * 2,
        )
    )  # fmt: skip
    expected = {
        "programs": 2, "turns_mean": 5, "joins": 2, "forks": 2, "fan_out_max": 3, "depth_mean": 3,
        "parallelism": 5 / 3, "critical_path_s": 3, "continuation_share": 0.8, "live_max": 1,
    }  # fmt: skip
    for name, value in expected.items():
        assert found.value("sessions", name) == pytest.approx(value), name
    assert "branch" in said(found)


def test_calls_in_flight_follow_littles_law() -> None:
    rng = np.random.default_rng(6)
    at = np.cumsum(rng.exponential(0.1, 20_000))
    server = ServerShape("test", 1000.0, 1e6, 1000.0, 0.1)
    found = characterize(
        trace_of(arrival_s=at, input_tokens=[1000] * 20_000, output_tokens=[90] * 20_000),
        server=server,
    )
    # ten calls a second that stay for 1 + 9 s; each holds its prompt and half its answer on average
    assert found.value("load", "concurrency_mean") == pytest.approx(100, rel=0.03)
    assert found.value("load", "kv_mean_gb") == pytest.approx(100 * 1045 * 1000 / 1e9, rel=0.03)
    flat = found.tables["token_dispersion"].filter(pl.col("windows") > 500)
    assert flat["input"].to_numpy() == pytest.approx(np.ones(flat.height), abs=0.15)


def test_a_mix_that_drifts_is_told_from_one_that_does_not() -> None:
    rng = np.random.default_rng(7)
    at = np.cumsum(rng.exponential(0.2, 20_000))
    swing = 0.5 + 0.4 * np.sin(at / 200)
    for share, low, high in ((np.full(20_000, 0.5), 0.8, 1.2), (swing, 2.5, 1e9)):
        kind = np.where(rng.random(20_000) < share, "chat", "code")
        found = characterize(trace_of(arrival_s=at, call_class=kind))
        drift = found.value("load", "mix_drift", "call_class, 10 s")
        assert drift is not None
        assert low < drift < high


# --- real traces against ../shared/data/README.md -------------------------------------------------

LENGTHS = {
    "burstgpt/BurstGPT_1.head400.csv": ((520.5, 1958, 2126), (276.5, 1421, 2019)),
    "azure_llm_2023": ((2047.8, 7436, 7437), (27.9, 252, 1899)),
    "mooncake/synthetic_trace.jsonl.gz": ((15325.5, 66456, 191378), (149.1, 768, 893)),
    "mooncake/conversation_trace.head400.jsonl": ((14276.3, 89867, 121298), (365.2, 906, 2000)),
    "ragpulse": ((3020.8, 5269, 6467), (255.9, 795, 1843)),
    "token_lengths/sharegpt_8k_filtered_stats_llama2_tokenizer.csv.gz": (
        (2340, 7434, 8141), (439, 998, 1024),
    ),
    "token_lengths/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz": (
        (2588, 3933, 4054), (291, 3270, 4056),
    ),
}  # fmt: skip
ARRIVALS = {  # span, rate, CV of the gaps as stamped
    "burstgpt/BurstGPT_1.head400.csv": (37_269, 0.0107, 4.57),
    "burstgpt/BurstGPT_3.head280.csv": (38_686, 0.0072, 2.53),
    "azure_llm_2023": (3435.9, 2.566, 13.15),
    "vidur": (3435.9, 2.566, 13.15),
    "mooncake/synthetic_trace.jsonl.gz": (1022.0, 3.906, 1.01),
    "mooncake/conversation_trace.head400.jsonl": (141, 2.83, 2.74),
    "ragpulse": (604_371, 0.0063, 3.16),
    "llmservingsim/workload_me2_01_mixed.jsonl": (60.9, 9.97, 0.99),
}


@pytest.fixture(scope="module")
def real() -> Real:
    known: dict[str, Characterization] = {}

    def one(name: str) -> Characterization:
        if name not in known:
            known[name] = characterize(load(str(DATA / name)))
        return known[name]

    return one


@needs_data
@pytest.mark.parametrize("name", LENGTHS)
def test_the_lengths_of_real_traces_are_those_that_were_measured(name: str, real: Real) -> None:
    found = real(name)
    for column, (mean, p99, most) in zip(
        ("input_tokens", "output_tokens"), LENGTHS[name], strict=True
    ):
        assert found.value("lengths", "mean_tokens", column) == pytest.approx(mean, rel=2e-3)
        assert found.value("lengths", "max_tokens", column) == most
        row = found.tables["length_quantiles"].filter(
            (pl.col("column") == column) & (pl.col("of") == "") & (pl.col("quantile") == 0.99)
        )
        # there the quantile is one rank further
        assert row["tokens"][0] == pytest.approx(p99, rel=2e-3)


@needs_data
@pytest.mark.parametrize("name", ARRIVALS)
def test_the_arrivals_of_real_traces_are_those_that_were_measured(name: str, real: Real) -> None:
    found = real(name)
    span, rate, cv = ARRIVALS[name]
    assert found.value("clock", "span_s") == pytest.approx(span, rel=2e-3)
    assert found.value("arrivals", "rate_rps") == pytest.approx(rate, rel=1e-2)
    assert found.value("arrivals", "gap_cv") == pytest.approx(cv, abs=0.006)


@needs_data
def test_the_summaries_say_what_matters(real: Real) -> None:
    azure = said(real("azure_llm_2023"))
    assert "on and off: 34 silences over 20 s hold 65 % of the time (CV of the gaps 13" in azure
    mooncake = said(real("mooncake/conversation_trace.head400.jsonl"))
    assert "ticks every 3 s" in mooncake
    assert "2.74 as stamped, is 1.0" in mooncake
    assert "64 % of the prefix blocks" in said(real("mooncake/synthetic_trace.jsonl.gz"))
    servegen = said(real("servegen"))
    assert "9 of 43 clients make 90 % of the calls and 98 % of the swings" in servegen


@needs_data
def test_known_figures_of_sessions_prefixes_and_clients_are_found(real: Real) -> None:
    synthetic = real("mooncake/synthetic_trace.jsonl.gz")
    assert synthetic.value("prefixes", "hit_rate") == pytest.approx(0.6396, abs=1e-4)
    conversation = real("mooncake/conversation_trace.head400.jsonl")
    assert conversation.value("prefixes", "hit_rate") == pytest.approx(0.1346, abs=1e-4)
    ragpulse = real("ragpulse")
    assert ragpulse.value("sessions", "programs") == 2215
    assert ragpulse.value("sessions", "turns_mean") == pytest.approx(1.72, abs=0.005)
    burstgpt = real("burstgpt/BurstGPT_3.head280.csv")
    assert burstgpt.value("sessions", "programs") == 100
    assert burstgpt.value("sessions", "turns_mean") == 2.74
    assert burstgpt.value("failures", "failed") == 1
    clients = real("servegen")
    assert clients.value("clients", "clients", "language/m-small") == 43
    assert clients.value("clients", "rate_rps", "language/m-small") == pytest.approx(1174, abs=1)
    assert clients.value("clients", "rate_max_rps", "language/m-small") == pytest.approx(
        3880, abs=1
    )
    exgentic = real("exgentic_otel_normalized")
    assert exgentic.value("sessions", "programs") == 23


@needs_data
@pytest.mark.slow
def test_weka_reuses_nearly_all_of_its_prefix_blocks(real: Real) -> None:
    found = real("weka_agentic")
    assert found.calls == 24_108
    assert found.value("sessions", "programs") == 360
    assert "96 % of the prefix blocks were seen before within programs" in said(found)
