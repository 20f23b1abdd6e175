"""The fit of the cost model finds the coefficients that made the measures, and a real server's."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from servescope.engine import find_gpu, find_model, find_overhead, make_system
from servescope.engine.calibrate import (
    Measured,
    Part,
    Setup,
    calibrate,
    halves,
    measured,
    serve_again,
)
from servescope.traces import Run
from servescope.traces.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "calibration" / "raw" / "main.requests.jsonl.gz"


def setup(gpu: str = "H100", overhead: str = "plain", system: str = "vllm_v1") -> Setup:
    return Setup(
        find_model("Llama-3.1-8B"), find_gpu(gpu), find_overhead(overhead), make_system(system)
    )


def calls(rate: float, count: int, seed: int) -> list[Measured]:
    rng = np.random.default_rng(seed)
    sent_s = np.cumsum(rng.exponential(1 / rate, count))
    prompts, answers = rng.integers(50, 4000, count), rng.integers(2, 200, count)
    return [Measured(*row, ()) for row in zip(sent_s.tolist(), prompts, answers, strict=True)]


def whole(name: str, served: list[Measured]) -> Part:
    return Part(name, served, slice(None))


def test_coefficients_that_made_the_measures_are_found() -> None:
    """Prompts tell of `mfu`, answers in small and large batches of the rest."""
    truth = setup().with_coefficients((0.45, 0.6, 4e-3, 6e-5, 0.0))
    made = [serve_again(truth, calls(rate, 100, seed)) for seed, rate in enumerate((0.5, 2.0, 4.0))]
    seen = [whole("slow", made[0]), whole("fast", made[2])]
    found = calibrate(setup(), seen, [whole("between", made[1])])
    assert found.fitted["mfu"] == pytest.approx(0.45, rel=0.05)
    assert found.fitted["step_s"] == pytest.approx(4e-3, rel=0.15)
    assert max(abs(error.relative) for error in found.held_out) < 0.05
    assert found.began == dict(
        zip(found.began, setup().coefficients, strict=True)
    )  # and the user sees how far it went


def test_a_fit_that_begins_at_the_truth_stays_there() -> None:
    made = serve_again(setup(), calls(4.0, 100, 0))
    found = calibrate(setup(), [whole("a", made)], [])
    assert list(found.fitted.values()) == pytest.approx(setup().coefficients, rel=1e-3, abs=1e-9)
    assert max(abs(error.relative) for error in found.seen) < 1e-3


def test_halves_are_served_whole_and_compared_apart() -> None:
    made = serve_again(setup(), calls(4.0, 60, 0))
    first, second = halves("run", made)
    assert first.calls is second.calls
    assert [*first.calls[first.kept], *second.calls[second.kept]] == made
    assert first.name == "run, first half"


def test_too_few_calls_are_no_fit() -> None:
    with pytest.raises(InputError, match="has 5 answered calls; a fit needs 20"):
        whole("run", serve_again(setup(), calls(4.0, 5, 0)))


@pytest.mark.skipif(not SHARED.exists(), reason="needs the measurements in ../shared/calibration")
def test_a_real_server_is_fitted_from_what_its_clients_saw() -> None:
    """vLLM 0.26 on an H200, from figures of another card and no hint of its own: held out rates."""
    loads: dict[str, list[Measured]] = {}
    with gzip.open(SHARED, "rt") as file:
        for row in map(json.loads, file):
            if row["stage"] == "poisson:chunk2048" and row["status"] == 200:
                sent_s = float(row["t0"])
                chunk_s = [sent_s + time for time in row["times"]]
                loads.setdefault(str(row["tag"]), []).append(
                    Measured(sent_s, row["n_in"], row["n_out"], chunk_s)
                )
    parts = {}
    for rate, load in loads.items():
        load.sort(key=lambda call: call.sent_s)
        parts[rate] = whole(rate, load)
    begins = Setup(
        find_model("Llama-3.1-8B"), find_gpu("H200"), find_overhead("vllm-0.26"),
        make_system("vllm_v1", {"max_num_batched_tokens": "2048"}),
    ).with_coefficients((0.4, 0.5, 2e-3, 0.0, 0.0))  # fmt: skip
    found = calibrate(begins, [parts["10"], parts["16"]], [parts["22"]])
    errors = {(error.measure, error.quantile): error.relative for error in found.held_out}
    assert abs(errors["ttft", 0.5]) < 0.15
    assert abs(errors["ttft", 0.99]) < 0.15
    assert abs(errors["tpot", 0.5]) < 0.1
    assert found.fitted["mfu"] == pytest.approx(0.68, rel=0.1)  # what its steps were fitted to


def test_calls_are_read_from_a_run(tmp_path: Path) -> None:
    from servescope.loadgen.experiment import EngineSpec, Experiment, SyntheticSpec, WorkloadSpec
    from servescope.loadgen.simulate import simulate

    load = WorkloadSpec(synthetic=SyntheticSpec(input_tokens=100, output_tokens=5, programs=30))
    experiment = Experiment(name="a", workload=load, engine=EngineSpec(system="vllm_v1"))
    simulate(experiment, tmp_path / "run")
    read = measured(Run.open(tmp_path / "run"))
    assert len(read) == 30
    assert (read[0].input_tokens, read[0].output_tokens, len(read[0].chunk_s)) == (100, 5, 5)
    assert serve_again(setup(), read)[0].chunk_s == pytest.approx(read[0].chunk_s)
