"""A system that looks at what no server knows is caught, and so is a plan that is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from servescope.engine.assembly import deploy
from servescope.engine.blame import BadPlan
from servescope.engine.cluster import Cluster, Replica
from servescope.engine.engine import Engine, Violation
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, Conserving, Keep, Parts, System, View
from servescope.engine.request import Request
from servescope.engine.systems import SYSTEMS, make_system
from servescope.engine.systems.vllm_v0 import VllmV0
from servescope.engine.veil import Veil
from servescope.engine.virtual import run
from servescope.engine.watch import Watch


class Given:
    """A source of requests that are given."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self.left = list(requests)
        self.done: list[Request] = []

    def next_due_s(self) -> float | None:
        return self.left[0].arrival_s if self.left else None

    def take(self, now: float) -> Iterable[Request]:
        come = [each for each in self.left if each.arrival_s <= now]
        self.left = [each for each in self.left if each.arrival_s > now]
        return come

    def refused(self, request: Request, error: Exception, now: float) -> None: ...

    def finished(self, request: Request, now: float) -> None:
        self.done.append(request)


def served(system: System, replicas: int = 1, calls: int = 6) -> tuple[Watch, Given, Cluster]:
    """Serve some requests under a watch."""
    veil = Veil()
    cluster = deploy(veil.over(system), "Mistral-7B", ["A100-80G"] * replicas)
    source = Given(
        Request(str(n), 300 + n, 20 + n, 0.1 * n, program_id=str(n), pause_s=1.0)
        for n in range(calls)
    )
    watch = Watch(cluster, source, veil)
    run(cluster, watch, watch.event)
    watch.ended()
    return watch, source, cluster


@dataclass
class Around:
    """vllm_v0 with something done before each plan, and something else made of the plan."""

    look: Callable[[View], Any] = lambda view: None
    change: Callable[[Batch, View], Any] = lambda batch, view: batch

    def plan(self, view: View) -> Batch:
        self.look(view)
        return self.change(VllmV0().plan(view), view)  # type: ignore[no-any-return]


def swallow(look: Callable[[View], Any]) -> Callable[[View], None]:
    def tried(view: View) -> None:
        with suppress(Exception):
            look(view)

    return tried


def first(view: View) -> Request:
    return [*view.waiting, *view.prefilling, *view.decoding][0]


LOOKS: list[tuple[Callable[[View], Any], str]] = [
    (lambda view: first(view)._output_tokens, "how long an answer will be"),
    (lambda view: first(view)._pause_s, "how long a program will pause"),
    (lambda view: view.decoding.steps_left(), "when an answer will end"),
    (lambda view: setattr(first(view), "_output_tokens", 1), "how long an answer will be"),
]


@pytest.mark.parametrize(("look", "said"), LOOKS)
def test_a_look_at_a_secret_is_a_violation_even_if_it_is_caught(
    look: Callable[[View], Any], said: str
) -> None:
    for tried in (look, swallow(look)):
        with pytest.raises(Violation, match=said):
            served(Around(tried))


def test_what_a_request_shows_can_be_read() -> None:
    def look(view: View) -> None:
        for request in (*view.waiting, *view.prefilling, *view.decoding):
            assert request.remaining >= 0
            assert (request.computed, request.generated, request.blocks) >= (0, 0, 0)
            assert len(request.token_s) == request.generated
        assert view.decoding.growth >= 0

    watch, source, _ = served(Around(look))
    assert len(source.done) == 6
    assert watch.events > 6


class Nosy:
    """Every part but the scheduler looks at a request's answer, if it is its turn."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.period_s = 0.05

    def parts(self, replicas: int) -> Parts:
        named = {self.part: self.handover if self.part == "handover" else self}
        return Parts(VllmV0(), **named)  # type: ignore[arg-type]

    def arrived(self, request: Request, now: float) -> None:
        request._output_tokens  # noqa: B018

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        return request._output_tokens % 2

    def handover(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        return request._output_tokens % 2

    def finished(self, request: Request, view: View) -> Keep:
        return Keep() if request._pause_s else Keep("drop")

    def unpin(self, view: View) -> Iterable[str]:
        return ()

    def tick(self, replicas: Sequence[Replica], now: float) -> Iterable[Any]:
        for replica in replicas:
            replica.view.decoding.steps_left()
            yield from ()


@pytest.mark.parametrize("part", ["annotate", "dispatch", "handover", "retain", "control"])
def test_every_part_is_behind_the_veil(part: str) -> None:
    with pytest.raises(Violation, match="The policy looks up"):
        served(Nosy(part), replicas=2)


PLANS: list[tuple[Callable[[Batch, View], Any], str]] = [
    (lambda batch, view: None, "NoneType in place of a Batch"),
    (lambda batch, view: tuple(batch), "tuple in place of a Batch"),
    (lambda batch, view: batch._replace(admit=iter(batch.admit)), "which is no list"),
    (lambda batch, view: batch._replace(admit=[r for r, _ in batch.admit]), "no pair"),
    (lambda batch, view: batch._replace(prefill=[*batch.prefill] * 2), "prefill a request twice"),
    (lambda batch, view: batch._replace(admit=[*batch.admit] * 2), "admit a request twice"),
    (lambda batch, view: batch._replace(prefill=[(r, 1.5) for r, _ in batch.prefill]), "1.5 blo"),
    (lambda batch, view: batch._replace(admit=[(r, -1) for r, _ in batch.admit]), "-1 blocks"),
    (lambda batch, view: batch._replace(steps=0), "0 steps"),
    (lambda batch, view: batch._replace(admit=[(Request("x", 1, 1, 0.0), 1)]), "does not wait"),
    (lambda batch, view: batch._replace(prefill=[(Request("x", 1, 1, 0.0), 1)]), "no prompt to"),
    (lambda batch, view: batch._replace(preempt=[*view.waiting]), "does not run here"),
    (lambda batch, view: batch._replace(preempt=["0"]), "preempt what is no request"),
]


@pytest.mark.parametrize(("change", "said"), PLANS)
def test_a_plan_that_is_none_is_refused_before_it_is_carried_out(
    change: Callable[[Batch, View], Any], said: str
) -> None:
    with pytest.raises(BadPlan, match=f"Around plans .*{said}"):
        served(Around(change=change))


class OneBatchAtATime(Around):
    """Admits nobody as long as somebody decodes, though it promises to."""

    conserves = Conserving(seats=256)

    def plan(self, view: View) -> Batch:
        return Batch(decode=True) if view.decoding else VllmV0().plan(view)


def test_a_system_that_promises_to_conserve_work_is_held_to_it() -> None:
    with pytest.raises(Violation, match=r"does not hold: OneBatchAtATime conserves work\. 1 requ"):
        served(OneBatchAtATime())
    watch, _, _ = served(VllmV0(max_num_seqs=2))
    assert watch.events > 6


@pytest.mark.parametrize(
    ("promise", "broken"),
    [
        (Conserving(3), True),
        (Conserving(2), False),  # all seats are taken
        (Conserving(3, tokens=3), True),
        (Conserving(3, tokens=2), False),  # two decodes are all that the step may compute
        (Conserving(3, reserve=93 * 16), True),
        (Conserving(3, reserve=94 * 16), False),  # 6 of 100 are taken, and the watermark is 1
    ],
)
def test_what_bounds_a_step_excuses_that_nobody_is_admitted(
    promise: Conserving, broken: bool
) -> None:
    engine = Engine(VllmV0(), lambda load: 1.0, BlockPool(100), 4096)
    for name in "ab":
        engine.submit(Request(name, 40, 9, 0.0), 0.0)
    begun = engine.begin(0.0)
    assert begun is not None
    engine.finish(begun)
    engine.submit(Request("c", 100, 9, 1.0), 1.0)
    assert promise.broken_by(Batch(decode=True), engine.view) == broken
    assert not promise.broken_by(VllmV0().plan(engine.view), engine.view)


class Oracle:
    def parts(self, replicas: int) -> Parts:
        return Parts(Around(self.look), oracle=True)

    def look(self, view: View) -> None:
        for request in view.waiting:
            assert request.oracle_tokens == 20 + int(request.id)


def test_an_oracle_is_told_what_it_asked_for() -> None:
    _, source, _ = served(Oracle())
    assert len(source.done) == 6


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_system_looks_behind_the_veil(name: str) -> None:
    _, source, cluster = served(make_system(name), replicas=2, calls=40)
    assert len(source.done) == 40
    assert sum(each.engine.counters.finished for each in cluster.all) == 40
