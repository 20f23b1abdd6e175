"""The clock audit: planted clocks are found, and no alarm is raised where there is none."""

from pathlib import Path

import numpy as np
import pytest

from servescope.analysis import clock
from servescope.analysis.arrivals import process
from servescope.analysis.demand import Demand
from servescope.traces import load

DATA = Path(__file__).parents[3] / "shared" / "data"
RNG = np.random.default_rng


def poisson(rate: float = 5.0, count: int = 5000, seed: int = 1) -> np.ndarray:
    return process("poisson", rate_rps=rate).sample(RNG(seed), count=count)


@pytest.mark.parametrize("step", [1e-6, 1e-3, 0.1, 1.0, 60.0])
def test_stamps_on_a_grid_are_found(step: float) -> None:
    tick = clock.tick_of(np.floor(poisson(rate=2 / step) / step) * step)
    assert tick is not None
    assert tick.kind == "grid"
    assert tick.step_s == pytest.approx(step, rel=1e-6)
    assert tick.p_value < 1e-6


def test_batches_that_are_stamped_a_millisecond_early_or_not_are_one_clock() -> None:
    rng = RNG(2)
    stamps = np.sort(3.0 * np.floor(poisson() / 3) - 0.001 * (rng.random(5000) < 0.5))
    tick = clock.tick_of(stamps - stamps[0])
    assert tick is not None
    assert (tick.kind, tick.step_s) == ("batches", pytest.approx(3.0, abs=0.002))
    gaps = np.diff(clock.deticked(stamps - stamps[0], tick, rng))
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)  # Poisson again


def test_a_favoured_phase_is_found_among_fine_stamps() -> None:
    rng = RNG(3)
    at = poisson(count=20_000)
    some = rng.random(20_000) < 0.3
    stamps = np.sort(np.where(some, np.floor(at / 0.1) * 0.1 + rng.normal(0, 0.005, 20_000), at))
    tick = clock.tick_of(stamps)
    assert tick is not None
    assert (tick.kind, tick.step_s) == ("phase", 0.1)
    assert 0.2 < tick.strength < 0.4


def test_no_alarm_on_a_hundred_continuous_traces() -> None:
    kinds = [
        ("poisson", {"rate_rps": 5}),
        ("gamma", {"rate_rps": 3, "burstiness": 0.05}),
        ("weibull", {"rate_rps": 3, "shape": 0.4}),
        ("mmpp", {"rates_rps": (20, 0.1), "hold_s": (5, 30)}),
        ("hawkes", {"rate_rps": 3, "branching": 0.8, "decay_per_s": 2.0}),
    ]
    rng = RNG(4)
    for k in range(100):
        name, parameters = kinds[k % len(kinds)]
        at = process(name, **parameters).sample(rng, count=int(rng.integers(20, 5000)))
        assert clock.tick_of(at) is None, (k, name)


def test_what_the_format_declares_is_believed_unless_the_stamps_show_more() -> None:
    few = clock.tick_of(np.array([0.0, 4.0]), declared_s=1.0)
    assert few is not None
    assert (few.kind, few.step_s) == ("declared", 1.0)
    coarser = clock.tick_of(np.floor(poisson()), declared_s=1e-3)
    assert coarser is not None
    assert (coarser.kind, coarser.step_s) == ("grid", 1.0)


def test_de_ticking_moves_no_call_out_of_its_tick_and_keeps_their_number() -> None:
    stamps = np.floor(poisson())
    drawn = clock.deticked(stamps, clock.Tick(1.0, "grid", 1.0, 0.0), RNG(5))
    assert len(drawn) == len(stamps)
    assert (np.abs(drawn - stamps) <= 0.5).all()
    assert (np.diff(drawn) >= 0).all()


def test_nothing_and_one_stamp_have_no_tick() -> None:
    assert clock.tick_of(np.empty(0)) is None
    assert clock.tick_of(np.array([3.0])) is None
    assert clock.audit(np.empty(0)).span_s == 0


# What ../shared/data/README.md says of each clock: tick, the unit in which stamps are whole.
REAL = {
    "burstgpt/BurstGPT_1.head400.csv": (1.0, "s"),
    "burstgpt/BurstGPT_3.head280.csv": (1.0, "s"),
    "azure_llm_2023": (0.1, "us"),
    "mooncake/conversation_trace.head400.jsonl": (3.0, "ms"),
    "mooncake/synthetic_trace.jsonl.gz": (0.001, "ms"),
    "ragpulse": (1.0, "s"),
    "exgentic_otel_normalized": (1e-6, "us"),
    "tracelab/sanitized_round_trace.jsonl": (0.001, "ms"),
    "prism_arena": (None, None),
}


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data, which is not here")
@pytest.mark.parametrize("name", REAL)
def test_the_clock_of_every_real_trace_is_found(name: str) -> None:
    audit = Demand.of(load(str(DATA / name))).audit
    step, unit = REAL[name]
    assert (audit.tick.step_s if audit.tick else None) == (step and pytest.approx(step, rel=1e-3))
    assert audit.stamp_unit == unit
