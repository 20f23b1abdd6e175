"""The table of arrival processes: by name, with parameters as a file or a command line has them."""

from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servescope.analysis.arrivals import PROCESSES, process
from servescope.analysis.point_processes import MMPP, Gamma, Hawkes, Poisson, Times
from servescope.analysis.rate_functions import Piecewise, Ramp
from servescope.traces import plugins
from servescope.traces.errors import InputError

SOME: dict[str, dict[str, Any]] = {
    "immediately": {},
    "constant": {"rate_rps": 2},
    "poisson": {"rate_rps": 2},
    "gamma": {"rate_rps": 2, "burstiness": 0.5},
    "weibull": {"rate_rps": 2, "shape": 0.5},
    "mmpp": {"rates_rps": (1, 9), "hold_s": (9, 1)},
    "hawkes": {"rate_rps": 2, "branching": 0.5, "decay_per_s": 1},
    "piecewise": {"times_s": (0, 9), "rates_rps": (1, 2)},
    "csv": {"path": "rate.csv"},
    "ramp": {"start_rps": 1, "end_rps": 5, "duration_s": 9},
}


@pytest.fixture(autouse=True)
def rate_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rate.csv").write_text("t_s,rate_rps\n0,1\n9,2\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", PROCESSES)
def test_every_process_of_the_table_can_be_made_and_is_frozen(name: str) -> None:
    made = process(name, **SOME[name])
    assert made.rate_rps > 0
    assert len(made.sample(np.random.default_rng(0), count=10)) == 10
    with pytest.raises(FrozenInstanceError):
        made.burstiness = 3  # type: ignore[attr-defined]


def test_parameters_may_be_text_as_on_a_command_line() -> None:
    assert process("gamma", rate_rps="2.5", burstiness="0.5") == Gamma(2.5, 0.5)
    assert process("mmpp", rates_rps="1,20", hold_s="60,5") == MMPP((1, 20), (60, 5))
    assert process("mmpp", rates_rps=[1, 20], hold_s=[60, 5]) == MMPP((1, 20), (60, 5))
    assert process("csv", path="rate.csv") == Piecewise((0, 9), (1, 2))
    ramp = process("ramp", start_rps="1", end_rps="5", duration_s="9", strategy="exponential")
    assert ramp == Ramp(1, 5, 9, "exponential")
    assert process("hawkes", **SOME["hawkes"]) == Hawkes(2, 0.5, 1)


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("fractal", {}, "There is no arrival process 'fractal'. Known: immediately, constant, poi"),
        ("gamma", {}, "gamma arrivals need rate_rps. gamma has: rate_rps, burstiness."),
        ("poisson", {"rate_rps": 1, "cv": 2}, "'cv' is no parameter of poisson arrivals. poisson"),
        ("poisson", {"rate_rps": "fast"}, "poisson arrivals cannot take rate_rps = fast"),
        ("poisson", {"rate_rps": -1}, "rate_rps cannot be -1"),
        ("mmpp", {"rates_rps": "1,x", "hold_s": "1,1"}, "cannot take rates_rps = 1,x"),
        ("immediately", {"rate_rps": 1}, "immediately has: no parameters."),
    ],
)
def test_a_wrong_name_or_parameter_is_said_with_what_there_is(
    name: str, parameters: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as error:
        process(name, **parameters)
    assert says in str(error.value)


@dataclass(frozen=True)
class Twice:
    """Every Poisson start twice: a process of another package."""

    rate_rps: float

    def sample(
        self, rng: np.random.Generator, *, until_s: float | None = None, count: int | None = None
    ) -> Times:
        once = Poisson(self.rate_rps / 2).sample(rng, until_s=until_s, count=count)
        return np.repeat(once, 2)[:count]


def test_another_package_adds_a_process_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "twice", "somewhere:Twice"

        @staticmethod
        def load() -> type[Twice]:
            return Twice

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point])
    made = process("twice", rate_rps="4")
    first, second, *_ = made.sample(np.random.default_rng(0), count=10)
    assert made == Twice(4.0)
    assert first == second
