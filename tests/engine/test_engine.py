import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.engine.engine import Deadlock, Engine, Refused, Step, emulate
from servescope.engine.kvcache import BLOCK_TOKENS, BlockPool
from servescope.engine.policy import Batch, System, View
from servescope.engine.request import Request, Status
from servescope.engine.step_time import Load
from servescope.engine.systems import SYSTEMS, make_system
from servescope.engine.systems.sarathi import Sarathi
from servescope.engine.systems.vllm_v0 import VllmV0


def one_second(load: Load) -> float:
    return 1.0


def engine_with(system: System, blocks: int = 100, context_tokens: int = 10_000) -> Engine:
    return Engine(system, one_second, BlockPool(blocks), context_tokens)


def step(engine: Engine, now: float) -> tuple[Step, list[Request]]:
    begun = engine.begin(now)
    assert begun is not None
    engine.check()
    emitted = engine.finish(begun)
    engine.check()
    return begun, emitted


def drain(engine: Engine, now: float = 0.0) -> None:
    while begun := engine.begin(now):
        engine.check()
        engine.finish(begun)
        engine.check()
        now = begun.ends_s


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_first_token_comes_from_the_prefill_step(name: str) -> None:
    engine = engine_with(make_system(name))
    request = Request("a", 100, 3, 0.5)
    engine.submit(request, 0.5)
    begun, emitted = step(engine, 0.5)
    assert emitted == [request]
    assert request.token_s == [1.5]
    assert begun.load == Load(tokens=100, sequences=1, kv_tokens=0, pairs=5050)
    begun, _ = step(engine, 1.5)
    assert begun.load == Load(tokens=1, sequences=1, kv_tokens=100, pairs=0)
    step(engine, 2.5)
    assert request.done
    assert engine.pool.used == 0


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_token_computed_is_a_prompt_an_output_or_a_recomputation(name: str) -> None:
    """The last token of an answer is emitted, and never computed."""
    engine = engine_with(make_system(name), blocks=40)
    requests = [Request(str(i), 100, 150, 0.0) for i in range(8)]
    for request in requests:
        engine.submit(request, 0.0)
    drain(engine)
    counters = engine.counters
    assert counters.preemptions > 0
    assert counters.prompt_tokens == 8 * 100
    assert counters.generation_tokens == 8 * 150
    assert counters.computed_tokens == 8 * (100 + 150 - 1) + counters.recomputed_tokens


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_preempted_request_goes_to_the_front_of_the_queue(name: str) -> None:
    engine = engine_with(make_system(name, {"max_num_seqs": "2"}), blocks=20)
    first, second, third = requests = [Request(str(i), 155, 40, 0.0) for i in range(3)]
    for request in requests:
        engine.submit(request, 0.0)
    now = 0.0
    while not second.preemptions:
        _, _ = step(engine, now)
        now += 1
    assert first.status is Status.RUNNING
    assert list(engine.view.waiting) == [second, third]
    assert second.computed == second.blocks == 0
    assert second.remaining == 155 + second.generated
    drain(engine, now)
    assert all(len(request.token_s) == 40 for request in requests)


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    kinds = st.sampled_from(["submit", "submit", "abort", "step", "step", "step"])
    return draw(
        st.lists(st.tuples(kinds, st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=60)
    )


@settings(deadline=None)
@given(
    name=st.sampled_from(sorted(SYSTEMS)),
    blocks=st.integers(17, 40),
    happenings=happenings(),
    seed=st.integers(0, 9),
)
def test_blocks_and_tokens_add_up_whatever_happens(
    name: str, blocks: int, happenings: list[tuple[str, int, int]], seed: int
) -> None:
    """Submits and aborts come between steps and during them, in a pool that is too small."""
    engine = engine_with(make_system(name, {"max_num_seqs": "8"}), blocks)
    chance = random.Random(seed)
    requests: list[Request] = []
    begun: Step | None = None
    now = 0.0
    for kind, prompt, output in happenings:
        if kind == "submit":
            requests.append(Request(str(len(requests)), prompt, output, now))
            engine.submit(requests[-1], now)
        elif kind == "abort" and requests:
            engine.abort(chance.choice(requests).id)
        elif begun:
            now = begun.ends_s
            engine.finish(begun)
            begun = None
        else:
            begun = engine.begin(now)
        engine.check()
    if begun:
        engine.finish(begun)
        now = begun.ends_s
    drain(engine, now)
    assert engine.pool.used == 0
    assert all(request.status in (Status.FINISHED, Status.ABORTED) for request in requests)
    for request in requests:
        assert not request.done or len(request.token_s) == request.output_tokens


def test_an_abort_in_a_step_frees_the_blocks_and_gives_no_token() -> None:
    engine = engine_with(Sarathi())
    request = Request("a", 100, 10, 0.0)
    engine.submit(request, 0.0)
    begun = engine.begin(0.0)
    assert begun is not None
    assert engine.pool.used > 0
    assert engine.abort("a")
    assert engine.pool.used == 0
    assert engine.finish(begun) == []
    assert engine.begin(1.0) is None
    assert not engine.abort("a")


@pytest.mark.parametrize(
    ("prompt", "output", "why"),
    [
        (0, 1, "0 prompt tokens"),
        (1, 0, "asks for 0"),
        (900, 101, "maximum context length is 1000 tokens"),
        (800, 10, "needs 51 KV blocks, the engine can give 50"),
    ],
)
def test_what_can_never_be_served_is_refused(prompt: int, output: int, why: str) -> None:
    engine = engine_with(VllmV0(), blocks=50, context_tokens=1000)
    with pytest.raises(Refused, match=why):
        engine.submit(Request("a", prompt, output, 0.0), 0.0)
    assert engine.begin(0.0) is None


def test_what_just_fits_is_served() -> None:
    engine = engine_with(VllmV0(), blocks=50)
    engine.submit(Request("a", 50 * BLOCK_TOKENS - 10, 10, 0.0), 0.0)
    drain(engine)
    assert engine.counters.finished == 1


def test_an_id_is_in_use_until_its_request_is_gone() -> None:
    engine = engine_with(Sarathi())
    engine.submit(Request("a", 10, 1, 0.0), 0.0)
    with pytest.raises(Refused, match="own id"):
        engine.submit(Request("a", 10, 1, 0.0), 0.0)
    drain(engine)
    engine.submit(Request("a", 10, 1, 5.0), 5.0)


def test_a_policy_that_plans_nothing_is_a_deadlock() -> None:
    class Lazy:
        def plan(self, view: View) -> Batch:
            return Batch()

    engine = engine_with(Lazy())
    engine.submit(Request("a", 10, 1, 0.0), 0.0)
    with pytest.raises(Deadlock, match="Lazy plans nothing, with 1 requests waiting"):
        engine.begin(0.0)


def test_the_clock_does_not_go_back() -> None:
    engine = engine_with(Sarathi())
    engine.submit(Request("a", 10, 1, 5.0), 5.0)
    with pytest.raises(RuntimeError, match="went back"):
        engine.begin(4.0)


def test_an_engine_is_made_from_names() -> None:
    engine = emulate(make_system("sarathi"), "llama-3.1-8b", "h200", context_tokens=16_384)
    assert engine.context_tokens == 16_384
    assert engine.pool.total * BLOCK_TOKENS > 800_000
