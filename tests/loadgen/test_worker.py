"""Pacing in real time, against a server whose faults are planted. Nothing here asserts a speed."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from aiohttp import web
from faulty_server import DONE, LAST, TOKEN, Faulty
from setups import setup_of

from servescope.loadgen import endpoints
from servescope.loadgen.board import Board
from servescope.loadgen.experiment import EndpointSpec
from servescope.loadgen.messages import Beat, Ended, Unpacker
from servescope.loadgen.program import Call, Program, read_programs, write_programs
from servescope.loadgen.records import record_of
from servescope.loadgen.target import Target
from servescope.loadgen.worker import Worker
from servescope.traces import sent_log


def program(name: str, start_s: float, *calls: tuple[str, tuple[str, ...], float]) -> Program:
    awaited = {parent for _, parents, _ in calls for parent in parents}
    made = (
        Call(
            call, name, turn, 16, 4, parents, delay_s=delay, prompt_stream=name,
            last=call not in awaited,
        )
        for turn, (call, parents, delay) in enumerate(calls)
    )  # fmt: skip
    return Program(name, start_s, tuple(made))


def single(name: str, start_s: float) -> Program:
    return program(name, start_s, (name, (), 0.0))


def numbered(programs: tuple[Program, ...]) -> list[Program]:
    """Return programs whose calls know their row in the plan."""
    import msgspec

    number, made = 0, []
    for one in programs:
        calls = []
        for call in one.calls:
            calls.append(msgspec.structs.replace(call, number=number))
            number += 1
        made.append(msgspec.structs.replace(one, calls=tuple(calls)))
    return made


class Heard:
    """What a worker told its conductor."""

    def __init__(self) -> None:
        self.ended: list[Ended] = []
        self.beats: list[Beat] = []
        self._unpacker = Unpacker(Ended | Beat)

    def tell(self, data: bytes) -> None:
        for message in self._unpacker.feed(data):
            (self.beats if isinstance(message, Beat) else self.ended).append(message)


async def worked(
    server: Faulty, folder: Path, *programs: Program, prepare: bool = True, **options: Any
) -> tuple[pl.DataFrame, Heard]:
    """Replay programs with a worker in this process; returns its calls in order of the plan."""
    plan = numbered(programs)
    calls = [call for one in plan for call in one.calls]
    write_programs(folder / "programs", iter(plan))
    Board.create(folder / "board", 1, 1)
    setup, heard = setup_of(server, folder, **options), Heard()
    log = os.open(sent_log.path_of(folder, 0), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    target = Target.of(EndpointSpec(base_url=server.url, timeout_s=setup.timeout_s))
    try:
        async with target.client() as client:
            worker = Worker(setup, client, heard.tell, log)
            server.stop = lambda: worker.stop(now=True)
            if prepare:
                worker.prepare()
            await worker.run(time.monotonic() + 0.02)
    finally:
        os.close(log)
    dialect = endpoints.named("openai")
    rows = []
    for ended in sorted(heard.ended, key=lambda ended: ended.number):
        record = record_of(ended, dialect, 0, [server.url], done=False)[0]
        fields = {name: getattr(record, name) for name in record.__struct_fields__}
        rows.append({"call_id": calls[ended.number].id, **fields})
    return pl.DataFrame(rows, infer_schema_length=None), heard


async def test_calls_are_sent_at_their_planned_times_and_never_before(
    faulty: Faulty, tmp_path: Path
) -> None:
    calls, _ = await worked(faulty, tmp_path, *(single(f"c{n}", n * 0.05) for n in range(10)))
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
    await worked(faulty, tmp_path, *(single(f"c{n}", n * 0.01) for n in range(6)))
    assert max(peak) == 6


async def test_a_turn_is_sent_its_delay_after_the_answer_before_it(
    faulty: Faulty, tmp_path: Path
) -> None:
    chain = program("p", 0.0, ("a", (), 0.0), ("b", ("a",), 0.3))
    calls, _ = await worked(faulty, tmp_path, chain)
    a, b = calls.iter_rows(named=True)
    assert b["ready_s"] == a["end_s"]
    assert b["due_s"] == pytest.approx(a["end_s"] + 0.3)
    assert b["sent_s"] >= b["due_s"]


async def test_a_failed_turn_gives_up_its_children_as_rows(faulty: Faulty, tmp_path: Path) -> None:
    faulty.status = 500
    chain = program("p", 0.0, ("a", (), 0.0), ("b", ("a",), 0.1), ("c", ("b",), 0.1))
    calls, _ = await worked(faulty, tmp_path, chain)
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
    calls, _ = await worked(faulty, tmp_path, *programs)
    assert dict(calls.select("call_id", "status").iter_rows()) == {"a": "ok", "b": "cancelled"}
    assert calls["error"].to_list() == [None, "interrupted"]


async def test_requests_that_were_not_prepared_are_made_on_the_way(
    faulty: Faulty, tmp_path: Path
) -> None:
    """The same plan is the same bytes, whether prepared before the start or not."""
    sent = []
    for prepare in (False, True):
        faulty.bodies.clear()
        folder = tmp_path / str(prepare)
        folder.mkdir()
        await worked(
            faulty, folder, *(single(f"c{n}", n * 0.02) for n in range(4)), prepare=prepare
        )
        sent.append(sorted(faulty.bodies))
    assert sent[0] == sent[1]
    assert len(set(sent[0])) == 4


async def test_a_client_that_stands_still_knows_it(faulty: Faulty, tmp_path: Path) -> None:
    async def stand_still(_: web.Request, response: web.StreamResponse) -> None:
        await response.write(TOKEN)
        time.sleep(0.4)
        await response.write(LAST + DONE)

    faulty.script = stand_still
    _, heard = await worked(faulty, tmp_path, single("a", 0.0))
    assert max(late for beat in heard.beats for late in beat.late_s) >= 0.3


async def test_the_last_beat_adds_up(faulty: Faulty, tmp_path: Path) -> None:
    chain = program("p", 0.0, ("b", (), 0.0), ("c", ("b",), 0.0))
    _, heard = await worked(faulty, tmp_path, single("a", 0.0), chain)
    assert (heard.beats[-1].sent, heard.beats[-1].in_flight, heard.beats[-1].waiting) == (3, 0, 0)


async def test_a_slot_is_waited_for_and_the_wait_is_no_lag(faulty: Faulty, tmp_path: Path) -> None:
    """Three calls due at once, one slot, each served 0.2 s: they wait 0, 0.2 and 0.4 s."""
    faulty.script = lambda _, response: _slow(response, 0.2)
    calls, _ = await worked(
        faulty, tmp_path, *(single(f"c{n}", 0.0) for n in range(3)), max_concurrency=1
    )
    waits = (calls["admitted_s"] - calls["due_s"]).sort().to_list()
    assert waits[0] == 0.0
    assert waits[1] >= 0.2
    assert waits[2] >= 0.4
    ends = calls["end_s"].sort().to_list()
    assert waits[1] >= ends[0] - 0.001  # the slot came free when the first had ended
    assert (calls["dispatched_s"] - calls["admitted_s"]).max() < 0.1  # type: ignore[operator]


async def _slow(response: web.StreamResponse, pause_s: float) -> None:
    await asyncio.sleep(pause_s)
    await response.write(TOKEN + LAST + DONE)


async def test_in_a_closed_loop_as_many_calls_are_in_flight_as_there_are_users(
    faulty: Faulty, tmp_path: Path
) -> None:
    in_flight, peaks = 0, []

    async def count(_: web.Request, response: web.StreamResponse) -> None:
        nonlocal in_flight
        in_flight += 1
        peaks.append(in_flight)
        await asyncio.sleep(0.03)
        in_flight -= 1
        await response.write(TOKEN + LAST + DONE)

    faulty.script = count
    calls, _ = await worked(
        faulty, tmp_path, *(single(f"c{n}", 100.0 * n) for n in range(12)), users=3
    )
    assert calls["status"].to_list() == ["ok"] * 12
    assert max(peaks) == 3
    later = calls.sort("due_s")[3:]
    assert set(later["due_s"]) <= set(calls["end_s"])  # a user begins when its last call has ended


async def test_a_failed_call_is_sent_again_only_if_asked_and_that_is_counted(
    faulty: Faulty, tmp_path: Path
) -> None:
    faulty.status = 503
    for retries, bodies in ((0, 1), (2, 3)):
        faulty.bodies.clear()
        folder = tmp_path / str(retries)
        folder.mkdir()
        calls, _ = await worked(faulty, folder, single("a", 0.0), retries=retries)
        assert len(faulty.bodies) == bodies
        assert calls["retries"].to_list() == [retries]
        assert calls["status"].to_list() == ["http_503"]


async def test_a_refusal_for_good_is_not_sent_again(faulty: Faulty, tmp_path: Path) -> None:
    faulty.status = 400
    await worked(faulty, tmp_path, single("a", 0.0), retries=5)
    assert len(faulty.bodies) == 1


async def test_a_used_connection_that_dies_before_any_byte_is_no_failed_call(
    faulty: Faulty, tmp_path: Path
) -> None:
    """llama.cpp closes a connection after each stream and says that it keeps it."""

    async def then_die(request: web.Request, response: web.StreamResponse) -> None:
        for data in (TOKEN, LAST, DONE):
            await response.write(data)
        await response.write_eof()
        assert request.transport is not None
        asyncio.get_running_loop().call_later(0.03, request.transport.abort)

    faulty.script = then_die
    # each is sent about when the connection of the one before dies
    calls, _ = await worked(faulty, tmp_path, *(single(f"c{n}", n * 0.03) for n in range(20)))
    assert calls["status"].to_list() == ["ok"] * 20


async def test_what_was_sent_is_in_the_log_before_it_is_answered(
    faulty: Faulty, tmp_path: Path
) -> None:
    logged = []

    async def look(_: web.Request, response: web.StreamResponse) -> None:
        logged.append(set(sent_log.read(tmp_path)))
        await response.write(TOKEN + LAST + DONE)

    faulty.script = look
    await worked(faulty, tmp_path, single("a", 0.0), single("b", 0.1))
    assert logged == [{0}, {0, 1}]


def test_programs_come_back_as_they_were_written(tmp_path: Path) -> None:
    programs = [single("a", 0.0), program("p", 1.5, ("b", (), 0.0), ("c", ("b",), 2.0))]
    assert write_programs(tmp_path / "x", iter(programs)) == 3
    assert list(read_programs(tmp_path / "x")) == programs
