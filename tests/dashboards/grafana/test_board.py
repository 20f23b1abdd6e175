import json
from typing import Any

import pytest

from servescope.dashboards.grafana.board import BAD, GOOD, WARNING, Board, Panel, Row
from servescope.dashboards.grafana.promql import Query
from servescope.reports.canvas import PALETTE


def rendered(*panels: Panel) -> dict[str, Any]:
    board = Board("b", "B", "A board.", "up", (Row("first", panels), Row("second", panels[:1])))
    found: dict[str, Any] = json.loads(board.rendered())
    return found


def panel(title: str = "P", **fields: Any) -> Panel:
    return Panel(title, "s", (Query("a"), Query("b")), "A panel.", **fields)


def places(board: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(each["type"], each["gridPos"]["x"], each["gridPos"]["y"]) for each in board["panels"]]


def test_panels_fill_lines_of_24_columns_and_the_highest_says_where_the_next_begins() -> None:
    board = rendered(panel(kind="stat"), panel(width=12), panel(width=8))
    assert places(board) == [
        ("row", 0, 0),
        ("stat", 0, 1),
        ("timeseries", 8, 1),
        ("timeseries", 0, 9),
        ("row", 0, 17),
        ("stat", 0, 18),
    ]


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ((), [(PALETTE[0], None)]),
        ((0.8,), [(GOOD, None), (WARNING, 0.8)]),
        ((0.8, 0.9), [(GOOD, None), (WARNING, 0.8), (BAD, 0.9)]),
        ((0.99, 0.9), [(BAD, None), (WARNING, 0.9), (GOOD, 0.99)]),
    ],
)
def test_values_are_coloured_from_their_limits_on(
    limits: tuple[float, ...], steps: list[tuple[str, float | None]]
) -> None:
    found = rendered(panel(limits=limits))["panels"][1]["fieldConfig"]["defaults"]
    assert [(step["color"], step["value"]) for step in found["thresholds"]["steps"]] == steps


def test_every_query_has_a_hue_and_a_dash_and_systems_are_shades_of_it() -> None:
    found = rendered(panel())["panels"][1]["fieldConfig"]["overrides"]
    assert [each["matcher"]["options"] for each in found] == ["A", "B"]
    colours = [each["properties"][0]["value"] for each in found]
    assert colours == [{"mode": "shades", "fixedColor": colour} for colour in PALETTE[:2]]
    dashes = [each["properties"][1]["value"]["fill"] for each in found]
    assert dashes == ["solid", "dash"]


def test_names_have_colours_of_their_own() -> None:
    found = rendered(panel(kind="stat", names={" valid$": GOOD}))["panels"][1]["fieldConfig"]
    assert found["overrides"] == [
        {
            "matcher": {"id": "byRegexp", "options": "/ valid$/"},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": GOOD}}],
        }
    ]


def test_a_table_asks_for_this_moment_and_shows_labels_alone() -> None:
    table = rendered(panel(kind="table"))["panels"][1]
    assert {(target["format"], target["instant"]) for target in table["targets"]} == {
        ("table", True)
    }
    assert table["transformations"][0]["options"]["excludeByName"]["Value"]
