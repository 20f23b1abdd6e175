"""Reports for other readers: what they hold, and what a nasty name cannot do there."""

import csv
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from servescope.reports import Story, exports, sections_of
from servescope.reports.blocks import Column, Note, Section, Table
from servescope.traces.errors import OutputExists


def test_markdown_has_the_verdict_first_and_every_table_of_numbers(pair: Story) -> None:
    text = exports.markdown(pair.title, sections_of(pair))
    assert pair.comparison is not None
    lines = [line for line in text.splitlines() if line.startswith(("> ", "## "))]
    first, second = lines[:2]
    assert first == "## Verdict"
    assert second.startswith("> ")
    assert "| metric | run | n |" in text
    assert "definition" not in text


def test_no_name_becomes_markup(pair: Story) -> None:
    """One run is called </script><script>alert(1)</script> & co."""
    text = exports.markdown(pair.title, sections_of(pair))
    assert "<script>" not in text.replace("\\<script>", "")
    table = Table((Column("a", "a|b"),), [{"a": "x|y"}])
    section = Section("s", "S", (table, Note("plain", "``` x", "")))
    assert exports.markdown("t", [section]).count("```") == 2


def test_every_cell_of_a_table_stands_in_its_csv(pair: Story, tmp_path: Path) -> None:
    sections = sections_of(pair)
    paths = exports.write_csv(sections, tmp_path / "tables")
    assert len(paths) == sum(
        isinstance(block, Table) for section in sections for block in section.blocks
    )
    text = (tmp_path / "tables" / "latencies-1.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    latencies = next(section for section in sections if section.name == "latencies").blocks[0]
    assert isinstance(latencies, Table)
    assert [float(row["mean"]) for row in rows] == [row["mean"] for row in latencies.rows]
    with pytest.raises(OutputExists, match="exists already"):
        exports.write_csv(sections, tmp_path / "tables")


def test_a_name_is_no_formula_in_a_spreadsheet(tmp_path: Path) -> None:
    table = Table((Column("run", "run"), Column("n", "n", "count")), [{"run": "=1+1", "n": -1}])
    (path,) = exports.write_csv([Section("s", "S", (table,))], tmp_path)
    assert path.read_text() == "run,n\n'=1+1,-1\n"


def test_figures_are_written_for_print(pair: Story, tmp_path: Path) -> None:
    sections = [section for section in sections_of(pair) if section.name == "programs"]
    (svg,) = exports.write_figures(sections, tmp_path)
    assert ET.parse(svg).getroot().tag.endswith("svg")
    (png,) = exports.write_figures(sections, tmp_path, "png")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert png.stat().st_size > 10_000
