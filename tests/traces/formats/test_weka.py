"""WEKA's sessions: sub-agents on the clock of their session, and who waits for whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servescope.traces import load

SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "weka.json"


def test_a_sub_agent_runs_on_the_clock_of_its_session_and_is_awaited() -> None:
    calls = load(SAMPLE).collect()
    assert calls["arrival_s"].to_list() == [0.0, 2.0, 4.5, 7.0]
    assert calls["parents"].to_list() == [[], ["1"], ["2"], ["1", "3"]]
    # The sub-agent ended at 6 s, so the parent's tool took 1 s more, not the 5.5 recorded.
    assert calls["delay_s"].to_list() == [0.0, 0.0, 1.5, 1.0]
    assert calls["delay_kind"].to_list() == ["user", "user", "tool", "tool"]
    assert calls["call_class"].to_list() == [None, "Explore", "Explore", None]
    assert calls["observed_ttft_s"].to_list() == [None, None, None, 0.5]


@pytest.mark.parametrize("changed", [("completed", "async_launched"), ('"t": 6.0', '"t": 7.5')])
def test_nothing_waits_for_a_sub_agent_that_ran_on(
    tmp_path: Path, changed: tuple[str, str]
) -> None:
    path = tmp_path / "one.json"
    path.write_text(SAMPLE.read_text().replace(*changed))
    calls = load(path).collect()
    assert calls["parents"].to_list()[-1] == ["1"]
    assert calls["delay_s"].to_list()[-1] == 5.5


def test_the_published_sessions(original: Any) -> None:
    trace = load(Path(original("weka_agentic/trace_0012.json.zst")).parent)
    calls = trace.frame.select("program_id", "input_tokens", "output_tokens", "observed_e2e_s")
    table = calls.collect()
    assert (table.height, table["program_id"].n_unique()) == (24_108, 360)
    assert trace.provenance.arrival_basis == "program"
    prompts = np.percentile(table["input_tokens"].drop_nulls(), [50, 90, 99, 100], method="nearest")
    assert [round(value / 1000) for value in prompts] == [107, 251, 492, 894]
    answers = table["output_tokens"].drop_nulls()
    shares = np.percentile(answers, [50, 90, 99, 100], method="nearest")
    # The statistics published beside the files say 16,682 for the last.
    assert shares.tolist() == [215, 881, 3625, 16681]
    assert np.median(table["observed_e2e_s"].drop_nulls()) == pytest.approx(6.1, abs=0.05)
