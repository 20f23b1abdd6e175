"""The system on the engine's page is a whole one: it is taken from the page and serves."""

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from servescope.engine.engine import Engine, emulate
from servescope.engine.request import Request

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "engine.md"


def test_the_system_on_the_page_serves_the_shortest_first(
    simulate: Callable[[Engine, Iterable[Request]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = ModuleType("my_package")
    monkeypatch.setitem(sys.modules, "my_package", module)  # dataclasses look their module up
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    engine = emulate(module.ShortestPromptFirst(), "Mistral-7B", "A100-80G")
    requests = [Request(str(prompt), prompt, 5, 0.0) for prompt in (3000, 100, 900)]
    done = simulate(engine, requests).done
    assert len(done) == 3
    started = sorted(done, key=lambda request: request.token_s[0])
    assert [request.id for request in started] == ["100", "900", "3000"]
