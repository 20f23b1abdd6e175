"""`servescope report`: a page that can be sent to anybody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from servescope.cli import console
from servescope.cli.conclude import refuse_invalid, refuse_unmeasured
from servescope.cli.options import Json, Slo, Trim, trimmed
from servescope.cli.options import slo as read_slo


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="One run directory, or several of one plan to compare.")
    ],
    slo: Slo = None,
    trim: Trim = "none",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Page to write; JSON goes beside it.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Also write Markdown, for a pull request.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Also write every table as CSV into this folder.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", help="Also write every figure into this folder, for print."),
    ] = None,
    figure_format: Annotated[
        Literal["svg", "png", "pdf"], typer.Option("--figure-format", help="Of --figures.")
    ] = "svg",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    metric_profile: Annotated[
        list[str] | None,
        typer.Option(
            "--metric-profile",
            help="Also compute the runs by the definitions of another tool: vllm, sglang, aiperf,"
            " guidellm, inference-perf, mlperf or llmperf. May be given several times.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one self-contained HTML page of a run, or of several runs compared.

    Example:  servescope report runs/a runs/b --slo 'ttft<2s,stall<100ms' -o report.html

    Example:  servescope report runs/a --markdown report.md --figures figures --figure-format png

    Example:  servescope report runs/a --metric-profile vllm --metric-profile aiperf
    """
    from servescope.analysis.profiles import named
    from servescope.reports import exports, render, story_of, write
    from servescope.traces import Run

    profiles = [named(name) for name in dict.fromkeys(metric_profile or ())]
    opened = trimmed([Run.open(path) for path in runs], trim)
    asked = slo or opened[0].info.slo
    story = story_of(opened, read_slo(asked), profiles)
    page = out or Path("report.html")
    made = write(story, page, overwrite=overwrite)
    console.say(f"Report: {page}")
    if markdown:
        exports.write_markdown(story.title, made, markdown, overwrite=overwrite)
        console.say(f"Markdown: {markdown}")
    if csv:
        tables = exports.write_csv(made, csv, overwrite=overwrite)
        console.say(f"{len(tables)} tables: {csv}")
    if figures:
        with console.working("drawing the figures"):
            drawn = exports.write_figures(made, figures, figure_format, overwrite=overwrite)
        console.say(f"{len(drawn)} figures: {figures}")
    if as_json:
        print(render.json(story.title, made).decode())
    if story.refused:
        raise story.refused
    refuse_unmeasured(opened)
    refuse_invalid(opened)
