"""Measuring this machine is slow and says nothing that a test could demand; what is said is."""

from pathlib import Path

import msgspec
import pytest

from servescope.loadgen import calibration
from servescope.loadgen.calibrate import calibrate, step_of
from servescope.loadgen.calibration import Calibration, Step
from servescope.loadgen.experiment import EndpointSpec
from servescope.loadgen.null_server import Served
from servescope.loadgen.runner import workers_for
from servescope.traces import Run, RunInfo
from servescope.traces.errors import InputError
from servescope.traces.run import frame_of_rows


def step(token_rate: float, error: float) -> Step:
    return Step(
        rate_rps=token_rate / 128, token_rate=token_rate, delivered=1.0, ttft_p50_error_s=0.0,
        ttft_p99_error=error / 2, gap_p99_error=-error, stamp_p99_s=0.0, lag_p99_s=0.0,
        cpu_share=0.5, validity="valid",
    )  # fmt: skip


def machine(*steps: Step, workers: int = 1) -> Calibration:
    return Calibration(
        host=calibration.host(), version="0", workers=workers, unpaced_rps=1000.0,
        unpaced_token_rate=64_000.0, steps=steps,
    )  # fmt: skip


def test_the_sustained_rate_is_the_last_before_the_first_bad_one() -> None:
    found = machine(step(100, 0.01), step(200, 0.1), step(400, 0.3), step(800, 0.05))
    assert found.sustained is not None
    assert found.sustained.token_rate == 200
    assert machine(step(100, 0.2)).sustained is None
    assert found.error_at(300) == pytest.approx(0.2)


def test_errors_are_those_between_what_was_said_and_the_truth(tmp_path: Path) -> None:
    """Sent at 10 s, arrived at 10.001; tokens at 10.05 and 10.06 stamped 2 and 5 ms late."""
    info = RunInfo(
        name="r", system="s", clock="real", version="0", started="", seed=0,
        zero_monotonic_s=10.0, client={"cpu_share": 0.25}, validity="valid",
    )  # fmt: skip
    rows = [
        {
            "call_id": str(n), "program_id": str(n), "due_s": float(n), "admitted_s": float(n),
            "dispatched_s": n + 0.001, "sent_s": float(n), "chunk_s": [n + 0.052, n + 0.065],
            "response_id": f"null-{n}", "status": "ok",
        }
        for n in range(3)
    ]  # fmt: skip
    plan = frame_of_rows(rows).select(
        "call_id", "program_id", "turn", "parents", "delay_s", "input_tokens", "due_s"
    )
    run = Run.create(tmp_path / "r", {}, plan, info)
    run.append(frame_of_rows(rows))
    truth = {f"null-{n}": Served(f"null-{n}", n + 10.001, [n + 10.05, n + 10.06]) for n in range(3)}
    found = step_of(run, truth, rate=1.0)
    assert found.ttft_p50_error_s == pytest.approx(0.003)
    assert found.ttft_p99_error == pytest.approx(0.052 / 0.049 - 1)
    assert found.gap_p99_error == pytest.approx(0.3)
    assert found.stamp_p99_s == pytest.approx(0.005, rel=0.01)
    assert found.lag_p99_s == pytest.approx(0.001)
    assert found.delivered == pytest.approx(1.0)


def test_a_calibration_is_this_machines_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a" / "c.json"
    assert calibration.kept(path) is None
    calibration.keep(machine(step(100, 0.0)), path)
    assert calibration.kept(path) == machine(step(100, 0.0))
    other = msgspec.structs.replace(machine(step(100, 0.0)), host={"processor": "another"})
    calibration.keep(other, path)
    assert calibration.kept(path) is None
    path.write_text("{")
    with pytest.raises(InputError, match="is no calibration"):
        calibration.kept(path)


def test_a_calibrated_machine_starts_as_many_workers_as_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("servescope.loadgen.runner._cores", lambda: 8)
    spec = EndpointSpec(base_url="http://h:1")
    slow = machine(step(10_000, 0.05), step(20_000, 0.5))
    assert workers_for(spec, 45_000.0, None) == 4
    assert workers_for(spec, 45_000.0, slow) == 5
    assert workers_for(spec, 1e9, slow) == 7  # one core is left to the conductor
    assert workers_for(spec, None, slow) == 1
    many = msgspec.structs.replace(spec, users=1000)
    assert workers_for(many, None, slow) == 4


@pytest.mark.slow
def test_a_machine_is_measured_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servescope.loadgen.calibrate.RATES", (20.0, 40.0))
    seen: list[Step] = []
    found = calibrate(workers=1, seconds=1.0, on_step=seen.append)
    assert list(found.steps) == seen
    assert 1 <= len(seen) <= 2
    assert found.unpaced_rps > 0
    assert found.steps[0].delivered == pytest.approx(1.0, abs=0.1)
