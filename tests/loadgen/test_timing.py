from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.loadgen.experiment import ArrivalSpec, WorkloadSpec
from servescope.loadgen.program import Call, Program
from servescope.loadgen.timing import PURPOSES, starts, stream, timed
from servescope.loadgen.workload import workload_of
from servescope.traces import Provenance, Trace
from servescope.traces.errors import InputError


def program(name: str, start_s: float) -> Program:
    """A root, a turn after 4 s of thinking, and one that is only known to come 9 s after begin."""
    return Program(
        name,
        start_s,
        (
            Call(f"{name}0", name, 0, 10, 5),
            Call(f"{name}1", name, 1, 20, 5, parents=(f"{name}0",), delay_s=4.0),
            Call(f"{name}2", name, 2, 30, 5, parents=(f"{name}1",), offset_s=9.0),
        ),
    )


THREE = (program("a", 2.0), program("b", 4.0), program("c", 12.0))


def asked(**workload: object) -> WorkloadSpec:
    return WorkloadSpec(trace="azure:sample", **workload)  # type: ignore[arg-type]


def moments(programs: tuple[Program, ...]) -> list[float]:
    return [each.start_s for each in programs]


def pauses(programs: tuple[Program, ...]) -> list[tuple[float, float]]:
    return [(call.delay_s, call.offset_s) for call in programs[0].calls[1:]]


def test_without_a_wish_everything_stays_as_recorded() -> None:
    assert timed(THREE, asked(), 0) == (THREE, ())


def test_a_time_scale_stretches_starts_and_pauses_alike() -> None:
    slow, steps = timed(THREE, asked(time_scale=2.0), 0)
    assert moments(slow) == [4.0, 8.0, 24.0]
    assert pauses(slow) == [(8.0, 0.0), (0.0, 18.0)]
    assert steps == ("time x 2", "pauses x 2")


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ({"delays": "recorded"}, [(4.0, 0.0), (0.0, 4.5)]),
        ({"delays": "none"}, [(0.0, 0.0), (0.0, 0.0)]),
        ({"delays": "scale"}, [(2.0, 0.0), (0.0, 4.5)]),
        ({"delays": "scale", "delay_scale": 0.25}, [(1.0, 0.0), (0.0, 4.5)]),
        ({"delays": "scale", "delay_scale": 0.0}, [(0.0, 0.0), (0.0, 0.0)]),
    ],
)
def test_pauses_follow_their_own_wish_while_arrivals_come_twice_as_fast(
    wish: dict[str, object], expected: list[tuple[float, float]]
) -> None:
    fast, _ = timed(THREE, asked(time_scale=0.5, **wish), 0)
    assert moments(fast) == [1.0, 2.0, 6.0]
    assert pauses(fast) == expected


def test_a_rate_stretches_the_gaps_between_starts_and_no_pause() -> None:
    # three programs in 10 s are 0.2 a second, so a rate of 1 makes it 2 s, from 0 on
    fast, steps = timed(THREE, asked(rate_rps=1.0), 0)
    assert moments(fast) == pytest.approx([0.0, 0.4, 2.0])
    assert pauses(fast) == pauses(THREE)
    assert steps == ("starts at 1 programs/s",)


def test_drawn_starts_keep_the_order_of_programs_and_end_with_the_duration() -> None:
    constant = ArrivalSpec(process="constant", rate_rps=10.0)
    drawn, _ = timed(THREE, asked(arrivals=constant), 0)
    assert [(each.id, each.start_s) for each in drawn] == [("a", 0.0), ("b", 0.1), ("c", 0.2)]
    assert pauses(drawn) == pauses(THREE)
    short, _ = timed(THREE, asked(arrivals=constant, duration_s=0.15), 0)
    assert [each.id for each in short] == ["a", "b"]


def test_programs_that_begin_at_once_have_no_rate_to_change() -> None:
    with pytest.raises(InputError, match="begin all at once"):
        timed((program("a", 1.0), program("b", 1.0)), asked(rate_rps=1.0), 0)


def test_what_is_drawn_for_one_purpose_changes_nothing_of_another() -> None:
    drawn = [stream(5, purpose).random(1000) for purpose in PURPOSES]
    assert np.abs(np.corrcoef(drawn) - np.eye(len(PURPOSES))).max() < 5 / np.sqrt(1000)
    assert (stream(5, "arrivals").random(1000) == drawn[0]).all()
    poisson = ArrivalSpec(rate_rps=3.0)
    assert (starts(poisson, 5, count=9) == starts(poisson, 5, count=900)[:9]).all()


def conversations(tmp_path: Path) -> str:
    """A trace that says what follows what, and not when."""
    frame = pl.DataFrame(
        {
            "call_id": ["a0", "a1", "b0"],
            "program_id": ["a", "a", "b"],
            "turn": [0, 1, 0],
            "parents": [[], ["a0"], []],
            "delay_s": [None, 1.5, None],
            "input_tokens": [10, 30, 7],
            "output_tokens": [5, 5, 5],
        },
        schema_overrides={"parents": pl.List(pl.String)},
    )
    path = str(tmp_path / "trace.parquet")
    Trace.of(frame, Provenance(format="test", source="test")).write(Path(path))
    return path


def test_a_trace_without_arrivals_needs_starts_or_users(tmp_path: Path) -> None:
    path = conversations(tmp_path)
    with pytest.raises(InputError, match="does not say when its programs start"):
        workload_of(WorkloadSpec(trace=path), 0)
    closed = workload_of(WorkloadSpec(trace=path), 0, closed=True)
    assert moments(closed.programs) == [0.0, 0.0]
    drawn = ArrivalSpec(process="constant", rate_rps=2.0)
    workload = workload_of(WorkloadSpec(trace=path, arrivals=drawn), 0)
    assert [(each.id, each.start_s) for each in workload.programs] == [("a", 0.0), ("b", 0.5)]
    assert workload.programs[0].calls[1].delay_s == 1.5
    assert workload.provenance.steps[-1] == "starts drawn: constant"


def test_a_trace_that_is_too_short_for_the_time_asked_is_said(tmp_path: Path) -> None:
    drawn = ArrivalSpec(process="constant", rate_rps=2.0)
    spec = WorkloadSpec(trace=conversations(tmp_path), arrivals=drawn, duration_s=60.0)
    assert "All 2 programs of the trace start within 0.5 s of the 60.0 s." in (
        workload_of(spec, 0).doubts
    )
