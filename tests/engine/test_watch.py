"""A policy that reaches past its plan breaks an invariant, and which one is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from servescope.engine.assembly import deploy
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Violation
from servescope.engine.policy import Batch, View
from servescope.engine.prefixes import Segment
from servescope.engine.request import Request
from servescope.engine.systems.vllm_v0 import VllmV0
from servescope.engine.virtual import run
from servescope.engine.watch import Watch


class Given:
    """Four requests at once; `again` sends the first one a second time."""

    def __init__(self, again: bool = False) -> None:
        self.left = [self.request(n) for n in range(4)]
        if again:
            self.left.append(self.request(0))

    @staticmethod
    def request(number: int) -> Request:
        text = (Segment("system", 200), Segment(str(number), 100 + number))
        return Request(str(number), 300 + number, 30, 0.0, str(number), prefix=text)

    def next_due_s(self) -> float | None:
        return 0.0 if self.left else None

    def take(self, now: float) -> Iterable[Request]:
        come, self.left = self.left, []
        return come

    def refused(self, request: Request, error: Exception, now: float) -> None: ...

    def finished(self, request: Request, now: float) -> None: ...


class Meddling:
    """vllm_v0, and a hand in what it should only read."""

    def __init__(self, meddle: Callable[[View], Any], at: int) -> None:
        self.meddle = meddle
        self.at = at
        self.plans = 0
        self.prefix_cache = True

    def plan(self, view: View) -> Batch:
        self.plans += 1
        if self.plans == self.at:
            self.meddle(view)
        return VllmV0(max_num_seqs=2).plan(view)


def watched(
    meddle: Callable[[View], Any] = lambda view: None, at: int = 2, again: bool = False
) -> tuple[Watch, Cluster]:
    cluster = deploy(Meddling(meddle, at), "Mistral-7B", ["A100-80G"])
    watch = Watch(cluster, Given(again))
    run(cluster, watch, watch.event)
    watch.ended()
    return watch, cluster


def test_a_run_in_which_all_holds_is_watched_at_every_event() -> None:
    watch, cluster = watched()
    assert watch.events > 4
    assert cluster.engines[0].counters.finished == 4
    # two begin at once; those that follow find the 12 full blocks of the system prompt
    assert cluster.engines[0].counters.computed_tokens == 4 * (300 + 29) + 6 - 2 * 192


def lose(view: View) -> None:
    view.waiting.pop()  # type: ignore[attr-defined]


def shorten(view: View) -> None:
    for request in view.decoding:
        request.input_tokens -= 1
        request._computed -= 1


def backdate(view: View) -> None:
    for request in view.decoding:
        request._token_s[0] = -1.0


def halve_the_time(cluster: Cluster) -> Callable[[View], None]:
    def halve(view: View) -> None:
        before = cluster.engines[0].step_time
        cluster.engines[0].step_time = lambda load: before(load) / 2

    return halve


@pytest.mark.parametrize(
    ("meddle", "said"),
    [
        (lose, "a request waits or runs, at one place"),
        (lambda view: setattr(view.pool, "free", view.pool.free + 1), "every block is free, held"),
        (lambda view: setattr(view.pool, "free", 10**9), "no more blocks are free than there are"),
        (lambda view: view.waiting.append(view.waiting[0]), "a request waits or runs, at one"),
        (shorten, "a decode reads all"),
        (backdate, "tokens come one after the other, and not early, which '0' breaks"),
        (
            lambda view: setattr(next(iter(view.decoding)), "input_tokens", 299),
            "a request has its own prompt and all tokens of its answer, which '0' breaks",
        ),
    ],
)
def test_a_policy_that_changes_what_it_sees_breaks_what_is_named(
    meddle: Callable[[View], Any], said: str
) -> None:
    with pytest.raises(Violation, match=rf"At [\d.e-]+ s this does not hold: {said}"):
        watched(meddle)


def test_a_look_now_and_then_finds_what_was_broken_before() -> None:
    meddling = Meddling(lambda view: setattr(view.pool, "free", view.pool.free - 3), 2)
    cluster = deploy(meddling, "Mistral-7B", ["H100"])
    watch = Watch(cluster, Given(), every=10**9)
    run(cluster, watch, watch.event)
    with pytest.raises(Violation, match="every block is free, held by one request"):
        watch.ended()


def test_a_faster_engine_than_in_the_beginning_is_seen_at_the_end() -> None:
    system = Meddling(lambda view: None, 2)
    cluster = deploy(system, "Mistral-7B", ["A100-80G"])
    system.meddle = halve_the_time(cluster)
    watch = Watch(cluster, Given())
    run(cluster, watch, watch.event)
    with pytest.raises(Violation, match="a step takes the time that it took"):
        watch.ended()


def test_a_request_that_comes_twice_is_named() -> None:
    with pytest.raises(Violation, match="a request comes once, which '0' breaks"):
        watched(again=True)


def test_a_request_that_never_ends_is_named_at_the_end() -> None:
    cluster = deploy(VllmV0(), "Mistral-7B", ["A100-80G"])
    watch = Watch(cluster, Given())
    (lost, *_) = watch.take(0.0)
    with pytest.raises(Violation, match=f"finished or refused, and '{lost.id}' is not"):
        watch.ended()


def test_tokens_that_do_not_add_up_are_counted() -> None:
    cluster = deploy(VllmV0(), "Mistral-7B", ["A100-80G"])
    watch = Watch(cluster, Given())
    run(cluster, watch)
    cluster.engines[0].counters.prompt_tokens += 1
    with pytest.raises(Violation, match="tokens of prompts add up: 1207 were counted, 1206 asked"):
        watch.ended()
