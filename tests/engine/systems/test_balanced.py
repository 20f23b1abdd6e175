from collections.abc import Callable, Iterable
from typing import Any

import pytest

from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Composed, parts_of
from servescope.engine.request import Request
from servescope.engine.systems.balanced import Infaas, LeastLoad

Simulate = Callable[[Cluster, Iterable[Request]], Any]


def cluster(system: Composed, replicas: int, blocks: int = 100) -> Cluster:
    parts = parts_of(system, replicas)

    def make(number: int) -> Engine:
        return Engine(parts.schedule, lambda load: 1.0, BlockPool(blocks), 10_000, number=number)

    return Cluster(parts, [make(n) for n in range(replicas)], another=make, start_up_s=30.0)


@pytest.mark.parametrize(("system", "replicas"), [(LeastLoad(), [0, 1, 0]), (Infaas(), [0, 1, 1])])
def test_load_is_requests_for_one_and_memory_for_the_other(
    system: Composed, replicas: list[int], simulate: Simulate
) -> None:
    """The first is long: the third finds one request on each, and 50 blocks against one."""
    requests = [Request("long", 800, 50, 0.0), Request("short", 16, 50, 0.1),
                Request("new", 16, 5, 0.2)]  # fmt: skip
    simulate(cluster(system, 2), requests)
    assert [request.replica for request in requests] == replicas


def test_without_scaling_nobody_looks_on() -> None:
    assert parts_of(Infaas(), 2).control is None


def test_replicas_come_while_memory_is_short_and_never_more_than_allowed(
    simulate: Simulate,
) -> None:
    """Looked at every 10 s: 85 of 100 blocks are held. A replica starts for 30 s."""
    served = cluster(Infaas(scaling=True, most_replicas=3), 1)
    simulate(served, [Request("long", 1360, 100, 0.0)])
    begun = [replica.begins_s for replica in served.all]
    assert begun == [0.0, 10.0, 20.0]


def test_replicas_go_while_memory_is_ample_and_one_stays(simulate: Simulate) -> None:
    served = cluster(Infaas(scaling=True), 3)
    simulate(served, [Request("short", 16, 100, 0.0)])
    gone = sorted(replica.ends_s for replica in served.all if replica.ends_s is not None)
    assert gone == [10.0, 20.0]
    assert [replica.number for replica in served.replicas] == [0]


def test_between_the_bounds_nothing_changes(simulate: Simulate) -> None:
    """50 of 100 blocks and a few more."""
    served = cluster(Infaas(scaling=True), 1)
    simulate(served, [Request("half", 800, 100, 0.0)])
    assert len(served.all) == 1
