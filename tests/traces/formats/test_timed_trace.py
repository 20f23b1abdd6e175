import json
from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats import BUILT_IN, Options, Source
from servescope.traces.formats.source import File

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "timed_trace.jsonl"
SECONDS = (
    "The file does not say its unit of time; seconds are taken, as vLLM takes them unless it is"
    " told otherwise."
)


def a_line(timestamp: object = 0, inputs: int = 33, blocks: int = 3, **fields: object) -> str:
    line = {"timestamp": timestamp, "input_length": inputs, "output_length": 5}
    return json.dumps({**line, "hash_ids": list(range(blocks)), **fields}) + "\n"


def test_vllms_defaults_are_seconds_and_blocks_of_16() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert calls["arrival_s"].to_list() == [0.0, 0.25, 3.0]
    assert calls["input_tokens"].to_list() == [33, 32, 1]
    assert calls["output_tokens"].to_list() == [5, 7, 1]
    assert calls["prefix_blocks"].to_list() == [[0, 1, 2], [0, 1], [9]]
    known = trace.provenance
    assert (known.format, known.block_tokens, known.block_rule) == ("timed_trace", 16, "ceil")
    assert (known.units, known.clock, known.tick_s) == ("seconds", "source", None)
    assert known.doubts == (SECONDS,)


def test_the_user_may_know_better(a_file: Write) -> None:
    lines = a_line(0, 9, 1) + a_line(1500, 8, 1)
    trace = load(a_file(lines), format="timed_trace", unit="ms", block_tokens=8, block_rule="floor")
    assert trace.collect()["arrival_s"].to_list() == [0.0, 1.5]
    assert (trace.provenance.block_tokens, trace.provenance.block_rule) == (8, "floor")
    assert trace.provenance.doubts == ()


def test_fields_may_have_other_labels(a_file: Write) -> None:
    """As with vLLM's --timed-trace-label-timestamp ts."""
    lines = '{"ts": 0, "input_length": 12, "output_length": 3, "ids": [7]}\n'
    columns = {"arrival_s": "ts", "prefix_blocks": "ids"}
    trace = load(a_file(lines), format="timed_trace", columns=columns)
    assert trace.collect()["prefix_blocks"].to_list() == [[7]]
    with pytest.raises(BadRow, match="missing required field `hash_ids`"):
        load(a_file(lines), format="timed_trace", columns={"arrival_s": "ts"})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"status": "ok"}, "A timed trace has no status"),
        ({"arrival_s": "hash_ids"}, "cannot be the same field"),
    ],
)
def test_a_label_that_cannot_be_is_refused(
    a_file: Write, columns: dict[str, str], message: str
) -> None:
    path = a_file(a_line())
    source = Source((File(path, "t"),), "t", Options(columns=columns))
    with pytest.raises(InputError, match=message):
        BUILT_IN["timed_trace"].read(source)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_line(blocks=2), "2 prefix blocks do not fit 33 tokens in blocks of 16"),
        (a_line("1"), r"got `str` - at `\$\.timestamp`"),
        (a_line(1e300), "is no moment in s before the year 2262"),
        (a_line(1753780607550317897), "is no moment in s before the year 2262"),
        (a_line(output_length=-2), "output_tokens is -2"),
        (a_line(hash_ids=None), r"got `null` - at `\$\.hash_ids`"),
        ('{"timestamp": 1}\n', "missing required field `input_length`"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"t\.jsonl, line 2: .*{message}"):
        load(a_file(a_line() + line, "t.jsonl"), format="timed_trace")


def test_bad_lines_may_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    path = a_file(a_line() + a_line(1e300) + a_line(2, blocks=9))
    trace = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.provenance.rows_dropped == {"timestamp is no moment": 1, "blocks do not fit": 1}
    assert trace.collect().height == 1


def test_it_is_known_from_mooncake_by_its_blocks() -> None:
    """40 tokens are one block of 512 and three of 16; 10 tokens are one of either."""
    for line, name in (
        (a_line(0, 40, 3), "timed_trace"),
        (a_line(0, 40, 1), "mooncake"),
        (a_line(0, 10, 1), "mooncake"),
        (a_line(0, 40, 3, session_id="a"), "mooncake"),
        (a_line("0", 40, 3), "gmi"),
    ):
        found = [each for each, form in BUILT_IN.items() if form.sniff(line.encode())]
        assert found == [name]
