"""The system on the engine's page is a whole one: it is taken from the page and serves."""

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from servescope.engine.assembly import deploy, emulate
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine
from servescope.engine.request import Request

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "engine.md"


def example(number: int, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a Python block of the page as a module."""
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[number]
    module = ModuleType("my_package")
    monkeypatch.setitem(sys.modules, "my_package", module)  # dataclasses look their module up
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    return module


def test_the_system_on_the_page_serves_the_shortest_first(
    simulate: Callable[[Engine, Iterable[Request]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = example(0, monkeypatch)
    engine = emulate(module.ShortestPromptFirst(), "Mistral-7B", "A100-80G")
    requests = [Request(str(prompt), prompt, 5, 0.0) for prompt in (3000, 100, 900)]
    done = simulate(engine, requests).done
    assert len(done) == 3
    started = sorted(done, key=lambda request: request.token_s[0])
    assert [request.id for request in started] == ["100", "900", "3000"]


def test_the_dispatcher_on_the_page_sends_to_where_the_fewest_tokens_are_held(
    simulate: Callable[[Cluster, Iterable[Request]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third joins the second, which has begun and holds less than the first."""
    module = example(1, monkeypatch)
    cluster = deploy(module.LeastHeld(), "Mistral-7B", ["A100-80G"] * 2)
    requests = [Request(str(at), 500, 400, at) for at in (0.0, 1.0, 2.0, 3.0)]
    simulate(cluster, requests)
    assert [request.replica for request in requests] == [0, 1, 1, 0]
