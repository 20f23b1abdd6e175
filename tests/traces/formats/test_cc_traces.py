"""Flattened Claude Code sessions: each on its own clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from servescope.traces import load

SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "cc_traces.jsonl"


def test_calls_of_a_session_follow_one_another() -> None:
    calls = load(SAMPLE).collect()
    assert calls["arrival_s"].to_list() == [0.126, 17.9, 0.0]
    assert calls["parents"].to_list() == [[], ["1"], []]
    assert calls["delay_s"].to_list() == [0.0, 11.149, None]
    assert calls["observed_ttft_s"].to_list() == [4.667, None, None]


def test_the_published_lines(original: Any) -> None:
    calls = load(original("cc_traces_normalized/traces_head.jsonl.gz")).collect()
    assert (calls.height, calls["program_id"].n_unique()) == (761, 7)
    prompts = np.percentile(calls["input_tokens"], [50, 90, 99, 100], method="nearest")
    assert prompts.tolist() == [168165, 294626, 384695, 398002]
    answers = np.percentile(calls["output_tokens"], [50, 90, 99, 100], method="nearest")
    assert answers.tolist() == [345, 1902, 7314, 11983]
