import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow, NotATrace
from servescope.traces.formats.gather import MOVED
from servescope.traces.formats.links import GAPS

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "lmcache"
START = 1_760_587_700_000_000


def a_line(after_us: int = 0, **fields: object) -> str:
    line = {"timestamp": START + after_us, "input": "in", "output": "out", "session_id": "s"}
    return json.dumps({**line, **fields}) + "\n"


def texts(path: Path, **options: object) -> dict[str, list[str | None]]:
    contents = load(path, **options).tables["contents"].collect()  # type: ignore[arg-type]
    return contents.select("input_text", "output_text").to_dict(as_series=False)


@pytest.mark.parametrize(
    ("folder", "calls", "sessions", "p50_s", "p99_s"),
    [
        ("magagent", 392, 13, 5.722084, 77.296953),
        ("miniswe", 206, 10, 1.116897, 2.669491),
        ("taubench", 249, 12, 0.317792, 1.35108),
    ],
)
def test_gaps_inside_sessions(
    original: Callable[[str], Path],
    folder: str,
    calls: int,
    sessions: int,
    p50_s: float,
    p99_s: float,
) -> None:
    """The published p50 of 5.6, 1.08 and 0.32 s are of all 70 sessions; 35 of them are at hand."""
    trace = load(original(f"lmcache_agent_trace/{folder}"))
    frame = trace.collect()
    assert (frame.height, frame["program_id"].n_unique()) == (calls, sessions)
    gaps = frame["delay_s"].drop_nulls().to_numpy()
    assert len(gaps) == calls - sessions
    assert np.percentile(gaps, [50, 99], method="nearest") == pytest.approx([p50_s, p99_s])
    assert MOVED in trace.provenance.doubts


def test_all_sessions_are_one_trace(original: Callable[[str], Path]) -> None:
    trace = load(original("lmcache_agent_trace"))
    frame = trace.collect()
    known = trace.provenance
    assert (frame.height, known.files, known.rows_read, known.rows_kept) == (847, 35, 847, 847)
    assert frame["arrival_s"].is_sorted()
    assert frame["input_tokens"].null_count() == frame["output_tokens"].null_count() == 847
    assert "status" not in frame.columns
    assert frame.group_by("program_id").agg(pl.col("turn").sort())["turn"].list.first().max() == 0
    assert "39 calls have an empty input: it was not kept." in known.doubts
    assert any(doubt.startswith("147 calls have an empty output") for doubt in known.doubts)
    assert any("1 files are in no known format" in doubt for doubt in known.doubts)
    assert (known.licence, known.clock, known.tick_s) == ("Apache-2.0", "utc", 1e-6)


def test_a_microsecond_is_kept(a_file: Write) -> None:
    trace = load(a_file(a_line() + a_line(1) + a_line(1_000_001)))
    assert trace.collect()["arrival_s"].to_list() == [0.0, 1e-6, 1.000001]
    assert trace.provenance.t0 == f"{START} us since 1970-01-01 UTC"
    assert trace.provenance.t0_ns == START * 1000


def test_turns_follow_the_time_and_not_the_lines() -> None:
    """The second and third line of the first session are swapped; the sessions do not mix."""
    trace = load(SAMPLE)
    frame = trace.collect()
    assert frame["source_row"].to_list() == [3, 5, 4, 6, 1, 2]
    assert frame["turn"].to_list() == [0, 1, 2, 3, 0, 1]
    assert frame["parents"].to_list() == [[], ["3"], ["5"], ["4"], [], ["1"]]
    assert frame["delay_s"].to_list() == pytest.approx(
        [None, 0.283541, 0.825325, 0.536891, None, 0.37804]
    )
    assert frame["delay_kind"].to_list() == [None, *["unknown"] * 3, None, "unknown"]
    assert trace.provenance.inferred["delay_s"] == GAPS


def test_an_empty_text_was_not_kept(a_file: Write) -> None:
    path = a_file(a_line(output="") + a_line(1, input=""))
    assert texts(path) == {"input_text": ["in", None], "output_text": [None, "out"]}
    counted = load(path, tokenizer="estimate").collect()
    assert counted["input_tokens"].to_list() == [1, None]
    assert counted["output_tokens"].to_list() == [None, 1]


def test_another_unit_must_be_named(a_file: Write) -> None:
    path = a_file(a_line(timestamp=1_760_587_700) + a_line(timestamp=1_760_587_702))
    with pytest.raises(
        BadRow, match=r"line 1: 'timestamp' is 1760587700, not microseconds.*--unit"
    ):
        load(path)
    trace = load(path, unit="s")
    assert trace.collect()["arrival_s"].to_list() == [0.0, 2.0]
    assert (trace.provenance.units, trace.provenance.tick_s) == ("epoch s", 1.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_line(timestamp="1"), r"Expected `int`, got `str` - at `\$\.timestamp`"),
        (a_line(timestamp=1.5), r"Expected `int`, got `float` - at `\$\.timestamp`"),
        (a_line(timestamp=10**18), r"'timestamp' is 1000000000000000000"),
        (a_line(output=None), r"got `null` - at `\$\.output`"),
        (a_line(input=[]), r"got `array` - at `\$\.input`"),
        ('{"timestamp": 1}\n', "missing required field `input`"),
        ("rubbish\n", "JSON is malformed"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"trace\.csv, line 3: .*{message}"):
        load(a_file(a_line() + "\n" + line))


def test_bad_lines_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    aside = tmp_path / "r.jsonl"
    trace = load(a_file(a_line() + a_line(output=1) + a_line(5)), on_error="skip", rejected=aside)
    assert trace.collect()["source_row"].to_list() == [1, 3]
    assert (trace.provenance.rows_read, trace.provenance.rows_dropped) == (3, {"field output": 1})
    assert "line 2" in json.loads(aside.read_text())["where"]


def test_more_fields_are_another_format(a_file: Write) -> None:
    with pytest.raises(NotATrace):
        load(a_file(a_line(model="m")))
