import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.engine.blame import BadPlan
from servescope.engine.engine import Deadlock, Engine, Refused, Step
from servescope.engine.kvcache import BLOCK_TOKENS, BlockPool
from servescope.engine.policy import Batch, System, View
from servescope.engine.prefixes import Prefixes, Segment
from servescope.engine.request import Request, Status
from servescope.engine.step_time import Load
from servescope.engine.systems import make_system
from servescope.engine.systems.sarathi import Sarathi
from servescope.engine.systems.vllm_v0 import VllmV0

Simulate = Callable[[Engine, Iterable[Request]], Any]
SCHEDULERS = ("vllm_v0", "sarathi")  # systems that are no more than a plan


def one_second(load: Load) -> float:
    return 1.0


def engine_with(system: System, blocks: int = 100, context_tokens: int = 10_000) -> Engine:
    return Engine(system, one_second, BlockPool(blocks), context_tokens)


def step(engine: Engine, now: float) -> tuple[Step, list[Request]]:
    begun = engine.begin(now, until=now)
    assert begun is not None
    engine.check()
    decoded = engine.decoding(begun)
    emitted = [*engine.finish(begun).prompted, *decoded]
    engine.check()
    return begun, emitted


def drain(engine: Engine, now: float = 0.0) -> None:
    while begun := engine.begin(now):
        engine.check()
        engine.finish(begun)
        engine.check()
        now = begun.ends_s


@pytest.mark.parametrize("name", SCHEDULERS)
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


@pytest.mark.parametrize("name", SCHEDULERS)
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


@pytest.mark.parametrize("name", SCHEDULERS)
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


def test_what_a_preemption_costs_is_counted_until_the_next_token() -> None:
    """Two prompts fill the cache; after five decodes the second gives way to the first.

    That is at 6 s. The first has its 40th token at 40 s, and the second is computed again by 41.
    """
    engine = engine_with(make_system("vllm_v0"), blocks=20)
    first, second = requests = [Request(str(i), 155, 40, 0.0) for i in range(2)]
    for request in requests:
        engine.submit(request, 0.0)
    drain(engine)
    assert first.token_s[-1] == 40.0
    assert second.token_s[5:7] == [6.0, 41.0]
    assert (first.lost_s, second.lost_s) == (0.0, 35.0)


@st.composite
def happenings(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    kinds = st.sampled_from(["submit", "submit", "abort", "step", "step", "step"])
    return draw(
        st.lists(st.tuples(kinds, st.integers(1, 200), st.integers(1, 60)), min_size=1, max_size=60)
    )


@settings(deadline=None)
@given(
    name=st.sampled_from(SCHEDULERS),
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
        assert not request.done or len(request.token_s) == request._output_tokens


class Text(NamedTuple):
    """What a prompt is made of: shared pieces and one of its own."""

    shared: int
    own: int


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(SCHEDULERS),
    texts=st.lists(st.builds(Text, st.integers(0, 4), st.integers(1, 90)), min_size=1, max_size=25),
    blocks=st.integers(30, 60),
    output=st.integers(1, 40),
    at_once=st.booleans(),
)
def test_shared_prompts_add_up_and_are_computed_once(
    name: str, texts: list[Text], blocks: int, output: int, at_once: bool
) -> None:
    pool = BlockPool(blocks, Prefixes())
    engine = Engine(make_system(name, {"max_num_seqs": "4"}), one_second, pool, 10_000)
    now = 0.0
    for number, (shared, own) in enumerate(texts):
        prefix = (*(Segment(k, 40) for k in range(shared)), Segment(f"own {number}", own))
        tokens = sum(segment.tokens for segment in prefix)
        engine.submit(Request(str(number), tokens, output, now, prefix=prefix), now)
        for _ in range(0 if at_once else 3):
            if begun := engine.begin(now):
                engine.check()
                engine.finish(begun)
                now = begun.ends_s
                engine.check()
    drain(engine, now)
    assert pool.used == 0
    assert engine.counters.finished == len(texts)


def test_the_second_turn_of_a_conversation_computes_only_what_is_new() -> None:
    pool = BlockPool(100, Prefixes())
    engine = Engine(Sarathi(), one_second, pool, 10_000)
    first = Request("one", 100, 20, 0.0, prefix=(Segment("question", 100),))
    engine.submit(first, 0.0)
    drain(engine)
    again = (Segment("question", 100), Segment("one", 20), Segment("more", 50))
    second = Request("two", 170, 5, 30.0, prefix=again)
    engine.submit(second, 30.0)
    begun, _ = step(engine, 30.0)
    assert second.cached_tokens == 112  # seven blocks of the 119 tokens that were computed
    assert begun.load.tokens == 170 - 112


@pytest.mark.parametrize("name", SCHEDULERS)
def test_many_steps_at_one_go_are_the_same_as_one_by_one(name: str) -> None:
    rng = random.Random(1)
    asked = [(rng.randint(1, 300), rng.randint(1, 90), 3.0 * i * rng.random()) for i in range(60)]
    asked.sort(key=lambda each: each[2])
    told = []
    for ahead in (False, True):
        engine = engine_with(make_system(name), blocks=80)
        requests = [Request(str(i), *each) for i, each in enumerate(asked)]
        due, now = deque(requests), 0.0
        while due or engine.waiting or engine.running:
            if not engine.waiting + engine.running:
                now = max(now, due[0].arrival_s)
            while due and due[0].arrival_s <= now:
                engine.submit(due.popleft(), now)
            begun = engine.begin(now, until=float("inf") if ahead else now)
            if begun is None:
                continue
            # whoever comes meanwhile cuts it short
            while due and due[0].arrival_s < begun.ends_s:
                engine.submit(due[0], due.popleft().arrival_s)
                engine.check()
            engine.finish(begun)
            engine.check()
            now = begun.ends_s
        told.append(([each.token_s for each in requests], engine.counters))
    assert told[0] == told[1]


def test_a_swapped_request_goes_on_where_it_was() -> None:
    class Swap:
        """Admit all, then swap the second out after its tenth token, and in when it is alone."""

        def plan(self, view: View) -> Batch:
            for request in view.waiting:
                if not request.swapped:
                    admit = [(request, 7)]
                    return Batch(admit=admit, prefill=[(request, request.remaining)], decode=True)
                if not len(view.decoding):
                    return Batch(admit=[(request, 8)], decode=True)
            if len(view.decoding) == 2 and list(view.decoding)[1].generated == 10:
                return Batch(preempt=[list(view.decoding)[1]], swap=True, decode=True)
            return Batch(decode=True)

    engine = engine_with(Swap())
    stays, goes = Request("stays", 100, 30, 0.0), Request("goes", 100, 30, 0.0)
    engine.submit(stays, 0.0)
    engine.submit(goes, 0.0)
    drain(engine)
    assert (stays.done, goes.done, goes.preemptions) == (True, True, 1)
    assert goes.lost_s == 30.0 - 11.0  # from its tenth token until it is alone
    assert engine.counters.recomputed_tokens == 0
    assert engine.counters.computed_tokens == 2 * (100 + 30 - 1)
    assert len(goes.token_s) == 30


def running(name: str) -> Request:
    request = Request(name, 10, 1, 0.0)
    request.status = Status.RUNNING
    return request


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (lambda r: Batch(prefill=[(r, 5)]), "5 tokens of 'a', which is waiting"),
        (lambda r: Batch(admit=[(r, 1)], prefill=[(r, 11)]), "11 tokens of 'a'"),
        (lambda r: Batch(admit=[(r, 1)], prefill=[(r, 0)]), "0 tokens of 'a'"),
        (lambda r: Batch(preempt=[r]), "to preempt 'a', which is waiting"),
        (lambda r: Batch(admit=[(r, 1), (r, 1)]), "to admit 'a'"),
        (lambda r: Batch(admit=[(Request("b", 1, 1, 0.0), 1)]), "to admit 'b', which does not"),
        (lambda r: Batch(prefill=[(running("b"), 1)]), "to prefill 'b', which has no prompt"),
    ],
)
def test_an_impossible_plan_is_named(batch: Callable[[Request], Batch], says: str) -> None:
    class Bad:
        def plan(self, view: View) -> Batch:
            return batch(view.waiting[0])

    engine = engine_with(Bad())
    engine.submit(Request("a", 10, 1, 0.0), 0.0)
    with pytest.raises(BadPlan, match=says):
        engine.begin(0.0)


def test_who_decodes_has_no_prompt_to_compute() -> None:
    class Twice:
        def plan(self, view: View) -> Batch:
            if view.decoding:
                return Batch(prefill=[(next(iter(view.decoding)), 1)])
            return Sarathi().plan(view)

    engine = engine_with(Twice())
    engine.submit(Request("a", 10, 3, 0.0), 0.0)
    with pytest.raises(BadPlan, match="to prefill 'a', which has no prompt to compute here"):
        drain(engine)


def test_an_abort_in_a_step_frees_the_blocks_and_gives_no_token() -> None:
    engine = engine_with(Sarathi())
    request = Request("a", 100, 10, 0.0)
    engine.submit(request, 0.0)
    begun = engine.begin(0.0)
    assert begun is not None
    assert engine.pool.used > 0
    assert engine.abort("a")
    assert engine.pool.used == 0
    assert engine.finish(begun) == ([], [])
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


class Seesaw:
    """Preempts who runs and admits who waits, so many tokens at a time."""

    def __init__(self, piece: int) -> None:
        self.piece = piece

    def plan(self, view: View) -> Batch:
        first = view.waiting[0]
        piece = min(self.piece, first.remaining)
        return Batch([*view.prefilling], False, [(first, 1)], [(first, piece)])


class Ratchet(Seesaw):
    """The same, but every turn reaches one token further than the one before."""

    def plan(self, view: View) -> Batch:
        self.piece += 1
        return super().plan(view)


def test_a_policy_that_preempts_all_it_admits_is_a_deadlock(simulate: Simulate) -> None:
    """Two prompts of 100 tokens, of which 16 are computed over and over."""
    engine = engine_with(Seesaw(16))
    with pytest.raises(Deadlock, match="Seesaw has preempted in 1000 steps, and since"):
        simulate(engine, [Request("a", 100, 2, 0.0), Request("b", 100, 2, 0.0)])
    assert engine.counters.preemptions < 1010


def test_preemptions_that_leave_somebody_further_are_none() -> None:
    engine = engine_with(Ratchet(1), blocks=1000)
    for name in "ab":
        engine.submit(Request(name, 5000, 1, 0.0), 0.0)
    now = 0.0
    for _ in range(3000):
        begun = engine.begin(now)
        assert begun is not None
        engine.finish(begun)
        now = begun.ends_s
    assert engine.counters.preemptions == 2999


def test_a_long_prompt_beside_preemptions_gets_on() -> None:
    """One prompt grows by a token a step, while all others take turns in vain."""

    class Beside:
        def plan(self, view: View) -> Batch:
            (long, *others), first = view.prefilling or (None,), view.waiting[0]
            if long is None:
                return Batch(admit=[(first, 400)], prefill=[(first, 1)])
            return Batch([*others], False, [(first, 1)], [(long, 1), (first, 8)])

    engine = engine_with(Beside(), blocks=1000)
    for name, tokens in (("long", 5000), ("a", 50), ("b", 50)):
        engine.submit(Request(name, tokens, 1, 0.0), 0.0)
    now = 0.0
    for _ in range(4000):
        begun = engine.begin(now)
        assert begun is not None
        engine.finish(begun)
        now = begun.ends_s
    assert engine.counters.preemptions == 3998


def test_the_clock_does_not_go_back() -> None:
    engine = engine_with(Sarathi())
    engine.submit(Request("a", 10, 1, 5.0), 5.0)
    with pytest.raises(RuntimeError, match="went back"):
        engine.begin(4.0)
