"""The page of a comparison: what stands on it, and the JSON beside it."""

import json
from pathlib import Path

import pytest
from made_traces import sessions

from servescope.analysis import fidelity
from servescope.analysis.fidelity import ASPECTS, Fidelity
from servescope.loadgen import served
from servescope.reports import fidelity as pages
from servescope.traces import Trace
from servescope.traces.errors import OutputExists
from servescope.traces.provenance import Provenance


@pytest.fixture(scope="module")
def found() -> Fidelity:
    real, made = sessions(1), [sessions(seed) for seed in (2, 3)]
    found = fidelity.compare(real, made, name="real <b>")
    got = served.compare(real, made, (0.3, 0.7), tick=found.tick)
    return found.joined(got.table, got.curves, got.left_out, got.doubts)


def test_every_aspect_has_its_section_scores_and_figures(found: Fidelity) -> None:
    made = {section.name: section for section in pages.sections_of(found)}
    assert set(made) == {"summary", "bars", "serving", *ASPECTS}
    for key, drawn in pages.FIGURES.items():
        figures = [block for block in made[key].blocks if hasattr(block, "figure")]
        assert len(figures) == len(drawn), key
    assert len([b for b in made["serving"].blocks if hasattr(b, "figure")]) == 3


def test_json_stands_beside_the_page_with_every_score(found: Fidelity, tmp_path: Path) -> None:
    page = tmp_path / "fidelity.html"
    pages.write(found, page)
    told = json.loads(page.with_suffix(".json").read_text())
    assert len(told["scores"]) == found.table.height
    assert told["calls"][0] == found.calls[0]
    assert told["curves"]["idc"][0].keys() == {"x", "real", "synthetic", "low", "high"}
    assert all(told["summary"])
    with pytest.raises(OutputExists):
        pages.write(found, page)
    assert "real &lt;b&gt;" in page.read_text()


def test_one_trace_without_serving_makes_a_page_too() -> None:
    plain = sessions(1).collect().select("arrival_s", "input_tokens", "output_tokens")
    one = Trace.of(plain, Provenance(format="none", source="plain"))
    sections = pages.sections_of(fidelity.compare(one, [one]))
    assert {"summary", "bars", "sessions"} <= {section.name for section in sections}
