import builtins
import datetime
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces import Provenance, Trace, load
from servescope.traces.errors import BadRow, InputError, MissingColumns, OutputExists
from servescope.traces.writing import METADATA_KEY

PARQUET = "its content: the first bytes of Parquet"
HERE = Provenance(format="test", source="here", t0="noon", tick_s=1.0)

arrivals = st.lists(st.floats(0, 1e6), min_size=1, max_size=40).map(sorted)


def a_trace(arrival_s: list[float], provenance: Provenance = HERE, **columns: object) -> Trace:
    counts = {"input_tokens": [1] * len(arrival_s), "output_tokens": [2] * len(arrival_s)}
    return Trace.of(pl.DataFrame({"arrival_s": arrival_s, **counts, **columns}), provenance)


def a_family(**columns: object) -> Trace:
    """Four calls, a second apart: b waits for a, c for a and b, d for nobody known."""
    return a_trace(
        [0.0, 1.0, 2.0, 3.0],
        call_id=["a", "b", "c", "d"],
        parents=[[], ["a"], ["a", "b"], None],
        delay_s=[None, 0.5, 0.25, None],
        delay_kind=[None, "user", "tool", None],
        **columns,
    )


def of(trace: Trace, column: str) -> list[object]:
    return trace.collect()[column].to_list()


def test_calls_without_a_name_are_numbered() -> None:
    assert of(a_trace([0.0, 1.0, 1.0]), "call_id") == ["0", "1", "2"]


def test_names_given_are_kept() -> None:
    assert of(a_family(), "call_id") == ["a", "b", "c", "d"]


def test_a_question_for_a_column_that_is_not_there_says_which_are() -> None:
    with pytest.raises(MissingColumns, match=r"no end_s and no due_s. It has .*arrival_s"):
        a_trace([0.0]).require("arrival_s", "end_s", "due_s")


def test_collect_checks_the_rows() -> None:
    with pytest.raises(BadRow, match="Call 0 arrives at nan"):
        a_trace([math.nan]).collect()


def test_what_polars_cannot_read_is_a_bad_row() -> None:
    """A number too large for its column fails only while the lazy table is read."""
    trace = Trace.of(
        pl.DataFrame({"input_tokens": [2**63], "output_tokens": [1], "arrival_s": [0.0]}), HERE
    )
    with pytest.raises(BadRow, match=r"^here cannot be read: "):
        trace.collect()


def test_a_window_is_half_open_and_counts_from_its_start() -> None:
    cut = a_trace([0.0, 1.0, 2.0, 3.0]).window(1.0, 3.0)
    assert of(cut, "arrival_s") == [0.0, 1.0]
    assert of(cut, "call_id") == ["1", "2"]


def test_a_window_without_end_goes_to_the_end() -> None:
    assert of(a_trace([0.0, 1.0, 2.5]).window(1.0), "arrival_s") == [0.0, 1.5]


def test_a_window_says_what_it_did_and_where_its_zero_is_now() -> None:
    cut = a_trace([0.0, 1234567.5]).window(1234567.5, 1234600)
    assert cut.provenance.steps == ("window 1234567.5 s to 1234600 s",)
    assert cut.provenance.t0 == "noon, plus 1234567.5 s"
    assert a_trace([0.0]).window().provenance.t0 == "noon"


def test_a_window_moves_every_moment_and_no_duration() -> None:
    trace = a_trace(
        [4.0],
        deadline_s=[9.0],
        sent_s=[4.5],
        end_s=[8.0],
        chunk_s=[[5.0, 6.0]],
        observed_e2e_s=[3.5],
    )
    row = trace.window(4.0).collect().row(0, named=True)
    expected = {"arrival_s": 0.0, "deadline_s": 5.0, "sent_s": 0.5, "end_s": 4.0}
    assert {name: row[name] for name in expected} == expected
    assert row["chunk_s"] == [1.0, 2.0]
    assert row["observed_e2e_s"] == 3.5
    assert row["first_token_s"] is None


def test_a_window_needs_arrivals() -> None:
    trace = Trace.of(
        pl.DataFrame({"input_tokens": [1], "output_tokens": [1], "parents": [[]]}), HERE
    )
    with pytest.raises(MissingColumns, match="no arrival_s"):
        trace.window(1.0)


def test_a_parent_outside_the_window_is_forgotten() -> None:
    """b loses its only parent and becomes a root, without a pause; c keeps b; d stays unknown."""
    cut = a_family().window(1.0)
    assert of(cut, "parents") == [[], ["b"], None]
    assert of(cut, "delay_s") == [None, 0.25, None]
    assert of(cut, "delay_kind") == [None, "tool", None]


def test_a_cut_family_keeps_the_order_of_its_rows() -> None:
    session = load("burstgpt:sessions")
    kept = session.window(0.0, 20_000.0).collect()
    whole = session.collect().filter(pl.col("arrival_s") < 20_000)
    assert kept["call_id"].to_list() == whole["call_id"].to_list()
    assert kept.equals(whole)


def test_head_keeps_the_first_rows_and_their_family() -> None:
    first = a_family().head(2)
    assert of(first, "call_id") == ["a", "b"]
    assert of(first, "parents") == [[], ["a"]]
    assert first.provenance.steps == ("first 2 calls",)
    assert a_family().head(0).collect().is_empty()


def test_head_takes_no_negative_number() -> None:
    with pytest.raises(InputError, match="no first -1 calls"):
        a_family().head(-1)


def test_a_faster_trace_shrinks_arrivals_and_pauses_alike() -> None:
    fast = a_family().scale_time(0.5)
    assert of(fast, "arrival_s") == [0.0, 0.5, 1.0, 1.5]
    assert of(fast, "delay_s") == [None, 0.25, 0.125, None]
    assert of(fast, "input_tokens") == [1, 1, 1, 1]
    assert fast.provenance.steps == ("time x 0.5",)
    assert fast.provenance.tick_s == 0.5


def test_a_deadline_stays_as_far_from_its_arrival() -> None:
    fast = a_trace([0.0, 8.0], deadline_s=[3.0, 10.0]).scale_time(0.25)
    assert of(fast, "deadline_s") == [3.0, 4.0]


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_time_is_scaled_by_a_number_above_0(factor: float) -> None:
    with pytest.raises(InputError, match=f"can be scaled by {factor}"):
        a_trace([0.0]).scale_time(factor)


@pytest.mark.parametrize(
    ("before", "after"),
    [("real", "derived"), ("derived", "derived"), ("synthetic", "synthetic"), ("measured",) * 2],
)
def test_only_what_was_real_becomes_derived(before: str, after: str) -> None:
    """A cut of a synthetic trace must not pass for a cut of a real one."""
    provenance = Provenance(format="test", source="here", kind=before)
    assert a_trace([0.0], provenance).head(1).provenance.kind == after


def test_a_step_leaves_the_trace_it_came_from_alone() -> None:
    trace = a_family()
    trace.window(1.0).scale_time(2.0)
    assert trace.provenance == HERE
    assert of(trace, "arrival_s") == [0.0, 1.0, 2.0, 3.0]


def test_a_doubt_is_said_once() -> None:
    trace = a_trace([0.0]).doubting("late", "odd").doubting("odd", "new")
    assert trace.provenance.doubts == ("late", "odd", "new")


@settings(deadline=None, max_examples=50)
@given(arrivals, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_window_holds_the_calls_between_its_ends(
    times: list[float], start: float, end: float
) -> None:
    kept = of(a_trace(times).window(start, end), "arrival_s")
    assert kept == [t - start for t in times if start <= t < end]


@settings(deadline=None, max_examples=50)
@given(arrivals, st.floats(0.01, 100))
def test_scaling_and_scaling_back_is_nothing(times: list[float], factor: float) -> None:
    there_and_back = of(a_trace(times).scale_time(factor).scale_time(1 / factor), "arrival_s")
    assert there_and_back == pytest.approx(times, rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(arrivals, st.floats(0.01, 100))
def test_scaling_keeps_the_shape_of_the_gaps(times: list[float], factor: float) -> None:
    fast = a_trace(times).scale_time(factor).collect()["arrival_s"].to_list()
    assert fast == sorted(fast)
    gaps = [b - a for a, b in itertools.pairwise(fast)]
    expected = [(b - a) * factor for a, b in itertools.pairwise(times)]
    assert gaps == pytest.approx(expected, rel=1e-9, abs=1e-9 * max(times) * factor)


counts = st.none() | st.integers(0, 2**62)
rows = st.fixed_dictionaries(
    {
        "arrival_s": st.none() | st.floats(-1e9, 1e9),
        "input_tokens": counts,
        "output_tokens": counts,
        "model": st.none() | st.text(max_size=5),
        "prefix_blocks": st.none() | st.lists(st.integers(0, 2**64 - 1), max_size=3),
        "parents": st.none() | st.lists(st.text(max_size=3), max_size=2),
        "status": st.none() | st.sampled_from(["ok", "http_503"]),
    }
)
TYPES: dict[str, pl.DataType] = {
    "arrival_s": pl.Float64(),
    "input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "model": pl.String(),
    "prefix_blocks": pl.List(pl.UInt64()),
    "parents": pl.List(pl.String()),
    "status": pl.String(),
}


@settings(deadline=None, max_examples=50)
@given(st.lists(rows, max_size=10), st.lists(st.text(max_size=20), max_size=3))
def test_what_is_written_as_parquet_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    some: Sequence[Mapping[str, object]],
    doubts: list[str],
) -> None:
    """Rows, nulls, ids of 64 bits and provenance all come back as they were."""
    provenance = Provenance(
        format="test", source="here", kind="synthetic", block_tokens=512, doubts=tuple(doubts)
    )
    trace = Trace.of(pl.DataFrame(list(some), schema=TYPES), provenance)
    path = tmp_path_factory.mktemp("round") / "trace.parquet"
    trace.write(path)
    again = load(path)
    assert again.provenance == trace.known(recognised_by=PARQUET).provenance
    assert again.collect().equals(trace.collect())


def test_a_real_trace_comes_back_with_its_licence(tmp_path: Path) -> None:
    trace = load("mooncake:sample").window(10.0, 60.0)
    trace.write(tmp_path / "deep" / "cut.parquet")
    again = load(tmp_path / "deep" / "cut.parquet")
    assert again.provenance == trace.provenance
    assert again.provenance.licence == "Apache-2.0"
    assert again.collect().equals(trace.collect())


def test_provenance_is_plain_json_in_the_metadata(tmp_path: Path) -> None:
    a_trace([0.0]).write(tmp_path / "t.parquet")
    metadata = pl.read_parquet_metadata(tmp_path / "t.parquet")
    assert json.loads(metadata[METADATA_KEY])["t0"] == "noon"


def test_csv_holds_the_rows_without_the_lists(tmp_path: Path) -> None:
    a_family().write(tmp_path / "t.csv")
    table = pl.read_csv(tmp_path / "t.csv")
    assert table["call_id"].to_list() == ["a", "b", "c", "d"]
    assert "parents" not in table.columns
    assert table["delay_s"].to_list() == [None, 0.5, 0.25, None]


def test_json_lines_hold_the_rows_with_the_lists(tmp_path: Path) -> None:
    a_family().write(tmp_path / "t.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [line["parents"] for line in lines] == [[], ["a"], ["a", "b"], None]


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    a_trace([0.0]).write(path)
    before = path.read_bytes()
    with pytest.raises(OutputExists, match="exists already"):
        a_trace([0.0, 1.0]).write(path)
    assert path.read_bytes() == before
    a_trace([0.0, 1.0]).write(path, overwrite=True)
    assert pl.read_csv(path).height == 2


def test_a_trace_can_replace_the_very_file_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    a_trace([0.0, 1.0, 2.0]).write(path)
    load(path).window(1.0).write(path, overwrite=True)
    assert of(load(path), "arrival_s") == [0.0, 1.0]
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_batches_are_the_table_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servescope.traces.trace.BATCH_ROWS", 7)
    trace = load("burstgpt:sessions")
    batches = list(trace.batches())
    assert len(batches) > 1
    assert pl.concat(batches).equals(trace.collect())
    narrow = pl.concat(trace.batches("output_tokens", "call_id", "output_tokens"))
    assert narrow.equals(trace.collect().select("output_tokens", "call_id"))


@pytest.mark.parametrize("rows", [1, 2, 250_000])
def test_a_name_that_repeats_is_found_across_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("servescope.traces.trace.BATCH_ROWS", rows)
    trace = a_trace([0.0, 1.0, 2.0, 3.0, 4.0], call_id=["a", "b", "c", "d", "a"])
    with pytest.raises(BadRow, match="Two calls are named a"):
        list(trace.batches())
    with pytest.raises(BadRow, match="Two calls are named a"):
        trace.write(tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def test_batches_check_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servescope.traces.trace.BATCH_ROWS", 1)
    batches = a_trace([0.0, math.nan]).batches("arrival_s")
    assert next(batches)["arrival_s"].to_list() == [0.0]
    with pytest.raises(BadRow, match="Call 1 arrives at nan"):
        next(batches)


def a_talk() -> Trace:
    """Three calls, two of which have texts, in a side table that knows a fourth one."""
    calls = a_trace([0.0, 1.0, 2.0], content_ref=["x", None, "y"])
    contents = pl.LazyFrame(
        {
            "content_ref": ["x", "y", "z"],
            "input_text": ["a", "b", "c"],
            "input_messages": None,
            "output_text": ["A", "B", "C"],
        },
        schema_overrides={"input_messages": pl.String},
    )
    windows = pl.LazyFrame({"client_id": ["c"], "rate": [1.0]})
    tables = {"contents": contents, "client_windows": windows}
    return Trace.of(calls.frame, calls.provenance, tables)


def test_side_tables_are_written_beside_and_read_again(tmp_path: Path) -> None:
    trace = a_talk()
    trace.write(tmp_path / "t.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "t.client_windows.parquet",
        "t.contents.parquet",
        "t.parquet",
    ]
    again = load(tmp_path / "t.parquet")
    assert again.collect().equals(trace.collect())
    assert again.tables.keys() == trace.tables.keys()
    windows = again.tables["client_windows"].collect()
    assert windows.equals(trace.tables["client_windows"].collect())
    assert again.tables["contents"].collect()["output_text"].to_list() == ["A", "B"]


def test_texts_of_calls_that_are_left_out_are_not_written(tmp_path: Path) -> None:
    a_talk().window(1.0).write(tmp_path / "t.parquet")
    contents = load(tmp_path / "t.parquet").tables["contents"].collect()
    assert contents["content_ref"].to_list() == ["y"]


def test_a_side_table_is_not_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "t.contents.parquet").write_text("mine")
    with pytest.raises(OutputExists, match=r"t\.contents\.parquet exists already"):
        a_talk().write(tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()
    a_talk().write(tmp_path / "t.parquet", overwrite=True)
    assert load(tmp_path / "t.parquet").tables["contents"].collect().height == 2


def test_csv_and_json_lines_hold_the_rows_alone(tmp_path: Path) -> None:
    for name in ("t.csv", "t.jsonl"):
        a_talk().write(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.jsonl"]


def test_a_side_table_that_is_gone_is_doubted(tmp_path: Path) -> None:
    a_talk().write(tmp_path / "t.parquet")
    (tmp_path / "t.contents.parquet").unlink()
    again = load(tmp_path / "t.parquet")
    assert list(again.tables) == ["client_windows"]
    assert again.collect().height == 3
    (doubt,) = again.provenance.doubts
    assert re.search(r"t\.contents\.parquet is gone", doubt)


def test_what_is_written_is_never_all_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing goes through checked pieces and the engine's own streams, never through collect."""
    trace = load("mooncake:sample").known(kind="real")
    expected = trace.collect()
    monkeypatch.setattr(Trace, "collect", None)
    for ending in ("parquet", "csv", "jsonl"):
        trace.write(tmp_path / f"t.{ending}")
    monkeypatch.undo()
    assert load(tmp_path / "t.parquet").collect().equals(expected)
    assert pl.read_csv(tmp_path / "t.csv").height == expected.height
    assert pl.read_ndjson(tmp_path / "t.jsonl").height == expected.height


def test_an_ending_that_is_none_of_three_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written as '.xlsx'"):
        a_trace([math.nan]).write(tmp_path / "new" / "t.xlsx")
    assert not (tmp_path / "new").exists()


def test_pandas_gets_the_same_table() -> None:
    pandas = pytest.importorskip("pandas")
    trace = load("burstgpt:sessions")
    frame = trace.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == trace.columns
    assert frame["input_tokens"].sum() == trace.collect()["input_tokens"].sum()


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def no_pandas(name: str, *args: object, **kwargs: object) -> object:
        if name == "pandas":
            raise ImportError(name)
        return there(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_pandas)
    with pytest.raises(InputError, match=r"pip install 'servescope\[pandas\]'"):
        a_trace([0.0]).to_pandas()


def test_a_moment_of_another_type_is_no_arrival() -> None:
    """Datetimes are not seconds since t0; they are refused and not turned into microseconds."""
    with pytest.raises(BadRow, match="Column arrival_s holds Datetime"):
        a_trace([datetime.datetime(2024, 1, 1)])
