"""Capacity where theory knows it, and a search whose steps can be followed by hand."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import queues
from hypothesis import given
from hypothesis import strategies as st

from servescope.analysis.burn import Burn
from servescope.analysis.capacity import (
    CLOSE,
    Ask,
    Probe,
    bracket,
    capacity_of,
    confirmed,
    in_words,
    next_ask,
    rows_of,
    torn,
)

SERVICE_S = 0.1  # of the M/M/1 queue: 10 calls a second at most


def flat(load: float, rate: float, seconds: float = 100.0, allowed: float = 0.01) -> Probe:
    """A probe whose ten sections all burned alike."""
    sizes = np.full(10, load * seconds / 10)
    return Probe(load, seconds, (Burn("c", "share", allowed, sizes, np.full(10, rate)),))


def test_a_bracket_is_the_highest_pass_and_the_lowest_failure() -> None:
    assert bracket([flat(1, 0.1), flat(4, 3.0), flat(2, 0.5)]) == (2, 4)
    assert bracket([flat(1, 0.1)]) == (1, None)
    assert bracket([flat(1, 9.0)]) == (None, 1)
    assert bracket([]) == (None, None)


def test_where_burn_falls_with_load_neighbours_are_pooled_by_their_lengths() -> None:
    """At 2 it failed for 100 s, at 3 it passed for 300 s: together they burn 0.5 and pass."""
    assert bracket([flat(1, 0.1), flat(2, 2.0), flat(3, 0.0, 300.0), flat(4, 5.0)]) == (3, 4)
    assert bracket([flat(1, 0.1), flat(2, 2.0, 300.0), flat(3, 0.0), flat(4, 5.0)]) == (1, 2)
    # pooled, both fail: then the one that passed by itself is the best that is known
    assert bracket([flat(1, 2.0), flat(2, 0.0)]) == (2, 1)


def test_without_a_pass_or_a_failure_there_is_no_capacity() -> None:
    assert capacity_of([]) is None
    assert capacity_of([flat(1, 0.0), flat(2, 0.5)]) is None
    assert capacity_of([flat(1, 2.0), flat(2, 5.0)]) is None


def test_capacity_lies_where_the_curve_crosses_the_limit() -> None:
    """Burn grows as the 8th power of load and is 1 at 5: odds of misses this small are shares."""
    probes = [flat(load, (load / 5) ** 8, 1e4, 1e-3) for load in (4.0, 4.5, 4.8, 5.3, 6.0)]
    found = capacity_of(probes)
    assert found is not None
    assert found.load == pytest.approx(5.0, rel=0.01)
    assert found.slope == pytest.approx(8.0, rel=0.1)
    assert found.low < 5.0 < found.high
    rates = found.burn_at(np.array([4.0, 5.0, 6.0]), 1e-3)
    assert rates == pytest.approx([0.8**8, 1.0, 1.2**8], rel=0.1)


def test_of_two_conditions_the_one_that_fails_first_limits() -> None:
    def probe(load: float) -> Probe:
        sizes = np.full(10, 1e3)
        return Probe(load, 100.0, tuple(
            Burn(name, "share", 0.01, sizes, np.full(10, (load / limit) ** 8))
            for name, limit in (("late", 5.0), ("early", 3.0), ("never", 1e3))
        ))  # fmt: skip

    found = capacity_of([probe(load) for load in (2.0, 2.5, 2.9, 3.2, 4.0, 6.0)])
    assert found is not None
    assert (found.condition, found.load) == ("early", pytest.approx(3.0, rel=0.02))


@given(st.floats(0.01, 100.0))
def test_in_another_unit_of_load_capacity_is_the_same_in_that_unit(factor: float) -> None:
    loads = (3.0, 4.0, 4.5, 5.5, 6.0)
    found = [
        capacity_of([flat(load * unit, (load / 5) ** 6, 1000 / unit) for load in loads])
        for unit in (1.0, factor)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[1].load / factor == pytest.approx(found[0].load, rel=1e-6)
    assert found[1].low / factor == pytest.approx(found[0].low, rel=1e-6)


def test_a_search_doubles_or_halves_until_it_has_a_bracket() -> None:
    """2,400 s in all: the first probes are a twenty-fourth of it each."""
    assert next_ask([], 3.0, 2400) == Ask(3.0, 100.0, "bracket")
    assert next_ask([flat(3, 0.0)], 3.0, 2400) == Ask(6.0, 100.0, "bracket")
    assert next_ask([flat(3, 9.0)], 3.0, 2400) == Ask(1.5, 100.0, "bracket")
    assert next_ask([flat(3, 0.0), flat(6, 9.0)], 3, 2400) == Ask(math.sqrt(18), 100.0, "bracket")


def test_a_search_goes_no_further_than_it_may() -> None:
    assert next_ask([], 3.0, 2400, most=2.0) == Ask(2.0, 100.0, "bracket")
    assert next_ask([flat(3, 0.0)], 3.0, 2400, most=4.0) == Ask(4.0, 100.0, "bracket")
    assert next_ask([flat(3, 0.0), flat(4, 0.5)], 3.0, 2400, most=4.0) is None


def test_a_narrow_bracket_is_measured_on_both_sides_and_then_confirmed_below() -> None:
    probes = [flat(4.8, 0.7), flat(4.8 * CLOSE, 2.5)]
    stages, loads = [], []
    while ask := next_ask(probes, 5.0, 2400):
        stages.append(ask.stage)
        loads.append(ask.load)
        probes.append(
            Probe(ask.load, ask.seconds, flat(ask.load, (ask.load / 5) ** 9).burns, ask.stage)
        )
    assert stages == ["measure"] * 6 + ["confirm"]
    assert loads[0] < 5 < loads[1]
    assert sum(probe.seconds for probe in probes) == pytest.approx(2400)
    found = capacity_of(probes)
    assert found is not None
    assert 0.95 * found.load <= loads[-1] * 1.02 <= 1.02 * found.load
    assert next_ask(probes, 5.0, 10_000) is None  # what was confirmed is not searched again


def test_a_search_that_was_not_confirmed_goes_on_with_a_larger_budget() -> None:
    probes = [flat(4.8, 0.7), flat(4.8 * CLOSE, 2.5)]
    probes.append(Probe(4.7, 2200.0, flat(4.7, 3.0).burns, "confirm"))
    assert confirmed(probes) is False
    assert next_ask(probes, 5.0, 2400) is None  # nothing is left
    ask = next_ask(probes, 5.0, 4800)
    assert ask is not None
    assert ask.stage == "measure"
    text = in_words("s", probes, capacity_of(probes), unit="programs/s", per_s=None)
    assert "The last probe does not confirm it: a run of 2200 s at 4.7 burned 3 times" in text
    assert text.endswith("With a larger budget the search goes on from there.")


def test_probes_that_contradict_each_other_make_the_answer_unsure() -> None:
    low, high = (Probe(x, 75.0, flat(x, rate).burns, "measure") for x, rate in ((6, 50), (6.5, 0)))
    assert torn([flat(6, 50), flat(6.5, 0)]) is None  # short ones may
    assert torn([low, high]) == (low, high)
    assert torn([low, Probe(7, 75.0, flat(7, 60).burns, "measure")]) is None
    probes = [flat(3, 0.0), low, high]
    text = in_words("s", probes, capacity_of(probes), unit="programs/s", per_s=None)
    assert "may meet the SLO up to" in text
    assert "confidence" not in text


def queue(rng: np.random.Generator, bound_s: float, load: float, seconds: float) -> Burn:
    """An M/M/1 queue from empty, its first tenth left out."""
    count = max(100, int(load * seconds))
    service = rng.exponential(SERVICE_S, count)
    took = queues.served(rng.exponential(1 / load, count), service) + service
    took = took[count // 10 :]
    section = np.arange(len(took)) * 10 // len(took)
    sizes = np.bincount(section).astype(np.float64)
    return Burn("p95", "share", 0.05, sizes, np.bincount(section, took > bound_s) / sizes / 0.05)


def searched(make: Callable[[float, float], Burn], begin: float, budget_s: float) -> list[Probe]:
    probes: list[Probe] = []
    while ask := next_ask(probes, begin, budget_s):
        burn = make(ask.load, ask.seconds)
        probes.append(Probe(ask.load, ask.seconds, (burn,), ask.stage))
    return probes


def test_capacity_of_an_mm1_queue_is_what_theory_says() -> None:
    """P(sojourn > b) = exp(-(mu - load) b), so 5 % take longer than 1 s at mu + ln 0.05."""
    true = 1 / SERVICE_S + math.log(0.05)
    errors, held = [], 0
    for seed in range(20):
        make = partial(queue, np.random.default_rng([1, seed]), 1.0)
        found = capacity_of(searched(make, 60.0 if seed % 2 else 1.0, 4 * 3600))
        assert found is not None
        errors.append(found.load / true - 1)
        held += found.low <= true
    assert abs(np.mean(errors)) < 0.03  # the goal; 0.5 % was measured
    assert np.quantile(np.abs(errors), 0.95) < 0.08
    assert held >= 17  # of 20, where 19 are expected


def test_a_search_says_in_words_what_it_found() -> None:
    assert in_words("s", [], None, unit="programs/s", per_s=None) == "s: nothing was tried yet."
    passed, missed = flat(2, 0.0), flat(8, 9.0)
    text = in_words("s", [passed], None, unit="programs/s", per_s=None)
    assert text == "s meets the SLO at every load that was tried, up to 2 programs/s."
    text = in_words("s", [missed], None, unit="times as recorded", per_s=0.5)
    assert text == (
        "s misses the SLO at every load that was tried, down to 8 times as recorded (4 programs/s)."
    )
    probes = [flat(load, (load / 5) ** 8, 1e4) for load in (4.0, 4.8, 5.5)]
    found = capacity_of(probes)
    last = Probe(4.7, 600.0, flat(4.7, 0.6).burns, "confirm")
    text = in_words("s", [*probes, last], found, unit="programs/s", per_s=None)
    assert "s meets the SLO up to 4.98 programs/s, and with 95 % confidence up to 4.13." in text
    assert text.endswith(
        "What limits it: c. The last probe confirms it: a run of 600 s at 4.7 burned 0.6 times"
        " what the SLO allows."
    )


def test_rows_say_what_each_probe_burned() -> None:
    assert rows_of([flat(2, 0.5)]) == [
        {"load": 2, "seconds": 100.0, "stage": "bracket", "burn": 0.5, "condition": "c"}
    ]
    assert rows_of([Probe(2, 10.0, ())])[0]["burn"] == 0.0
