"""Pacing in real time, against a server whose faults are planted. Nothing here asserts a speed."""

import asyncio
import time
from pathlib import Path

import msgspec
import polars as pl
import pytest
from aiohttp import web
from faulty_server import DONE, LAST, TOKEN, Faulty

from servescope.loadgen.client import Client
from servescope.loadgen.experiment import EndpointSpec
from servescope.loadgen.live import LiveReplay
from servescope.loadgen.program import Call, Program
from servescope.loadgen.prompts import Prompts
from servescope.loadgen.records import Journal, Record
from servescope.loadgen.replay import Replay
from servescope.loadgen.workload import Workload
from servescope.traces.errors import OutputFailed
from servescope.traces.run import frame_of_rows


def program(name: str, start_s: float, *calls: tuple[str, tuple[str, ...], float]) -> Program:
    made = (
        Call(call, name, turn, 16, 4, parents, delay_s=delay, prompt_stream=name)
        for turn, (call, parents, delay) in enumerate(calls)
    )
    return Program(name, start_s, tuple(made))


def single(name: str, start_s: float) -> Program:
    return program(name, start_s, (name, (), 0.0))


async def replayed(server: Faulty, path: Path, *programs: Program) -> pl.DataFrame:
    async with Client(EndpointSpec(base_url=server.url)) as client:
        with Journal(path) as journal:
            live = LiveReplay(Replay(Workload(programs)), client, Prompts(0), "tiny", journal)
            server.stop = live.stop
            await live.run()
    rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    return frame_of_rows(rows).sort("due_s", "call_id")


async def test_calls_are_sent_at_their_planned_times_and_never_before(
    faulty: Faulty, tmp_path: Path
) -> None:
    calls = await replayed(faulty, tmp_path / "j", *(single(f"c{n}", n * 0.05) for n in range(10)))
    assert calls["status"].to_list() == ["ok"] * 10
    assert calls["due_s"].to_list() == pytest.approx([n * 0.05 for n in range(10)])
    assert (calls["dispatched_s"] >= calls["due_s"]).all()
    assert (calls["sent_s"] >= calls["dispatched_s"]).all()


async def test_a_stuck_server_does_not_slow_the_arrivals_down(
    faulty: Faulty, tmp_path: Path
) -> None:
    """Open loop: all six are in flight together, although none ends before 0.5 s."""
    in_flight = []

    async def slow(_: web.Request, response: web.StreamResponse) -> None:
        in_flight.append(1)
        await asyncio.sleep(0.5)
        peak.append(len(in_flight))
        in_flight.pop()
        for data in (TOKEN, LAST, DONE):
            await response.write(data)

    peak: list[int] = []
    faulty.script = slow
    await replayed(faulty, tmp_path / "j", *(single(f"c{n}", n * 0.01) for n in range(6)))
    assert max(peak) == 6


async def test_a_turn_is_sent_its_delay_after_the_answer_before_it(
    faulty: Faulty, tmp_path: Path
) -> None:
    chain = program("p", 0.0, ("a", (), 0.0), ("b", ("a",), 0.3))
    calls = await replayed(faulty, tmp_path / "j", chain)
    a, b = calls.iter_rows(named=True)
    assert b["ready_s"] == a["end_s"]
    assert b["due_s"] == pytest.approx(a["end_s"] + 0.3)
    assert b["sent_s"] >= b["due_s"]


async def test_a_failed_turn_gives_up_its_children_as_rows(faulty: Faulty, tmp_path: Path) -> None:
    faulty.status = 500
    chain = program("p", 0.0, ("a", (), 0.0), ("b", ("a",), 0.1), ("c", ("b",), 0.1))
    calls = await replayed(faulty, tmp_path / "j", chain)
    assert calls["status"].to_list() == ["http_500", "not_sent", "not_sent"]
    assert len(faulty.bodies) == 1


async def test_stopping_keeps_what_ended_and_records_what_was_in_flight(
    faulty: Faulty, tmp_path: Path
) -> None:
    async def slow_after_the_first(_: web.Request, response: web.StreamResponse) -> None:
        if len(faulty.bodies) > 1:
            await response.write(TOKEN)
            faulty.stop()
            await asyncio.sleep(30)
        for data in (TOKEN, LAST, DONE):
            await response.write(data)

    faulty.script = slow_after_the_first
    programs = (single("a", 0.0), single("b", 0.1), single("never", 60.0))
    calls = await replayed(faulty, tmp_path / "j", *programs)
    assert dict(calls.select("call_id", "status").iter_rows()) == {"a": "ok", "b": "cancelled"}
    assert calls["error"].to_list() == [None, "interrupted"]


async def test_the_tally_adds_up(faulty: Faulty, tmp_path: Path) -> None:
    async with Client(EndpointSpec(base_url=faulty.url)) as client:
        with Journal(tmp_path / "j") as journal:
            work = Workload((single("a", 0.0), program("p", 0.0, ("b", (), 0.0), ("c", ("b",), 0))))
            live = LiveReplay(Replay(work), client, Prompts(0), "tiny", journal)
            await live.run()
    assert (live.tally.planned, live.tally.sent, live.tally.done) == (3, 3, 3)
    assert live.tally.in_flight == live.tally.failed == 0


async def test_bodies_that_were_not_prepared_are_made_on_the_way(
    faulty: Faulty, tmp_path: Path
) -> None:
    """The same plan is the same bytes, whether prepared before the start or not."""
    work = Workload(tuple(single(f"c{n}", n * 0.02) for n in range(4)))
    sent = []
    for prepare in (False, True):
        faulty.bodies.clear()
        async with Client(EndpointSpec(base_url=faulty.url)) as client:
            with Journal(tmp_path / f"j{prepare}") as journal:
                live = LiveReplay(Replay(work), client, Prompts(0), "tiny", journal)
                if prepare:
                    live.prepare(list(work.calls()))
                await live.run()
        sent.append(sorted(faulty.bodies))
    assert sent[0] == sent[1]
    assert len(set(sent[0])) == 4


class Full:
    """A journal on a full disk."""

    def append(self, record: Record) -> None:
        raise OutputFailed("calls.jsonl cannot be written: No space left on device.", "Make room.")


async def test_a_full_disk_ends_the_replay_instead_of_hanging_it(faulty: Faulty) -> None:
    work = Workload((single("a", 0.0), single("b", 600.0)))
    async with Client(EndpointSpec(base_url=faulty.url)) as client:
        live = LiveReplay(Replay(work), client, Prompts(0), "tiny", Full())  # type: ignore[arg-type]
        with pytest.raises(OutputFailed, match="No space left"):
            await asyncio.wait_for(live.run(), 30)


async def test_a_display_that_fails_does_not_end_the_measurement(
    faulty: Faulty, tmp_path: Path
) -> None:
    def broken(_: object) -> None:
        raise BrokenPipeError

    async with Client(EndpointSpec(base_url=faulty.url)) as client:
        with Journal(tmp_path / "j") as journal:
            work = Workload((single("a", 0.0), single("b", 0.3)))
            live = LiveReplay(Replay(work), client, Prompts(0), "tiny", journal)
            await live.run(broken)
    assert live.tally.done == 2


async def test_a_client_that_stands_still_knows_it(faulty: Faulty, tmp_path: Path) -> None:
    async def stand_still(_: web.Request, response: web.StreamResponse) -> None:
        await response.write(TOKEN)
        time.sleep(0.4)
        await response.write(LAST + DONE)

    faulty.script = stand_still
    async with Client(EndpointSpec(base_url=faulty.url)) as client:
        with Journal(tmp_path / "j") as journal:
            work = Workload((single("a", 0.0),))
            live = LiveReplay(Replay(work), client, Prompts(0), "tiny", journal)
            await live.run()
    assert max(live.heartbeat.late_s) >= 0.3
