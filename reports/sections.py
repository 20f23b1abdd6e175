"""The sections of a report: each a function from the story to a section, or None."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from servescope.analysis.attainment import attained
from servescope.analysis.description import describe
from servescope.analysis.metrics import JCT_PARTS, METRICS
from servescope.analysis.totals import totals_of
from servescope.reports import figures
from servescope.reports.blocks import Cell, Column, Figure, Note, Section, Table
from servescope.reports.server_section import server
from servescope.reports.story import Story


def verdict(story: Story) -> Section:
    """Say what came of it first, then every reason to doubt it."""
    notes: list[Note] = []
    if story.comparison:
        notes.append(Note("verdict", story.comparison.verdict))
    for name, run in story.named.items():
        validity = run.info.validity
        if validity == "unfinished":
            held = story.calls[name].height
            text = (
                f"{name} never ended: {held} of {run.info.planned_calls} planned calls are in it."
            )
            notes.append(Note("doubt", text, "UNFINISHED"))
        elif validity != "valid":
            text = f"{name}: the numbers are {validity}; the doubts below say why."
            notes.append(Note("doubt", text, validity.upper()))
    if not story.comparison:
        (measured,) = story.measured.values()
        (whole,) = story.wholes.values()
        text = f"{whole.served.height} of {measured.calls.height} calls served"
        if story.slo:
            met = attained(measured, story.slo)
            text += f", {met.share:.1%} of {met.per} within {story.slo}"
        notes.append(Note("verdict", f"{text}."))
    said = story.comparison.doubts if story.comparison else tuple(story.runs[0].info.doubts)
    notes += [Note("doubt", doubt, "Doubt") for doubt in _merged(said, story)]
    return Section("verdict", "Verdict", tuple(notes))


def differences(story: Story) -> Section | None:
    """Show every statistic of both runs and the interval of their ratio."""
    comparison = story.comparison
    if comparison is None:
        return None
    a, b = comparison.a, comparison.b
    intervals = "There are too few for intervals."
    if comparison.blocks:
        intervals = f"The intervals are of {comparison.blocks} blocks of time, drawn again."
    table = Table(
        (
            Column("statistic", "statistic"),
            Column("verdict", f"{b} is"),
            Column("ratio", f"{b} / {a}", "ratio"),
            Column("low", "95 % from", "ratio"),
            Column("high", "to", "ratio"),
            Column("a", f"{a} (ms)", "ms"),
            Column("b", f"{b} (ms)", "ms"),
        ),
        [
            {
                "statistic": row.label,
                "a": row.a,
                "b": row.b,
                "ratio": row.b / row.a if row.a else None,
                "low": row.ratio.low if row.ratio else None,
                "high": row.ratio.high if row.ratio else None,
                "verdict": row.verdict,
            }
            for row in comparison.differences
        ],
        f"{comparison.pairs} pairs of calls, of the programs that both runs hold whole."
        f" {intervals} The verdict is the one question that was asked beforehand; these rows"
        " describe, and one in twenty may differ by chance.",
    )
    blocks: list[Table | Figure] = [table]
    if comparison.blocks:
        blocks.append(
            Figure(figures.forest(comparison), "An interval that crosses 1 tells nothing apart.")
        )
    return Section("differences", "By how much, and how sure", tuple(blocks))


def service(story: Story) -> Section:
    """Show throughput, failures, SLO attainment and goodput."""
    rows: list[dict[str, Cell]] = []
    for name, whole in story.wholes.items():
        total = totals_of(whole)
        met = attained(whole.measured, story.slo) if story.slo else None
        rows.append(
            {
                "run": name,
                "calls": total["calls"],
                "failed": total["failed"],
                "served": total["calls_rps"],
                "tokens": total["output_tps"],
                "share": met.share if met else None,
                "goodput": met.goodput_rps if met else None,
            }
        )
    columns = [
        Column("run", "run"),
        Column("calls", "calls", "count"),
        Column("failed", "failed", "count"),
        Column("served", "served calls/s", "rate"),
        Column("tokens", "output tokens/s", "rate"),
    ]
    says = "Tokens are counted, never chunks. The span is from the first due call to the last end."
    if story.slo:
        columns += [Column("share", "within SLO", "share"), Column("goodput", "goodput /s", "rate")]
        says += f" SLO: {story.slo}; failed and unfinished calls are misses."
    return Section("service", "What was served", (Table(tuple(columns), rows, says),))


def latencies(story: Story) -> Section:
    """Show the distribution of every metric, then what each one means and when its clock starts."""
    rows: list[dict[str, Cell]] = []
    for metric in METRICS.values():
        if metric.name in (*JCT_PARTS, "slowdown"):
            continue  # they stand in the section of programs
        for name, table in story.summaries.items():
            spread = table.row(by_predicate=pl.col("metric") == metric.name, named=True)
            on_virtual_clock = story.named[name].info.clock == "virtual"
            if spread["n"] and not (on_virtual_clock and metric.of_client):
                rows.append({**spread, "metric": metric.label, "run": name})
    columns = (
        Column("metric", "metric"),
        Column("run", "run"),
        Column("n", "n", "count"),
        Column("mean", "mean (ms)", "ms"),
        Column("p50", "p50 (ms)", "ms"),
        Column("p90", "p90 (ms)", "ms"),
        Column("p99", "p99 (ms)", "ms"),
        Column("max", "max (ms)", "ms"),
    )
    told = {row["metric"] for row in rows}
    definitions: list[dict[str, Cell]] = [
        {"metric": metric.label, "clock": metric.clock, "says": metric.says}
        for metric in METRICS.values()
        if metric.label in told
    ]
    meaning = Table(
        (
            Column("metric", "metric"),
            Column("clock", "clock"),
            Column("says", "definition", "prose"),
        ),
        definitions,
        "The sent clock starts when the client wrote the request, the due clock when the plan"
        " wanted it sent.",
    )
    return Section("latencies", "Latencies", (Table(columns, rows), meaning))


def pictures(story: Story) -> Section:
    """Draw the tails, the calls over time, and the load."""
    blocks = []
    for metric, says in (
        ("ttft", "Share of calls whose first token took longer."),
        ("tbt", "Share of gaps between tokens that were longer."),
        ("icl", "Share of gaps between chunks that were longer (chunks hold several tokens here)."),
        ("jct", "Share of programs that took longer from first due call to last token."),
    ):
        values = story.samples(metric)
        if values and not (metric == "icl" and story.samples("tbt")):
            blocks.append(Figure(figures.ccdf(values, metric), says))
    if story.samples("ttft"):
        says = "Every call at the moment it was due."
        blocks.append(Figure(figures.over_time(story.calls, "ttft"), says))
    blocks.append(
        Figure(figures.in_flight(story.calls), "Calls sent and not ended: the load that was there.")
    )
    return Section("pictures", "Pictures", tuple(blocks))


def workload(story: Story) -> Section:
    """Say what traffic it was."""
    run = story.runs[0]
    described = describe(run.measured)
    asked = (run.path / "experiment.toml").read_text()
    rows: list[dict[str, Cell]] = [
        {"what": "calls planned", "value": run.info.planned_calls},
        {"what": "programs", "value": run.info.workload.get("programs")},
        {
            "what": "programs of several calls",
            "value": run.info.workload.get("multi_turn_programs"),
        },
    ]
    for what, spread in (
        ("input tokens", described.input_tokens),
        ("output tokens", described.output_tokens),
    ):
        if spread:
            rows.append({"what": f"{what}, mean", "value": round(spread.mean)})
            rows.append({"what": f"{what}, p99", "value": round(spread.p99)})
    table = Table((Column("what", ""), Column("value", "", "count")), rows)
    picture = Figure(figures.lengths(next(iter(story.calls.values()))), "One point a call.")
    return Section("workload", "The traffic", (table, picture, Note("plain", asked, "experiment")))


def provenance(story: Story) -> Section:
    """Say how each run was made, so that somebody else can make it again."""
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
                "validity": info.validity,
                "lag": info.client.get("lag_p99_s"),
                "cpu": info.client.get("cpu_share"),
                "started": info.started,
                "version": info.version,
                "plan": (info.plan_sha256 or "")[:12],
            }
        )
    columns = (
        Column("run", "run"),
        Column("system", "system"),
        Column("clock", "clock"),
        Column("model", "model"),
        Column("endpoint", "endpoint"),
        Column("validity", "validity"),
        Column("lag", "client lag p99 (ms)", "ms"),
        Column("cpu", "client CPU", "share"),
        Column("started", "started"),
        Column("version", "servescope"),
        Column("plan", "plan"),
    )
    says = "Runs with the same plan have the same prompts, pauses and planned times."
    return Section("provenance", "Provenance", (Table(columns, rows, says),))


def _merged(doubts: tuple[str, ...], story: Story) -> list[str]:
    """Say once what is doubted of every run."""
    names = list(story.named)
    merged: dict[str, list[str]] = {}
    for doubt in doubts:
        name = next((n for n in names if len(names) > 1 and doubt.startswith(f"{n}: ")), "")
        merged.setdefault(doubt.removeprefix(f"{name}: ") if name else doubt, []).append(name)
    return [
        text if len(who) == len(names) or who == [""] else f"{who[0]}: {text}"
        for text, who in merged.items()
    ]


SECTIONS: dict[str, Callable[[Story], Section | None]] = {
    "verdict": verdict,
    "differences": differences,
    "service": service,
    "pictures": pictures,
    "latencies": latencies,
    "server": server,
    "workload": workload,
    "provenance": provenance,
}
