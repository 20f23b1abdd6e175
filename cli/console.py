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
            if isinstance(block, Rows) and all(c.form != "prose" for c in block.columns):
                rows = [[written(c, row[c.key]) for c in block.columns] for row in block.rows]
                table([column.heading for column in block.columns], rows, section.title)
                out.print()


def doubts(chosen: Iterable[Section]) -> None:
    """Print every doubt of report sections, each once."""
    from servescope.reports.blocks import Note

    for section in chosen:
        for block in section.blocks:
            if isinstance(block, Note) and block.kind == "doubt":
                doubt(block.text)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on stderr that something is being done, where a person looks on."""
    if not err.is_terminal:
        yield
        return
    with err.status(escape(f"{what} ...")):
        yield


@contextmanager
def progress(label: str, *, quiet: bool = False) -> Iterator[Callable[[Tally], None]]:
    """Draw a replay's progress on stderr while it runs; plain lines where it is no terminal."""
    if quiet:
        yield lambda _: None
        return
    if not err.is_terminal:
        announced = False

        def announce(_: Tally) -> None:
            nonlocal announced
            if not announced:
                say(f"{label} ...")
            announced = True

        yield announce
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    # drawing happens in this process, so it is kept rare: it must not make the client late
    with Progress(*columns, console=err, transient=True, refresh_per_second=2) as bar:
        task = bar.add_task(label, total=None, counts="")

        def show(tally: Tally) -> None:
            counts = f"{tally.done}/{tally.planned} done, {tally.in_flight} in flight"
            if tally.failed:
                counts += f", [red]{tally.failed} failed[/]"
            counts += f", lag {max(0.0, tally.lag_s) * 1000:.1f} ms"
            bar.update(task, total=tally.planned, completed=tally.done, counts=counts)

        yield show
