"""The conductor's ear, told by hand what workers would say."""

import asyncio
from array import array
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from faulty_server import DONE, LAST, TOKEN, USAGE

from servescope.analysis.slo import SLO
from servescope.loadgen import conductor as conductors
from servescope.loadgen.conductor import Conductor, Tally
from servescope.loadgen.counts import Counts
from servescope.loadgen.endpoints import named
from servescope.loadgen.experiment import SyntheticSpec, WorkloadSpec
from servescope.loadgen.messages import Beat, Ended
from servescope.loadgen.records import Journal
from servescope.loadgen.synthetic import programs_of
from servescope.loadgen.workload import Workload
from servescope.traces import Run, RunInfo

PIECES = (TOKEN, LAST, USAGE % 2, DONE)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    spec = WorkloadSpec(synthetic=SyntheticSpec(input_tokens=16, output_tokens=2), calls=8)
    info = RunInfo(name="r", system="s", clock="real", version="0", started="", seed=0)
    return Run.create(tmp_path / "r", {}, Workload(programs_of(spec, 0)).plan(), info)


def conductor_of(run: Run, slo: str | None = None, counts: Counts | None = None) -> Conductor:
    return Conductor(
        Journal(run), named("openai"), ["http://a"], 8, done=True,
        slo=SLO.parse(slo) if slo else None, counts=counts,
    )  # fmt: skip


def ended(number: int, ttft_s: float = 0.5, pieces: tuple[bytes, ...] = PIECES) -> Ended:
    """A call sent at 1.0, whose first token came after `ttft_s` and the second 0.25 s later."""
    ends: list[int] = []
    for piece in pieces:
        ends.append(len(piece) + (ends[-1] if ends else 0))
    first = 1.0 + ttft_s
    stamps = [first, *[first + 0.25] * (len(pieces) - 1)]
    return Ended(
        number, None, None, 1.0, 1.0, 1.0, 1.0, 1.0, first, first + 0.25,
        body=b"".join(pieces), ends=array("I", ends).tobytes(), stamps=array("d", stamps).tobytes(),
    )  # fmt: skip


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_what_is_heard_is_read_counted_and_on_the_disk_when_it_closes(run: Run) -> None:
    conductor = conductor_of(run)
    conductor.hear(0, ended(3))
    conductor.hear(1, ended(5, pieces=(TOKEN, LAST)))  # cut off before its end
    conductor.hear(0, ended(6, pieces=(TOKEN, LAST, DONE)))  # without usage
    conductor.close()
    rows = Run(run.path).trace.collect().sort("call_id")
    assert rows["status"].to_list() == ["ok", "truncated", "ok"]
    assert rows["worker"].to_list() == [0, 1, 0]
    assert rows["output_tokens"].to_list() == [2, 2, 2]
    tally = conductor.tally
    assert (tally.planned, tally.done, tally.failed) == (8, 3, 1)
    assert list(tally.ttft_s) == [0.5, 0.5]
    assert list(tally.tpot_s) == [0.25, 0.25]
    assert conductor.uncounted == 1


def test_the_workers_beats_add_up_and_the_latest_lag_is_the_worst() -> None:
    conductor = Conductor.__new__(Conductor)
    conductor.tally, conductor.beats, conductor.late_s = Tally(8), {}, {}
    for worker, sent, lag_s in ((0, 3, 0.001), (1, 4, 0.004), (0, 5, 0.002)):
        beat = Beat(sent, sent - 1, 1, lag_s, [lag_s], 0.1, float(sent), 0, 0)
        conductor.hear(worker, beat)
    tally = conductor.tally
    assert (tally.sent, tally.in_flight, tally.waiting) == (9, 7, 2)
    assert (tally.lag_s, tally.now_s) == (0.004, 5.0)
    assert conductor.late_s == {0: [0.001, 0.002], 1: [0.004]}


async def test_the_slo_so_far_is_judged_on_what_has_ended(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conductors, "FLUSH_S", 0.01)
    monkeypatch.setattr(conductors, "JUDGE_EVERY", 1)
    conductor = conductor_of(run, "ttft<1s")
    tasks = [
        asyncio.create_task(conductor.keep_reading()),
        asyncio.create_task(conductor.keep_writing()),
    ]
    for number, ttft_s in enumerate((0.5, 0.6, 2.0)):
        conductor.hear(0, ended(number, ttft_s))
    await until(lambda: conductor.tally.judged == 3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert conductor.tally.met == 2
    assert Run(run.path).trace.frame.select(pl.len()).collect().item() == 3


async def test_a_display_that_fails_ends_nothing() -> None:
    conductor = Conductor.__new__(Conductor)
    conductor.tally = Tally(1)

    def fail(_: Tally) -> None:
        raise OSError("the terminal is gone")

    await conductor.keep_showing(fail)


def test_too_few_values_have_no_spread() -> None:
    assert Tally.spread([1.0]) is None
    assert Tally.spread([float(k) for k in range(101)]) == (50.0, 99.0)


async def test_what_has_ended_is_counted_once_a_second_however_little_it_is(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conductors, "FLUSH_S", 0.01)
    counts = Counts(run.plan)
    conductor = conductor_of(run, counts=counts)
    tasks = [
        asyncio.create_task(conductor.keep_reading()),
        asyncio.create_task(conductor.keep_writing()),
    ]
    conductor.hear(0, ended(0))
    await until(lambda: counts.statuses.total() == 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    conductor.hear(0, ended(1, pieces=(TOKEN, LAST)))
    conductor.close()  # and the rest when it closes
    assert counts.statuses == {"ok": 1, "truncated": 1}
    assert len(counts.times["ttft"]) == 1


def test_counting_that_fails_loses_no_row(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(Counts, "take", fail)
    conductor = conductor_of(run, counts=Counts(run.plan))
    conductor.hear(0, ended(0))
    conductor.close()
    assert Run(run.path).trace.collect().height == 1
