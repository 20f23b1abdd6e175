import asyncio
import time

import pytest

from servescope.loadgen.alarm import Alarm


@pytest.fixture(params=["as it is", "without timerfd"])
def alarm_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "without timerfd":
        monkeypatch.setattr("sys.platform", "elsewhere")
    return str(request.param)


async def test_it_never_rings_before_its_moment(alarm_kind: str) -> None:
    loop, rang = asyncio.get_running_loop(), asyncio.Event()
    alarm = Alarm(loop, rang.set)
    for wait_s in (0.0003, 0.0017, 0.02):
        at_s = time.monotonic() + wait_s
        rang.clear()
        alarm.set(at_s)
        await asyncio.wait_for(rang.wait(), 5)
        # a loop's own timers may fire within their resolution of a millisecond
        assert time.monotonic() >= at_s - (0.0 if alarm_kind == "as it is" else 0.002)
    alarm.close()


@pytest.mark.usefixtures("alarm_kind")
async def test_a_past_moment_rings_at_once_and_a_new_moment_takes_the_place_of_the_old() -> None:
    loop, rings = asyncio.get_running_loop(), []
    alarm = Alarm(loop, lambda: rings.append(time.monotonic()))
    alarm.set(time.monotonic() + 100)
    alarm.set(time.monotonic() - 100)
    await asyncio.sleep(0.05)
    assert len(rings) == 1
    alarm.close()


@pytest.mark.usefixtures("alarm_kind")
async def test_a_closed_alarm_is_silent() -> None:
    loop, rings = asyncio.get_running_loop(), []
    alarm = Alarm(loop, lambda: rings.append(1))
    alarm.set(time.monotonic() + 0.02)
    alarm.close()
    await asyncio.sleep(0.06)
    assert rings == []
