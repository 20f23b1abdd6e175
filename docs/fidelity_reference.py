"""Write docs/reference/fidelity.md: `python docs/fidelity_reference.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from servescope.analysis.fidelity import ASPECTS, Measure
from servescope.loadgen import served
from servescope.reports.fidelity import TITLES

PAGE = Path(__file__).parent / "reference" / "fidelity.md"
HEAD = f"""\
# What `verify` computes

Every score of [`servescope verify`](../how-to/verify-a-synthetic-trace.md), of `analysis.fidelity.compare` and of `loadgen.served.compare`.
`docs/fidelity_reference.py` writes this page from the code; a test fails when it is stale.

A score stands in `Fidelity.table`, a row each:

| column | what it is |
|---|---|
| `aspect`, `measure`, `subject` | which score, and of what |
| `value` | the score: its mean over the synthetic traces, of serving the median; 0 means that the traces are alike, of the area under the curve 0.5 |
| `low`, `high` | the band that 9 of 10 synthetic traces are in; of a single trace the 95 % interval of the score, where it has one |
| `floor` | the same score of one part of the real trace against the other: the halves, or with `--split` the part that was fitted against the rest. What is not above it cannot be told from the real trace's own changes |
| `bar`, `met` | what a good model is held to, and whether the score is; of the area under the curve on either side of 0.5 |
| `real`, `synthetic` | the two numbers, where the score compares just these; of several traces the median |
| `synthetic_low`, `synthetic_high` | the band of the synthetic numbers, of 10 traces or more |
| `unit`, `says`, `how` | what stands below |

A band of n values is at ranks 0.05 (n + 1) and 0.95 (n + 1), so that a further value of the same law is in it 9 times of 10 from 19 traces on.
`Fidelity.inside` counts the real numbers that are.
With the usual percentiles of 20 values only 8 of 10 would be, and a perfect model would seem too sure of itself.

## On equal terms

A clock that is coarser than the traffic tells a real trace from a synthetic one at a glance, and means nothing.
So the coarsest tick that any of the traces shows is put on all of them: every arrival is drawn anew within its tick, on both sides with the same draws, for the statistics and for the engine.
Nothing finer than twice the tick is compared.

Counts are compared over octaves of time from 0.1 s to 300 s, of a trace of two days or more from a minute to a day; no finer than a tenth of a call, then over three decades, and no longer than a tenth of the real span.

The windows of the classifier are put into five stretches of time, of which each is judged by trees that learned from the other four, so that neighbours that share calls never stand on both sides.

## Served

The load is how long the engine takes for all real calls at once, in their order, over the time in which they arrive.
One factor a load speeds up the clock of the real trace (its starts, its pauses), and the same factor that of every synthetic one: a synthetic trace with more work has a higher load, as it would on a real server.
Inside a program a call waits for its parents.
Programs with a clock each begin evenly apart, as far as the load asks, and keep their pauses.
Calls that the context of the model has no room for are dropped on both sides, and counted in what is left out.
Prefixes are cached where the real trace knows its blocks.
The engine is `{served.ENGINE.system}` with {served.ENGINE.model} on {served.ENGINE.gpu} unless another one is named.

"""  # noqa: E501


def page() -> str:
    """Return the whole page."""
    known: dict[str, Mapping[str, Measure]] = {
        key: ASPECTS[key].measures if key in ASPECTS else served.MEASURES for key in TITLES
    }
    return HEAD + "\n".join(_aspect(TITLES[key], measures) for key, measures in known.items())


def _aspect(title: str, measures: Mapping[str, Measure]) -> str:
    lines = [
        f"## {title}",
        "",
        "| measure | what it is | unit | how it is computed | bar | source |",
        "|" + "---|" * 6,
    ]
    for name, about in measures.items():
        bar = " " if about.bar is None else f"{about.bar:g}"
        lines.append(
            f"| `{name}` | {_cell(about.says)} | {about.unit} | {_cell(about.how)} | {bar} |"
            f" {_cell(about.source)} |"
        )
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*") or " "


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
