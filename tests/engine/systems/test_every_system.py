"""What must hold of every system there is, on random loads: nothing is lost and nothing leaks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from servescope.engine.assembly import deploy
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine, Refused
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, Scheduler, View, parts_of
from servescope.engine.prefixes import Prefixes, Segment
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems import SYSTEMS, make_system
from servescope.engine.virtual import run

STAGES = ("IR", "extract_keywords", "generate_candidate", "revise", None)


class Agents:
    """Programs of a few turns with pauses, made of a list of small numbers."""

    def __init__(self, programs: list[tuple[float, list[tuple[int, int, float]]]]) -> None:
        self.left = {str(n): list(turns) for n, (_, turns) in enumerate(programs)}
        self.asked = sum(len(turns) for _, turns in programs)
        self.due: list[Request] = []
        self.done: list[Request] = []
        self.refusals = 0
        for n, (at, _) in enumerate(programs):
            self._send(str(n), at, None, at)

    def _send(self, program: str, at: float, before: Request | None, began: float) -> None:
        new, output, _ = self.left[program].pop(0)
        turn = 0 if before is None else before.turn + 1
        text: tuple[Segment, ...] = (Segment("system", 40),)
        if before is not None:
            text = (*before.prefix, Segment(before.id, before.generated))
        text = (*text, Segment(f"{program} says {turn}", new))
        self.due.append(
            Request(
                f"{program}-{turn}",
                sum(segment.tokens for segment in text),
                output,
                at,
                program,
                priority=int(program) % 3 - 1,
                prefix=text,
                program_s=began,
                turn=turn,
                last=not self.left[program],
                call_class=STAGES[(int(program) + turn) % len(STAGES)],
                tool=("ls", "cat", None)[turn % 3],
                deadline_s=began + 50.0,
            )
        )

    def next_due_s(self) -> float | None:
        return min((request.arrival_s for request in self.due), default=None)

    def take(self, now: float) -> Iterable[Request]:
        come = [request for request in self.due if request.arrival_s <= now]
        self.due = [request for request in self.due if request.arrival_s > now]
        return come

    def refused(self, request: Request, error: Refused, now: float) -> None:
        self.refusals += 1 + len(self.left[request.program_id or ""])

    def finished(self, request: Request, now: float) -> None:
        self.done.append(request)
        program = request.program_id or ""
        if self.left[program]:
            pause = self.left[program][0][2]
            self._send(program, now + pause, request, request.program_began_s)


class Blindfold:
    """A scheduler around another one, that takes the hidden truth away while that one plans.

    It also asserts that one which promises to conserve work does.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def plan(self, view: View) -> Batch:
        everyone = [*view.waiting, *view.prefilling, *view.decoding]
        hidden = [request._output_tokens for request in everyone]
        for request in everyone:
            del request._output_tokens
        batch = self.scheduler.plan(view)
        for request, tokens in zip(everyone, hidden, strict=True):
            request._output_tokens = tokens
        conserves = getattr(self.scheduler, "conserves", None)
        assert conserves is None or not conserves.broken_by(batch, view)
        return batch


def step_time(load: Load, share: float = 1.0) -> float:
    return (0.02 + load.tokens * 1e-4 + load.kv_tokens * 1e-6) / share


def small_cluster(
    name: str, blocks: int, replicas: int, params: Mapping[str, str] | None = None
) -> Cluster:
    parts = parts_of(make_system(name, params), replicas)

    def make(number: int) -> Engine:
        return Engine(
            Blindfold(parts.schedule),
            step_time,
            BlockPool(blocks, Prefixes() if parts.prefix_cache else None),
            2_000,
            retain=parts.retain,
            partition=parts.partition,
            number=number,
        )

    return Cluster(
        parts,
        [make(number) for number in range(replicas)],
        ["A100-80G", "A40", "L40S"][:replicas],
        copy_s=lambda tokens: tokens * 1e-4,
        another=make,
    )


turn = st.tuples(st.integers(1, 200), st.integers(1, 60), st.floats(0, 3))
agents = st.lists(
    st.tuples(st.floats(0, 4), st.lists(turn, min_size=1, max_size=4)), min_size=1, max_size=12
)

# InferCept swapped a prompt out of which a part was computed, and never went on with it.
HALF_A_PROMPT_SWAPPED = [
    (0.0, [(1, 1, 0.0)]),
    (2.0, [(1, 1, 0.0)]),
    (2.0, [(1, 24, 0.0), (1, 1, 2.0)]),
    (2.75, [(1, 1, 0.0), (1, 1, 0.5)]),
    (1.96875, [(21, 39, 0.0), (200, 45, 0.0), (200, 1, 0.0)]),
    (3.0, [(163, 39, 0.0)]),
    (1.5, [(1, 25, 0.0), (53, 1, 0.0), (200, 33, 0.0), (1, 1, 0.0)]),
    (3.5, [(1, 1, 0.0)]),
    (0.0, [(140, 13, 0.0), (1, 1, 3.0)]),
]


@pytest.mark.parametrize("name", SYSTEMS)
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(programs=agents, blocks=st.integers(80, 160), replicas=st.integers(2, 3))
@example(HALF_A_PROMPT_SWAPPED, 80, 2)
def test_every_call_is_served_and_every_block_is_accounted_for(
    name: str,
    programs: list[tuple[float, list[tuple[int, int, float]]]],
    blocks: int,
    replicas: int,
) -> None:
    """In a KV cache that is too small, on two or three replicas, with the truth hidden."""
    cluster = small_cluster(name, blocks, replicas)
    source = Agents(programs)
    run(cluster, source, cluster.check)
    assert len(source.done) + source.refusals == source.asked
    assert len({request.id for request in source.done}) == len(source.done)
    for request in source.done:
        assert len(request.token_s) == request.generated
        assert request.token_s == sorted(request.token_s)
        assert request.token_s[0] >= request.arrival_s
    for engine in cluster.engines:
        held = sum(node.depth_blocks for node in engine._pins.values())
        assert engine.pool.used <= held
        assert not engine._decoding
        assert not engine.running


PROMISING = {
    "orca": {"max_num_seqs": "3", "max_tokens": "300"},
    "vllm_v0": {"max_num_seqs": "3", "max_num_batched_tokens": "64"},
    "vllm_v1": {"max_num_seqs": "3", "max_num_batched_tokens": "64"},
    "sarathi": {"max_num_seqs": "3", "chunk_tokens": "8"},
    "sglang": {"max_running_requests": "3", "chunked_prefill_size": "64"},
    "shortest_first": {"max_num_seqs": "3", "max_num_batched_tokens": "64"},
    "longest_first": {"max_num_seqs": "3", "max_num_batched_tokens": "64"},
    "least_load": {"max_num_seqs": "3", "max_num_batched_tokens": "64"},
    "infaas": {"max_num_seqs": "3", "max_num_batched_tokens": "64"},
}


def test_who_promises_to_conserve_work_is_known() -> None:
    promising = {
        name for name in SYSTEMS if hasattr(parts_of(make_system(name), 2).schedule, "conserves")
    }
    assert promising == set(PROMISING)


@pytest.mark.parametrize("name", PROMISING)
@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(programs=agents, blocks=st.integers(60, 160))
def test_work_is_conserved_within_tight_limits_too(
    name: str, programs: list[tuple[float, list[tuple[int, int, float]]]], blocks: int
) -> None:
    """A plan that leaves somebody waiting without need fails the scheduler's own promise."""
    source = Agents(programs)
    run(small_cluster(name, blocks, 2, PROMISING[name]), source)
    assert len(source.done) + source.refusals == source.asked


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_same_load_is_served_the_same_way_twice(name: str) -> None:
    def served() -> list[tuple[str, list[float]]]:
        programs = [
            (0.11 * n, [(30 + 17 * n % 190, 5 + 7 * n % 50, 0.5 * (n % 3))] * (1 + n % 3))
            for n in range(20)
        ]
        source = Agents(programs)
        run(small_cluster(name, 120, 2), source)
        return [(request.id, request.token_s) for request in source.done]

    assert served() == served()


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_parameter_has_a_default_and_a_system_a_sentence(name: str) -> None:
    made = SYSTEMS[name]()
    assert inspect.getdoc(made)
    assert all(hasattr(made, field.name) for field in fields(made))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_can_be_deployed(name: str) -> None:
    cluster = deploy(make_system(name), "Llama-3.1-8B", ["A100-80G", "A100-80G"])
    source = Agents([(0.1 * n, [(100, 20, 0.5), (50, 10, 0.1)]) for n in range(10)])
    run(cluster, source)
    assert len(source.done) == 20
