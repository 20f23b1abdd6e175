"""What a run says of itself: told by hand what workers say, and read while a replay goes on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from background import Background
from faulty_server import Faulty, serving, well_behaved

from servescope.loadgen import runner, watch
from servescope.loadgen.conductor import Conductor, Tally
from servescope.loadgen.counts import Counts
from servescope.loadgen.endpoints import named
from servescope.loadgen.experiment import (
    ArrivalSpec,
    EndpointSpec,
    Experiment,
    SyntheticSpec,
    WorkloadSpec,
)
from servescope.loadgen.messages import Beat
from servescope.loadgen.records import Journal
from servescope.loadgen.scrape import Scraper
from servescope.loadgen.synthetic import programs_of
from servescope.loadgen.watch import Watch
from servescope.loadgen.workload import Workload
from servescope.traces import Run, RunInfo, live
from servescope.traces.live import Live
from servescope.traces.run import frame_of_rows


@pytest.fixture
def run(tmp_path: Path) -> Run:
    spec = WorkloadSpec(synthetic=SyntheticSpec(input_tokens=16, output_tokens=2), calls=8)
    info = RunInfo(
        name="r", system="s", clock="real", version="0", started="", seed=0, doubts=("known",)
    )
    return Run.create(tmp_path / "r", {}, Workload(programs_of(spec, 0)).plan(), info)


@pytest.fixture
def watched(run: Run, monkeypatch: pytest.MonkeyPatch) -> Watch:
    monkeypatch.setattr(watch, "EARLY_S", 0.0)
    counts = Counts(run.plan)
    conductor = Conductor(Journal(run), named("openai"), ["http://a"], 8, done=True, counts=counts)
    scraper = Scraper(["http://a", "http://b"], run.path, lambda: 0.0)
    scraper.latest[1] = {"running": 3.0, "kv_usage": 0.25, "preemptions": 7.0}
    return Watch(run, conductor, counts, ["http://a", "http://b"], scraper=scraper)


def beat(wall_s: float, cpu_s: float, late_s: list[float], sent: int = 4) -> Beat:
    return Beat(sent, 2, 1, 0.003, late_s, cpu_s, wall_s, 0, 0)


def told(watched: Watch) -> Live:
    watched.tell()
    said = live.read(watched.folder)
    assert said == watched.latest
    assert said is not None
    return said


def test_it_says_what_the_workers_and_the_servers_said_last(watched: Watch) -> None:
    watched.conductor.hear(0, beat(1.0, 0.2, [0.001] * 49 + [0.02]))
    watched.conductor.hear(1, beat(1.0, 0.4, [0.001] * 50))
    said = told(watched)
    assert (said.planned, said.sent, said.in_flight, said.waiting) == (8, 8, 4, 2)
    assert (said.now_s, said.lag_s, said.pid) == (1.0, 0.003, os.getpid())
    assert said.cpu_share == pytest.approx(0.4)
    assert said.late_p99_s == 0.001  # one of a hundred is above it
    assert [(s.replica, s.running, s.waiting, s.kv_usage) for s in said.servers] == [
        ("http://a", None, None, None), ("http://b", 3.0, None, 0.25),
    ]  # fmt: skip
    assert said.alive()
    watched.conductor.hear(0, beat(2.0, 1.1, [0.03] * 50))
    said = told(watched)
    assert said.cpu_share == pytest.approx(0.9)  # of the last second, not since the start
    assert said.late_p99_s == 0.03


def test_it_judges_the_run_so_far_with_the_doubts_of_its_start_first(watched: Watch) -> None:
    assert (told(watched).validity, watched.latest.doubts) == ("valid", ("known",))
    watched.conductor.hear(0, beat(10.0, 9.5, [0.0]))
    late = [
        {"call_id": str(n), "program_id": str(n), "status": "ok" if n else "http_503",
         "due_s": 1.0, "admitted_s": 1.0, "dispatched_s": 1.2, "sent_s": 1.2, "end_s": 2.0}
        for n in range(4)
    ]  # fmt: skip
    watched.counts.take(frame_of_rows(late))
    said = told(watched)
    assert said.validity == "invalid"
    assert said.failures == {"http_503": 1}
    text = " ".join(said.doubts)
    assert said.doubts[0] == "known"
    assert "sent its calls late, by" in text
    assert "used 95% of a core" in text
    assert "1 of 4 calls failed (1 http_503)." in text


def test_at_the_very_start_workers_are_not_judged(
    watched: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "EARLY_S", 60.0)
    watched.conductor.hear(0, beat(0.1, 0.1, [0.2]))
    assert told(watched).validity == "valid"


def test_once_sealed_it_says_nothing_more_and_a_disk_that_is_gone_ends_nothing(
    watched: Watch, tmp_path: Path
) -> None:
    watched.tell(sealing=True)
    assert watched.latest.sealing
    watched.seal("suspect", ["at last"])
    assert live.read(watched.folder) is None
    assert (watched.latest.validity, watched.latest.doubts) == ("suspect", ("at last",))
    watched.folder = tmp_path / "gone"
    watched.tell()


@pytest.fixture
def server() -> Iterator[Faulty]:
    with Background(serving(Faulty(script=well_behaved))) as faulty:
        yield faulty


def test_a_replay_says_once_a_second_how_it_goes_and_nothing_when_it_is_sealed(
    server: Faulty, tmp_path: Path
) -> None:
    out, said = tmp_path / "run", list[Live]()

    def look(_: Tally) -> None:
        found = live.read(out)
        if found is not None:
            said.append(found)

    experiment = Experiment(
        name="live",
        workload=WorkloadSpec(
            synthetic=SyntheticSpec(input_tokens=8, output_tokens=2),
            calls=60,
            arrivals=ArrivalSpec(process="constant", rate_rps=20.0),
        ),
        endpoint=EndpointSpec(base_url=server.url),
        slo="ttft<10s",
    )
    run = runner.replay(experiment, out, look)
    assert live.read(out) is None
    assert len({each.written_unix_s for each in said}) >= 3
    assert all(each.alive() and each.planned == 60 for each in said)
    assert [each.sent for each in said] == sorted(each.sent for each in said)
    assert said[-1].done > 0
    assert said[-1].ttft_p50_s is not None
    assert run.info.validity in ("valid", "suspect", "invalid")
