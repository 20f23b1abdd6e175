from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow
from servescope.traces.formats.aibrix import ADDED

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "aibrix.jsonl"


def test_all_requests_of_an_instant_arrive_together() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert calls["arrival_s"].to_list() == [0.0, 0.0, 4.3]
    assert calls["call_id"].to_list() == ["1/0", "1/1", "3/0"]
    assert calls["input_tokens"].to_list() == [3, 1, 2]
    assert calls["output_tokens"].to_list() == [5, 2, 9]
    assert trace.tables["contents"].collect()["input_text"].to_list() == [
        "one two three",
        "one",
        "one two",
    ]
    assert "parents" not in calls.columns


def test_a_session_is_a_chain(a_file: Write) -> None:
    line = (
        '{"timestamp": %d, "requests": [{"prompt": "a", "prompt_length": 1, '
        '"output_length": 2, "session_id": 7}]}\n'
    )
    trace = load(a_file(line % 0 + line % 2500))
    calls = trace.collect()
    assert calls["program_id"].to_list() == ["7", "7"]
    assert calls["parents"].to_list() == [[], ["1/0"]]
    assert calls["delay_s"].to_list() == [None, 2.5]
    assert ADDED in trace.provenance.doubts


def test_a_wrong_type_is_named(a_file: Write) -> None:
    with pytest.raises(BadRow, match=r"line 1.*requests"):
        load(a_file('{"timestamp": 0, "requests": [{"Prompt Length": "3", "Output Length": 5}]}\n'))


def test_the_published_workload(original: Callable[[str], Path]) -> None:
    calls = load(original("aibrix/ten_requests.jsonl")).collect()
    assert calls.height == 10
    assert calls["arrival_s"].max() == pytest.approx(4.3, abs=0.05)
