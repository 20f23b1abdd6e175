import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.traces import inspect, load
from servescope.traces.errors import BadRow
from servescope.traces.formats.arrivals import MOVED

Write = Callable[..., Path]


def a_line(timestamp: int = 0, inputs: int = 600, **fields: object) -> str:
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
        (a_line(hash_ids=[1]), "1 hash_ids do not fit 600 tokens in blocks of 512"),
        (a_line(hash_ids=[1, 2, 3]), "3 hash_ids do not fit 600 tokens"),
        (a_line(hash_ids=[1, -2]), r"Expected `int` >= 0 - at `\$\.hash_ids\["),
        (a_line(hash_ids=[1, 2**64]), f"hash id {2**64} has over 64 bits"),
        (a_line(hash_ids=None), r"got `null` - at `\$\.hash_ids`"),
        (a_line(timestamp="30"), r"Expected `int`, got `str` - at `\$\.timestamp`"),
        (a_line(output_length=None), r"got `null` - at `\$\.output_length`"),
        (a_line(output_length=-1), r"Expected `int` >= 0 - at `\$\.output_length`"),
        (a_line(output_length=1.5), r"got `float` - at `\$\.output_length`"),
        ('{"timestamp": 0}\n', "missing required field `input_length`"),
        (a_line()[:30], "Input data was truncated"),
        ("rubbish\n", "JSON is malformed"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"line 3: .*({message})"):
        load(a_file(a_line() + "\n" + line))


def test_a_dialect_on_the_first_line_is_recognised_and_said_to_be_one(a_file: Write) -> None:
    """Nanoseconds as text are not milliseconds: the file is Mooncake-shaped, and refused."""
    with pytest.raises(BadRow, match=r"line 1: Expected `int`, got `str` - at `\$\.timestamp`"):
        load(a_file(a_line(timestamp="1700000000000000000")))
