"""The model as a whole: its file, what is refused of one, and its rate."""

import json
import math
from pathlib import Path
from typing import Any

import made_traces
import msgspec
import numpy as np
import polars as pl
import pytest

from servescope.analysis.models.cascade import Cascade
from servescope.analysis.models.fitting import fit
from servescope.analysis.models.model import VERSION, About, Arrivals, Model, Stream
from servescope.analysis.models.renewal import Poisson
from servescope.analysis.models.schedule import Schedule
from servescope.analysis.models.synthesis import Synthesis
from servescope.traces import load
from servescope.traces.errors import InputError

BURSTY = fit(made_traces.bursty(0, 1500), name="bursty", shape="cascade")
PROGRAMS = fit(made_traces.sessions(0, 150), name="sessions", shape="poisson")
PREFIXES = fit(load("mooncake:sample"), shape="gamma renewal")
ALL = [BURSTY, PROGRAMS, PREFIXES]

ABOUT = About(source="a hand", calls=0, min_count=10, made_by="a test")


def drawn(model: Model) -> pl.DataFrame:
    return pl.concat(Synthesis(model, 100.0, seed=3).pieces())


def with_change(model: Model, path: str, value: object) -> bytes:
    """Return the file with a value put at a place such as streams.0.name."""
    content = json.loads(model.to_json())
    *there, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place: Any = content
    for step in there:
        place = place[step]
    place[last] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_a_file_that_is_read_and_written_again_is_the_same(model: Model) -> None:
    again = Model.from_json(model.to_json())
    assert again == model
    assert again.to_json() == model.to_json()
    assert drawn(again).equals(drawn(model))


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_files_are_small_and_readable(model: Model) -> None:
    content = model.to_json()
    assert len(content) < 200_000
    assert content.decode().startswith('{\n "format": "servescope-model",\n "version": 1,')
    assert json.loads(content)["streams"][0]["name"] == "calls"


def test_a_large_trace_has_a_file_below_a_megabyte() -> None:
    """A thousand kinds of clients and lengths, and a day of windows."""
    rng = np.random.default_rng(0)
    trace = made_traces.trace_of(
        np.sort(rng.uniform(0, 172_800, 60_000)),
        rng.geometric(0.001, 60_000),
        rng.geometric(0.003, 60_000),
        client_id=pl.Series(np.minimum(rng.zipf(1.3, 60_000), 1000).astype(str)),
        model=pl.Series(rng.choice(["a", "b", "c"], 60_000)),
    )
    assert len(fit(trace, shape="poisson").to_json()) < 1_000_000


def test_a_file_is_written_once(tmp_path: Path) -> None:
    BURSTY.write(tmp_path / "new" / "model.json")
    assert Model.load(tmp_path / "new" / "model.json") == BURSTY
    with pytest.raises(InputError, match="exists already"):
        BURSTY.write(tmp_path / "new" / "model.json")
    PROGRAMS.write(tmp_path / "new" / "model.json", overwrite=True)
    assert Model.load(tmp_path / "new" / "model.json") == PROGRAMS


def test_a_newer_version_is_refused() -> None:
    with pytest.raises(InputError, match=f"version {VERSION + 1} of the format") as error:
        Model.from_json(with_change(BURSTY, "version", VERSION + 1), "a.json")
    assert error.value.mend == "Install a newer servescope."


def test_a_newer_version_is_refused_whatever_else_it_has() -> None:
    with pytest.raises(InputError, match="Install a newer servescope"):
        Model.from_json(b'{"format": "servescope-model", "version": 7, "populations": []}')


@pytest.mark.parametrize(
    "content", [b"", b"not json", b"[1, 2]", b'{"version": 1}', b'{"format": "x"}', b"\xff\xfe"]
)
def test_what_is_no_model_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.json is no model file") as error:
        Model.from_json(content, "a.json")
    assert "servescope fit" in error.value.mend


def test_a_file_that_is_cut_short_is_no_model() -> None:
    with pytest.raises(InputError, match="is no model file"):
        Model.from_json(BURSTY.to_json()[:-200])


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json cannot be read: No such file"):
        Model.load(tmp_path / "none.json")


WRONG = {
    "streams.0.nmae": "x",
    "streams.0.arrivals.schedule.rates_rps.0": "many",
    "streams.0.arrivals.schedule.window_s": -1.0,
    "streams.0.arrivals.shape.type": "hawks",
    "streams.0.arrivals.shape.width_s": 7.0,
    "streams.0.marks": None,
    "streams.0.marks.kinds": [],
    "streams.0.marks.kinds.0.share": 1.5,
    "streams.0.marks.kinds.0.lengths.edges": [],
    "streams.0.marks.kinds.0.lengths.inputs.levels.0": 2.0,
    "streams.0.marks.kinds.0.lengths.inputs.tail.scale": 0.0,
    "streams.0.marks.kinds.0.lengths.inputs.values.0": -5.0,
    "about.min_count": None,
    "streams": [],
}
NAMED = {  # what the error says of the place, where it is not the last step of the path
    "streams.0.arrivals.shape.type": "hawks",
    "streams.0.marks": "'calls' makes no calls",
    "streams.0.marks.kinds.0.lengths.inputs.levels.0": "levels and values",
    "streams.0.marks.kinds.0.lengths.inputs.values.0": "lengths below 0",
    "streams": "no stream",
    "streams.0.arrivals.schedule.rates_rps.0": "rates_rps",
}


@pytest.mark.parametrize("path", WRONG)
def test_a_wrong_edit_is_refused_with_the_name_of_the_field(path: str) -> None:
    with pytest.raises(InputError, match=r"a\.json was changed in a way that makes no sense") as e:
        Model.from_json(with_change(BURSTY, path, WRONG[path]), "a.json")
    assert NAMED.get(path, path.split(".")[-1]) in e.value.wrong
    assert "Undo the change" in e.value.mend


def test_a_field_that_is_missing_is_named() -> None:
    content = json.loads(BURSTY.to_json())
    del content["streams"][0]["marks"]["kinds"][0]["lengths"]["edges"]
    with pytest.raises(InputError, match="edges"):
        Model.from_json(json.dumps(content).encode())


def numbers(place: Any, path: str = "") -> list[str]:
    """Return the paths of numbers in a file, the first two of every list."""
    if isinstance(place, dict):
        return [each for key, value in place.items() for each in numbers(value, f"{path}.{key}")]
    if isinstance(place, list):
        return [e for key, value in enumerate(place[:2]) for e in numbers(value, f"{path}.{key}")]
    return [path[1:]] if isinstance(place, int | float) else []


@pytest.mark.parametrize("value", [-1, 0, 1.5])
def test_any_number_may_be_edited_and_is_refused_or_drawn_from(value: float) -> None:
    """No edit of a model of single calls ends in anything but an error that says what to do."""
    marks = {"streams": json.loads(BURSTY.to_json())["streams"]}
    for path in numbers(marks):
        try:
            model = Model.from_json(with_change(BURSTY, path, value))
            pieces = list(Synthesis(model, 10.0).pieces())
        except InputError:
            continue
        for piece in pieces:
            assert piece["arrival_s"].is_sorted(), path
            assert (piece["input_tokens"] >= 0).all(), path


# --- rates ---------------------------------------------------------------------------------------


def simple(*rates: float | None) -> Model:
    """Return a model of a stream for each rate; of None it is not known when programs start."""
    streams = tuple(
        Stream(
            name=f"stream {k}",
            arrivals=rate
            and Arrivals(
                schedule=Schedule(window_s=600.0, rates_rps=(rate,)),
                shape=Cascade(width_s=600.0, rate_rps=rate, splits=()),
            ),
            marks=BURSTY.streams[0].marks,
        )
        for k, rate in enumerate(rates)
    )
    return Model(name="simple", about=ABOUT, streams=streams)


def test_streams_add_up() -> None:
    assert simple(0.5, 1.5).rate_rps == 2
    assert simple(0.5, 1.5).span_s == 600
    assert simple(0.5, None).rate_rps is None
    assert simple(None).span_s is None


@pytest.mark.parametrize("by", ["users", "busier", "faster"])
def test_another_rate_is_that_of_all_streams(by: Any) -> None:
    model = simple(0.5, 1.5).at_rate(8.0, by)
    assert model.rate_rps == pytest.approx(8)
    assert [stream.rate_rps for stream in model.streams] == pytest.approx([2, 6])
    assert model.span_s == (150 if by == "faster" else 600)
    assert model.about.edits == (f"rate x 4 by {by}",)
    shapes = [stream.arrivals.shape for stream in model.streams if stream.arrivals]
    users = {"users": 4.0, "busier": 1.0, "faster": 1.0}[by]
    assert [shape.users for shape in shapes if isinstance(shape, Cascade)] == [users, users]


def test_programs_of_many_calls_count_by_their_calls() -> None:
    about = PROGRAMS.about
    assert PROGRAMS.streams[0].calls_each == pytest.approx(about.calls / 150, rel=1e-5)
    assert about.span_s is not None
    assert PROGRAMS.rate_rps == pytest.approx(about.calls / about.span_s, rel=0.01)
    assert PROGRAMS.at_rate(3.0).rate_rps == pytest.approx(3.0, rel=1e-5)


def test_programs_that_begin_when_nobody_knows_get_poisson_starts() -> None:
    model = simple(None).at_rate(3.0)
    assert model.rate_rps == 3
    assert model.streams[0].arrivals is not None
    assert model.streams[0].arrivals.shape == Poisson()
    assert model.about.edits == ("Poisson starts, 3 calls/s",)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_no_rate_of_0_and_no_endless_one(rate: float) -> None:
    for change in (simple(1.0).at_rate, simple(None).at_rate, simple(1.0).scaled):
        with pytest.raises(InputError) as error:
            change(rate)
        assert error.value.mend == "Give a number above 0."


def test_a_rate_that_is_not_known_cannot_be_scaled() -> None:
    with pytest.raises(InputError, match="no rate to scale"):
        simple(None).scaled(2.0)


def test_a_model_needs_streams_and_a_stream_calls() -> None:
    with pytest.raises(InputError, match="has no stream"):
        Model(name="none", about=ABOUT, streams=())
    with pytest.raises(InputError, match="makes no calls, or calls of two sorts"):
        msgspec.structs.replace(PROGRAMS.streams[0], marks=BURSTY.streams[0].marks)


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.name)
def test_what_it_makes_is_said_in_sentences(model: Model) -> None:
    said = model.summary()
    assert said[0].startswith("calls: ")
    assert all(sentence.endswith(".") for sentence in said)
