import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from servescope.engine.engine import Deadlock, Engine, Refused
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, View
from servescope.engine.realtime import Realtime
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems.sarathi import Sarathi

Simulate = Callable[[Engine, Iterable[Request]], Any]


def by_tokens(load: Load) -> float:
    return 0.005 + load.tokens * 1e-5


def small_engine() -> Engine:
    return Engine(Sarathi(chunk_tokens=128), by_tokens, BlockPool(1000), 10_000)


def workload() -> list[Request]:
    rng = np.random.default_rng(1)
    arrivals = np.cumsum(rng.exponential(0.03, 12))
    return [
        Request(str(i), int(rng.integers(20, 400)), int(rng.integers(2, 15)), float(at))
        for i, at in enumerate(arrivals)
    ]


async def served(realtime: Realtime, requests: list[Request]) -> dict[str, list[float]]:
    """Serve the requests and return when a reader saw each token, on the engine's clock."""
    seen: dict[str, list[float]] = {request.id: [] for request in requests}

    async def read(request: Request) -> None:
        stream = realtime.submit(request)
        while not request.done:
            fresh = await stream.take()
            seen[request.id] += [realtime.now()] * fresh

    task = asyncio.create_task(realtime.run())
    async with asyncio.timeout(20):
        await asyncio.gather(*(read(request) for request in requests))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return seen


async def test_the_real_clock_tells_the_same_story_as_the_virtual_one(simulate: Simulate) -> None:
    virtual = {each.id: each.token_s for each in simulate(small_engine(), workload()).done}
    requests = workload()
    realtime = Realtime(small_engine())
    seen = await served(realtime, requests)
    assert {each.id: each.token_s for each in requests} == virtual
    late = np.concatenate([np.subtract(seen[name], virtual[name]) for name in virtual])
    assert late.min() >= 0
    assert np.median(late) < 0.05
    assert realtime.behind.count == realtime.engine.counters.steps


async def test_a_host_that_falls_behind_is_counted_and_the_schedule_stands() -> None:
    request = Request("a", 100, 20, 0.0)
    realtime = Realtime(small_engine())

    async def hog() -> None:
        await asyncio.sleep(0.02)
        time.sleep(0.06)  # nothing else runs on this loop meanwhile

    await asyncio.gather(served(realtime, [request]), hog())
    assert realtime.behind.max > 0.03
    assert realtime.behind.quantile(0.99) > 0.03
    assert np.diff(request.token_s) == pytest.approx(0.00501)


async def test_who_arrives_late_in_a_step_waits_for_the_next() -> None:
    realtime = Realtime(small_engine())
    requests = [Request("a", 100, 5, 0.0), Request("b", 100, 5, 0.0065)]
    await served(realtime, requests)
    first = requests[0].token_s
    assert first[0] == pytest.approx(0.006)
    assert requests[1].first_scheduled_s == first[1]


async def test_an_abort_finds_a_request_wherever_it_is() -> None:
    realtime = Realtime(small_engine())
    realtime.submit(Request("inbox", 100, 5, 0.0))
    assert realtime.inbox + realtime.engine.waiting == 1
    with pytest.raises(Refused, match="own id"):
        realtime.submit(Request("inbox", 100, 5, 0.0))
    realtime.abort("inbox")
    assert realtime.inbox + realtime.engine.waiting == 0

    task = asyncio.create_task(realtime.run())
    stream = realtime.submit(Request("engine", 100, 5000, realtime.now()))
    await stream.take()
    assert realtime.engine.pool.used > 0
    realtime.abort("engine")
    realtime.abort("engine")
    assert realtime.engine.pool.used == 0
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_what_can_never_be_served_is_refused_at_once() -> None:
    with pytest.raises(Refused):
        Realtime(small_engine()).submit(Request("long", 10_000, 1, 0.0))


async def test_a_client_that_leaves_before_the_engine_wakes_does_not_end_it() -> None:
    """A storm of disconnects once killed the server: submitted and aborted in one tick."""
    realtime = Realtime(small_engine())
    task = asyncio.create_task(realtime.run())
    await asyncio.sleep(0)
    for n in range(3):
        realtime.submit(Request(f"gone {n}", 10, 2, realtime.now()))
        realtime.abort(f"gone {n}")
        await asyncio.sleep(0.01)
    stays = Request("stays", 10, 2, realtime.now())
    stream = realtime.submit(stays)
    while not stays.done:
        await asyncio.wait_for(stream.take(), 10)
    assert not task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_preemptions_in_vain_end_the_real_clock_too() -> None:
    class Seesaw:
        def plan(self, view: View) -> Batch:
            first = view.waiting[0]
            return Batch([*view.prefilling], False, [(first, 1)], [(first, 10)])

    realtime = Realtime(Engine(Seesaw(), lambda load: 1e-5, BlockPool(1000), 10_000))
    for name in "ab":
        realtime.submit(Request(name, 100, 5, 0.0))
    async with asyncio.timeout(20):
        with pytest.raises(Deadlock, match="has preempted in 1000 steps"):
            await realtime.run()
