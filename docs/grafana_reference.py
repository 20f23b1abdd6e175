"""Write the boards and docs/reference/grafana-boards.md: `python docs/grafana_reference.py`."""

from __future__ import annotations

from pathlib import Path

from servescope.dashboards.grafana import BOARDS, Board

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "dashboards" / "grafana" / "boards"
PAGE = Path(__file__).parent / "reference" / "grafana-boards.md"
HEAD = """\
# Grafana boards

What the boards that [`servescope dashboard grafana`](../how-to/grafana.md) writes show, and what they ask Prometheus.
`docs/grafana_reference.py` writes this page and the boards from the code; a test fails when they are stale.

`$job` and `$instance` are chosen at the top of a board, as many at once as you like.
A series has the job and the instance in its name; what it is has a hue and a dash, and the systems are shades of that hue.
The hues are those of the reports: Okabe and Ito's, which colour-blind readers tell apart.
`$__rate_interval` is four scrapes or a step of the picture, whichever is longer: what a panel says *of late*.
Quantiles come from histograms, so they are as fine as the buckets of whoever counts.

"""  # noqa: E501


def page() -> str:
    """Return the whole page."""
    rows = ["| board | file | panels |", "|---|---|---|"]
    rows += [
        f"| [{board.title}](#{board.name}) | `boards/{board.name}.json` | {len(board.panels)} |"
        for board in BOARDS.values()
    ]
    return HEAD + "\n".join([*rows, "", *map(_section, BOARDS.values())])


def _section(board: Board) -> str:
    lines = [f"## {board.name}", "", board.says, ""]
    for row in board.rows:
        lines += [f"### {board.name}: {row.title.lower()}", ""]
        lines += ["| panel | what it says | queries |", "|---|---|---|"]
        for panel in row.panels:
            asked = "<br>".join(f"`{query.expr}`" for query in panel.queries)
            lines.append(f"| {panel.title} | {panel.says} | {asked} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for name, board in BOARDS.items():
        (FOLDER / f"{name}.json").write_text(board.rendered(), encoding="utf-8")
