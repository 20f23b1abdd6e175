"""Continuum as in its paper and as released: every rule on a scene worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from servescope.engine.decoding import Decoding
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, Keep, Parts, Pin, View
from servescope.engine.prefixes import Prefixes
from servescope.engine.request import Request, Status
from servescope.engine.step_time import Load
from servescope.engine.systems.continuum import Continuum, ContinuumFixed2s
from servescope.engine.systems.preempt import STEADY
from servescope.engine.systems.vllm_v1 import VllmV1


def call(program: str, turn: int = 0, at: float = 0.0, began: float = 0.0, **more: Any) -> Request:
    last = more.pop("last", False)
    return Request(
        f"{program}-{turn}", 32, 9, at, program, program_s=began, turn=turn, last=last, **more
    )


def view_of(**fields: Any) -> View:
    given = {"waiting": [], "prefilling": [], "decoding": Decoding(), "pool": BlockPool(1000)}
    return View(**{**given, **fields})


def pin(program: str, until_s: float = 9.0, program_s: float = 0.0, tokens: int = 32) -> Pin:
    return Pin(program, until_s, program_s, tokens)


def pins(*each: Pin) -> dict[str, Pin]:
    return {one.program_id: one for one in each}


# --- the queue ----------------------------------------------------------------------------------


def queue(system: Continuum | ContinuumFixed2s) -> list[str]:
    """Return who is admitted, in which order, of two new calls, a pinned one and a preempted."""
    preempted = call("preempted", at=4.0, began=4.0)
    preempted.preemptions = 1
    waiting = [
        call("young", at=2.0, began=2.0),
        call("old", 3, at=5.0, began=1.0),
        call("pinned", 1, at=3.0, began=3.0),
        preempted,
    ]
    view = view_of(waiting=waiting, pinned=pins(pin("pinned")), now=5.0)
    return [str(each.program_id) for each, _ in system.parts(1).schedule.plan(view).admit]


def test_the_preempted_come_first_then_the_pinned_then_the_older_program() -> None:
    assert queue(Continuum()) == ["preempted", "pinned", "old", "young"]


def test_as_released_the_preempted_have_no_place_of_their_own() -> None:
    assert queue(ContinuumFixed2s()) == ["pinned", "old", "young", "preempted"]


def test_a_program_that_returns_keeps_its_place(serve: Any, turn: Any) -> None:
    """With one seat: a-1 comes at 3.5 s, after c, and is served before it; in vLLM after it."""
    programs = {
        "a": (0.0, [turn(32, 3, 0.5), turn(16, 1)]),
        "b": (0.5, [turn(32, 3)]),
        "c": (0.6, [turn(32, 3)]),
    }
    for system, a_s, c_s in (
        (Continuum(ttl="none", max_num_seqs=1), 6.0, 7.0),
        (VllmV1(max_num_seqs=1), 9.0, 6.0),
    ):
        requests = serve(system, programs).requests
        assert requests["a-1"].first_scheduled_s == a_s
        assert requests["c-0"].first_scheduled_s == c_s


# --- how long it keeps --------------------------------------------------------------------------


def test_in_the_beginning_pauses_are_taken_as_exponential(serve: Any, turn: Any) -> None:
    """A second of waiting is assumed and a second of computing again known: ln 2."""
    programs = {"a": (0.0, [turn(32, 3, 5.0, "ls"), turn(16, 3)])}
    served = serve(Continuum(default_wait_s=1.0), programs)
    assert served.pins_s == {"a-0": pytest.approx(math.log(2))}


def test_a_reload_is_the_quadratic_through_how_long_prompts_take(serve: Any, turn: Any) -> None:
    """1 ms a token and 1e-7 s a pair: 329 tokens take 0.329 s and 329 330 / 2 pairs 5.4285 ms."""

    def step_time(load: Load) -> float:
        return load.tokens * 1e-3 + load.pairs * 1e-7

    programs = {"a": (0.0, [turn(320, 10, 5.0, "ls"), turn(16, 3)])}
    served = serve(Continuum(default_wait_s=1.0), programs, step_time=step_time)
    assert served.pins_s == {"a-0": pytest.approx(math.log(1 + 0.329 + 0.0054285))}


def test_with_offloading_a_reload_is_the_copy_from_host_memory(serve: Any, turn: Any) -> None:
    """329 tokens at 10 ms each."""

    def step_time(load: Load) -> float:
        return 1.0 + load.swapped * 0.01

    programs = {"a": (0.0, [turn(320, 10, 50.0, "ls"), turn(16, 3)])}
    system = Continuum(default_wait_s=1.0, offload=True)
    served = serve(system, programs, step_time=step_time)
    assert served.pins_s == {"a-0": pytest.approx(math.log(1 + 3.29))}


def test_all_pauses_and_then_those_of_the_tool_say_how_long(serve: Any, turn: Any) -> None:
    """Nobody waits, and computing again takes a step of 4 s: B = 4, K = 2.

    After 0, 1 and 2 pauses ln(0.5 + 4). Then .5, 8, .5 are known: 2/3 4 - .5 > 0, and no 4 - 8.
    `cat` is known by three pauses of 8 s after the sixth turn: none is worth its time, though
    all six together (.5 .5 .5 8 8 8) would say half a second: 3/6 4 - .5. `ls` has three of .5.
    """
    tools = [("ls", 0.5), ("cat", 8.0), ("ls", 0.5), ("cat", 8.0), ("cat", 8.0), ("ls", 0.5),
             ("cat", 1.0), ("ls", 1.0)]  # fmt: skip
    turns = [turn(32, 1, pause_s, tool) for tool, pause_s in tools]
    system = Continuum(cold_pauses=2, default_wait_s=0.5)
    served = serve(system, {"a": (0.0, [*turns, turn(32, 1)])}, step_time=lambda load: 4.0)
    cold = pytest.approx(math.log(4.5))
    half = pytest.approx(0.5)
    assert served.pins_s == {"a-0": cold, "a-1": cold, "a-2": cold, "a-3": half, "a-4": half,
                             "a-5": half, "a-7": half}  # fmt: skip


class Books:
    """A run's parts, told by hand what a cluster would tell them."""

    def __init__(self, system: Continuum) -> None:
        self.parts: Parts = system.parts(1)
        assert self.parts.annotate is not None
        assert self.parts.retain is not None
        self.annotate, self.retain = self.parts.annotate, self.parts.retain

    def turn(self, request: Request, waited_s: float = 0.0, view: View | None = None) -> Keep:
        """Let a call come, wait, answer in a second and go."""
        self.annotate.arrived(request, request.arrival_s)
        request.first_scheduled_s = request.arrival_s + waited_s
        request._generated = 1
        ends_s = request.first_scheduled_s + 1.0
        self.annotate.prompted(request, ends_s)
        request.status = Status.FINISHED
        keep = self.retain.finished(request, view or view_of(now=ends_s))
        self.annotate.finished(request, ends_s)
        return keep

    def program(self, name: str, turns: int, pause_s: float = 2.0, waited_s: float = 0.0) -> None:
        """Let a program of so many turns come and go, whose every turn waits so long."""
        at = 0.0
        for number in range(turns):
            last = number == turns - 1
            self.turn(call(name, number, at, tool="ls", last=last), waited_s if number else 0.0)
            at += (waited_s if number else 0.0) + 1.0 + pause_s


def keeps_s(books: Books) -> float:
    """Return for how long the books let a call of `ls` be kept; 0: not pinned."""
    keep = books.turn(call("asked", at=100.0, tool="ls"))
    return keep.until_s - 101.0 if keep.mode == "pin" else 0.0


def test_the_benefit_is_the_wait_of_who_was_evicted_times_eta() -> None:
    """Programs of three turns: eta 1. Two calls of an unpinned program waited 5 s: B = 5 > 2.

    No pin was made in the beginning (ln 0.9 < 0), so that all of them were evicted.
    """
    books = Books(Continuum(cold_pauses=1, default_wait_s=0.9))
    books.program("x", 3, pause_s=2.0, waited_s=5.0)
    assert keeps_s(books) == 2.0


def test_a_wait_that_is_too_short_pays_for_no_pin() -> None:
    """B = 1.9 < 2."""
    books = Books(Continuum(cold_pauses=1, default_wait_s=0.9))
    books.program("x", 3, pause_s=2.0, waited_s=1.9)
    assert keeps_s(books) == 0.0


def test_where_turns_done_promise_more_waits_speak_against_a_pin() -> None:
    """Many programs of two turns and one of four: eta < 0, so that B < 0, whatever the wait."""
    books = Books(Continuum(cold_pauses=1, default_wait_s=0.9))
    for number in range(10):
        books.program(f"short {number}", 2, waited_s=50.0)
    books.program("long", 4, waited_s=50.0)
    assert keeps_s(books) == 0.0


def test_waits_of_pinned_programs_do_not_count_unless_they_lose_the_pin() -> None:
    """Each is pinned at first (ln 20 s); the second gives way while its next call waits."""
    for name, pressed, expected in (("kept", False, 0.0), ("lost", True, 2.0)):
        books = Books(Continuum(cold_pauses=2, default_wait_s=20.0))
        books.program("three", 3)  # for an eta of 1, and two pauses
        assert books.turn(call(name, 0, 0.0, tool="ls")).mode == "pin"
        if pressed:
            waiting = [call("head")]
            view = view_of(waiting=waiting, pinned=pins(pin(name)))
            assert books.retain.pressed(view, Batch()) == name
        books.turn(call(name, 1, 3.0, last=True), waited_s=30.0)
        assert keeps_s(books) == expected


def test_replicas_do_not_forget_each_others_pins() -> None:
    """A step of another replica, which has no pins, changes nothing."""
    books = Books(Continuum(cold_pauses=2, default_wait_s=20.0))
    books.program("three", 3)
    assert books.turn(call("a", 0, 0.0, tool="ls")).mode == "pin"
    assert list(books.retain.unpin(view_of(now=1.0, replica=1))) == []
    books.turn(call("a", 1, 3.0, last=True), waited_s=30.0)
    assert keeps_s(books) == 0.0


def test_a_call_that_is_computed_again_waited_once() -> None:
    """Its first wait of 5 s counts, and no time after it was preempted."""
    books = Books(Continuum(cold_pauses=1, default_wait_s=0.9))
    books.program("x", 3, pause_s=2.0, waited_s=5.0)
    again = call("y", 1, 0.0)
    again.first_scheduled_s, again._generated = 1000.0, 4
    books.annotate.prompted(again, 1001.0)
    assert keeps_s(books) == 2.0


def test_the_last_turn_is_never_pinned_and_neither_is_who_has_no_program() -> None:
    books = Books(Continuum(ttl="static"))
    assert books.turn(call("a", last=True)) == Keep()
    assert books.turn(Request("alone", 32, 9, 0.0)) == Keep()
    assert books.turn(call("b")) == Keep("pin", 3.0)  # it ends at 1


def test_the_steps_of_the_ablation_pin_for_as_long_as_they_say() -> None:
    assert Books(Continuum(ttl="none")).turn(call("a")) == Keep()
    assert Books(Continuum(ttl="static", static_s=7.0)).turn(call("a")) == Keep("pin", 8.0)
    offload = Books(Continuum(ttl="static", offload=True)).turn(call("a"))
    assert offload == Keep("pin", 3.0, copy=True)
    assert Books(Continuum(ttl="none", offload=True)).turn(call("a")) == Keep(copy=True)


# --- when it lets go ----------------------------------------------------------------------------


@pytest.mark.parametrize("system", [Continuum(ttl="static"), ContinuumFixed2s()])
def test_a_pin_ends_with_its_time_unless_its_program_waits(system: Any) -> None:
    retain = system.parts(1).retain
    pinned = pins(pin("over", 5.0), pin("back", 5.0), pin("later", 5.1))
    view = view_of(pinned=pinned, waiting=[call("back", 1)], now=5.0)
    assert list(retain.unpin(view)) == ["over"]
    assert list(retain.unpin(view._replace(now=4.9))) == []


def test_the_program_that_came_last_gives_way_when_there_is_no_room() -> None:
    retain = Continuum(max_num_batched_tokens=64, max_num_seqs=2).parts(1).retain
    assert retain is not None
    pinned = pins(pin("old", program_s=1.0), pin("young", program_s=3.0), pin("mid", program_s=2.0))
    view = view_of(pinned=pinned, waiting=[call("head")])
    assert retain.pressed(view, Batch()) == "young"
    assert retain.pressed(view._replace(waiting=[]), Batch(preempt=[call("runs")])) == "young"


def test_no_pin_gives_way_where_tokens_or_seats_are_what_is_missing(
    decoding: Callable[..., Decoding],
) -> None:
    retain = Continuum(max_num_batched_tokens=64, max_num_seqs=2).parts(1).retain
    assert retain is not None
    long = call("long")
    view = view_of(pinned=pins(pin("a")), waiting=[call("head")], prefilling=[long])
    assert retain.pressed(view, Batch(prefill=[(long, 63)])) == "a"
    assert retain.pressed(view, Batch(prefill=[(long, 64)])) is None
    full = view._replace(prefilling=[], decoding=decoding(20, 30))
    assert retain.pressed(full, Batch(decode=True)) is None


def test_as_many_pins_give_way_as_the_head_needs(serve: Any, turn: Any) -> None:
    """Of 100 blocks the programs a and b keep 21 each; a prompt of 70 needs those of b, not a's."""
    programs = {
        "a": (0.0, [turn(330, 10, 50.0, "ls"), turn(16, 2)]),
        "b": (1.5, [turn(330, 10, 50.0, "ls"), turn(16, 2)]),
        "big": (20.0, [turn(1120, 2)]),
    }
    requests = serve(Continuum(ttl="static", static_s=1e3), programs, blocks=100).requests
    assert requests["big-0"].first_scheduled_s == 20.0
    assert requests["a-1"].found_tokens == 336
    assert requests["b-1"].found_tokens < 336


def test_what_was_evicted_comes_back_from_host_memory_with_offloading(
    serve: Any, turn: Any
) -> None:
    """Nothing is pinned, and a prompt of 70 blocks drives out what there is no room for."""
    programs = {
        "a": (0.0, [turn(650, 10, 50.0, "ls"), turn(16, 2)]),
        "big": (20.0, [turn(1120, 2)]),
    }
    for offload, found in ((True, 656), (False, 464)):
        system = Continuum(ttl="none", offload=offload)
        requests = serve(system, programs, blocks=100).requests
        assert requests["a-1"].found_tokens == found


def test_a_program_stays_where_it_began(serve: Any, turn: Any) -> None:
    programs = {
        name: (at, [turn(32, 4, 1.0, "ls"), turn(16, 4, 1.0, "ls"), turn(16, 4)])
        for name, at in (("a", 0.0), ("b", 0.1), ("c", 0.2), ("d", 0.3))
    }
    served = serve(Continuum(), programs, replicas=2)
    homes = {name: {served.requests[f"{name}-{n}"].replica for n in range(3)} for name in programs}
    assert homes == {"a": {0}, "b": {1}, "c": {0}, "d": {1}}


# --- as released --------------------------------------------------------------------------------


def test_a_pin_is_of_two_seconds_if_the_tool_is_not_known_as_slow(serve: Any, turn: Any) -> None:
    """`make` takes 1, then 4 s: 2.5 on average; then 0.5: 1.83. Without a tool there is no pin."""
    pauses = [("make", 1.0), ("make", 4.0), ("make", 0.5), ("make", 0.5), (None, 0.5), ("ls", 9.0)]
    turns = [turn(32, 2, pause_s, tool) for tool, pause_s in pauses]
    served = serve(ContinuumFixed2s(), {"a": (0.0, [*turns, turn(32, 2)])})
    assert served.pins_s == dict.fromkeys(("a-0", "a-1", "a-3", "a-5"), 2.0)


def test_as_released_a_pin_gives_way_only_when_nobody_else_will_make_room(
    decoding: Callable[..., Decoding],
) -> None:
    """The one that would end last does."""
    retain = ContinuumFixed2s().parts(1).retain
    assert retain is not None
    view = view_of(pinned=pins(pin("a", 4.0, 5.0), pin("b", 6.0, 1.0)), waiting=[call("head")])
    one, two = view._replace(decoding=decoding(20)), view._replace(decoding=decoding(20, 30))
    assert retain.pressed(view, Batch()) == "b"
    assert retain.pressed(one, Batch(decode=True)) is None
    assert retain.pressed(one, Batch(preempt=list(one.decoding))) == "b"
    assert retain.pressed(two, Batch(preempt=list(two.decoding)[1:], decode=True)) is None


def test_who_waits_for_a_pin_to_end_is_let_in_when_it_ends(serve: Any, turn: Any) -> None:
    """a-0 ends at 3 s and is pinned until 5; b decodes all the while, and leaves 67 of 100 blocks.

    The prompt of 60 blocks comes at 3.5 s and fits once the 21 of a are free.
    """
    programs = {
        "a": (0.0, [turn(340, 3, 50.0, "ls"), turn(16, 2)]),
        "b": (0.0, [turn(160, 200)]),
        "big": (3.5, [turn(1120, 2)]),
    }
    served = serve(ContinuumFixed2s(), programs, blocks=100)
    assert served.pins_s["a-0"] == 2.0
    assert served.requests["big-0"].first_scheduled_s == 5.0


def test_steps_are_steady_only_while_no_pin_can_end(decoding: Callable[..., Decoding]) -> None:
    schedule = ContinuumFixed2s().parts(1).schedule
    waits = view_of(waiting=[call("big")], decoding=decoding(20), pool=BlockPool(3, Prefixes()))
    waits.pool.take(3)
    steady = waits._replace(waiting=[])
    assert schedule.plan(waits._replace(pinned=pins(pin("a")))).steps == 1
    assert schedule.plan(steady._replace(pinned=pins(pin("a")))).steps == STEADY
    assert schedule.plan(waits).steps == STEADY
