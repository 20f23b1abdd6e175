import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from servescope.traces import Trace, inspect, load
from servescope.traces.errors import BadRow
from servescope.traces.formats import BUILT_IN
from servescope.traces.formats.gather import MOVED

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "ragpulse"
SECONDS = "Arrivals are stamped in whole seconds: nothing finer than 2 s can be said of them."
ALONE = "The files of component lengths are not there: block_lengths is missing."


def a_line(timestamp: object = "0", session: str | None = "a", **parts: object) -> str:
    ids = {"sys_prompt": [10], "passages_ids": [], "history": [], "web_search": []}
    line = {"timestamp": timestamp, "input_length": 90, "output_length": 3, "session_id": session}
    given = {key: parts.pop(key) for key in list(parts) if key in line}
    return json.dumps({**line, "hash_ids": {**ids, "user_input": [40], **parts}, **given}) + "\n"


def statistics(trace: Trace, column: str) -> list[float]:
    values = trace.collect()[column].to_numpy()
    ranks = np.percentile(values, [50, 90, 99, 100], method="nearest")
    return [round(float(values.mean()), 1), *map(float, ranks)]


@pytest.mark.parametrize("name", ["ragpulse", "ragpulse/0_trace.part1.jsonl.gz"])
def test_the_first_stream_has_the_published_statistics(
    original: Callable[[str], Path], name: str
) -> None:
    trace = load(original(name))
    calls = trace.collect()
    quality = inspect(trace)
    assert (quality.calls, quality.programs, quality.span_s) == (3800, 2215, 604371.0)
    assert quality.calls / quality.span_s == pytest.approx(0.0063, abs=0.00005)
    gaps = np.diff(calls["arrival_s"].to_numpy())
    assert gaps.std(ddof=1) / gaps.mean() == pytest.approx(3.16, abs=0.005)
    assert statistics(trace, "input_tokens") == [3020.8, 3166, 3922, 5269, 6467]
    assert statistics(trace, "output_tokens") == [255.9, 201, 508, 795, 1843]
    turns = calls.group_by("program_id").len()["len"].to_numpy()
    assert turns.mean() == pytest.approx(1.72, abs=0.005)
    assert np.percentile(turns, 90, method="nearest") == 3
    assert turns.max() == 25
    assert trace.provenance.doubts == (SECONDS,)
    assert trace.provenance.rows_read == 3800


def test_ids_of_all_kinds_are_one_series_and_lengths_add_up(
    original: Callable[[str], Path],
) -> None:
    trace = load(original("ragpulse"))
    lengths = trace.tables["block_lengths"].collect()
    assert lengths.height == 6898 + 8302 + 4910 + 6292 + 522
    assert sorted(lengths["block"]) == list(range(lengths.height))
    tokens = dict(zip(lengths["block"], lengths["tokens"], strict=True))
    over = {
        asked - sum(tokens[block] for block in blocks)
        for asked, blocks in trace.collect().select("input_tokens", "prefix_blocks").iter_rows()
    }
    assert over == {6, 7, 8, 9, 10, 11, 12}


@pytest.mark.parametrize("path", [SAMPLE, SAMPLE / "0_trace.jsonl"])
def test_components_are_blocks_in_the_order_of_the_prompt(path: Path) -> None:
    trace = load(path)
    calls = trace.collect()
    assert calls["prefix_blocks"].to_list() == [
        [10, 11, 3, 1, 20, 40],
        [10, 11, 20, 30, 41],
        [10, 11, 3, 41],
    ]
    assert calls["arrival_s"].to_list() == [0.0, 11.0, 43.0]
    assert calls["parents"].to_list() == [[], [], ["1"]]
    assert calls["turn"].to_list() == [0, 0, 1]
    assert calls["delay_s"].to_list() == [None, None, 43.0]
    assert calls["delay_kind"].to_list() == [None, None, "user"]
    assert calls["output_tokens"].to_list() == [192, 86, 0]
    known = trace.provenance
    assert (known.block_tokens, known.block_rule, known.block_scope) == (
        None,
        "component",
        "global",
    )
    assert known.t0 == "82 s after the start of the source's trace"
    assert known.doubts == (SECONDS,)
    lengths = trace.tables["block_lengths"].collect()
    assert sorted(lengths.rows()) == [
        (1, "passages_ids", 30),
        (3, "passages_ids", 40),
        (10, "sys_prompt", 20),
        (11, "sys_prompt", 12),
        (20, "history", 7),
        (30, "web_search", 15),
        (40, "user_input", 3),
        (41, "user_input", 9),
    ]


def test_a_folder_is_one_trace_of_all_its_files() -> None:
    folder, alone = load(SAMPLE).provenance, load(SAMPLE / "0_trace.jsonl").provenance
    assert (folder.files, alone.files) == (6, None)
    assert folder.sha256 != alone.sha256


def test_without_lengths_the_trace_says_so(a_file: Write) -> None:
    trace = load(a_file(a_line()))
    assert trace.tables == {}
    assert trace.provenance.doubts == (SECONDS, ALONE)


def test_lengths_that_do_not_add_up_are_counted(tmp_path: Path) -> None:
    """20 + 3 tokens leave 67 of 90 unexplained; the second row has a component of no length."""
    shutil.copytree(SAMPLE, tmp_path / "r")
    (tmp_path / "r" / "0_trace.jsonl").write_text(
        a_line() + a_line(user_input=[77]) + a_line(input_length=29)
    )
    assert load(tmp_path / "r").provenance.doubts == (
        SECONDS,
        "In 1 rows input_length is not the sum of the components and 6 to 12 tokens between them.",
        "In 1 rows the length of a component is not known.",
    )


def test_two_streams_end_to_end_are_merged_by_time(a_file: Write) -> None:
    lines = a_line("10") + a_line("8000", "b") + a_line("10", "c") + a_line("7000") + "\n"
    trace = load(a_file(lines, "0.jsonl"))
    calls = trace.collect()
    assert calls["source_row"].to_list() == [1, 3, 4, 2]
    assert calls["program_id"].to_list() == ["a", "c", "a", "b"]
    assert calls["delay_s"].to_list() == [None, None, 6990.0, None]
    moved, seconds, fell, alone = trace.provenance.doubts
    assert (moved, seconds, alone) == (MOVED, SECONDS, ALONE)
    assert fell.startswith("Time falls back at ")
    assert fell.endswith(
        "0.jsonl, line 3: the source is 2 streams over the same time laid end to end; they are"
        " merged by time."
    )


def test_a_little_disorder_is_no_second_stream(a_file: Write) -> None:
    trace = load(a_file(a_line("8000") + a_line("4400")))
    assert trace.provenance.doubts == (MOVED, SECONDS, ALONE)


def test_a_file_of_lengths_alone_is_no_trace() -> None:
    with pytest.raises(BadRow, match=r"holds the lengths of components and no calls.*0_trace"):
        load(SAMPLE / "3_history.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_line("soon"), "its timestamp 'soon' is no number of seconds"),
        (a_line(None), r"got `null` - at `\$\.timestamp`"),
        (a_line(history=[10]), "id 10 is a component of history here and of sys_prompt elsewhere"),
        (a_line(history=[-1]), "prefix_blocks holds -1"),
        (a_line(history="x"), r"Expected `array`, got `str` - at `\$\.hash_ids\.history`"),
        (a_line(history=None), r"got `null` - at `\$\.hash_ids\.history`"),
        (a_line(output_length=-4), "output_tokens is -4"),
        ('{"timestamp": "1"}\n', "missing required field `input_length`"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"t\.jsonl, line 2: .*{message}"):
        load(a_file(a_line() + line, "t.jsonl"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"history_id": 20, "token_length": 1}\n', "component 20 came before, as history"),
        ('{"history_id": 10, "token_length": 1}\n', "component 10 came before, as sys_prompt"),
        ('{"token_length": 1}\n', "does not say which component"),
        ('{"history_id": 5, "passage_id": 6, "token_length": 1}\n', "does not say which"),
        ('{"history_id": 5, "token_length": -1}\n', "no number of 0 or more"),
        ('{"history_id": -5, "token_length": 1}\n', "no number of 0 or more"),
        ('{"history_id": 5}\n', "missing required field `token_length`"),
    ],
)
def test_a_length_that_makes_no_sense_is_named(tmp_path: Path, line: str, message: str) -> None:
    shutil.copytree(SAMPLE, tmp_path / "r")
    file = tmp_path / "r" / "3_history.jsonl"
    file.write_text(file.read_text() + line)
    with pytest.raises(BadRow, match=rf"3_history\.jsonl, line 2: .*{message}"):
        load(tmp_path / "r")


def test_bad_lines_may_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    lines = a_line() + a_line("soon") + a_line(history=[10]) + a_line("5")
    trace = load(a_file(lines), on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.collect()["parents"].to_list() == [[], ["1"]]
    assert trace.provenance.rows_dropped == {"timestamp is no number": 1, "id of two kinds": 1}


@pytest.mark.parametrize("file", sorted(SAMPLE.iterdir()), ids=lambda file: file.name)
def test_no_other_format_claims_its_files(file: Path) -> None:
    head = file.read_bytes()
    assert [name for name, form in BUILT_IN.items() if form.sniff(head)] == ["ragpulse"]
