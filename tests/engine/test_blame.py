"""A policy from a file that answers what cannot be, or raises: what is said, in both clocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from servescope.engine.assembly import deploy
from servescope.engine.blame import BadPlan, PolicyFailed, blaming
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, View
from servescope.engine.realtime import EngineDead, Realtime
from servescope.engine.request import Request
from servescope.engine.systems import make_system
from servescope.traces.errors import ServescopeError

Simulate = Callable[[Engine | Cluster, Iterable[Request]], Any]

PLAN = """
from servescope.engine import Batch, Parts
from servescope.engine.systems.sarathi import Sarathi

class Mine:
    def plan(self, view):
        first = view.waiting[0] if view.waiting else None
        return {}
"""
PARTS = """
from servescope.engine import Parts, Scale
from servescope.engine.systems.sarathi import Sarathi

class Mine:
    period_s = 0.001
    lanes, overlap = ("whole",), 0.0

    def parts(self, replicas):
        return {}

    def answer(self, *given):
        return {}

    pick = tick = shares = unpin = finished = answer
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Callable[[str], Cluster]:
    """Return two replicas under the system that a text defines."""

    def cluster(text: str) -> Cluster:
        file = tmp_path / "policy.py"
        file.write_text(text)
        return deploy(make_system(str(file)), "Mistral-7B", ["A100-80G"] * 2)

    return cluster


def some(count: int = 4) -> list[Request]:
    return [Request(str(n), 100, 5, n * 0.001, str(n)) for n in range(count)]


async def served(cluster: Cluster) -> EngineDead | None:
    """Serve a few requests in real time; returns what the last stream was told."""
    realtime = Realtime(cluster)
    task = asyncio.create_task(realtime.run())
    said = None
    for request in some():
        request.arrival_s = realtime.now()
        try:
            stream = realtime.submit(request)
            while not request.done:
                await stream.take()
        except EngineDead as error:
            said = error
    task.cancel()
    await asyncio.wait([task])
    return said


PLANS = [
    ("None", "Mine plans NoneType in place of a Batch"),
    ("(first, 5)", "Mine plans tuple in place of a Batch"),
    ("Batch(admit=view.waiting)", "to admit deque, which is no list"),
    ("Batch(admit=iter([(first, 7)]))", "to admit list_iterator, which is no list"),
    ("Batch(admit=[first])", "to admit what is no pair of a request and a number"),
    ("Batch(admit=[('0', 7)])", "to admit what is no request"),
    ("Batch(prefill=['a'])", "to prefill what is no pair"),
    ("Batch(preempt=['a'])", "to preempt what is no request"),
    ("Batch(admit=[(first, 7.5)], prefill=[(first, 5)])", "7.5 blocks or tokens for '0'"),
    ("Batch(admit=[(first, 7)], prefill=[(first, 1.5)])", "1.5 blocks or tokens for '0'"),
    ("Sarathi().plan(view)._replace(steps='2')", "'2' steps"),
]


@pytest.mark.parametrize(("plan", "said"), PLANS)
async def test_a_plan_that_is_none_is_named(
    cluster: Callable[[str], Cluster], simulate: Simulate, plan: str, said: str
) -> None:
    with pytest.raises(BadPlan, match=said) as raised:
        simulate(cluster(PLAN.format(plan)), some())
    assert raised.value.exit_code == 2
    assert "A plan is a Batch" in raised.value.mend
    assert said in str(await served(cluster(PLAN.format(plan))))


@pytest.mark.parametrize(
    ("parts", "answer", "said"),
    [
        ("None", "0", "Mine.parts returns None. It must return a Parts"),
        ("Parts(Sarathi(), dispatch=self)", "None", "Mine picks replica None of 2"),
        ("Parts(Sarathi(), dispatch=self)", "0.5", "Mine picks replica 0.5 of 2"),
        ("Parts(Sarathi(), handover=self.answer)", "-1", "hands over to replica -1 of 2"),
        ("Parts(Sarathi(), control=self)", "None", "Mine.tick returns None. It must return what"),
        ("Parts(Sarathi(), control=self)", "[3]", "Mine.tick returns 3"),
        ("Parts(Sarathi(), control=self)", "[Scale(drain=2)]", "Mine.tick returns Scale"),
        ("Parts(Sarathi(), retain=self)", "None", "Mine.unpin returns None"),
        ("Parts(Sarathi(), retain=self)", "['x']", "Mine.unpin returns 'x'"),
        ("Parts(Sarathi(), retain=self)", "()", "Mine.finished returns (). It must return a Keep"),
        ("Parts(Sarathi(), partition=self)", "{}", "Mine.shares returns {}"),
    ],
)
def test_an_answer_of_a_part_that_is_none_is_named(
    cluster: Callable[[str], Cluster], simulate: Simulate, parts: str, answer: str, said: str
) -> None:
    with pytest.raises(BadPlan) as raised:
        simulate(cluster(PARTS.format(parts, answer)), some())
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAN.format("view.nothing"), r"policy\.py, line 8: AttributeError: .*'nothing'"),
        (PLAN.format("Sarathi().plan(None)"), r"policy\.py, line 8: AttributeError"),
        (PLAN.format("exit(3)"), r"policy\.py, line 8: SystemExit: 3"),
        (PARTS.format("{}['a']", "0"), r"policy\.py, line 10: KeyError: 'a'"),
        (PARTS.format("Parts(Sarathi(), dispatch=self)", "1 / 0"), r"line 13: ZeroDivisionError"),
        (PARTS.format("Parts(Sarathi(), deployed=self.tick)", "1 / 0"), "line 13: ZeroDivision"),
    ],
)
def test_an_error_of_a_policys_own_is_told_with_its_line(
    cluster: Callable[[str], Cluster], simulate: Simulate, text: str, said: str
) -> None:
    with pytest.raises(PolicyFailed, match=said):
        simulate(cluster(text), some())


async def test_the_real_clock_tells_the_line_too(cluster: Callable[[str], Cluster]) -> None:
    said = str(await served(cluster(PLAN.format("{}['a']"))))
    assert "The engine died: " in said
    assert "policy.py, line 8: KeyError: 'a'" in said


def test_a_flaw_of_the_engine_is_nobodys_policys(simulate: Simulate) -> None:
    class Fine:
        def plan(self, view: View) -> Batch:
            first = view.waiting[0]
            return Batch(admit=[(first, 7)], prefill=[(first, 100)])

    engine = Engine(Fine(), lambda load: 1.0, BlockPool(100), 1000)
    engine._prefilling = None  # type: ignore[assignment]
    with pytest.raises((TypeError, AttributeError)):
        simulate(engine, some())


def test_what_a_source_raises_is_no_policys() -> None:
    with pytest.raises(KeyError), blaming():
        raise KeyError("mine")
    with pytest.raises(ServescopeError, match="wrong"), blaming():
        raise ServescopeError("wrong", "mend")
