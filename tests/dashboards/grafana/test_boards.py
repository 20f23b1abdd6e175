"""The boards that ship: fresh, sound by Grafana's rules, and in the servers' own words."""

from __future__ import annotations

import importlib.util
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from servescope.dashboards.grafana import BOARDS, Board
from servescope.dashboards.grafana.board import WIDTH
from servescope.traces.server import KNOWN_NAMES

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "dashboards" / "grafana" / "boards"
PAGES = ROOT / "tests" / "data" / "metrics"
TRUE_VLLM = ROOT.parent / "shared" / "servers" / "vllm_metrics_sample.txt"
OWN_PANELS = {"row", "timeseries", "stat", "heatmap", "table"}
UNITS = {
    *("none", "short", "s", "percent", "percentunit", "reqps", "Bps", "MBs", "mbytes"),
    *("watt", "celsius", "hertz"),
}

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))


def read(board: Board) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{board.name}.json").read_text())
    return found


def names(board: Board) -> set[str]:
    """Return the metrics that a board asks for."""
    asked = [query.expr for panel in board.panels for query in panel.queries]
    return {name for expr in asked for name in re.findall(r"([a-zA-Z_:][\w:]*)\{", expr)}


def said(page: Path) -> set[str]:
    """Return the metrics that a page of /metrics holds."""
    return set(re.findall(r"^([a-zA-Z_:][\w:]*)[{ ]", page.read_text(), re.MULTILINE))


# --- they are fresh -----------------------------------------------------------------------------


def test_the_boards_and_their_page_are_fresh() -> None:
    path = ROOT / "docs" / "grafana_reference.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text() == script.page(), "run: python docs/grafana_reference.py"
    assert {path.stem for path in FOLDER.iterdir()} == set(BOARDS)
    for board in BOARDS.values():
        file = FOLDER / f"{board.name}.json"
        assert file.read_text() == board.rendered(), "run: python docs/grafana_reference.py"


# --- they are sound -----------------------------------------------------------------------------


@each_board
def test_panels_have_numbers_of_their_own_and_do_not_lie_on_each_other(board: Board) -> None:
    panels = read(board)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= WIDTH for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


@each_board
def test_all_that_is_asked_goes_to_the_chosen_source_jobs_and_instances(board: Board) -> None:
    found = read(board)
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = {each["name"]: each for each in found["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert all(variables[name]["datasource"] == source for name in ("job", "instance"))
    for panel in found["panels"]:
        for target in panel.get("targets", ()):
            assert target["datasource"] == panel["datasource"] == source
            selectors = re.findall(r"\{(.*?)\}", target["expr"])
            assert selectors
            for selector in selectors:
                assert selector.startswith('job=~"$job",instance=~"$instance"')


@each_board
def test_what_is_drawn_is_grafanas_own_and_says_what_it_is(board: Board) -> None:
    found = read(board)
    assert found["uid"] == f"servescope-{board.name}"
    assert {panel["type"] for panel in found["panels"]} <= OWN_PANELS
    for panel in board.panels:
        assert panel.unit in UNITS or panel.unit.startswith("suffix: "), panel.unit
        assert panel.says.endswith(".")
        assert panel.says.count(". ") == 0, panel.says
    assert len({panel.title for panel in board.panels}) == len(board.panels)


@each_board
def test_nothing_leads_out(board: Board) -> None:
    assert not re.search(r"https?://", (FOLDER / f"{board.name}.json").read_text())


@each_board
def test_a_legend_names_labels_that_its_query_keeps(board: Board) -> None:
    for panel in board.panels:
        for query in panel.queries:
            kept = re.findall(r" by \((.*?)\)", query.expr)
            for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
                assert all(label in labels.split(", ") for labels in kept), query


# --- in the servers' own words ------------------------------------------------------------------


@pytest.mark.skipif(not TRUE_VLLM.exists(), reason="needs the sample beside the checkout")
def test_vllm_says_every_name_of_its_board() -> None:
    assert names(BOARDS["vllm"]) <= said(TRUE_VLLM)
    assert BOARDS["vllm"].anchor in said(TRUE_VLLM)


@pytest.mark.parametrize(("board", "page"), [("sglang", "sglang"), ("compare", "tgi")])
def test_what_a_page_holds_and_the_scraper_knows_is_on_the_board(board: str, page: str) -> None:
    held = said(PAGES / f"{page}.txt") & KNOWN_NAMES
    assert held
    assert held <= names(BOARDS[board])


def test_what_the_scraper_knows_is_beside_the_client() -> None:
    assert names(BOARDS["compare"]) >= KNOWN_NAMES


def test_counts_of_sglang_that_are_split_by_priority_are_not_added_up_twice() -> None:
    split = set(
        re.findall(r'^(sglang:\w+)\{.*priority="', (PAGES / "sglang.txt").read_text(), re.M)
    )
    for board in (BOARDS["sglang"], BOARDS["compare"]):
        for panel in board.panels:
            for query in panel.queries:
                for name, labels in re.findall(r"(sglang:\w+)\{(.*?)\}", query.expr):
                    assert name not in split or 'priority=""' in labels, query.expr
