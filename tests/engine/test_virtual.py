import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from servescope.engine.assembly import emulate
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine, Step
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import WHOLE
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems import make_system
from servescope.engine.systems.sarathi import Sarathi
from servescope.engine.systems.vllm_v0 import VllmV0
from servescope.engine.virtual import run

SCHEDULERS = ("vllm_v0", "sarathi")  # systems that are no more than a plan

Simulate = Callable[[Engine, Iterable[Request]], Any]


def one_second(load: Load) -> float:
    return 1.0


def poisson(rate_rps: float, count: int, seed: int = 0) -> list[Request]:
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / rate_rps, count))
    return [Request(str(i), 1, 1, float(at)) for i, at in enumerate(arrivals)]


def mixed(count: int, seed: int = 0) -> list[Request]:
    """Chats among long documents, two a second."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(0.5, count))
    inputs = np.where(rng.random(count) < 0.5, rng.integers(100, 1000, count), 8000)
    outputs = rng.integers(50, 200, count)
    return [
        Request(str(i), int(inputs[i]), int(outputs[i]), float(arrivals[i])) for i in range(count)
    ]


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_batch_of_one_waits_as_md1_says(load: float, simulate: Simulate) -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) service times."""
    engine = Engine(VllmV0(max_num_seqs=1), one_second, BlockPool(1000), 100)
    done = simulate(engine, poisson(load, 60_000)).done
    waits = [request.first_scheduled_s - request.arrival_s for request in done]
    assert np.mean(waits) == pytest.approx(load / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_number_in_the_engine_is_the_rate_times_the_stay(name: str, simulate: Simulate) -> None:
    """Little's law, over a run that begins and ends empty."""
    source = simulate(emulate(make_system(name), "Mistral-7B", "A100-80G"), mixed(100))
    area, inside = 0.0, 0
    for (at, change), (until, _) in pairwise(source.log):
        inside += change
        area += inside * (until - at)
    stays = [request.token_s[-1] - request.arrival_s for request in source.done]
    # One who arrives during a step is seen at once: the source's clock and arrival_s agree.
    assert area == pytest.approx(sum(stays))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_engine_is_never_idle_while_there_is_work(name: str, simulate: Simulate) -> None:
    spans: list[tuple[float, float]] = []

    class Watched(Engine):
        def begin(self, now: float, until: float = math.inf, lane: str = WHOLE) -> Step | None:
            step = super().begin(now, until, lane)
            if step:
                spans.append((step.starts_s, step.ends_s))
            return step

    inner = emulate(make_system(name), "Mistral-7B", "A100-80G")
    engine = Watched(inner.system, inner.step_time, inner.pool, inner.context_tokens)
    requests = mixed(40)
    done = simulate(engine, list(requests)).done
    assert len(done) == 40
    for (_, ends), (starts, _) in pairwise(spans):
        if starts > ends:  # idle: whoever came before is gone, and somebody comes now
            assert not any(each.arrival_s < starts and each.token_s[-1] > ends for each in done)
            assert starts in [each.arrival_s for each in done]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_same_seed_gives_the_same_events(name: str, simulate: Simulate) -> None:
    logs = [
        [(each.id, each.token_s) for each in simulate(engine, mixed(60)).done]
        for engine in (emulate(make_system(name), "Mistral-7B", "A100-80G") for _ in range(2))
    ]
    assert logs[0] == logs[1]


def test_whole_prompts_stall_decodes_and_chunks_do_not(simulate: Simulate) -> None:
    """Sarathi-Serve's table 4 in small: P99 TBT far apart, P50 TTFT the other way round."""
    tbt_p99, ttft_p50 = [], []
    for system in (VllmV0(), Sarathi()):
        done = simulate(emulate(system, "Mistral-7B", "A100-80G"), mixed(150)).done
        gaps = np.concatenate([np.diff(request.token_s) for request in done])
        tbt_p99.append(np.quantile(gaps, 0.99))
        ttft_p50.append(np.median([each.token_s[0] - each.arrival_s for each in done]))
    assert tbt_p99[0] > 3 * tbt_p99[1]
    assert ttft_p50[0] <= ttft_p50[1]


def test_a_request_that_never_fits_is_reported_and_the_run_goes_on(simulate: Simulate) -> None:
    engine = Engine(Sarathi(), one_second, BlockPool(100), 50)
    source = simulate(engine, [Request("long", 60, 1, 0.0), Request("short", 10, 1, 0.0)])
    assert [each.id for each in source.turned_away] == ["long"]
    assert [each.id for each in source.done] == ["short"]


def test_a_follow_up_arrives_after_the_request_that_caused_it() -> None:
    class Chat:
        def __init__(self) -> None:
            self.due: list[Request] = [Request("0", 10, 2, 1.0)]
            self.arrivals: list[float] = []

        def next_due_s(self) -> float | None:
            return self.due[0].arrival_s if self.due else None

        def take(self, now: float) -> Iterable[Request]:
            self.arrivals.append(now)
            taken, self.due = self.due, []
            return taken

        def refused(self, request: Request, error: Exception, now: float) -> None:
            raise AssertionError

        def finished(self, request: Request, now: float) -> None:
            if len(self.arrivals) < 3:
                self.due = [Request(str(len(self.arrivals)), 10, 2, now + 0.25)]

    chat = Chat()
    run(Cluster.of(Engine(Sarathi(), one_second, BlockPool(100), 50)), chat)
    assert chat.arrivals == [1.0, 3.25, 5.5]
