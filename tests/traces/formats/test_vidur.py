from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "vidur.csv"
HEAD = "arrived_at,num_prefill_tokens,num_decode_tokens\n"


def test_the_sample_is_read() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert calls["arrival_s"].to_list() == [0.0, 0.0508, 4.1439999]
    assert calls["input_tokens"].to_list() == [4808, 3180, 110]
    assert calls["output_tokens"].to_list() == [10, 8, 27]
    assert "status" not in calls.columns
    assert (trace.provenance.format, trace.provenance.units) == ("vidur", "seconds")


def test_it_is_the_azure_trace_of_the_same_requests(original: Callable[[str], Path]) -> None:
    ours = load(original("vidur/splitwise_code.csv.gz")).collect()
    azure = load(original("azure_llm_2023/AzureLLMInferenceTrace_code.csv")).collect()
    assert ours.height == 8819
    for column in ("input_tokens", "output_tokens"):
        assert ours[column].equals(azure[column])
    gaps = [np.diff(calls["arrival_s"].to_numpy()) for calls in (ours, azure)]
    assert np.abs(gaps[0] - gaps[1]).max() < 1e-6


def test_the_unit_may_be_named(a_file: Write) -> None:
    trace = load(a_file(HEAD + "1500,5,1\n2000,5,1\n"), unit="ms")
    assert trace.collect()["arrival_s"].to_list() == [0.0, 0.5]


def test_a_row_without_a_time_is_named(a_file: Write, tmp_path: Path) -> None:
    path = a_file(HEAD + "0,5,1\nsoon,5,1\n")
    with pytest.raises(BadRow, match="line 3: 'arrived_at' is 'soon', not a moment"):
        load(path)
    kept = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert kept.provenance.rows_dropped == {"arrived_at is no time": 1}
    assert kept.collect().height == 1


def test_negative_tokens_are_refused(a_file: Write) -> None:
    with pytest.raises(BadRow, match="line 2: input_tokens is -5"):
        load(a_file(HEAD + "0,-5,1\n"))
