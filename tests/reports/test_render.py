import json

import pytest

from servescope.reports import Story, render, sections_of
from servescope.reports.blocks import Column


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        ("ms", 0.0123456, "12.3"),
        ("ms", 1.5, "1\u202f500"),
        ("ms", 0.0000123, "0.0123"),
        ("ms", 0.0, "0"),
        ("ms", None, "-"),
        ("count", 1234567, "1\u202f234\u202f567"),
        ("share", 0.9149, "91.5%"),
        ("ratio", 0.00542, "0.00542"),
        ("rate", 9.7, "9.70"),
        ("text", "x", "x"),
        ("text", 3, "3"),
    ],
)
def test_cells_are_written_as_a_person_reads_them(
    form: str, value: float | str | None, text: str
) -> None:
    assert render.written(Column("k", "h", form), value) == text  # type: ignore[arg-type]


def test_the_page_needs_nothing_from_outside(pair: Story) -> None:
    page = render.html(pair.title, sections_of(pair))
    head, _, rest = page.partition("<script>")
    body = rest.partition("</script>")[2]
    for text in (head, body):
        assert "src=" not in text
        assert "http" not in text.replace("http_", "")


def test_a_name_cannot_break_out_of_the_page(pair: Story) -> None:
    page = render.html(pair.title, sections_of(pair))
    assert "<script>alert(1)</script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_json_holds_raw_values_by_section(pair: Story) -> None:
    told = json.loads(render.json(pair.title, sections_of(pair)))
    assert set(told["sections"]) == {section.name for section in sections_of(pair)}
    table = told["sections"]["objectives"][0]
    assert 0 <= table["rows"][0]["share"] <= 1
    assert pair.comparison is not None
    assert told["sections"]["verdict"][0]["text"] == pair.comparison.verdict
