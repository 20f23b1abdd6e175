"""What the terminal shows: results on stdout, everything else on stderr, drawn with rich."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable

    from servescope.loadgen.conductor import Tally
    from servescope.reports.blocks import Section

out = Console(highlight=False)
if not out.is_terminal:
    out = Console(highlight=False, width=140)  # a pipe has no edge to wrap at
err = Console(stderr=True, highlight=False)


def error(text: str) -> None:
    """Say what went wrong."""
    err.print(f"[bold red]servescope:[/] {escape(text)}", soft_wrap=True)


def say(text: str) -> None:
    """Say what is going on; not part of the result."""
    err.print(escape(text), soft_wrap=True)


def doubt(text: str) -> None:
    """Say why a number may mislead."""
    err.print(f"[yellow]doubt:[/] {escape(text)}", soft_wrap=True)


def verdict(text: str) -> None:
    """Give the answer."""
    out.print(f"[bold]Verdict:[/] {escape(text)}", soft_wrap=True)


def json(value: object) -> None:
    """Print a value as JSON on stdout, uncoloured and unwrapped."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2).decode())


def _plain(value: object) -> Any:
    import dataclasses

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON")


def table(
    headings: Iterable[str],
    rows: Iterable[Iterable[object]],
    title: str = "",
    prose: bool = False,
) -> None:
    """Print a table; columns after the first are right-aligned numbers, unless they are prose."""
    drawn = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        drawn.add_column(
            heading, justify="right" if place and not prose else "left", overflow="fold"
        )
    for row in rows:
        drawn.add_row(*(escape("-" if cell is None else str(cell)) for cell in row))
    out.print(drawn)


def sections(chosen: Iterable[Section]) -> None:
    """Print the tables of report sections, as the page has them, those of prose left out."""
    from servescope.reports.blocks import Table as Rows
    from servescope.reports.render import written

    for section in chosen:
        for block in section.blocks:
            if isinstance(block, Rows) and not block.defines:
                rows = [[written(c, row[c.key]) for c in block.columns] for row in block.rows]
                table([column.heading for column in block.columns], rows, section.title)
                out.print()


def doubts(chosen: Iterable[Section]) -> None:
    """Print every doubt of report sections, each once."""
    from servescope.reports.blocks import doubts_of

    for text in doubts_of(chosen):
        doubt(text)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on stderr that something is being done, where a person looks on."""
    if not err.is_terminal:
        yield
        return
    with err.status(escape(f"{what} ...")):
        yield


PLAIN_EVERY_S = 10.0


@contextmanager
def stages(what: str) -> Iterator[Callable[[str], None]]:
    """Show on stderr which stage of long work has begun: a line that lives, or one now and then."""
    import time

    begun_s = said_s = time.monotonic()
    if err.is_terminal:
        with err.status(escape(f"{what} ...")) as status:
            yield lambda stage: status.update(escape(f"{what}: {stage} ..."))
        return

    def line(stage: str) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= PLAIN_EVERY_S:
            said_s = time.monotonic()
            say(f"{what}, {said_s - begun_s:.0f} s: {stage}")

    yield line


@contextmanager
def counting(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how many of how many are done: a line that lives, or one now and then."""
    import time

    said_s = time.monotonic()
    if quiet:
        yield lambda done, planned: None
    elif err.is_terminal:
        with err.status(escape(f"{what} ...")) as status:
            yield lambda done, planned: status.update(f"{escape(what)}: {done:,} of {planned:,}")
    else:

        def line(done: int, planned: int) -> None:
            nonlocal said_s
            if time.monotonic() - said_s >= PLAIN_EVERY_S:
                said_s = time.monotonic()
                say(f"{what}: {done:,} of {planned:,}")

        yield line


@contextmanager
def progress(label: str, *, quiet: bool = False) -> Iterator[Callable[[Tally], None]]:
    """Show on stderr how a replay goes: a live table, or a line now and then if it is no terminal.

    Drawing happens in the process that listens to the workers, and is kept rare.
    """
    if quiet:
        yield lambda _: None
        return
    if not err.is_terminal:
        said_s = -PLAIN_EVERY_S

        def line(tally: Tally) -> None:
            nonlocal said_s
            if tally.now_s - said_s >= PLAIN_EVERY_S:
                said_s = tally.now_s
                told = ", ".join(f"{value} {name}" for name, value in facts(tally))
                say(f"{label}, {tally.now_s:.0f} s: {told}")

        yield line
        return
    from rich.live import Live

    with Live(console=err, transient=True, auto_refresh=False) as live:
        yield lambda tally: live.update(_drawn(label, tally), refresh=True)


def facts(tally: Tally) -> list[tuple[str, str]]:
    """Return what there is to say of a replay in progress: a name and a value each."""
    said = [
        ("done", f"{tally.done}/{tally.planned}"),
        ("sent", str(tally.sent)),
        ("in flight", str(tally.in_flight)),
        ("failed", str(tally.failed)),
    ]
    if tally.waiting:
        said.insert(2, ("waiting for a slot", str(tally.waiting)))
    said.append(("lag", f"{max(0.0, tally.lag_s) * 1000:.1f} ms"))
    for name, values in (("TTFT p50/p99", tally.ttft_s), ("TPOT p50/p99", tally.tpot_s)):
        spread = tally.spread(values)
        if spread:
            said.append((name, f"{spread[0] * 1000:.1f}/{spread[1] * 1000:.1f} ms"))
    if tally.judged:
        said.append(("within SLO", f"{tally.met / tally.judged:.1%}"))
    return said


def _drawn(label: str, tally: Tally) -> Table:
    from rich.progress_bar import ProgressBar

    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_row(f"[bold]{escape(label)}[/]", ProgressBar(tally.planned, tally.done, width=30))
    for name, value in (("time", f"{tally.now_s:.1f} s"), *facts(tally)):
        red = name == "failed" and tally.failed
        drawn.add_row(name, f"[red]{value}[/]" if red else value)
    return drawn
