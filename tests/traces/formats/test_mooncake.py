import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.traces import inspect, load
from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats import BUILT_IN
from servescope.traces.formats.gather import MOVED

Write = Callable[..., Path]


def a_line(timestamp: float | str | None = 0, inputs: int = 600, **fields: object) -> str:
    ids = list(range(-(-inputs // 512)))
    line = {"timestamp": timestamp, "input_length": inputs, "output_length": 3, "hash_ids": ids}
    return json.dumps({**line, **fields}) + "\n"


def hit_share(calls: pl.DataFrame) -> float:
    """Share of blocks that lead a prompt and were seen before, in order, with an endless cache."""
    seen: set[int] = set()
    hits = 0
    for blocks in calls["prefix_blocks"].to_list():
        hits += next((n for n, block in enumerate(blocks) if block not in seen), len(blocks))
        seen.update(blocks)
    return float(hits / calls["prefix_blocks"].list.len().sum())


def statistics(calls: pl.DataFrame, column: str) -> list[float]:
    values = calls[column].to_numpy()
    ranks = np.percentile(values, [50, 90, 99, 100], method="nearest")
    return [round(float(values.mean()), 1), *map(float, ranks)]


def cv(calls: pl.DataFrame) -> float:
    gaps = np.diff(calls["arrival_s"].to_numpy())
    return float(gaps.std(ddof=1) / gaps.mean())


def test_the_conversation_sample_has_the_published_statistics() -> None:
    trace = load("mooncake:conversation")
    calls = trace.collect()
    assert statistics(calls, "input_tokens") == [14276.3, 9177, 27701, 89867, 121298]
    assert statistics(calls, "output_tokens") == [365.2, 370, 614, 906, 2000]
    assert cv(calls) == pytest.approx(2.74, abs=0.006)
    assert hit_share(calls) == pytest.approx(0.1346, abs=0.00005)
    assert inspect(trace).span_s == 141.0


def test_the_whole_synthetic_trace_has_the_published_statistics(
    original: Callable[[str], Path],
) -> None:
    trace = load(original("mooncake/synthetic_trace.jsonl.gz"))
    calls = trace.collect()
    assert statistics(calls, "input_tokens") == [15325.5, 11587, 38615, 66456, 191378]
    assert statistics(calls, "output_tokens") == [149.1, 69, 389, 768, 893]
    assert (calls.height, calls["arrival_s"].max()) == (3993, pytest.approx(1022.0, abs=0.05))
    assert cv(calls) == pytest.approx(1.01, abs=0.006)
    assert hit_share(calls) == pytest.approx(0.6396, abs=0.00005)
    assert trace.provenance.sha256 == (
        "bd070915a98fc0ed264d7cfef2ce746002eb3076a695ec31ba2674c0111ec131"
    )
    assert trace.provenance.doubts == ()


def test_the_sample_is_two_minutes_of_shared_prefixes() -> None:
    trace = load("mooncake:sample")
    calls = trace.collect()
    assert 100 < inspect(trace).span_s < 140
    assert 0.8 < cv(calls) < 1.3
    assert hit_share(calls) > 0.3
    assert trace.provenance.tick_s == 0.001
    assert trace.provenance.doubts == ()


@pytest.mark.parametrize("name", ["mooncake:sample", "mooncake:conversation"])
def test_blocks_cover_the_prompt_as_the_provenance_says(name: str) -> None:
    trace = load(name)
    known = trace.provenance
    assert (known.block_tokens, known.block_rule, known.block_scope) == (512, "ceil", "global")
    calls = trace.collect()
    assert calls["prefix_blocks"].list.len().to_list() == [
        -(-tokens // 512) for tokens in calls["input_tokens"]
    ]


def test_batches_are_doubted_where_there_are_any(a_file: Write) -> None:
    """Four calls on a grid of 3 s, three of them tied, are a batch; ties off the grid are not."""
    on_grid = "".join(a_line(stamp) for stamp in (0, 2999, 2999, 2999, 3000, 3000, 3000))
    trace = load(a_file(on_grid))
    assert trace.provenance.tick_s == 3.0
    assert trace.provenance.doubts == (
        "57% of the arrivals share a stamp: the source wrote them in batches of 3 s.",
    )
    off_grid = load(a_file("".join(a_line(stamp) for stamp in (0, 1500, 1500, 1500, 1500))))
    assert off_grid.provenance.tick_s == 0.001
    assert off_grid.provenance.doubts == ()
    assert inspect(off_grid).doubts == ("75% of the arrivals share a stamp with the one before.",)


def test_one_call_is_no_batch(a_file: Write) -> None:
    assert load(a_file(a_line())).provenance.doubts == ()


def test_lines_are_sorted_by_time_and_that_is_said(a_file: Write) -> None:
    trace = load(a_file(a_line(40) + "\n" + a_line(15) + a_line(40)))
    calls = trace.collect()
    assert calls["source_row"].to_list() == [3, 1, 4]
    assert calls["arrival_s"].to_list() == [0.0, 0.025, 0.025]
    assert trace.provenance.doubts == (MOVED,)
    assert trace.provenance.rows_read == 3


def test_ids_may_use_all_64_bits(a_file: Write) -> None:
    calls = load(a_file(a_line(hash_ids=[2**64 - 1, 0]))).collect()
    assert calls["prefix_blocks"].to_list() == [[2**64 - 1, 0]]


def test_an_empty_prompt_has_no_blocks(a_file: Write) -> None:
    calls = load(a_file(a_line(inputs=0))).collect()
    assert calls["prefix_blocks"].to_list() == [[]]
    assert calls["input_tokens"].to_list() == [0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_line(hash_ids=[1]), "1 prefix blocks do not fit 600 tokens in blocks of 512"),
        (a_line(hash_ids=[1, 2, 3]), "3 prefix blocks do not fit 600 tokens"),
        (a_line(hash_ids=[1, -2]), "prefix_blocks holds -2, which has no place in 64 bits"),
        (
            a_line(hash_ids=[1, 2**64]),
            f"prefix_blocks holds {2**64}, which has no place in 64 bits",
        ),
        (a_line(hash_ids="1"), r"Expected `array \| null`, got `str` - at `\$\.hash_ids`"),
        (a_line(timestamp="soon"), "its timestamp 'soon' is no moment in ms"),
        (a_line(timestamp=True), r"got `bool` - at `\$\.timestamp`"),
        (a_line(timestamp=None), "no `timestamp` and follows no line of its session"),
        (a_line(input_length=None), "none of `input_length`, `text_input`, `messages` and"),
        (a_line(output_length=-1), "output_tokens is -1"),
        (a_line(output_length=1.5), r"got `float` - at `\$\.output_length`"),
        (a_line(message_mode="delta"), "holds only what its turn adds"),
        (a_line(context_mode="deltas_without_responses"), "holds only what its turn adds"),
        ('{"timestamp": 0}\n', "none of `input_length`, `text_input`, `messages` and `payload`"),
        (a_line()[:30], "Input data was truncated"),
        ("rubbish\n", "JSON is malformed"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"trace\.csv, line 3: .*({message})"):
        load(a_file(a_line() + "\n" + line))


@pytest.mark.parametrize("stamp", [1_753_780_607_550_317_897, "1753780607550317897", -(10**17)])
def test_a_stamp_beyond_any_trace_asks_for_the_unit_and_the_blocks(
    a_file: Write, stamp: int | str
) -> None:
    with pytest.raises(BadRow, match=r"trace\.csv, line 2: .* no moment in ms .* 2262") as bad:
        load(a_file(a_line() + a_line(timestamp=stamp)))
    assert "--unit" in bad.value.mend
    assert "--block-tokens" in bad.value.mend


def test_the_user_may_name_unit_and_blocks(a_file: Write) -> None:
    lines = a_line(1, inputs=40, hash_ids=[1, 2]) + a_line(3, inputs=47, hash_ids=[1, 2])
    trace = load(a_file(lines), format="mooncake", unit="s", block_tokens=20, block_rule="floor")
    assert trace.collect()["arrival_s"].to_list() == [0.0, 2.0]
    known = trace.provenance
    assert (known.block_tokens, known.block_rule, known.tick_s) == (20, "floor", 1.0)
    assert (known.t0, known.units) == ("1 s on the source's own clock", "seconds")
    assert known.licence is None


def test_the_unit_is_that_of_pauses_too(a_file: Write) -> None:
    mode = {"session_id": "a", "context_mode": "message_array_with_responses"}
    path = a_file(a_line(0, **mode) + a_line(None, delay=1.5, **mode))
    assert load(path, unit="s").collect()["delay_s"].to_list() == [None, 1.5]
    assert load(path).collect()["delay_s"].to_list() == [None, 0.0015]


def test_fractions_of_a_millisecond_are_kept(a_file: Write) -> None:
    """A double of epoch milliseconds tells whole microseconds apart, and no more."""
    stamps = (1700000000000.001, 1700000000000.25, 1700000001000.003)
    trace = load(a_file("".join(a_line(stamp) for stamp in stamps)))
    assert trace.collect()["arrival_s"].to_list() == [0.0, 0.000249, 1.000002]
    known = trace.provenance
    assert (known.t0_ns, known.clock, known.tick_s) == (1700000000000001000, "utc", None)
    assert known.t0 == "2023-11-14 22:13:20.000001 UTC"


def test_plain_lines_have_no_columns_of_sessions_or_texts(a_file: Write) -> None:
    trace = load(a_file(a_line() + a_line(5)))
    assert not {"parents", "delay_s", "content_ref"} & set(trace.columns)
    assert trace.tables == {}
    assert trace.provenance.inferred == {}
    assert trace.provenance.licence == "Apache-2.0"


SESSIONS = """\
{"session_id": "a", "timestamp": 1000, "input_length": 600, "output_length": 40, "hash_ids": [1, 2]}
{"timestamp": 1200, "input_length": 5}
{"session_id": "a", "delay": 500.5, "input_length": 700, "output_length": 20}
{"session_id": 7, "timestamp": 1250.5, "input_length": 9, "output_length": 1}
{"session_id": "a", "timestamp": 4000, "input_length": 710, "output_length": 3}
{"session_id": 7, "timestamp": 2000, "input_length": 10, "output_length": 2}
"""


def test_lines_of_a_session_are_turns_in_order(a_file: Write) -> None:
    trace = load(a_file(SESSIONS))
    calls = trace.collect().sort("source_row")
    assert calls["program_id"].to_list() == ["a", None, "a", "7", "a", "7"]
    assert calls["turn"].to_list() == [0, None, 1, 0, 2, 1]
    assert calls["parents"].to_list() == [[], None, ["1"], [], ["3"], ["4"]]
    assert calls["arrival_s"].to_list() == [0.0, 0.2, None, 0.2505, 3.0, 1.0]
    assert calls["delay_s"].to_list() == [None, None, 0.5005, None, None, 0.7495]
    assert calls["delay_kind"].to_list() == [None, None, "user", None, "user", "user"]
    assert calls["output_tokens"].to_list() == [40, None, 20, 1, 3, 2]
    assert calls["prefix_blocks"].to_list() == [[1, 2], *[None] * 5]
    known = trace.provenance
    assert known.inferred["delay_s"].startswith("the gap between two arrivals")
    assert known.doubts == (
        MOVED,
        "In 3 later turns input_length is read as the whole prompt; AIPerf adds the turns before"
        " to it unless it is told otherwise.",
    )


def test_a_session_that_says_how_it_counts_is_not_doubted(a_file: Write) -> None:
    mode = {"session_id": "a", "context_mode": "message_array_with_responses"}
    trace = load(a_file(a_line(0, **mode) + a_line(None, delay=10, **mode)))
    assert trace.provenance.doubts == ()
    assert trace.provenance.inferred == {}


def test_a_turn_stamped_before_the_one_it_follows_has_no_pause(a_file: Write) -> None:
    mode = {"session_id": "a", "context_mode": "message_array_with_responses"}
    lines = "".join(a_line(stamp, **mode) for stamp in (5000, 4500, 1000))
    trace = load(a_file(lines))
    assert trace.collect().sort("turn")["delay_s"].to_list() == [None, 0.0, 0.0]
    assert trace.provenance.doubts == (
        MOVED,
        "1 lines of a session are stamped before the line that they follow; their pause is taken"
        " as 0.",
    )


def test_prompts_may_be_texts(a_file: Write) -> None:
    lines = (
        {"timestamp": 0, "text_input": "abcdefgh", "output_length": 3},
        {"timestamp": 1, "messages": [{"role": "user", "content": "abc"}], "tools": [{}]},
        {"timestamp": 2, "payload": {"model": "m", "messages": [{"content": "abcdefghi"}]}},
        {"timestamp": 3, "input_length": 50},
    )
    path = a_file("".join(json.dumps(line) + "\n" for line in lines))
    trace = load(path, tokenizer="estimate")
    calls = trace.collect()
    assert calls["input_tokens"].to_list() == [2, 1, 3, 50]
    assert calls["model"].to_list() == [None, None, "m", None]
    assert calls["content_ref"].to_list() == ["1", "2", "3", None]
    texts = trace.tables["contents"].collect()
    assert texts["input_text"].to_list() == ["abcdefgh", None, None]
    assert texts["input_messages"].to_list() == [
        None,
        '[{"role":"user","content":"abc"}]',
        '[{"content":"abcdefghi"}]',
    ]
    assert "prefix_blocks" not in trace.columns
    known = trace.provenance
    assert known.block_tokens is known.block_rule is known.block_scope is known.licence is None
    assert "1 prompts offer tools, whose definitions are not kept." in trace.provenance.doubts
    assert load(path).collect()["input_tokens"].to_list() == [None, None, None, 50]


def test_without_any_sign_of_the_unit_it_must_be_named(a_file: Write) -> None:
    """GuideLLM writes the same three fields in seconds."""
    path = a_file('{"timestamp": 0, "input_length": 4, "output_length": 2}\n' * 2)
    with pytest.raises(InputError, match=r"milliseconds could be told from the seconds.*--unit"):
        load(path)
    assert load(path, unit="ms").collect().height == 2


def test_bad_lines_may_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    mode = {"session_id": "a", "context_mode": "message_array_with_responses"}
    lines = a_line(**mode) + a_line(-1.5, **mode, output_length=-3) + a_line(None, delay=9, **mode)
    trace = load(a_file(lines + "{}\n"), on_error="skip", rejected=tmp_path / "r.jsonl")
    assert trace.collect()["parents"].to_list() == [[], []]
    assert trace.provenance.rows_read == 4
    assert trace.provenance.rows_dropped == {
        "output_tokens is negative": 1,
        "not a line of Mooncake": 1,
    }
    assert '"where":"' in (tmp_path / "r.jsonl").read_text()


@pytest.mark.parametrize(
    "line",
    [
        '{"chat_id": 1, "timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1]}',
        '{"timestamp": "0", "input_length": 1, "output_length": 1, "hash_ids": [1]}',
        '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": {"history": [1]}}',
        '{"timestamp": 0, "input_length": 33, "output_length": 1, "hash_ids": [1, 2, 3]}',
        '{"timestamp": 0, "messages": [{"role": "user"}], "prompt_tokens": 3}',
        '{"session_id": "a", "timestamp": 0, "input": [], "output": ""}',
    ],
)
def test_lines_of_others_are_not_claimed(line: str) -> None:
    assert not BUILT_IN["mooncake"].sniff(line.encode() + b"\n")


def test_the_sample_of_the_fuzzer_is_read() -> None:
    trace = load(Path(__file__).parents[2] / "data" / "formats" / "mooncake.jsonl")
    assert trace.provenance.format == "mooncake"
    assert trace.collect().height == 4


@pytest.mark.parametrize(
    ("name", "span_s", "rate", "tied"),
    [
        ("synthetic_trace.jsonl.gz", 1022.0, 3.906, None),
        ("conversation_trace.head400.jsonl", 141.0, 2.83, 0.88),
    ],
)
def test_rates_and_ties_are_the_published_ones(
    original: Callable[[str], Path], name: str, span_s: float, rate: float, tied: float | None
) -> None:
    quality = inspect(load(original(f"mooncake/{name}")))
    assert quality.span_s == pytest.approx(span_s, abs=0.05)
    assert (quality.calls - 1) / quality.span_s == pytest.approx(rate, abs=0.005)
    if tied is not None:
        assert quality.tied_share == pytest.approx(tied, abs=0.005)
