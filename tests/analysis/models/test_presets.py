"""Models that ship with servescope: all load, and can be drawn from."""

from pathlib import Path

import pytest

from servescope.analysis.models.model import Model
from servescope.analysis.models.presets import PRESETS, listed, load_preset
from servescope.analysis.models.synthesis import synthesize
from servescope.traces.errors import InputError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_model_with_its_source_and_licence(name: str) -> None:
    model = load_preset(name)
    assert Model.from_json(model.to_json()).to_json() == model.to_json()
    assert model.about.licence
    assert model.about.attribution
    assert not model.about.source.startswith("/")
    if model.rate_rps is None:
        model = model.at_rate(1.0)
    assert model.rate_rps
    calls = synthesize(model, 100 / model.rate_rps).frame.collect()
    assert calls.height
    assert (calls["input_tokens"] >= 0).all()


def test_a_folder_is_listed_by_the_names_of_its_models(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "ATTRIBUTION.md"):
        (tmp_path / name).touch()
    assert list(listed(tmp_path)) == ["a", "b"]
    assert listed(tmp_path / "none") == {}


def test_an_unknown_preset_names_those_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "made-code", Path("made-code.json"))
    with pytest.raises(InputError, match="no preset 'made-cod'") as told:
        load_preset("made-cod")
    assert "made-code" in told.value.mend
    for name in [*PRESETS]:
        monkeypatch.delitem(PRESETS, name)
    with pytest.raises(InputError, match="No models ship"):
        load_preset("azure-code")
