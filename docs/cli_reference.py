"""Write docs/reference/cli.md from the help of every verb: `python docs/cli_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from servescope.cli.main import app

PAGE = Path(__file__).parent / "reference" / "cli.md"
PLAIN = {"COLUMNS": "100", "LINES": "50", "TERM": "dumb", "NO_COLOR": "1"}
HEAD = """\
---
hide: [toc]
---

# Command line

The help of every verb, as `--help` prints it.
`docs/cli_reference.py` writes this page; a test fails when it is stale.

Results go to stdout; progress, doubts and errors go to stderr.

| exit code | meaning |
|--:|---|
| 0 | done |
| 1 | the work was done and did not pass: an invalid run |
| 2 | what you gave cannot be used |
| 3 | the endpoint cannot be used |
| 70 | a fault of servescope itself |
| 130 | interrupted |

An error is two sentences, what is wrong and how to mend it; [Errors](errors.md) lists them.
`servescope --debug` before the verb adds the traceback.
"""


def verbs() -> Iterator[tuple[str, ...]]:
    """Return every verb as the words after `servescope`, the bare program first."""

    def below(words: tuple[str, ...], command: Any) -> Iterator[tuple[str, ...]]:
        yield words
        for name, child in getattr(command, "commands", {}).items():
            yield from below((*words, name), child)

    yield from below((), typer.main.get_command(app))


def page() -> str:
    """Return the whole page."""
    names = {" ".join(("servescope", *words)): _help(words) for words in verbs()}
    links = [f"[`{name}`](#{name.replace(' ', '-')})" for name in names]
    parts = [f"## {name}\n\n```text\n{text}\n```\n" for name, text in names.items()]
    return "\n".join([HEAD, " ·\n".join(links) + "\n", *parts])


def _help(words: tuple[str, ...]) -> str:
    shown = CliRunner().invoke(app, [*words, "--help"], prog_name="servescope", env=PLAIN)
    lines = (_unboxed(line) for line in shown.output.strip("\n").splitlines())
    text = "\n".join(line for line in lines if line is not None).strip("\n ")
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text


def _unboxed(line: str) -> str | None:
    """Return a line without the box around it, or None for the box's lower edge."""
    if line.startswith("╭"):
        return f"\n{line.strip('╭─╮ ')}:"
    if line.startswith("╰"):
        return None
    if line.startswith("│"):
        return line.strip("│").rstrip()
    return line.removeprefix(" ").rstrip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
