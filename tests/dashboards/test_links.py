"""Addresses keep a selection, and odd ones are no error."""

from __future__ import annotations

import pytest

from servescope.analysis.cut import Cut
from servescope.dashboards.links import Query, cut_of, href
from servescope.traces.errors import InputError


def test_an_address_is_read_as_it_was_written() -> None:
    address = href("run", run="a b/c&d=é", slo="ttft<2s", call=None, pick=["x", "y"])
    page, _, search = address.partition("?")
    query = Query.of(f"?{search}")
    assert page == "/run"
    assert query.one("run") == "a b/c&d=é"
    assert query.one("slo") == "ttft<2s"
    assert query["pick"] == ["x", "y"]
    assert "call" not in query
    assert href("compare", run=[]) == "/compare"


@pytest.mark.parametrize("text", ["", "abc", "nan", "inf", "-inf", "1e999"])
def test_what_is_no_number_is_none(text: str) -> None:
    assert Query.of(f"?from={text}").number("from") is None
    assert Query.of(None).number("from") is None


def test_a_cut_is_what_was_chosen() -> None:
    assert cut_of(None, {"class": None}) == Cut()
    assert cut_of((1.0, None), {"class": "chat", "client": ""}) == Cut(
        1.0, None, (("class", "chat"),)
    )
    with pytest.raises(InputError, match="empty"):
        cut_of((2.0, 2.0), {})
