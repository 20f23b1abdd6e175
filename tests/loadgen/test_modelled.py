"""What opens as a model: files, presets, papers' workloads, client pools; and what does not."""

from pathlib import Path

import polars as pl
import pytest

from servescope.analysis.models.model import Model
from servescope.analysis.models.presets import PRESETS
from servescope.analysis.models.renewal import Poisson, Renewal
from servescope.analysis.models.synthesis import synthesize
from servescope.loadgen.modelled import is_model, open_model
from servescope.traces.errors import InputError

POOL = Path(__file__).parents[1] / "data" / "formats" / "servegen"


@pytest.fixture(scope="module")
def chat() -> Model:
    return open_model("workload:sarathi-chat")


def test_a_paper_s_workload_is_fitted_with_its_own_arrivals(chat: Model) -> None:
    (stream,) = chat.streams
    assert stream.arrivals is not None
    assert isinstance(stream.arrivals.shape, Poisson)
    assert stream.arrivals.schedule.rates_rps == (1.0,)
    assert any("fit of the generator sarathi-chat" in doubt for doubt in chat.about.doubts)
    assert chat.name == "sarathi-chat"
    calls = synthesize(chat, 20_000.0).frame.collect()
    assert calls["input_tokens"].median() == pytest.approx(1730, rel=0.05)  # published
    assert calls["output_tokens"].median() == pytest.approx(415, rel=0.05)
    assert not calls["input_tokens"].is_null().any()


def test_gamma_arrivals_keep_their_burstiness() -> None:
    arrivals = open_model("workload:burstgpt-api").streams[0].arrivals
    assert arrivals is not None
    assert isinstance(arrivals.shape, Renewal)
    assert arrivals.shape.gaps == "gamma"
    assert len(arrivals.schedule.rates_rps) == 1


def test_a_workload_of_programs_keeps_its_pauses() -> None:
    """A call waits for the answer before it, and comes its pause after that."""
    model = open_model("workload:continuum-bfcl")
    assert Model.from_json(model.to_json()).to_json() == model.to_json()
    assert model.streams[0].programs is not None
    calls = synthesize(model, 2000.0).frame.collect()
    later = calls.filter(pl.col("turn") > 0)
    assert later.height
    assert (later["parents"].list.len() > 0).all()
    assert later["delay_s"].to_numpy().mean() == pytest.approx(1.9, rel=0.2)


def test_a_file_opens_whatever_it_is_called(chat: Model, tmp_path: Path) -> None:
    for name in ("model.json", "model.txt"):
        path = tmp_path / name
        chat.write(path)
        assert is_model(str(path))
        assert open_model(str(path)) == chat
    with pytest.raises(InputError, match="is no pool of clients"):
        open_model(str(tmp_path / "model.json"), clients=2)


def test_a_pool_opens_by_its_folder_or_a_pattern() -> None:
    assert not is_model(str(POOL))
    model = open_model(str(POOL))
    assert len(model.streams) == 2
    assert open_model(f"{POOL}/language/m-tiny/chunk-*").streams == model.streams
    assert len(open_model(str(POOL), clients=1).streams) == 1


@pytest.mark.skipif(not PRESETS, reason="no models ship with this checkout")
def test_a_preset_opens_by_its_name() -> None:
    name = next(iter(PRESETS))
    assert is_model(name)
    assert open_model(name).streams
    with pytest.raises(InputError, match="is no pool of clients"):
        open_model(name, clients=2)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'nothing' is no model"):
        open_model("nothing")
    with pytest.raises(InputError, match="no workload 'sarathi-chats'"):
        open_model("workload:sarathi-chats")
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,10,10\n1,10,10\n")
    assert not is_model(str(trace))
    with pytest.raises(InputError, match="is no pool of clients") as told:
        open_model(str(trace))
    assert "servescope fit" in told.value.mend
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="is no model file"):
        open_model(str(tmp_path / "other.json"))


def test_a_name_near_to_a_preset_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "made-code", Path("made-code.json"))
    with pytest.raises(InputError) as told:
        open_model("made-cod")
    assert "made-code" in told.value.mend
