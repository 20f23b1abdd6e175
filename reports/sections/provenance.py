"""How each run was made, so that somebody else can make it again."""

from __future__ import annotations

import shlex

from servescope.reports.blocks import Cell, Column, Note, Section, Table, told
from servescope.reports.story import Story
from servescope.traces.run import RunInfo

_COLUMNS = (
    Column("run", "run"),
    Column("system", "system"),
    Column("clock", "clock"),
    Column("model", "model"),
    Column("endpoint", "endpoint"),
    Column("started", "started"),
    Column("seed", "seed"),
    Column("version", "servescope"),
    Column("python", "Python"),
    Column("platform", "client host"),
    Column("tool", "imported from"),
    Column("file", "file"),
    Column("trace", "trace"),
    Column("sha256", "trace sha256"),
    Column("licence", "licence"),
    Column("plan", "plan sha256"),
)


def provenance(story: Story) -> Section:
    """Say what was run where, on which trace, and the commands that do it again."""
    rows: list[dict[str, Cell]] = []
    for name, run in story.named.items():
        info = run.info
        rows.append(
            {
                "run": name,
                "system": info.system,
                "clock": info.clock,
                "model": info.model,
                "endpoint": info.endpoint,
                "started": info.started,
                "seed": None if info.seed is None else str(info.seed),
                "version": info.version,
                "python": info.host.get("python"),
                "platform": info.host.get("platform"),
                "tool": _tool(info),
                "file": info.imported.file if info.imported else None,
                "trace": info.trace.get("source"),
                "sha256": (info.trace.get("sha256") or "")[:12] or None,
                "licence": info.trace.get("licence"),
                "plan": (info.plan_sha256 or "")[:12] or None,
            }
        )
    says = "Runs with the same plan have the same prompts, pauses and planned times."
    if any(run.info.imported for run in story.runs):
        says += " Of imported runs it is a digest of what their files show of the requests."
    return Section(
        "provenance",
        "Provenance",
        (Table(told(_COLUMNS, rows), rows, says), Note("plain", _again(story), "again")),
    )


def _tool(info: RunInfo) -> str | None:
    """Return the tool that made a run, and its version where that is known."""
    if info.imported is None:
        return None
    return " ".join(filter(None, (info.imported.tool, info.imported.version)))


def _again(story: Story) -> str:
    """Return the commands that make the runs and this page again."""
    digests = {
        str(source): digest
        for run in story.runs
        if (source := run.info.trace.get("source")) and (digest := run.info.trace.get("sha256"))
    }
    lines = [f"# {source}: sha256 {digest}" for source, digest in digests.items()]
    folders = []
    for run in story.runs:
        folder = f"{run.path.name}-again"
        if run.info.imported:
            lines.append(
                f"servescope results import {shlex.quote(run.info.imported.file)} -o {folder}"
            )
            folders.append(shlex.quote(folder))
            continue
        verb = "simulate" if run.info.clock == "virtual" else "replay"
        lines.append(
            f"servescope {verb} {shlex.quote(str(run.path / 'experiment.toml'))} -o {folder}"
        )
        folders.append(shlex.quote(folder))
    slo = f" --slo {shlex.quote(story.slo.text)}" if story.slo else ""
    lines.append(f"servescope report {' '.join(folders)}{slo} -o report.html")
    return "\n".join(lines)
