"""Tables of the user's own: expected values are worked out by hand."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from servescope.traces import Trace, load
from servescope.traces.errors import BadRow, InputError, MissingColumns
from servescope.traces.formats import BUILT_IN, links
from servescope.traces.formats.stamps import MIXED
from servescope.traces.formats.table import CHAINED, NO_BLOCK_SIZE
from servescope.traces.provenance import Provenance

Write = Callable[..., Path]
NAMED = {"arrival": "ts", "input_tokens": "prompt", "output_tokens": "answer"}
SECONDS = "The times are bare numbers, read as seconds; name another unit with --unit."


def column(trace: Trace, name: str) -> list[Any]:
    return trace.collect()[name].to_list()


def arrivals(a_file: Write, *stamps: str, **options: Any) -> Trace:
    rows = "".join(f"{stamp},1,1\n" for stamp in stamps)
    return load(a_file("ts,prompt,answer\n" + rows), columns=NAMED, **options)


# What is written is read again.


@pytest.mark.parametrize("name", ["azure:sample", "burstgpt:sample", "burstgpt:sessions"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_was_written_as_rows_loads_again(tmp_path: Path, name: str, suffix: str) -> None:
    trace = load(name)
    trace.write(tmp_path / f"t{suffix}")
    again = load(tmp_path / f"t{suffix}")
    assert again.provenance.format == "table"
    assert again.provenance.doubts == ()
    before, after = trace.collect(), again.collect()
    same = [c for c in after.columns if c not in ("parents", "delay_s")]
    assert after.select(same).equals(before.select(same))
    if suffix == ".jsonl":
        assert after.equals(before)


def test_rows_of_lists_keep_them_in_json_lines(tmp_path: Path) -> None:
    trace = load("mooncake:sample")
    trace.write(tmp_path / "t.jsonl")
    again = load(tmp_path / "t.jsonl", block_tokens=512)
    assert again.collect().equals(trace.collect())
    assert again.provenance.block_rule == "ceil"
    left_out = load(tmp_path / "t.jsonl")
    assert "prefix_blocks" not in left_out.columns
    assert left_out.provenance.doubts == (NO_BLOCK_SIZE,)


def test_a_csv_of_programs_is_linked_by_its_rows_and_keeps_its_pauses(tmp_path: Path) -> None:
    trace = load("burstgpt:sessions")
    trace.write(tmp_path / "t.csv")
    again = load(tmp_path / "t.csv")
    assert again.collect().equals(trace.collect())
    assert again.provenance.inferred == {"parents": CHAINED}


def test_an_arrival_that_is_canonical_keeps_its_zero(a_file: Write) -> None:
    rows = "arrival_s,input_tokens,output_tokens,deadline_s\n2.5,1,1,4\n3,1,1,\n"
    trace = load(a_file(rows))
    assert column(trace, "arrival_s") == [2.5, 3.0]
    assert column(trace, "deadline_s") == [4.0, None]
    assert (trace.provenance.t0_ns, trace.provenance.clock) == (0, "source")
    assert trace.provenance.units == "seconds, as the column's name says"
    assert trace.provenance.t0 == "0 s on the source's own clock"


@pytest.mark.parametrize(
    "head",
    [
        "input_tokens,output_tokens\n1,2\n",  # nothing says when
        "arrival_s,input_tokens,output_tokens,colour\n1,1,1,red\n",
        "arrival_s,input_tokens\n1,1\n",
        '{"arrival_s": 1, "input_tokens": 1, "output_tokens": 1, "colour": 2}\n',
        '{"arrival_s": 1, "input_tokens": 1}\n',
    ],
)
def test_only_tables_with_canonical_names_alone_are_recognised(head: str) -> None:
    assert not BUILT_IN["table"].sniff(head.encode())


def test_no_other_format_takes_a_canonical_table() -> None:
    for head in (
        b"call_id,arrival_s,input_tokens,output_tokens,model\nc,0,1,1,m\n",
        b'{"call_id":"c","input_tokens":1,"output_tokens":1,"parents":["a"]}\n',
    ):
        assert [name for name, form in BUILT_IN.items() if form.sniff(head)] == ["table"]


# Names.


def test_columns_are_found_by_the_names_that_the_user_gives(a_file: Write) -> None:
    rows = "ts;prompt;answer;model;who\n0,5;1;2;m;a\n"
    with pytest.raises(BadRow, match=r"line 2: 'ts' is '0,5', not a time"):
        load(a_file(rows), columns=NAMED)
    trace = load(a_file(rows.replace("0,5", "0.5")), columns=NAMED | {"client_id": "who"})
    assert column(trace, "arrival_s") == [0.0]
    assert (column(trace, "model"), column(trace, "client_id")) == (["m"], ["a"])
    assert trace.provenance.recognised_by == "the columns that the user named"
    assert trace.provenance.t0 == "0.5 s on the source's own clock"


def test_a_wrong_canonical_name_is_answered_with_near_ones(a_file: Write) -> None:
    path = a_file("ts,prompt,answer\n1,1,1\n")
    with pytest.raises(InputError, match=r"'inputtokens' is no canonical column.*: input_to"):
        load(path, columns={"inputtokens": "prompt"})


def test_a_wrong_source_name_is_answered_with_near_ones(a_file: Write) -> None:
    path = a_file("ts,prompt,answer\n1,1,1\n")
    with pytest.raises(
        MissingColumns, match=r"no column 'promt' for input_tokens\. Near it: prompt\."
    ):
        load(path, columns=NAMED | {"input_tokens": "promt"})


def test_a_field_that_no_json_line_has_is_named(a_file: Write) -> None:
    path = a_file('{"ts": 1, "use": {"prompt": 1, "answer": 2}}\n')
    named = {"arrival": "ts", "input_tokens": "use.promt", "output_tokens": "use.answer"}
    with pytest.raises(MissingColumns, match=r"no column 'use.promt'.*Near it: use.prompt"):
        load(path, columns=named)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"arrival": "ts", "output_tokens": "answer"}, "No column holds input_tokens. Name it"),
        ({"arrival": "ts", "input_tokens": "prompt"}, "No column holds output_tokens. Name it"),
        ({"input_tokens": "prompt", "output_tokens": "answer"}, "No column says when calls arrive"),
    ],
)
def test_what_no_call_can_lack_must_be_named(
    a_file: Write, named: dict[str, str], said: str
) -> None:
    with pytest.raises(MissingColumns, match=said):
        load(a_file("ts,prompt,answer\n1,1,1\n"), columns=named)


def test_an_alias_and_its_column_are_one(a_file: Write) -> None:
    with pytest.raises(InputError, match="arrival and arrival_s are one column"):
        load(a_file("ts,prompt,answer\n1,1,1\n"), columns=NAMED | {"arrival_s": "ts"})


def test_an_empty_name_leaves_a_column_out(a_file: Write) -> None:
    rows = "ts,prompt,answer,turn\n1,1,1,first\n"
    with pytest.raises(BadRow, match="'turn' is 'first', not a number"):
        load(a_file(rows), columns=NAMED)
    assert load(a_file(rows), columns=NAMED | {"turn": ""}).collect()["turn"].to_list() == [None]


def test_one_column_may_be_two(a_file: Write) -> None:
    trace = load(
        a_file("ts,prompt,answer,user\n1,1,1,7\n"),
        columns=NAMED | {"client_id": "user", "priority": "user"},
    )
    assert (column(trace, "client_id"), column(trace, "priority")) == (["7"], [7])


# Times.


@pytest.mark.parametrize(
    ("stamps", "unit", "expected", "clock", "units"),
    [
        (("10", "10.25"), None, 0.25, "source", "seconds, assumed"),
        (("10", "260"), "ms", 0.25, "source", "milliseconds, as the user says"),
        (("1700000000", "1700000000.25"), None, 0.25, "utc", "seconds, guessed"),
        (("1700000000000", "1700000000250"), None, 0.25, "utc", "milliseconds, guessed"),
        (("1700000000000001", "1700000000000002"), None, 1e-6, "utc", "microseconds, guessed"),
        (("1700000000000000001", "1700000000000000002"), None, 1e-9, "utc", "nanoseconds, guessed"),
        (("0", "1e3"), None, 1000.0, "source", "seconds, assumed"),
    ],
)
def test_numbers_have_the_unit_that_makes_them_dates_or_seconds(
    a_file: Write,
    stamps: tuple[str, str],
    unit: str | None,
    expected: float,
    clock: str,
    units: str,
) -> None:
    trace = arrivals(a_file, *stamps, unit=unit)
    assert column(trace, "arrival_s") == [0.0, expected]
    assert (trace.provenance.clock, trace.provenance.units) == (clock, units)
    assert len(trace.provenance.doubts) == (unit is None)


def test_what_was_assumed_of_a_unit_is_said(a_file: Write) -> None:
    assert arrivals(a_file, "3").provenance.doubts == (SECONDS,)
    assert arrivals(a_file, "1700000000000").provenance.doubts == (
        "The times are bare numbers, read as milliseconds since 1970, which makes them dates of our"
        " days; name another unit with --unit.",
    )


def test_a_unit_in_the_name_of_a_column_holds(a_file: Write) -> None:
    rows = "sent_at_us,prompt,answer,latency_ms\n0,1,1,1500\n250000,1,1,\n"
    named = NAMED | {"arrival": "sent_at_us", "observed_e2e_s": "latency_ms"}
    trace = load(a_file(rows), columns=named)
    assert column(trace, "arrival_s") == [0.0, 0.25]
    assert column(trace, "observed_e2e_s") == [1.5, None]
    assert trace.provenance.units == "microseconds, as the column's name says"
    assert trace.provenance.doubts == ()


def test_the_users_unit_is_that_of_every_time_without_one(a_file: Write) -> None:
    rows = "ts,prompt,answer,ttft,e2e_s\n0,1,1,300,2\n"
    named = NAMED | {"observed_ttft_s": "ttft", "observed_e2e_s": "e2e_s"}
    trace = load(a_file(rows), columns=named, unit="ms")
    assert column(trace, "observed_ttft_s") == [0.3]
    assert column(trace, "observed_e2e_s") == [2.0]


@pytest.mark.parametrize(
    ("stamp", "clock", "t0"),
    [
        ("2023-11-16T18:17:03.9799600Z", "utc", "2023-11-16 18:17:03.97996 UTC"),
        ("2023-11-16 18:17:03 UTC", "utc", "2023-11-16 18:17:03 UTC"),
        ("2023-11-16 20:17:03+02:00", "utc", "2023-11-16 18:17:03 UTC"),
        ("2023-11-16T14:47:03-0330", "utc", "2023-11-16 18:17:03 UTC"),
        ("2023-11-16 18:17:03", "local", "2023-11-16 18:17:03, no zone given"),
        ("2023-11-16 18:17", "local", "2023-11-16 18:17:00, no zone given"),
        ('"2023-11-16 18:17:03,5"', "local", "2023-11-16 18:17:03.5, no zone given"),
    ],
)
def test_dates_are_read_with_their_zone(a_file: Write, stamp: str, clock: str, t0: str) -> None:
    trace = arrivals(a_file, stamp)
    assert (trace.provenance.clock, trace.provenance.t0) == (clock, t0)
    assert trace.provenance.units == "dates and times"
    assert trace.provenance.doubts == ()


def test_zones_that_come_and_go_are_said(a_file: Write) -> None:
    trace = arrivals(a_file, "2023-11-16 18:17:03Z", "2023-11-16 18:17:04")
    assert trace.provenance.doubts == (MIXED,)
    assert column(trace, "arrival_s") == [0.0, 1.0]


def test_nanoseconds_of_an_epoch_are_kept(a_file: Write) -> None:
    text = '{"ts": 1700000000.123456789, "prompt": 1, "answer": 1}\n'
    trace = load(a_file(text + text.replace("789", "790")), columns=NAMED)
    assert column(trace, "arrival_s") == [0.0, 1e-9]
    assert trace.provenance.t0_ns == 1_700_000_000_123_456_789


@pytest.mark.parametrize("stamp", ["soon", "2023-02-30 00:00:00", "1e30", "nan"])
def test_what_is_no_time_is_named(a_file: Write, stamp: str) -> None:
    with pytest.raises(BadRow, match=f"trace.csv, line 3: 'ts' is '{stamp}', not a time"):
        arrivals(a_file, "1", stamp)


def test_an_empty_arrival_is_unknown(a_file: Write) -> None:
    assert column(arrivals(a_file, "", "7"), "arrival_s") == [None, 0.0]


def test_a_deadline_counts_from_the_same_zero_as_arrivals(a_file: Write) -> None:
    rows = "ts,prompt,answer,by\n100,1,1,105\n101,1,1,\n"
    trace = load(a_file(rows), columns=NAMED | {"deadline_s": "by"})
    assert column(trace, "deadline_s") == [5.0, None]


# Values.


def test_whole_numbers_may_be_written_with_a_point(a_file: Write) -> None:
    """Where a count is missing, pandas writes the others as 12.0."""
    trace = load(a_file("ts,prompt,answer\n1,12.0,\n2,,3.0\n"), columns=NAMED)
    assert column(trace, "input_tokens") == [12, None]
    assert column(trace, "output_tokens") == [None, 3]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,12.5,1", "'prompt' is '12.5', not a whole number"),
        ("1,-3,1", "input_tokens is -3"),
        ("1,many,1", "'prompt' is 'many', not a number"),
        ("1,1e300,1", r"'prompt' is '1e\+300', not a whole number"),
        ("1,1", "it has 2 cells"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_column(a_file: Write, row: str, said: str) -> None:
    with pytest.raises(BadRow, match=rf"trace.csv, line 3: {said}"):
        load(a_file(f"ts,prompt,answer\n1,1,1\n{row}\n"), columns=NAMED)


def test_bad_rows_can_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    rows = "ts,prompt,answer\n1,1,1\nsoon,1.5,1\n3,1.5,1\nlate,1,1\n5,1,1\n"
    aside = tmp_path / "r.jsonl"
    trace = load(a_file(rows), columns=NAMED, on_error="skip", rejected=aside)
    assert column(trace, "source_row") == [1, 5]
    assert trace.provenance.rows_read == 5
    assert trace.provenance.rows_dropped == {
        "prompt is not a whole number": 2,
        "ts is not a time": 1,
    }
    assert len(aside.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("ok", "ok"),
        ("SUCCESS", "ok"),
        ("200", "ok"),
        ("True", "ok"),
        ("false", "error"),
        ("503", "http_503"),
        ("http_429", "http_429"),
        ("timeout", "timeout"),
        ("Odd", "Odd"),
        ("", None),
    ],
)
def test_a_status_keeps_its_word_unless_it_is_plain(
    a_file: Write, word: str, status: str | None
) -> None:
    path = a_file(f"ts,prompt,answer,how\n1,1,1,{word}\n")
    assert column(load(path, columns=NAMED | {"status": "how"}), "status") == [status]


@pytest.mark.parametrize(
    "cell",
    ['"[1, 2, 18446744073709551615]"', "1 2 18446744073709551615", "1;2;18446744073709551615"],
)
def test_prefix_blocks_are_a_json_list_or_joined(a_file: Write, cell: str) -> None:
    path = a_file(f"ts,prompt,answer,ids\n1,33,1,{cell}\n")
    trace = load(path, columns=NAMED | {"prefix_blocks": "ids"}, block_tokens=16)
    assert column(trace, "prefix_blocks") == [[1, 2, 2**64 - 1]]
    facts = trace.provenance
    assert (facts.block_tokens, facts.block_rule, facts.block_scope) == (16, "ceil", "global")


def test_prefix_blocks_must_fit_the_prompt_by_the_users_rule(a_file: Write) -> None:
    path = a_file("ts,prompt,answer,ids\n1,33,1,1 2\n")
    named = NAMED | {"prefix_blocks": "ids"}
    with pytest.raises(BadRow, match="2 prefix blocks do not fit 33 tokens in blocks of 16"):
        load(path, columns=named, block_tokens=16)
    assert load(path, columns=named, block_tokens=16, block_rule="floor").collect().height == 1


def test_prefix_blocks_of_no_known_length_are_refused(a_file: Write) -> None:
    path = a_file("ts,prompt,answer,ids\n1,33,1,1 2 3\n")
    with pytest.raises(InputError, match="how many tokens a block has"):
        load(path, columns=NAMED | {"prefix_blocks": "ids"})


@pytest.mark.parametrize("cell", ["1 -2 3", "1 x 3", "1 2.5 3"])
def test_a_block_that_is_no_id_is_named(a_file: Write, cell: str) -> None:
    path = a_file(f"ts,prompt,answer,ids\n1,33,1,{cell}\n")
    with pytest.raises(BadRow, match=f"'ids' is '{cell}', not a list of numbers"):
        load(path, columns=NAMED | {"prefix_blocks": "ids"}, block_tokens=16)


def test_texts_become_contents(a_file: Write) -> None:
    path = a_file('{"ts": 1, "q": [{"role": "user", "content": "hello world"}], "a": "yes"}\n')
    named = {"arrival": "ts", "input_messages": "q", "output_text": "a"}
    trace = load(path, columns=named)
    assert column(trace, "input_tokens") == [None]
    contents = trace.tables["contents"].collect().row(0, named=True)
    assert contents["input_messages"] == '[{"role": "user", "content": "hello world"}]'
    assert contents["output_text"] == "yes"
    counted = load(path, columns=named, tokenizer="estimate")
    assert (column(counted, "input_tokens"), column(counted, "output_tokens")) == ([3], [1])


# Programs.


def test_calls_of_a_program_follow_each_other_by_arrival(a_file: Write) -> None:
    rows = "ts,prompt,answer,chat\n0,1,1,a\n1,1,1,b\n10,1,1,a\n4,1,1,\n"
    trace = load(a_file(rows), columns=NAMED | {"program_id": "chat"})
    assert column(trace, "call_id") == ["1", "2", "4", "3"]
    assert column(trace, "turn") == [0, 0, None, 1]
    assert column(trace, "parents") == [[], [], None, ["1"]]
    assert column(trace, "delay_s") == [None, None, None, 10.0]
    assert column(trace, "delay_kind") == [None, None, None, "unknown"]
    assert trace.provenance.inferred == {"parents": CHAINED, "delay_s": links.GAPS}


def test_a_pause_begins_when_the_call_before_had_ended(a_file: Write) -> None:
    rows = "ts,prompt,answer,chat,took\n0,1,1,a,4\n10,1,1,a,1\n"
    trace = load(a_file(rows), columns=NAMED | {"program_id": "chat", "observed_e2e_s": "took"})
    assert column(trace, "delay_s") == [None, 6.0]
    assert trace.provenance.inferred == {"parents": CHAINED}


def test_pauses_that_the_table_names_are_kept(a_file: Write) -> None:
    rows = "chat,prompt,answer,pause,turn\na,1,1,0,1\na,1,1,2.5,2\na,1,1,,3\n"
    named = {"program_id": "chat", "input_tokens": "prompt", "output_tokens": "answer"}
    trace = load(a_file(rows), columns=named | {"delay_s": "pause"})
    assert column(trace, "parents") == [[], ["1"], ["2"]]
    assert column(trace, "delay_s") == [None, 2.5, None]
    assert column(trace, "turn") == [1, 2, 3]
    assert "arrival_s" not in trace.columns


def test_parents_that_the_table_names_are_checked(a_file: Write) -> None:
    rows = 'id,prompt,answer,after,ts\nx,1,1,,0\ny,1,1,"[""x""]",1\nz,1,1,"x, y",2\nw,1,1,gone,3\n'
    trace = load(a_file(rows), columns=NAMED | {"call_id": "id", "parents": "after"})
    assert column(trace, "parents") == [None, ["x"], ["x", "y"], []]
    assert any("not in the trace" in doubt for doubt in trace.provenance.doubts)
    ring = "id,prompt,answer,after,ts\nx,1,1,y,0\ny,1,1,x,1\n"
    with pytest.raises(BadRow, match="waits for itself"):
        load(a_file(ring), columns=NAMED | {"call_id": "id", "parents": "after"})


# JSON.


def test_fields_are_found_by_dotted_path(a_file: Write) -> None:
    text = (
        '{"at": "2024-01-01T00:00:00Z", "usage": {"in": 5, "out": {"all": 7}}, "a.b": "m"}\n'
        '\n{"at": "2024-01-01T00:00:02Z", "usage": null}\n'
    )
    named = {
        "arrival": "at",
        "input_tokens": "usage.in",
        "output_tokens": "usage.out.all",
        "model": "a.b",
    }
    trace = load(a_file(text), columns=named)
    assert trace.collect().select("arrival_s", "input_tokens", "output_tokens", "model").rows() == [
        (0.0, 5, 7, "m"),
        (2.0, None, None, None),
    ]


def test_a_list_of_records_is_as_good_as_lines(a_file: Write) -> None:
    text = '[{"ts": 1, "prompt": 2, "answer": 3}, {"ts": 2, "prompt": "4", "answer": 5.0}]'
    trace = load(a_file(text), columns=NAMED)
    assert trace.collect().select("source_row", "input_tokens", "output_tokens").rows() == [
        (1, 2, 3),
        (2, 4, 5),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"ts": 1, "prompt": true, "answer": 1}', "'prompt' is 'true', not a whole number"),
        ('{"ts": 1, "prompt": [1], "answer": 1}', r"'prompt' is '\[1\]', not a whole number"),
        ('{"ts": 1, "prompt": 1', "Input data was truncated"),
        ("[1]", "Expected `object`, got `array`"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, said: str) -> None:
    good = '{"ts": 1, "prompt": 1, "answer": 1}\n'
    with pytest.raises(BadRow, match=f"line 2: {said}"):
        load(a_file(good + line + "\n"), columns=NAMED)


def test_a_record_of_a_list_that_makes_no_sense_is_named(a_file: Write) -> None:
    with pytest.raises(BadRow, match="record 2: Expected `object`, got `int`"):
        load(a_file('[{"ts": 1, "prompt": 1, "answer": 1}, 7]'), columns=NAMED)


# Parquet.


def test_parquet_is_scanned_with_its_types(tmp_path: Path) -> None:
    at = dt.datetime(2024, 1, 1, 12)
    pl.DataFrame(
        {
            "ts": [at, at + dt.timedelta(milliseconds=1)],
            "usage": [{"in": 5, "out": 6}, {"in": None, "out": 7}],
            "ids": [[1], []],
            "fine": [True, False],
        }
    ).write_parquet(tmp_path / "t.parquet")
    named = {
        "arrival": "ts",
        "input_tokens": "usage.in",
        "output_tokens": "usage.out",
        "prefix_blocks": "ids",
        "status": "fine",
    }
    trace = load(tmp_path / "t.parquet", columns=named, block_tokens=512)
    assert column(trace, "arrival_s") == [0.0, 0.001]
    assert column(trace, "input_tokens") == [5, None]
    assert column(trace, "prefix_blocks") == [[1], []]
    assert column(trace, "status") == ["ok", "error"]
    assert (trace.provenance.clock, trace.provenance.format) == ("local", "table")


def test_several_parquet_files_are_one_trace_and_bad_rows_are_named(tmp_path: Path) -> None:
    for name, tokens in (("a", [1, 2]), ("b", [3, -1])):
        frame = pl.DataFrame({"ts": [0.5, 1.5], "prompt": tokens, "answer": [1, 1]})
        frame.write_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(BadRow, match=r"b.parquet, row 2: input_tokens is -1"):
        load(tmp_path, columns=NAMED)
    trace = load(
        tmp_path, columns=NAMED, on_error="skip", rejected=tmp_path.with_name("rejected.jsonl")
    )
    assert sorted(column(trace, "source_row")) == [1, 2, 3]


def test_times_with_a_zone_are_utc(tmp_path: Path) -> None:
    at = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
    frame = pl.DataFrame({"ts": [at], "prompt": [1], "answer": [1]})
    frame.with_columns(pl.col("ts").dt.convert_time_zone("Asia/Tokyo")).write_parquet(
        tmp_path / "t.parquet"
    )
    trace = load(tmp_path / "t.parquet", columns=NAMED)
    assert (trace.provenance.clock, trace.provenance.t0) == ("utc", "2024-01-01 12:00:00 UTC")


def test_a_parquet_file_without_the_column_says_which_it_has(tmp_path: Path) -> None:
    pl.DataFrame({"ts": [1], "prompt": [1]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(MissingColumns, match="no column 'answer' for output_tokens"):
        load(tmp_path / "t.parquet", columns=NAMED)


def test_messages_that_nest_become_json(tmp_path: Path) -> None:
    chat = [[{"role": "user", "content": "hello world!"}]]
    frame = pl.DataFrame({"day": [dt.date(2024, 1, 2)], "chat": chat, "said": ["yes"]})
    frame.write_parquet(tmp_path / "t.parquet")
    named = {"arrival": "day", "input_messages": "chat", "output_text": "said"}
    trace = load(tmp_path / "t.parquet", columns=named, tokenizer="estimate")
    assert column(trace, "input_tokens") == [3]
    assert trace.provenance.t0 == "2024-01-02 00:00:00, no zone given"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([True], "row 1: 'prompt' is 'true', not a whole number"),
        ([dt.date(2024, 1, 2)], "row 1: 'prompt' is '2024-01-02', not a whole number"),
        ([[7]], r"row 1: 'prompt' is '\[7\]', not a whole number"),
        ([dt.timedelta(1)], "Column prompt of .* holds Duration"),
    ],
)
def test_a_column_of_another_type_is_refused(tmp_path: Path, values: list[Any], said: str) -> None:
    frame = pl.DataFrame({"ts": [1], "prompt": values, "answer": [1]})
    frame.write_parquet(tmp_path / "t.parquet")
    with pytest.raises(BadRow, match=said):
        load(tmp_path / "t.parquet", columns=NAMED)


def test_a_damaged_parquet_file_is_called_one(a_file: Write) -> None:
    with pytest.raises(BadRow, match="not a readable Parquet file"):
        load(a_file(b"PAR1 nonsense"), columns=NAMED)


# Real files.


def test_a_real_csv_of_another_name(original: Callable[[str], Path]) -> None:
    path = original("prism_arena/arena_multi_lora.first750.csv")
    trace = load(
        path,
        columns={
            "arrival": "req_time",
            "input_tokens": "prompt_len",
            "output_tokens": "output_len",
            "client_id": "adapter_dir",
        },
    )
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    calls = trace.collect()
    assert calls.height == len(lines) == 750
    assert calls["arrival_s"].to_list() == pytest.approx([float(line[4]) for line in lines])
    assert calls["input_tokens"].to_list() == [int(line[2]) for line in lines]
    assert calls["client_id"].to_list() == [line[1] for line in lines]


def test_a_real_jsonl_is_read_as_its_own_format_reads_it(original: Callable[[str], Path]) -> None:
    path = original("mooncake/synthetic_trace.jsonl.gz")
    named = {
        "arrival": "timestamp",
        "input_tokens": "input_length",
        "output_tokens": "output_length",
        "prefix_blocks": "hash_ids",
    }
    trace = load(path, columns=named, unit="ms", block_tokens=512)
    assert trace.collect().equals(load(path).collect())


def test_a_trace_of_the_table_can_be_written(a_file: Write, tmp_path: Path) -> None:
    arrivals(a_file, "1", "2").write(tmp_path / "t.parquet")
    assert isinstance(load(tmp_path / "t.parquet").provenance, Provenance)
