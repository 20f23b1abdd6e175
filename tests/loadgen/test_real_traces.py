"""Real traces, end to end, against a server whose truth is known."""

import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from servescope.loadgen import runner
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.null_server import Served, serving
from servescope.traces import load

DATA = Path(__file__).parents[3] / "shared" / "data"

TRACES = {
    "azure": ("azure_llm_2023/AzureLLMInferenceTrace_code.csv", {"calls": 300, "time_scale": 0.05}),
    "mooncake": ("mooncake/conversation_trace.head400.jsonl", {"calls": 80, "time_scale": 0.3}),
    "burstgpt": ("burstgpt/BurstGPT_3.head280.csv", {"calls": 120, "time_scale": 0.0005}),
    "weka": ("weka_agentic/trace_0056.json.zst", {"time_scale": 0.002}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACES)
def test_a_real_trace_arrives_as_it_was_recorded(name: str, tmp_path: Path) -> None:
    file, options = TRACES[name]
    if not (DATA / file).exists():
        pytest.skip(f"needs ../shared/data/{file}")
    fields: dict[str, Any] = options
    with serving(0.02, 0.005) as url:
        experiment = Experiment(
            name=name,
            workload=WorkloadSpec(trace=str(DATA / file), **fields),
            endpoint=EndpointSpec(base_url=url, workers=2),
        )
        run = runner.replay(experiment, tmp_path / "run")
        with urllib.request.urlopen(f"{url}/truth") as said:
            truth = {one.name: one for one in msgspec.json.decode(said.read(), type=list[Served])}
    calls = run.trace.collect()
    assert (calls["status"] == "ok").all()
    both = calls.join(run.plan, on="call_id", suffix="_planned")
    assert (both["input_tokens"] == both["input_tokens_planned"]).all()
    assert (both["output_tokens"] == both["output_tokens_planned"]).all()

    # the plan keeps the trace's own moments, and no call reached the server before its own
    recorded = load(str(DATA / file)).collect().drop_nulls("arrival_s")
    arrivals = dict(recorded.select("call_id", "arrival_s").iter_rows())
    roots = calls.filter(pl.col("parents").list.len() == 0)
    scale = fields["time_scale"]
    wanted = [arrivals[call] * scale for call in roots["call_id"]]
    assert roots["due_s"].to_list() == pytest.approx(wanted, abs=1e-6)
    zero_s = run.info.zero_monotonic_s
    assert zero_s is not None
    arrived = np.array([truth[call].arrived_s - zero_s for call in roots["response_id"]])
    assert (arrived >= roots["due_s"].to_numpy()).all()

    # and every other call waited for its parents, and for its pause
    ends = dict(calls.select("call_id", "end_s").iter_rows())
    for row in calls.filter(pl.col("parents").list.len() > 0).iter_rows(named=True):
        ready_s = max(ends[parent] for parent in row["parents"])
        assert row["ready_s"] == pytest.approx(ready_s)
        assert row["sent_s"] >= ready_s + (row["delay_s"] or 0.0)
    found = run.info.client["arrivals"]
    if found:
        assert abs(found["rate_off"]) < 0.05
