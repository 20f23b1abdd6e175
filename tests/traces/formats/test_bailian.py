import json
from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces import inspect, load
from servescope.traces.errors import BadRow
from servescope.traces.formats import BUILT_IN
from servescope.traces.formats.gather import MOVED

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "bailian.jsonl"


def a_chat(chat: int, parent: int = -1, timestamp: object = 0, **fields: object) -> str:
    line = {"chat_id": chat, "parent_chat_id": parent, "timestamp": timestamp}
    lengths = {"input_length": 17, "output_length": 3, "type": "text", "turn": 1}
    return json.dumps({**line, **lengths, "hash_ids": [1, 2], **fields}) + "\n"


def test_chats_lead_back_to_their_root() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert calls["call_id"].to_list() == ["55", "159", "160", "161"]
    assert calls["program_id"].to_list() == ["55", "55", "160", "161"]
    assert calls["turn"].to_list() == [0, 1, 0, 3]
    assert calls["call_class"].to_list() == ["text", "text", "search", None]
    assert calls["arrival_s"].to_list() == [0.0, 20.0, 20.086, 20.886]
    assert calls["input_tokens"].to_list() == [33, 48, 16, 17]
    assert calls["output_tokens"].to_list() == [100, 132, 7, 8]
    assert calls["prefix_blocks"].to_list() == [[0, 1, 2], [0, 1, 3], [9], [9, 10]]
    assert calls["parents"].to_list() == [[], ["55"], [], []]
    assert calls["delay_s"].to_list() == [None, 20.0, None, None]
    assert calls["delay_kind"].to_list() == [None, "user", None, None]
    known = trace.provenance
    assert (known.format, known.licence) == ("bailian", "Apache-2.0")
    assert (known.block_tokens, known.block_rule, known.block_scope) == (16, "ceil", "global")
    assert (known.t0, known.tick_s) == ("41.114 s on the source's own clock", 0.001)
    assert known.inferred["delay_s"].startswith("the gap between two arrivals")
    assert known.doubts == (
        "1 chats follow a chat that is not in the file; they are taken as roots.",
    )
    assert inspect(trace).programs == 3


def test_stamps_are_read_by_their_digits(a_file: Write) -> None:
    """As doubles, the two stamps of 17 digits would be the same."""
    first, second = "100000000.000000001", "100000000.000000002"
    lines = "".join(a_chat(n).replace('p": 0', f'p": {s}') for n, s in enumerate((first, second)))
    trace = load(a_file(lines))
    assert float(first) == float(second)
    assert trace.collect()["arrival_s"].to_list() == [0.0, 1e-9]
    assert trace.provenance.t0_ns == 100000000000000001


def test_a_chat_may_stand_before_the_one_it_follows(a_file: Write) -> None:
    lines = a_chat(3, 2, 9) + a_chat(2, 1, 4) + a_chat(1, -1, 1) + a_chat(4, 1, 2)
    trace = load(a_file(lines))
    calls = trace.collect()
    assert calls["call_id"].to_list() == ["1", "4", "2", "3"]
    assert calls["program_id"].to_list() == ["1"] * 4
    assert calls["parents"].to_list() == [[], ["1"], ["1"], ["2"]]
    assert calls["delay_s"].to_list() == [None, 1.0, 3.0, 5.0]
    assert trace.provenance.doubts == (MOVED,)


def test_a_chat_before_the_one_it_follows_in_time_has_no_pause(a_file: Write) -> None:
    trace = load(a_file(a_chat(1, timestamp=5) + a_chat(2, 1, 4.5) + a_chat(3, 1, 3)))
    assert trace.collect()["delay_s"].to_list() == [0.0, 0.0, None]
    assert trace.provenance.doubts == (
        MOVED,
        "1 chats arrived before the chat that they follow; their pause is taken as 0.",
    )


def test_only_four_fields_are_needed(a_file: Write) -> None:
    line = '{"chat_id": 1, "timestamp": 2, "input_length": 3, "output_length": 4}\n'
    (call,) = load(a_file(line)).collect().iter_rows(named=True)
    assert (call["program_id"], call["parents"], call["turn"]) == ("1", [], None)
    assert call["prefix_blocks"] is call["call_class"] is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (a_chat(1), "a call named 1 came before"),
        (a_chat(2, turn=0), r"Expected `int` >= 1 - at `\$\.turn`"),
        (a_chat(2, 2), "the parents of chat 2 form a cycle"),
        (a_chat(2, 3) + a_chat(3, 2), "the parents of chat 2 form a cycle"),
        (a_chat(2, hash_ids=[1]), "1 prefix blocks do not fit 17 tokens in blocks of 16"),
        (a_chat(2, output_length=-1), "output_tokens is -1"),
        (a_chat(2, timestamp=None), r"got `null` - at `\$\.timestamp`"),
        (a_chat(2, timestamp="soon"), r"at `\$\.timestamp`"),
        (a_chat(2, timestamp=1e99), r"its timestamp 1E\+99 is no moment"),
        (a_chat(2, input_length="9"), r"Expected `int`, got `str` - at `\$\.input_length`"),
        ('{"chat_id": 2, "timestamp": 0}\n', "missing required field `input_length`"),
        ("rubbish\n", "JSON is malformed"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(a_file: Write, line: str, message: str) -> None:
    with pytest.raises(BadRow, match=rf"t\.jsonl, line 2: .*{message}"):
        load(a_file(a_chat(1) + line, "t.jsonl"))


def test_bad_lines_may_be_put_aside(a_file: Write, tmp_path: Path) -> None:
    """What follows a line that is put aside is a root; what follows a cycle goes with it."""
    lines = (
        a_chat(1, output_length=-1)
        + a_chat(2, 1, 1)
        + a_chat(3, 4)
        + a_chat(4, 3)
        + a_chat(5, 4)
        + "{}\n"
    )
    trace = load(a_file(lines), on_error="skip", rejected=tmp_path / "r.jsonl")
    calls = trace.collect()
    assert calls["call_id"].to_list() == ["2"]
    assert calls["parents"].to_list() == [[]]
    assert trace.provenance.rows_read == 6
    assert trace.provenance.rows_dropped["parents form a cycle"] == 3


def test_a_long_chain_is_followed(a_file: Write) -> None:
    lines = "".join(a_chat(n, n + 1, 5000 - n) for n in range(5000))
    assert load(a_file(lines)).collect()["program_id"].unique().to_list() == ["4999"]


def test_no_other_format_claims_it() -> None:
    head = SAMPLE.read_bytes()
    assert [name for name, form in BUILT_IN.items() if form.sniff(head)] == ["bailian"]
