"""A host that takes whole milliseconds, so that every end can be worked out by hand."""

import random
from collections import deque

import pytest

from servescope.engine.assembly import emulate
from servescope.engine.catalog import Overhead
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine
from servescope.engine.host import Host
from servescope.engine.kvcache import BlockPool
from servescope.engine.request import Request
from servescope.engine.systems import make_system
from servescope.engine.systems.sarathi import Sarathi
from servescope.engine.virtual import run

STEP_S = 10e-3


def engine(overhead: Overhead, chunk_tokens: int = 8192) -> Engine:
    system = Sarathi(chunk_tokens=chunk_tokens)
    return Engine(system, lambda load: STEP_S, BlockPool(10_000), 16_384, host=Host(overhead))


def host(graph_s: float = 0.0, eager_s: float = 0.0, frontend_s: float = 0.0) -> Overhead:
    return Overhead(0, 0, True, frontend_s, graph_s, eager_s, 512)


def serve(served: Engine, *asked: tuple[int, int, float]) -> list[list[float]]:
    requests = [Request(str(i), *each) for i, each in enumerate(asked)]
    due = deque(requests)

    class Source:
        def next_due_s(self) -> float | None:
            return due[0].arrival_s if due else None

        def take(self, now: float) -> list[Request]:
            return [due.popleft()] if due and due[0].arrival_s <= now else []

        def refused(self, request: Request, error: Exception, now: float) -> None:
            raise error

        def finished(self, request: Request, now: float) -> None:
            served.check()

    run(Cluster.of(served), Source(), served.check)
    return [[round(at * 1e3, 6) for at in each.token_s] for each in requests]


def test_a_prompt_alone_passes_the_front_end_and_waits_for_the_gpu_or_its_launch() -> None:
    assert serve(engine(host(frontend_s=2e-3, graph_s=8e-3)), (100, 1, 0.0)) == [[12]]
    assert serve(engine(host(frontend_s=2e-3, eager_s=25e-3)), (600, 1, 0.0)) == [[27]]


def test_who_comes_during_a_step_takes_part_in_the_step_after_the_next() -> None:
    first, second = serve(engine(host()), (100, 8, 0.0), (100, 1, 25e-3))
    assert first == [10, 20, 30, 40, 50, 60, 70, 80]
    assert second == [50]  # that which begins at 30 was planned at 20


def test_a_step_is_seen_to_end_once_the_next_is_launched() -> None:
    """Planned at 30, launched by 55: only then are the tokens of 40 asked for."""
    first, second = serve(engine(host(eager_s=25e-3)), (100, 6, 0.0), (600, 1, 25e-3))
    assert first == [10, 20, 30, 55, 55, 65]
    assert second == [55]


def test_a_launch_that_is_shorter_than_a_step_hides_behind_it() -> None:
    first, second = serve(engine(host(graph_s=9e-3)), (100, 6, 0.0), (100, 1, 25e-3))
    assert first == [10, 20, 30, 40, 50, 60]
    assert second == [50]


def test_chunks_that_fit_a_graph_are_launched_as_one() -> None:
    """The budget of 512 is learnt from the first step that leaves some of its prompt."""
    chunked = engine(host(graph_s=5e-3, eager_s=95e-3), chunk_tokens=512)
    assert serve(chunked, (1500, 1, 0.0)) == [[30]]
    whole = engine(host(graph_s=5e-3, eager_s=95e-3))
    assert serve(whole, (1500, 1, 0.0)) == [[95]]


def test_an_engine_that_fell_idle_starts_as_one_that_never_worked() -> None:
    idle = engine(host(graph_s=12e-3, frontend_s=1e-3))
    assert serve(idle, (100, 1, 0.0), (100, 1, 0.5)) == [[13], [513]]


def test_a_request_can_be_aborted_in_the_front_end() -> None:
    served = engine(host(frontend_s=1.0))
    served.submit(Request("a", 100, 5, 0.0), 0.0)
    assert served.waiting == 1
    assert served.abort("a", 0.0)
    served.check()
    assert served.idle
    assert served.begin(0.0) is None


@pytest.mark.parametrize("name", ["sarathi", "vllm_v0"])
@pytest.mark.parametrize("overhead", [host(), host(12e-3, 31e-3, 7e-3)], ids=["quick", "slow"])
def test_many_steps_at_one_go_are_the_same_as_one_by_one(name: str, overhead: Overhead) -> None:
    rng = random.Random(1)
    asked = [(rng.randint(1, 900), rng.randint(1, 90), 3.0 * i * rng.random()) for i in range(60)]
    asked.sort(key=lambda each: each[2])
    told = []
    for ahead in (False, True):
        served = Engine(
            make_system(name), lambda load: 7e-3 + load.tokens * 1e-5, BlockPool(300), 16_384,
            host=Host(overhead),
        )  # fmt: skip
        requests = [Request(str(i), *each) for i, each in enumerate(asked)]
        due, now = deque(requests), 0.0
        while due or served.waiting or served.running:
            if not served.waiting + served.running:
                now = max(now, due[0].arrival_s)
            while due and due[0].arrival_s <= now:
                served.submit(due.popleft(), now)
            begun = served.begin(now, until=float("inf") if ahead else now)
            assert begun is not None
            while due and due[0].arrival_s < begun.ends_s:
                served.submit(due[0], due.popleft().arrival_s)
                served.check()
            served.finish(begun)
            served.check()
            now = begun.ends_s
        told.append(([each.token_s for each in requests], served.counters))
    assert told[0] == told[1]


def test_without_a_host_to_wait_for_an_engine_is_as_quick_as_a_plain_one() -> None:
    """One request at a time: asynchronous scheduling alone changes nothing."""
    lengths = [(300, 20, 10.0 * i) for i in range(3)]
    plain = Engine(Sarathi(), lambda load: STEP_S, BlockPool(10_000), 16_384)
    assert serve(engine(host(), chunk_tokens=512), *lengths) == serve(plain, *lengths)


def test_a_profile_by_name_gives_an_engine_its_host() -> None:
    named = emulate(Sarathi(), "Llama-3.1-8B", "H200", overhead="vllm-0.26")
    assert named.host is not None
    assert named.host.overhead.eager_launch_s == pytest.approx(18.5e-3)
    assert emulate(Sarathi(), "Llama-3.1-8B", "H200").host is None
