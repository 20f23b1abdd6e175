import json
from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats import BUILT_IN
from servescope.traces.formats.gather import MOVED

Write = Callable[..., Path]
DATA = Path(__file__).parents[2] / "data" / "formats"
HEADER = "timestamp,input_length,output_length,hash_ids\n"


def a_line(timestamp: object = "0", inputs: int = 2101, blocks: int = 3, **fields: object) -> str:
    line = {"timestamp": timestamp, "input_length": inputs, "output_length": 84}
    return json.dumps({**line, "hash_ids": list(range(blocks)), **fields}) + "\n"


@pytest.mark.parametrize("name", ["gmi.jsonl", "gmi.csv"])
@pytest.mark.parametrize("options", [{}, {"unit": "ns"}, {"block_tokens": 1024}])
def test_nothing_is_guessed(name: str, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="like a Mooncake trace") as refused:
        load(DATA / name, **options)
    for option in ("--unit", "--block-tokens", "--block-rule"):
        assert option in refused.value.mend


@pytest.mark.parametrize("name", ["gmi.jsonl", "gmi.csv"])
def test_every_nanosecond_and_id_is_kept(name: str) -> None:
    trace = load(DATA / name, unit="ns", block_tokens=1024, block_rule="ceil")
    calls = trace.collect()
    assert calls["arrival_s"].to_list() == [0.0, 0.550317897]
    assert calls["input_tokens"].to_list() == [1024, 2101]
    assert calls["output_tokens"].to_list() == [3, 84]
    assert calls["prefix_blocks"].to_list() == [[2843241808], [2843241808, 137021281, 3846380862]]
    known = trace.provenance
    assert (known.format, known.t0_ns, known.clock) == ("gmi", 1753780607000000000, "utc")
    assert known.t0 == "2025-07-29 09:16:47 UTC"
    assert (known.tick_s, known.block_tokens, known.block_rule) == (1e-9, 1024, "ceil")
    assert known.doubts == (MOVED,)


@pytest.mark.parametrize(("blocks", "rule"), [(3, "ceil"), (2, "floor")])
def test_the_block_rule_is_judged_by_the_first_rows(a_file: Write, blocks: int, rule: str) -> None:
    """2,101 tokens are two blocks of 1,024 and a part; 2,048 are two under either rule."""
    lines = a_line("0", 2048, 2) + a_line("1", 2101, blocks)
    trace = load(a_file(lines), unit="s", block_tokens=1024)
    assert trace.provenance.block_rule == rule
    assert trace.provenance.clock == "source"
    assert trace.provenance.t0 == "0 s on the source's own clock"
    assert trace.provenance.doubts == (
        f"The block rule is not recorded; {rule} is taken, since 2 of the first 2 rows obey it.",
    )


def test_a_size_that_no_row_obeys_is_refused(a_file: Write) -> None:
    with pytest.raises(InputError, match=r"none of the first 1 rows .* blocks of 512 tokens"):
        load(a_file(a_line()), unit="ns", block_tokens=512)


@pytest.mark.parametrize("size", [0, -5])
def test_a_block_has_a_token_or_more(a_file: Write, size: int) -> None:
    with pytest.raises(InputError, match=f"cannot hold {size} tokens"):
        load(a_file(a_line()), unit="ns", block_tokens=size)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_line(blocks=2), "2 prefix blocks do not fit 2101 tokens in blocks of 1024"),
        (a_line("next week"), "its timestamp 'next week' is no moment in ns"),
        (a_line("1e999999"), "its timestamp '1e999999' is no moment in ns"),
        (a_line(9e30), "is no moment in ns"),
        (a_line(None), "it has no `timestamp`"),
        (a_line(-1, output_length=-1), "output_tokens is -1"),
        (a_line(hash_ids=[1.5]), r"got `float` - at `\$\.hash_ids\[0\]`"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    path = a_file(a_line() + line, "t.jsonl")
    with pytest.raises(BadRow, match=rf"t\.jsonl, line 2: .*{message}"):
        load(path, unit="ns", block_tokens=1024, block_rule="ceil")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("soon,2101,84,1 2 3", "its timestamp 'soon' is no moment in ns"),
        (",2101,84,1 2 3", "it has no `timestamp`"),
        ("99999999999999999999,2101,84,1 2 3", "no moment in ns before the year 2262"),
        ("0,2101,84,1 x 3", "its hash_ids '1 x 3' are not whole numbers"),
        ("0,2101,84,1 2", "2 prefix blocks do not fit 2101 tokens"),
        ("0,many,84,1 2", "'input_length' is 'many', not a whole number"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(a_file: Write, row: str, message: str) -> None:
    path = a_file(HEADER + "0,2101,84,1 2 3\n" + row + "\n")
    with pytest.raises(BadRow, match=rf"trace\.csv, line 3: .*{message}"):
        load(path, unit="ns", block_tokens=1024, block_rule="ceil")


def test_bad_rows_may_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    path = a_file(HEADER + "0,2101,84,1 2 3\nsoon,1,1,1\n,1,1,1\n5,1,1,x\n+7.5,0,2,\n")
    aside = tmp_path / "r.jsonl"
    trace = load(path, unit="ms", block_tokens=1024, on_error="skip", rejected=aside)
    calls = trace.collect()
    assert calls["source_row"].to_list() == [1, 5]
    assert calls["arrival_s"].to_list() == [0.0, 0.0075]
    assert calls["prefix_blocks"].to_list() == [[1, 2, 3], None]
    assert trace.provenance.rows_dropped == {
        "timestamp is no moment": 1,
        "no timestamp": 1,
        "hash_ids are no numbers": 1,
    }
    assert len(aside.read_text().splitlines()) == 3


def test_only_stamps_that_are_texts_are_claimed() -> None:
    sniff = BUILT_IN["gmi"].sniff
    assert sniff(a_line("1").encode())
    assert sniff(HEADER.encode())
    assert not sniff(a_line(1).encode())
    assert not sniff(a_line("1", chat_id=3).encode())
    assert not sniff(a_line("1", hash_ids={"history": [1]}).encode())
    assert not sniff(b"timestamp,input_length,output_length\n1,2,3\n")
