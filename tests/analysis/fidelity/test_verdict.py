"""Sentences of a comparison: what a server would notice comes first, doubts of copies are said."""

import polars as pl
import pytest
from made_traces import bursty, poisson

from servescope.analysis import fidelity
from servescope.analysis.fidelity import Fidelity
from servescope.analysis.fidelity.comparison import SCHEMA
from servescope.analysis.fidelity.verdict import sentences

LEFT = {"aspect": pl.String, "what": pl.String, "why": pl.String}


@pytest.fixture(scope="module")
def found() -> Fidelity:
    return fidelity.compare(bursty(1), [poisson(2)])


def text(found: Fidelity) -> str:
    return " ".join(sentence.text for sentence in sentences(found))


def served(**errors: float) -> pl.DataFrame:
    rows = [
        dict.fromkeys(SCHEMA)
        | {"aspect": "serving", "measure": measure, "subject": f"load {load}", "value": value * k}
        | {"floor": 0.05}
        for measure, value in errors.items()
        for k, load in ((1, 0.3), (2, 0.5), (3, 0.7))
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


def test_what_a_server_would_notice_comes_first(found: Fidelity) -> None:
    whole = found.joined(served(ttft_p99=0.1), {}, pl.DataFrame(schema=LEFT))
    assert sentences(whole)[0].text == (
        "The 99th percentile of the time to first token is off by 20 % at loads 0.3, 0.5, 0.7, at"
        " worst by 30 %; between two parts of the real trace: 5.0 %."
    )


def test_a_classifier_that_can_tell_is_said_to(found: Fidelity) -> None:
    assert "32 calls in a row can tell: AUC 1.00" in text(found)
    assert "Burstiness is off by a factor of" in text(found)


def test_a_copy_is_said_to_be_one() -> None:
    one = poisson(1)
    said = text(fidelity.compare(one, [one]))
    assert "may have been copied" in said
    assert "guesses: AUC 0.50" in said


def test_how_many_numbers_are_in_the_band_is_told_of_ten_traces(found: Fidelity) -> None:
    assert "within the band" not in text(found)
    row = dict.fromkeys(SCHEMA) | {
        "aspect": "serving", "measure": "ttft_p50", "subject": "load 0.5", "value": 0.1,
        "real": 1.0, "synthetic": 1.1, "synthetic_low": 0.9, "synthetic_high": 1.2,
    }  # fmt: skip
    table = pl.DataFrame([row], schema=SCHEMA)
    assert "1 of 1 real numbers (100 %)" in text(found.joined(table, {}, pl.DataFrame(schema=LEFT)))
