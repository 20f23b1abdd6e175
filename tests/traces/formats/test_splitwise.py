from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "splitwise.csv"
HEAD = (
    "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n"
)


def test_the_sample_is_read() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert calls["arrival_s"].to_list() == [0.0, 0.05, 4.25]
    assert calls["call_id"].to_list() == ["0", "1", "2"]
    assert calls["client_id"].to_list() == ["0", "0", "1"]
    assert calls["input_tokens"].to_list() == [4808, 3180, 110]
    assert calls["output_tokens"].to_list() == [10, 8, 27]
    assert (trace.provenance.format, trace.provenance.doubts) == ("splitwise", ())


def test_a_batch_is_doubted(a_file: Write) -> None:
    trace = load(a_file(HEAD + "0,2,0,0.0,4,10,5\n1,2,0,1.0,1,10,5\n"))
    assert trace.collect().height == 2
    assert trace.provenance.doubts == (
        "1 requests have a batch_size above 1; each is read as one call of its sizes.",
    )


def test_a_request_to_another_kind_of_model_is_refused(a_file: Write, tmp_path: Path) -> None:
    path = a_file(HEAD + "0,1,0,0.0,1,10,5\n1,2,0,1.0,1,10,5\n")
    with pytest.raises(BadRow, match="line 2: 'request_type' is 1, which is no request to an LLM"):
        load(path)
    kept = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert kept.collect()["call_id"].to_list() == ["1"]
    assert kept.provenance.rows_dropped == {"no request to an LLM": 1}
