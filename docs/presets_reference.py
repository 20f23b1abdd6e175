"""Write docs/reference/presets.md: `python docs/presets_reference.py`."""

from __future__ import annotations

from pathlib import Path

from servescope.analysis.models.model import Model, Stream
from servescope.analysis.models.presets import PRESETS, load_preset

PAGE = Path(__file__).parent / "reference" / "presets.md"
HEAD = """\
# Presets

Models that ship with servescope, each fitted to a public trace.
`docs/presets_reference.py` writes this page from their files; a test fails when it is stale.
`servescope synthesize` without a model lists them, and with the name of one draws from it:

```sh
servescope synthesize azure-code -o calls.parquet
servescope synthesize weka-agentic --rate 0.5 --duration 3600 -o agents.parquet
```

A preset holds [what any model holds](model-file.md): quantiles, shares and rates, no row of the trace.
`benchmarks/presets.py` fits them again.

"""  # noqa: E501
_PARTS_HEAD = """\
## What they are of

*Calls* are those of the trace that it was fitted to, *rate* is in calls a second; where a trace does not say when programs start, a rate has to be given.
*Arrivals* is the [family](../explanation/synthesis.md#how-a-family-is-chosen) that was chosen.

"""  # noqa: E501
_SCORES = {
    "rate": "rate",
    "ks gap_s": "KS of gaps",
    "ks input_tokens": "KS of prompts",
    "ks output_tokens": "KS of answers",
    "spearman": "rank correlation",
    "idc": "dispersion",
    "serial input_tokens": "memory of prompts",
    "turns": "KS of turns",
    "session_ks gap_s": "KS of gaps in sessions",
    "hit_curve": "hit rate (points)",
}
_SCORES_HEAD = """\
## How faithful one draw is

Scores of one draw of each, as long as its trace, against that trace; 0 is perfect, and a draw has luck.
They are those of [`verify`](fidelity.md), and stand in the files as `about.fidelity`.
[How faithful models are](../explanation/synthesis.md#how-faithful-it-is), with many draws, held out, and beside what real traffic differs from itself, is explained elsewhere.
Where no rate is known, what does not depend on it is scored.

"""  # noqa: E501


def page() -> str:
    """Return the whole page."""
    models = {name: load_preset(name) for name in PRESETS}
    return HEAD + _parts(models) + "\n" + _sources(models) + "\n" + _scores(models)


def _parts(models: dict[str, Model]) -> str:
    rows = [
        (
            f"`{name}`",
            f"{model.about.calls:,}",
            "given" if model.rate_rps is None else f"{model.rate_rps:.3g}",
            ", ".join(dict.fromkeys(_family(stream) for stream in model.streams)),
            ", ".join(dict.fromkeys(part for each in model.streams for part in _has(each))),
        )
        for name, model in models.items()
    ]
    return _PARTS_HEAD + _table(["name", "calls", "rate", "arrivals", "what it knows"], rows)


def _sources(models: dict[str, Model]) -> str:
    rows = [
        (
            f"`{name}`",
            model.about.source,
            model.about.licence or "",
            model.about.attribution or "",
            " ".join(model.about.doubts),
        )
        for name, model in models.items()
    ]
    head = ["name", "source", "licence", "attribution", "doubts"]
    return "## Where they are from\n\n" + _table(head, rows)


def _scores(models: dict[str, Model]) -> str:
    rows = [
        (f"`{name}`", *(_number(model.about.fidelity.get(key)) for key in _SCORES))
        for name, model in models.items()
        if model.about.fidelity
    ]
    return _SCORES_HEAD + _table(["name", *_SCORES.values()], rows)


def _family(stream: Stream) -> str:
    if stream.arrivals is None:
        return "none"
    for each in stream.arrivals.candidates:
        if each.verdict.startswith("chosen"):
            return each.family
    return type(stream.arrivals.shape).__name__.lower()


def _has(stream: Stream) -> list[str]:
    """Say what a stream knows besides when programs start."""
    found = ["lengths"] if stream.marks else []
    if stream.programs:
        found.append("agent programs" if stream.programs.forks else "sessions")
    if stream.marks and len(stream.marks.kinds) > 1:
        found.append(f"{len(stream.marks.kinds)} kinds of calls")
    if stream.marks and stream.marks.memories:
        found.append("memory")
    if stream.prefixes:
        found.append("prefixes")
    if stream.clients:
        found.append("clients")
    failing = stream.marks and any(k.status not in (None, "ok") for k in stream.marks.kinds)
    if stream.failures or failing:
        found.append("failures")
    return found


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(head: list[str], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell or ' ' for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
