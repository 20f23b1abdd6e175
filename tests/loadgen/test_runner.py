"""Whole runs in real time: against the embedded engine, and against a server nobody here wrote."""

import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import polars as pl
import pytest
from aiohttp import web
from background import Background
from faulty_server import Faulty, serving, well_behaved

from servescope.analysis import Measured
from servescope.engine import http
from servescope.loadgen import runner
from servescope.loadgen.experiment import (
    ArrivalSpec,
    EndpointSpec,
    EngineSpec,
    Experiment,
    SyntheticSpec,
    WorkloadSpec,
)
from servescope.loadgen.simulate import cluster_of, simulate
from servescope.traces import Run, load
from servescope.traces.errors import EndpointError, OutputExists

HERE = Path(__file__).parents[1]
ENGINE = EngineSpec(system="sarathi", model="Llama-3.2-1B", tp=2, params={"chunk_tokens": "2048"})


@asynccontextmanager
async def engine_server() -> AsyncIterator[str]:
    served = web.AppRunner(
        http.make_app(cluster_of(ENGINE), ENGINE.model), handler_cancellation=True, access_log=None
    )
    await served.setup()
    await web.TCPSite(served, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{served.addresses[0][1]}"
    await served.cleanup()


@pytest.fixture
def engine_url() -> Iterator[str]:
    with Background(engine_server()) as url:
        yield url


@pytest.fixture
def faulty_url() -> Iterator[str]:
    with Background(serving(Faulty(script=well_behaved))) as server:
        yield server.url


def asked(url: str, *, name: str = "live", **workload: object) -> Experiment:
    fields = {"trace": "mooncake:sample", "duration_s": 12.0, "time_scale": 0.4, **workload}
    return Experiment(
        name=name,
        workload=WorkloadSpec(**fields),  # type: ignore[arg-type]
        endpoint=EndpointSpec(base_url=url),
    )


def test_the_real_clock_and_the_virtual_clock_tell_the_same_story(
    engine_url: str, tmp_path: Path
) -> None:
    """The same plan on the same engine: by HTTP in real time, and by events in virtual time."""
    live = runner.replay(asked(engine_url), tmp_path / "live")
    virtual = simulate(
        Experiment(name="virtual", workload=asked(engine_url).workload, engine=ENGINE),
        tmp_path / "virtual",
    )
    assert live.info.plan_sha256 == virtual.info.plan_sha256
    a, b = live.trace.collect(), virtual.trace.collect()
    assert a["status"].to_list() == b["status"].to_list() == ["ok"] * a.height
    both = a.join(b, on="call_id", suffix="_virtual")
    assert (both["output_tokens"] == both["output_tokens_virtual"]).all()
    assert (both["input_tokens"] == both["input_tokens_virtual"]).all()
    # Deadlines are absolute, so the real engine is never early; how late is the host's affair, and
    # what it adds must not drown what the engine does.
    for name in ("ttft", "e2e"):
        real, exact = (Measured.of(r).sample(name).quantile(0.5) for r in (live, virtual))
        assert 0.9 * exact < real < 2 * exact + 0.5  # type: ignore[operator]


def test_a_live_run_keeps_the_traces_arrivals(engine_url: str, tmp_path: Path) -> None:
    run = runner.replay(asked(engine_url), tmp_path / "run")
    recorded = load("mooncake:sample").window(0, 12).collect()["arrival_s"] * 0.4
    roots = run.trace.collect().filter(pl.col("parents").list.len() == 0)
    planned = run.plan.filter(pl.col("parents").list.len() == 0)
    assert roots.sort("call_id")["due_s"].to_list() == planned.sort("call_id")["due_s"].to_list()
    assert set(planned["due_s"].round(9)) <= set(recorded.round(9))
    assert (roots["sent_s"] >= roots["due_s"]).all()


def test_a_run_directory_says_what_was_asked_and_how_it_went(
    engine_url: str, tmp_path: Path
) -> None:
    run = runner.replay(asked(engine_url), tmp_path / "run")
    assert {p.name for p in run.path.iterdir()} == {
        "experiment.toml", "run.json", "plan.parquet", "calls.parquet", "server.parquet",
    }  # fmt: skip
    info = Run.open(run.path).info
    assert (info.clock, info.model, info.endpoint) == ("real", "Llama-3.2-1B", engine_url)
    assert info.ended is not None
    assert info.planned_calls == run.plan.height == run.trace.collect().height
    assert info.client["lag_p99_s"] >= 0
    assert not info.interrupted


@pytest.fixture
def two_servers() -> Iterator[list[Faulty]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(Background(serving(Faulty(script=well_behaved)))) for _ in range(2)
        ]


def planned_bodies(server: Faulty) -> list[bytes]:
    """What a server was asked besides the probe's calls of 16 and 4 tokens."""
    asked_of = [(body, msgspec.json.decode(body)) for body in server.bodies]
    return [body for body, a in asked_of if (len(a["prompt"]), a["max_tokens"]) != (16, 4)]


def test_replicas_share_the_calls_as_the_policy_says_and_each_row_names_its_own(
    two_servers: list[Faulty], tmp_path: Path
) -> None:
    endpoint = EndpointSpec(
        base_url=tuple(server.url for server in two_servers), dispatch="session-sticky", workers=2
    )
    experiment = msgspec.structs.replace(
        asked("", duration_s=40.0, time_scale=0.05), endpoint=endpoint
    )
    calls = runner.replay(experiment, tmp_path / "run").trace.collect()
    for server in two_servers:
        mine = calls.filter((pl.col("replica") == server.url) & pl.col("sent_s").is_not_null())
        assert mine.height == len(planned_bodies(server)) > 5
    homes = calls.drop_nulls("replica").group_by("program_id").agg(pl.col("replica").n_unique())
    assert homes["replica"].max() == 1
    assert calls["worker"].drop_nulls().n_unique() == 2


def test_what_is_sent_does_not_depend_on_the_number_of_workers(
    two_servers: list[Faulty], tmp_path: Path
) -> None:
    """The same plan and the same bytes to the same replicas, from one worker or from three."""
    sent, digests = [], set()
    for workers in (1, 2, 3):
        for server in two_servers:
            server.bodies.clear()
        endpoint = EndpointSpec(base_url=tuple(s.url for s in two_servers), workers=workers)
        experiment = msgspec.structs.replace(
            asked("", duration_s=40.0, time_scale=0.05), endpoint=endpoint
        )
        run = runner.replay(experiment, tmp_path / str(workers))
        assert (run.trace.collect()["status"] == "ok").all()
        assert len(run.info.client["workers"]) == workers
        digests.add(run.info.plan_sha256)
        sent.append([sorted(planned_bodies(server)) for server in two_servers])
    assert len(digests) == 1
    assert sent[0] == sent[1] == sent[2]
    assert len(sent[0][0]) > 10


def test_an_endpoint_that_is_down_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="Nothing answers"):
        runner.replay(asked("http://127.0.0.1:9"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_taken_directory_is_refused_before_anything_is_sent(
    faulty_url: str, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputExists):
        runner.replay(asked(faulty_url), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_interrupting_keeps_what_was_measured(engine_url: str, tmp_path: Path) -> None:
    """The first SIGINT ends the replay in good order; the run is sealed and says so."""
    shown = []

    def interrupt_soon(tally: object) -> None:
        shown.append(tally)
        if len(shown) == 8:
            os.kill(os.getpid(), signal.SIGINT)

    experiment = asked(engine_url, duration_s=80.0)
    run = runner.replay(experiment, tmp_path / "run", interrupt_soon)
    calls = run.trace.collect()
    assert run.info.interrupted
    assert 0 < calls.height < run.info.planned_calls
    assert set(calls["status"]) <= {"ok", "cancelled", "not_sent"}
    assert any("was interrupted" in doubt for doubt in run.info.doubts)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_key_leaves_no_trace_in_the_run(
    faulty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    run = runner.replay(asked(faulty_url, duration_s=2.0), tmp_path / "run")
    assert run.trace.collect().height > 0
    for path in run.path.rglob("*"):
        assert path.is_dir() or b"sk-very-secret" not in path.read_bytes()


@pytest.mark.thirdparty
@pytest.mark.parametrize("backend", ["openai", "openai-chat"])
def test_llama_cpp_is_replayed_and_counts_what_was_planned(
    llama_url: str, tmp_path: Path, backend: str
) -> None:
    """llama.cpp closes connections that it says it keeps, and writes chunks of several tokens."""
    experiment = Experiment(
        name="llama",
        workload=WorkloadSpec(trace="burstgpt:sessions", calls=60, time_scale=0.0003),
        endpoint=EndpointSpec(base_url=llama_url, backend=backend),
    )
    run = runner.replay(experiment, tmp_path / "run")
    calls = run.trace.collect().join(run.plan, on="call_id", suffix="_planned")
    # Its context holds 2,048 tokens, and its tokenizer makes two or three of a word.
    room = 2000 if backend == "openai" else 600
    fits = calls.filter(pl.col("input_tokens_planned") + pl.col("output_tokens_planned") < room)
    served = fits.filter(pl.col("status") == "ok")
    assert served.height == fits.height > 20
    assert (served["output_tokens"] == served["output_tokens_planned"]).all()
    if backend == "openai":  # token ids need no tokenizer, so the server must count the same
        assert (served["input_tokens"] == served["input_tokens_planned"]).all()
    assert (served["first_token_s"] >= served["sent_s"]).all()
    assert run.info.probe["reuse"] is False
    with urllib.request.urlopen(f"{llama_url}/metrics") as answer:
        page = answer.read().decode()
    told = [line.split()[1] for line in page.splitlines() if "tokens_predicted_total " in line]
    assert float(told[-1]) >= float(served["output_tokens"].sum())


def test_that_priorities_may_be_ignored_is_a_standing_doubt(
    faulty_url: str, tmp_path: Path
) -> None:
    said = []
    for priority in ("none", "program-arrival"):
        experiment = Experiment(
            name=priority,
            workload=WorkloadSpec(
                synthetic=SyntheticSpec(input_tokens=8, output_tokens=2), calls=2
            ),
            endpoint=EndpointSpec(base_url=faulty_url, priority=priority),
        )
        run = runner.replay(experiment, tmp_path / priority)
        said.append(any("whether it heeds them" in doubt for doubt in run.info.doubts))
    assert said == [False, True]


@pytest.mark.thirdparty
def test_a_cache_that_another_run_has_warmed_is_found_out(llama_url: str, tmp_path: Path) -> None:
    """Nothing is shared in this plan, so what llama.cpp finds in its cache is of the run before."""
    experiment = Experiment(
        name="twice",
        workload=WorkloadSpec(
            synthetic=SyntheticSpec(input_tokens=300, output_tokens=4),
            arrivals=ArrivalSpec(process="constant", rate_rps=2.0),
            calls=5,
        ),
        endpoint=EndpointSpec(base_url=llama_url),
        seed=1,
    )
    cold, warm = (runner.replay(experiment, tmp_path / name) for name in ("cold", "warm"))
    assert not any("cache" in doubt for doubt in cold.info.doubts)
    assert warm.trace.collect()["cached_tokens"].sum() > 1000
    assert any("knew these prompts from before" in doubt for doubt in warm.info.doubts)
    assert warm.info.validity != "valid"
