from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool
from servescope.engine.policy import Batch, System, View, parts_of
from servescope.engine.request import Request
from servescope.engine.systems import SYSTEMS, installed_systems, make_system
from servescope.engine.systems.sarathi import Sarathi
from servescope.engine.systems.vllm_v0 import VllmV0
from servescope.traces import plugins
from servescope.traces.errors import InputError

SCHEDULERS = ("vllm_v0", "sarathi")  # systems that are no more than a plan


class Blindfold:
    """A system around another one, that takes the hidden truth away while that one plans."""

    def __init__(self, system: System) -> None:
        self.system = system

    def plan(self, view: View) -> Batch:
        everyone = [*view.waiting, *view.prefilling, *view.decoding]
        hidden = [request._output_tokens for request in everyone]
        for request in everyone:
            del request._output_tokens
        batch = self.system.plan(view)
        for request, tokens in zip(everyone, hidden, strict=True):
            request._output_tokens = tokens
        return batch


@pytest.mark.parametrize("name", SCHEDULERS)
def test_no_system_reads_the_output_length(name: str) -> None:
    engine = Engine(Blindfold(make_system(name)), lambda load: 1.0, BlockPool(40), 1000)
    for i in range(10):
        engine.submit(Request(str(i), 100, 100, 0.0), 0.0)
    now = 0.0
    while step := engine.begin(now):
        engine.finish(step)
        now = step.ends_s
    assert engine.counters.finished == 10
    assert engine.counters.preemptions > 0


def test_parameters_are_given_as_text() -> None:
    assert make_system("sarathi", {"chunk_tokens": "2048"}) == Sarathi(chunk_tokens=2048)
    assert make_system("vllm_v0") == VllmV0()


def test_an_unknown_system_lists_the_near_ones() -> None:
    with pytest.raises(InputError, match=r"'vllm' is not a system\. Near it: vllm_v"):
        make_system("vllm")


def test_an_unknown_parameter_lists_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'chunk' is not .* has: chunk_tokens, max_num_seqs"):
        make_system("sarathi", {"chunk": "1"})


@pytest.mark.parametrize("value", ["many", "0", "-5", "1.5"])
def test_a_parameter_that_makes_no_sense_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="cannot take"):
        make_system("sarathi", {"chunk_tokens": value})


@dataclass(frozen=True)
class Stranger:
    def plan(self, view: View) -> Batch:
        return Batch()


def test_an_installed_plug_in_is_a_system_by_its_entry_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Point(EntryPoint):
        def load(self) -> type[Stranger]:
            return Stranger

    points = [Point("stranger", "elsewhere:Stranger", "servescope.systems")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    assert set(installed_systems()) == {*SYSTEMS, "stranger"}
    assert make_system("stranger") == Stranger()


POLICY = """
from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine import Batch, Parts, View
from servescope.engine.systems.vllm_v0 import VllmV0

class _Part:
    def plan(self, view: View) -> Batch:
        return VllmV0().plan(view)

@dataclass(frozen=True, slots=True)
class Mine:
    seats: Annotated[int, Meta(ge=1)] = 4

    def plan(self, view: View) -> Batch:
        return VllmV0(max_num_seqs=self.seats).plan(view)
"""
COMPOSED = """
class Plain:
    def parts(self, replicas: int) -> Parts:
        return Parts(_Part())
"""


def test_a_system_is_taken_from_a_file_with_its_parameters(tmp_path: Path) -> None:
    path = tmp_path / "policy.py"
    path.write_text(POLICY)
    system = make_system(str(path), {"seats": "7"})
    assert type(system).__name__ == "Mine"
    assert system.seats == 7  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"'chunk' is not .* has: seats"):
        make_system(str(path), {"chunk": "1"})
    with pytest.raises(InputError, match="cannot take"):
        make_system(str(path), {"seats": "0"})


def test_one_of_several_systems_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "policy.py"
    path.write_text(POLICY + COMPOSED)
    with pytest.raises(InputError, match=r"several systems: Mine, Plain\. Name one, .*:Mine"):
        make_system(str(path))
    plain = make_system(f"{path}:Plain")
    assert type(parts_of(plain).schedule).__name__ == "_Part"
    with pytest.raises(InputError, match=r"no system called Other\..* there are: Mine, Plain"):
        make_system(f"{path}:Other")
    with pytest.raises(InputError, match="has: no parameters"):
        make_system(f"{path}:Plain", {"seats": "1"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "defines no system"),
        ("from servescope.engine.systems.sarathi import Sarathi", "defines no system"),
        ("class A:\n  plan = 3", "defines no system"),
        ("class A:\n  def __init__(self): 1 / 0\n  def plan(self, view): ...", "line 2: ZeroDiv"),
        ("class A:\n  def __init__(self, x): ...\n  def plan(self, view): ...", "cannot be made"),
    ],
)
def test_a_file_without_a_system_that_can_be_made_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "policy.py"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        make_system(str(path))
