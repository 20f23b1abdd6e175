"""Write docs/reference/metric-profiles.md from the profiles: `python docs/profile_reference.py`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from servescope.analysis.profiles import PROFILES, Field, Profile
from servescope.analysis.profiles.ours import label_of

PAGE = Path(__file__).parent / "reference" / "metric-profiles.md"
NONE = "\N{EN DASH}"
HEAD = """\
# Metric profiles

A profile computes a run by the definitions of another tool, under the names that this tool prints.
`docs/profile_reference.py` writes this page from the code; a test fails when it is stale.
[Definitions](../explanation/definitions.md) explains why the numbers of two tools differ.

```sh
servescope report runs/a --metric-profile vllm --metric-profile aiperf
servescope results export runs/a --to vllm -o result.json
```

The report has a section with every field, for every run, and our own number of the like beside it.
The same is in its JSON, Markdown and CSV; an SLO that was asked is the tool's goodput where the tool can ask it.

From Python:

```python
from pathlib import Path

from servescope.analysis import Measured
from servescope.analysis.profiles import PROFILES, Reading, Seen
from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.simulate import simulate

workload = WorkloadSpec(trace="mooncake:sample", duration_s=60)
run = simulate(Experiment(name="try", workload=workload, engine=EngineSpec(tp=8)), Path("runs/try"))
reading = Reading(PROFILES["vllm"], Seen(Measured.of(run), run))
for field in reading.profile.fields[:3]:
    print(field.name, reading.of(field).value, field.unit)
```

## What holds of all profiles

- The streams that a run recorded are read again as the tool's client would have read them: from its start, to the chunks that it stamps, with the calls that it takes for answered.
- What a run does not tell is null, with its reason, and never guessed. A number that is known of some calls alone says how many it is without.
- Tokens are those that the server counted. Where a tool counts with a tokenizer of its own, that is a doubt of its profile, for a run keeps no text. Answers without `usage` are known as such, by what the run says of its client.
- A call that was never sent, since a call it waits for failed, is no call. One that our client gave up (time-out, idle) failed, and so did a stream with an event that is no JSON.
- The client's work is ours: when calls were sent, over which connections. A profile changes what is made of a run, not what happened in it.
- Programs that began in the warm-up are left out.
- Gaps are exact up to four million and right to a twentieth of a percent beyond, as [our own](metrics/index.md) are.

Fields are those of the tool's report, or of its file where that holds more.
Of statistics those are computed that the tool shows first; percentiles are taken as the tool takes them.
"""  # noqa: E501


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(_section(profile) for profile in PROFILES.values())])


def _section(profile: Profile) -> str:
    lines = [f"## {profile.name}", ""]
    lines += [f"`{profile.name}`: {profile.tool}, by the source of {profile.version}.", ""]
    lines += [f"- {doubt}" for doubt in profile.doubts]
    lines += ["", "| fields | unit | definition | statistics | ours |", "|---|---|---|---|---|"]
    lines += [
        _row(list(fields))
        for _, fields in groupby(profile.fields, key=lambda field: (field.unit, field.says))
    ]
    return "\n".join(lines) + "\n"


def _row(fields: list[Field]) -> str:
    names = ", ".join(f"`{field.name}`" for field in fields)
    statistics = "; ".join(field.statistic.says for field in fields if field.statistic) or NONE
    ours = ", ".join(dict.fromkeys(label for f in fields if (label := label_of(f)))) or NONE
    cells = (names, fields[0].unit, fields[0].says, statistics, ours)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
