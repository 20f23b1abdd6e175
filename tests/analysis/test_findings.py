"""Findings: nothing is noted without a definition, and nothing that is no number."""

import polars as pl
import pytest

from servescope.analysis.findings import STATISTICS_SCHEMA, Findings, Statistic, TableOf, written
from servescope.analysis.intervals import Interval


def findings() -> Findings:
    return Findings(
        "test",
        {"cv": Statistic("what it says", "1", "ratio", "jackknife")},
        {"curve": TableOf("a row", {"x": "s", "y": "1"}, "count")},
    )


def test_a_number_is_noted_with_its_unit_estimator_and_interval() -> None:
    made = findings()
    made.say("cv", Interval(1.0, 0.5, 2.0), of="all", n=9, p=0.2)
    made.say("cv", 3.0)
    rows = pl.DataFrame(made.rows, schema=STATISTICS_SCHEMA)
    assert rows["unit"].to_list() == ["1", "1"]
    assert rows["uncertainty"].to_list() == ["jackknife", "none"]
    assert rows.row(0)[3:8] == (1.0, 0.5, 2.0, 0.2, 9)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_no_number_is_passed_over(value: float | None) -> None:
    made = findings()
    made.say("cv", value)
    assert made.rows == []


def test_what_has_no_definition_is_refused() -> None:
    with pytest.raises(KeyError):
        findings().say("nope", 1.0)
    with pytest.raises(ValueError, match="table curve has"):
        findings().table("curve", pl.DataFrame({"x": [1]}))


def test_an_empty_table_is_passed_over_and_a_missing_package_is_named_with_its_mend() -> None:
    made = findings()
    made.table("curve", pl.DataFrame({"x": [], "y": []}))
    assert made.made == {}
    assert not made.lacks("statsmodels", "seasons")
    assert made.lacks("nosuchpackage", "seasons")
    assert made.left_out == [("seasons", "needs nosuchpackage: pip install 'servescope[stats]'")]


def test_parameters_are_written_by_name() -> None:
    assert written({"mu": 1.23456, "sigma": 2}) == "mu 1.235, sigma 2"
