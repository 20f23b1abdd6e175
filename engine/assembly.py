"""Engines and clusters, put together from a system, models, GPUs and overheads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from servescope.engine.catalog import (
    PLAIN,
    Gpu,
    Model,
    Overhead,
    find_gpu,
    find_model,
    find_overhead,
)
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine
from servescope.engine.host import Host
from servescope.engine.kvcache import BlockPool, kv_blocks
from servescope.engine.policy import Parts, System, parts_of
from servescope.engine.prefixes import Prefixes
from servescope.engine.step_time import StepTime

LINK_BANDWIDTH = 25e9  # bytes/s between replicas. ASSUMED


def assemble(
    parts: Parts,
    model: Model,
    gpu: Gpu,
    overhead: Overhead,
    tp: int = 1,
    pp: int = 1,
    context_tokens: int | None = None,
    *,
    cached: bool = False,
    number: int = 0,
) -> Engine:
    """Return one engine of a system's parts, with a prefix cache if it is `cached`.

    Lanes of one GPU have no asynchronous host, whatever the overhead says.
    """
    return Engine(
        parts.schedule,
        StepTime(model, gpu, tp, overhead, pp),
        BlockPool(kv_blocks(model, gpu, tp, pp=pp), Prefixes() if cached else None),
        context_tokens or model.context_tokens,
        retain=parts.retain,
        partition=parts.partition,
        number=number,
        host=Host(overhead) if overhead.asynchronous and parts.partition is None else None,
    )


def emulate(
    system: System,
    model: str,
    gpu: str,
    tp: int = 1,
    context_tokens: int | None = None,
    pp: int = 1,
    overhead: str = PLAIN,
) -> Engine:
    """Return an engine for a model on `tp` x `pp` GPUs, with an overhead, all by name.

    `context_tokens` lowers or raises the model's own context length.
    """
    return assemble(
        parts_of(system), find_model(model), find_gpu(gpu), find_overhead(overhead), tp, pp,
        context_tokens,
    )  # fmt: skip


def deploy(
    system: System,
    model: str,
    gpus: Sequence[str],
    tp: int = 1,
    context_tokens: int | None = None,
    prefix_cache: bool | None = None,
    pp: int = 1,
    overhead: str = PLAIN,
) -> Cluster:
    """Return replicas of a model, one a name in `gpus`, under a system.

    Each is on `tp` x `pp` such GPUs. `prefix_cache` overrides what the system does by itself.
    """
    shape, software = find_model(model), find_overhead(overhead)
    parts = parts_of(system, len(gpus))
    cached = parts.prefix_cache if prefix_cache is None else prefix_cache

    def make(gpu: str, number: int) -> Engine:
        return assemble(
            parts, shape, find_gpu(gpu), software, tp, pp, context_tokens,
            cached=cached, number=number,
        )  # fmt: skip

    copied = shape.kv_bytes_per_token(tp) / LINK_BANDWIDTH
    return Cluster(
        parts,
        [make(gpu, number) for number, gpu in enumerate(gpus)],
        gpus,
        copy_s=lambda tokens: tokens * copied,
        another=partial(make, gpus[0]),
    )
