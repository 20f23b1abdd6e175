"""A search for capacity on the embedded engine, and on servers that fail or are stopped."""

import itertools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from background import Background
from faulty_server import Faulty, serving, well_behaved

from servescope.analysis import SLO, Measured, attained
from servescope.analysis.burn import burns_of
from servescope.loadgen import capacity_search
from servescope.loadgen.capacity_search import Wanted, search
from servescope.loadgen.experiment import ArrivalSpec, EngineSpec, Experiment
from servescope.loadgen.simulate import simulate
from servescope.loadgen.study import Study
from servescope.loadgen.study_runner import run_study
from servescope.loadgen.workload import workload_of
from servescope.traces import Run
from servescope.traces.errors import EndpointError, GateFailed, InputError

ENGINE = {"name": "sarathi", "engine": {"system": "sarathi"}}
MADE_UP = {"name": "made-up", "synthetic": {"input_tokens": 2000, "output_tokens": 50}}
AZURE = {"name": "azure", "trace": "azure:sample"}


def wanted(**fields: Any) -> Wanted:
    asked = {"system": ENGINE, "workload": MADE_UP, "slo": "ttft<300ms", **fields}
    return msgspec.convert(asked, Wanted)


def test_just_below_the_capacity_of_an_engine_the_slo_is_met_and_just_above_it_is_not(
    tmp_path: Path,
) -> None:
    """The estimate is checked by long runs of another seed that the search knows nothing of."""
    asked = wanted()
    found = search(asked, tmp_path / "out", begin=4.0, budget_s=1500)
    assert found.capacity is not None
    assert found.capacity.condition == "90 % of calls within TTFT < 300 ms"
    assert found.probes[-1].stage == "confirm"
    shares = []
    for factor in (0.9, 1.1):
        load = found.capacity.load * factor
        drawn = {"process": "poisson", "rate_rps": load}
        workload = msgspec.structs.replace(
            asked.workload.spec, arrivals=msgspec.convert(drawn, ArrivalSpec),
            duration_s=1500.0,
        )  # fmt: skip
        run = simulate(
            Experiment(name="e", workload=workload, engine=EngineSpec(system="sarathi"), seed=99),
            tmp_path / f"{factor}",
        )
        shares.append(attained(Measured.of(run), SLO.parse("ttft<300ms")).share)
    assert shares[0] > 0.9 > shares[1]


def test_probes_send_one_stretch_of_a_trace_after_the_other_at_their_loads(tmp_path: Path) -> None:
    asked = wanted(workload=AZURE, slo="p90(ttft)<2s")
    found = search(asked, tmp_path / "out", budget_s=240)
    book = json.loads((tmp_path / "out" / "capacity.json").read_text())["probes"]
    assert [p["load"] for p in book] == [probe.load for probe in found.probes]
    whole = workload_of(asked.workload.spec, 0).programs
    for before, after in itertools.pairwise(book):
        assert after["first"] in (before["end"], 0)
    assert found.natural_rps is not None
    for asked_for, made in zip(book, found.made, strict=True):
        sent = whole[asked_for["first"] : asked_for["end"]]
        assert made.run.plan["call_id"].to_list() == [c.id for p in sent for c in p.calls]
        # stretched as the whole trace would be for its mean rate to be the load
        stretch = found.natural_rps / asked_for["load"]
        due = made.run.plan["due_s"].to_list()
        starts = [(program.start_s - sent[0].start_s) * stretch for program in sent]
        assert due == pytest.approx(starts)


def test_over_the_speed_up_the_load_is_a_factor_and_pauses_are_sped_up(tmp_path: Path) -> None:
    few = {"name": "mooncake", "trace": "mooncake:sample", "calls": 60}
    asked = wanted(workload=few, over="speed-up", slo="p90(ttft)<20s")
    found = search(asked, tmp_path / "out", budget_s=480, begin=0.5, most=0.5)
    experiment = (found.made[0].run.path / "experiment.toml").read_text()
    assert "time_scale = 2.0" in experiment
    assert "delays" not in experiment or 'delays = "scale"' in experiment
    paced = wanted(workload=few, slo=asked.slo)
    found = search(paced, tmp_path / "rate", budget_s=480, begin=1.0, most=1.0)
    assert 'delays = "recorded"' in (found.made[0].run.path / "experiment.toml").read_text()


def test_a_search_that_was_stopped_goes_on_with_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(wanted(), tmp_path / "whole", begin=4.0, budget_s=120)
    simulated = capacity_search.run_study
    made = []

    def stopped(*arguments: Any) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(arguments)
        return simulated(*arguments)

    monkeypatch.setattr(capacity_search, "run_study", stopped)
    with pytest.raises(KeyboardInterrupt):
        search(wanted(), tmp_path / "parts", begin=4.0, budget_s=120)
    monkeypatch.undo()
    inodes = [path.stat().st_ino for path in sorted(tmp_path.glob("parts/0*/**/calls.parquet"))]
    parts = search(wanted(), tmp_path / "parts", begin=4.0, budget_s=120)
    assert parts.capacity == whole.capacity
    kept = [path.stat().st_ino for path in sorted(tmp_path.glob("parts/0*/**/calls.parquet"))]
    assert kept[: len(inodes)] == inodes  # what was made before was not made again


def test_with_a_larger_budget_a_search_goes_on_from_its_probes(tmp_path: Path) -> None:
    first = search(wanted(), tmp_path / "out", begin=8.0, budget_s=60, most=8.0)
    more = search(wanted(), tmp_path / "out", begin=8.0, budget_s=60, most=8.0)
    assert [p.load for p in more.probes] == [p.load for p in first.probes]
    other = wanted(slo="ttft<1s")
    with pytest.raises(InputError, match="another search"):
        search(other, tmp_path / "out", budget_s=60)


def test_a_load_beyond_the_most_is_never_sent(tmp_path: Path) -> None:
    found = search(wanted(), tmp_path / "out", begin=1.0, budget_s=600, most=2.5)
    assert found.capacity is None
    assert [probe.load for probe in found.probes] == [1.0, 2.0, 2.5]


def test_a_replay_that_can_no_more_meet_its_slo_is_cut_off(tmp_path: Path) -> None:
    """400 calls at 50 a second last 8 s; all miss, and after 3 x 40 misses no more are sent."""
    system = {"name": "slow", "endpoint": {"base_url": "", "workers": 1, "scrape_s": 0}}
    with Background(serving(Faulty(script=well_behaved))) as server:
        system["endpoint"]["base_url"] = server.url  # type: ignore[index]
        asked = wanted(
            system=system,
            workload={"name": "w", "synthetic": {"input_tokens": 10, "output_tokens": 4}},
            slo="e2e<0.001ms", warmup_calls=0,
        )  # fmt: skip
        with suppress(GateFailed):  # the client of a busy machine is late, which is not the point
            search(asked, tmp_path / "out", begin=50.0, budget_s=8 * 24, most=50.0)
    run = Run.open(tmp_path / "out" / "01" / "slow" / "w-1")
    calls = run.trace.collect()
    assert [
        burn.rate for burn in burns_of(Measured.of(run), SLO.parse(asked.slo))
    ] == pytest.approx([10.0])
    assert 120 < calls.height < run.info.planned_calls
    assert any("could no more meet its SLO" in doubt for doubt in run.info.doubts)


def test_a_server_that_is_not_there_ends_the_search_and_keeps_it(tmp_path: Path) -> None:
    system = {"name": "none", "endpoint": {"base_url": "http://127.0.0.1:9", "workers": 1}}
    with pytest.raises(EndpointError, match=r"Probe 1, at a load of 1, failed"):
        search(wanted(system=system), tmp_path / "out", budget_s=600)
    assert (tmp_path / "out" / "capacity.json").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"over": "speed-up"}, "have a rate and no speed-up"),
        ({"slo": "speed<1s"}, "An SLO cannot be asked of 'speed'"),
    ],
)
def test_what_cannot_be_searched_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        wanted(**fields)


def test_a_budget_that_no_probe_could_say_anything_of_is_refused(tmp_path: Path) -> None:
    """Twenty programs at one a second, a twenty-fourth of the budget: 480 s."""
    with pytest.raises(InputError, match=r"starts 2.5 programs.* Give --budget 480 or more"):
        search(wanted(), tmp_path / "out", budget_s=60)


def test_programs_without_a_rate_of_their_own_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "at-once.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + 3 * (
        "2023-11-16 18:17:03.9799600,10,5\n"
    ))  # fmt: skip
    with pytest.raises(InputError, match="start at once"):
        search(wanted(workload={"name": "w", "trace": str(path)}), tmp_path / "out")


def test_runs_of_a_sweep_of_the_same_system_and_workload_count_as_probes(tmp_path: Path) -> None:
    swept = msgspec.convert(
        {
            "systems": [{**ENGINE, "name": "other-name"}],
            "workloads": [{**MADE_UP, "name": "w", "calls": 600}],
            "rates": [4, 16],
        },
        Study,
    )
    run_study(swept, tmp_path / "sweep")
    asked = wanted()
    alone = search(asked, tmp_path / "alone", begin=4.0, budget_s=120)
    found = search(asked, tmp_path / "out", begin=99.0, budget_s=120, reuse=[tmp_path / "sweep"])
    assert [(probe.load, probe.reused) for probe in found.probes[:3]] == [
        (4.0, True), (16.0, True), (8.0, False),
    ]  # fmt: skip
    ours = [probe.seconds for probe in found.probes if not probe.reused]
    assert sum(ours) == pytest.approx(120)
    assert alone.capacity is not None
    assert found.capacity is not None
    assert found.capacity.load == pytest.approx(alone.capacity.load, rel=0.15)
    other = wanted(workload={"name": "w", "synthetic": {"input_tokens": 100}})
    with pytest.raises(InputError, match="holds no run of this system and workload at a rate"):
        search(other, tmp_path / "else", budget_s=600, reuse=[tmp_path / "sweep"])
