import csv
import io
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow
from servescope.traces.formats import source
from servescope.traces.formats.gather import MOVED

V1 = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
V3 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
)
Write = Callable[..., Path]


def summary(column: pl.Series) -> list[float]:
    """Mean, then the nearest ranks of p50, p90, p99 and max, as the published statistics do."""
    ranks = np.percentile(column.to_numpy(), [50, 90, 99, 100], method="nearest")
    return [round(float(column.to_numpy().mean()), 1), *map(float, ranks)]


def turns(*rows: str) -> str:
    """Make a v3 file of rows `second session elapsed`."""
    lines = []
    for row in rows:
        second, session, elapsed = (cell.replace("-", "") for cell in row.split())
        kind = "Conversation log" if session else "API log"
        lines.append(f"{second}.0,{session},{elapsed},GPT-4,10,5,15,{kind}\n")
    return V3 + "".join(lines)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "cv"),
    [
        ("burstgpt:sample", [520.5, 320, 1416, 1958, 2126], [276.5, 230, 570, 1421, 2019], 4.57),
        ("burstgpt:sessions", [675.7, 291, 1134, 12149, 25085], [178.3, 104, 472, 843, 1101], 2.53),
    ],
)
def test_samples_have_the_published_statistics(
    name: str, inputs: list[float], outputs: list[float], cv: float
) -> None:
    calls = load(name).collect()
    assert summary(calls["input_tokens"]) == inputs
    assert summary(calls["output_tokens"]) == outputs
    gaps = np.diff(calls["arrival_s"].to_numpy())
    assert gaps.std(ddof=1) / gaps.mean() == pytest.approx(cv, abs=0.006)
    assert (gaps == 0).mean() == pytest.approx(0.01, abs=0.005)


def test_v1_has_the_published_models_classes_and_failures() -> None:
    calls = load("burstgpt:sample").collect()
    assert calls.filter(model="GPT-4").height == 80
    assert calls.filter(call_class="api").height == 2
    assert calls.filter(call_class="conversation").height == 398
    failed = calls.filter(status="error")
    assert (failed.height, failed["input_tokens"].sum(), failed["output_tokens"].sum()) == (
        17,
        0,
        0,
    )
    assert "program_id" in calls.columns  # its group is there for the model
    assert calls["program_id"].null_count() == 400
    assert "parents" not in calls.columns


def test_v3_has_the_published_sessions() -> None:
    """100 sessions: turns mean 2.74, p50 2, p90 5, max 24; the 6 API rows have none."""
    calls = load("burstgpt:sessions").collect()
    lengths = calls.drop_nulls("program_id").group_by("program_id").len()["len"].to_numpy()
    assert (lengths.size, lengths.mean(), lengths.max()) == (100, 2.74, 24)
    assert list(np.percentile(lengths, [50, 90], method="nearest")) == [2, 5]
    alone = calls.filter(pl.col("program_id").is_null())
    assert alone["call_class"].to_list() == ["api"] * 6
    assert alone["parents"].null_count() == alone["turn"].null_count() == 6


def test_v3_pauses_are_those_of_a_reading_by_hand() -> None:
    """Think gap = stamp - (stamp + elapsed of the turn before), and it is never negative."""
    text = (files("servescope.traces") / "data" / "burstgpt_v3.csv").read_text()
    free: dict[str, tuple[str, float]] = {}
    expected: dict[str, tuple[list[str] | None, float | None, float]] = {}
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=1):
        session, stamp = row["Session ID"], float(row["Timestamp"])
        name, elapsed = str(number), float(row["Elapsed time"])
        if session in free:
            parent, end = free[session]
            expected[name] = ([parent], stamp - end, elapsed)
        else:
            expected[name] = ([] if session else None, None, elapsed)
        if session:
            free[session] = (name, stamp + elapsed)
    calls = load("burstgpt:sessions").collect()
    columns = calls.select("call_id", "parents", "delay_s", "observed_e2e_s").iter_rows()
    assert {name: (parents, delay, e2e) for name, parents, delay, e2e in columns} == expected
    pauses = calls["delay_s"].drop_nulls().to_numpy()
    assert (pauses.size, pauses.min()) == (174, 2.0)
    assert list(np.percentile(pauses, [50, 90])) == pytest.approx([119.5, 1252.7])


def test_the_first_stamp_is_kept() -> None:
    assert (load("burstgpt:sessions").provenance.t0 or "").startswith("19440110 s after 00:00")
    assert (load("burstgpt:sample").provenance.t0 or "").startswith("5 s after 00:00")


def test_rows_are_sorted_by_time_and_that_is_said(a_file: Write) -> None:
    """The last row is a copy of the first: both stay, in the order of the file."""
    rows = "9,ChatGPT,1,2,3,API log\n5,GPT-4,4,5,9,Conversation log\n9,ChatGPT,1,2,3,API log\n"
    trace = load(a_file(V1 + rows))
    calls = trace.collect()
    assert calls["source_row"].to_list() == [2, 1, 3]
    assert calls["arrival_s"].to_list() == [0.0, 4.0, 4.0]
    assert MOVED in trace.provenance.doubts
    assert (trace.provenance.t0 or "").startswith("5 s")
    assert MOVED not in load("burstgpt:sample").provenance.doubts


def test_columns_are_read_by_name_and_not_by_place(a_file: Write) -> None:
    text = "Log Type,Response tokens,Request tokens,Model,Timestamp\nAPI log,2,1,GPT-4,7\n"
    row = load(a_file(text)).collect().row(0, named=True)
    assert (row["input_tokens"], row["output_tokens"], row["call_class"]) == (1, 2, "api")


def test_an_empty_count_is_unknown_and_no_failure(a_file: Write) -> None:
    rows = "1,GPT-4,5,,5,API log\n2,GPT-4,,3,3,API log\n3,GPT-4,5,0,5,API log\n4,,5,1,5,\n"
    calls = load(a_file(V1 + rows)).collect()
    assert calls["output_tokens"].to_list() == [None, 3, 0, 1]
    assert calls["input_tokens"].to_list() == [5, None, 5, 5]
    assert calls["status"].to_list() == [None, "ok", "error", "ok"]
    assert calls["model"].to_list() == ["GPT-4", "GPT-4", "GPT-4", None]
    assert calls["call_class"].to_list() == ["api", "api", "api", None]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",GPT-4,1,2,3,API log", "line 3: 'Timestamp' is empty"),
        ("nan,GPT-4,1,2,3,API log", "line 3: 'Timestamp' is 'nan', not a number"),
        ("7,GPT-4,many,2,3,API log", "line 3: 'Request tokens' is 'many', not a whole number"),
        ("7,GPT-4,1,2.5,3,API log", "line 3: 'Response tokens' is '2.5', not a whole number"),
        ("7,GPT-4,1", "line 3: it has 3 cells, the header has 6"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(a_file: Write, row: str, message: str) -> None:
    with pytest.raises(BadRow, match=message):
        load(a_file(f"{V1}5,GPT-4,1,2,3,API log\n{row}\n"))


def test_negative_tokens_are_refused(a_file: Write) -> None:
    with pytest.raises(BadRow, match=r"trace\.csv, line 2: output_tokens is -1\."):
        load(a_file(V1 + "5,GPT-4,1,-1,0,API log\n")).collect()


def test_turns_of_one_second_follow_each_other_as_in_the_file(a_file: Write) -> None:
    calls = load(a_file(turns("10 s 0", "10 t 0", "10 s 0", "10 - 0", "10 s 0"))).collect()
    assert calls["call_id"].to_list() == ["1", "2", "3", "4", "5"]
    assert calls["turn"].to_list() == [0, 0, 1, None, 2]
    assert calls["parents"].to_list() == [[], [], ["1"], None, ["3"]]
    assert calls["delay_s"].to_list() == [None, None, 0.0, None, 0.0]
    assert calls["delay_kind"].to_list() == [None, None, "user", None, "user"]


def test_turns_are_linked_by_time_even_if_the_file_is_not_sorted(a_file: Write) -> None:
    calls = load(a_file(turns("30 s 1", "10 s 4", "10 s 5"))).collect()
    assert calls["call_id"].to_list() == ["2", "3", "1"]
    assert calls["parents"].to_list() == [[], ["2"], ["3"]]
    assert calls["delay_s"].to_list() == [None, 0.0, 15.0]


def test_a_pause_that_is_negative_by_rounding_is_none_and_not_doubted(a_file: Write) -> None:
    trace = load(a_file(turns("10 s 6", "15 s 1")))
    assert trace.collect()["delay_s"].to_list() == [None, 0.0]
    assert not any("before the turn before" in doubt for doubt in trace.provenance.doubts)


def test_turns_are_linked_across_pieces_of_the_file(
    a_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{second} {'st'[second % 2]} 1" for second in range(10, 60)]
    path = a_file(turns(*rows))
    whole = load(path)
    monkeypatch.setattr(source, "CHUNK_BYTES", 64)
    pieces = load(path)
    assert pieces.collect().equals(whole.collect())
    assert pieces.collect()["turn"].max() == 24
    assert pieces.provenance == whole.provenance


def test_versions_with_and_without_sessions_can_lie_in_one_folder(
    a_file: Write, tmp_path: Path
) -> None:
    a_file(V1 + "5,GPT-4,1,2,3,API log\n", "v1.csv")
    a_file(turns("10 s 6", "19 s 1"), "v3.csv")
    calls = load(tmp_path).collect()
    assert calls["program_id"].to_list() == [None, "s", "s"]
    assert calls["delay_s"].to_list() == [None, None, 3.0]
    assert calls["source_row"].to_list() == [1, 2, 3]


def test_rows_whose_total_is_no_sum_are_doubted(a_file: Write) -> None:
    trace = load(a_file(V1 + "5,GPT-4,1,2,4,API log\n6,GPT-4,1,2,3,API log\n"))
    assert trace.provenance.doubts[-1] == (
        "In 1 rows Total tokens is not the sum of the other two."
    )


def test_turns_that_overlap_are_doubted(a_file: Write) -> None:
    trace = load(a_file(turns("10 s 7", "15 s 1", "15 s 0")))
    assert trace.collect()["delay_s"].to_list() == [None, 0.0, 0.0]
    overlap = "1 turns arrived before the turn before them had ended; their pause is taken as 0."
    assert overlap in trace.provenance.doubts


def test_an_unknown_elapsed_time_leaves_the_next_pause_unknown(a_file: Write) -> None:
    calls = load(a_file(turns("10 s -", "90 s 5", "100 s -"))).collect()
    assert calls["delay_s"].to_list() == [None, None, 5.0]
    assert calls["observed_e2e_s"].to_list() == [None, 5.0, None]
    assert calls["parents"].to_list() == [[], ["1"], ["2"]]


def test_fractions_of_a_second_are_no_whole_seconds(a_file: Write) -> None:
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    trace = load(a_file(head + "5,GPT-4,1,2,3,API log\n5.25,GPT-4,1,2,3,API log\n"))
    assert trace.collect()["arrival_s"].to_list() == [0.0, 0.25]
    assert trace.provenance.tick_s is None
    assert trace.provenance.doubts == ()
