"""Write docs/reference/systems.md from the systems: `python docs/system_reference.py`."""

from __future__ import annotations

import inspect
import sys
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from msgspec import Meta

from servescope.engine import SYSTEMS, gpus, models, parts_of

PAGE = Path(__file__).parent / "reference" / "systems.md"
HEAD = """\
# Systems

The scheduling systems of the literature that the [emulated engine](../explanation/engine.md) knows by name.
`docs/system_reference.py` writes this page from the code; a test fails when it is stale.

```sh
servescope simulate workload:sarathi-chat --system sarathi -p chunk_tokens=2048 --model mistral-7b --gpu a100-80g
servescope simulate workload:llumnix-m-m --system llumnix --model llama-2-7b --context-tokens 13000 --gpu a10 --replicas 4
servescope serve --system distserve --model llama-3.1-8b --gpu a100-80g --replicas 2
```

A name may be written with `-` or `_`.
A [system of your own](../explanation/engine.md#adding-a-system) is a Python file in the place of a name.
Systems schedule one replica; those that choose among several, migrate or scale say so in their parts, and all others go round robin.
What a paper or its code does not say is ASSUMED, and is a parameter.
How each does on the figures of its paper stands under [Papers recreated](../explanation/papers.md).

"""  # noqa: E501


def page() -> str:
    """Return the whole page."""
    rows = ["| system | parts beside the scheduler | parameters |", "|---|---|---|"]
    rows += [
        f"| [`{name}`](#{name}) | {_parts(system)} | {len(fields(system))} |"  # type: ignore[arg-type]
        for name, system in SYSTEMS.items()
    ]
    body = [_section(name, system) for name, system in SYSTEMS.items()]
    known = (
        "## Models and GPUs\n\n"
        f"Models: {', '.join(models())}.\n\n"
        f"GPUs: {', '.join(gpus())}.\n\n"
        "Their figures and where they come from stand in `engine/data/`.\n"
    )
    return HEAD + "\n".join([*rows, "", *body, known])


def _parts(system: type[Any]) -> str:
    parts = parts_of(system(), 2)
    named = ("annotate", "dispatch", "retain", "partition", "control", "handover")
    found = [name for name in named if getattr(parts, name) is not None]
    if parts.prefix_cache:
        found.append("prefix cache")
    return ", ".join(found) or "\N{EN DASH}"


def _section(name: str, system: type[Any]) -> str:
    source = inspect.getdoc(sys.modules[system.__module__]) or ""
    lines = [f"## {name}", "", source.split("\n\n")[0].replace("\n", " "), ""]
    for paragraph in (inspect.getdoc(system) or "").split("\n\n"):
        lines += [paragraph.replace("\n", " "), ""]
    hints = get_type_hints(system, include_extras=True)
    lines += ["| parameter | default | values |", "|---|---|---|"]
    lines += [
        f"| `{field.name}` | {_default(field)} | {_values(hints[field.name])} |"
        for field in fields(system)
    ]
    return "\n".join(lines) + "\n"


def _default(field: Field[Any]) -> str:
    return "" if field.default is MISSING else f"{field.default}"


def _values(hint: Any) -> str:
    bounds = [each for each in get_args(hint) if isinstance(each, Meta)]
    if not bounds:
        return ", ".join(map(str, get_args(hint))) or getattr(hint, "__name__", str(hint))
    kind = getattr(get_args(hint)[0], "__name__", str(get_args(hint)[0]))
    said = [kind]
    for bound in bounds:
        for sign, value in ((">=", bound.ge), (">", bound.gt), ("<=", bound.le), ("<", bound.lt)):
            if value is not None:
                said.append(f"{sign} {value}")
    return " ".join(said)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
