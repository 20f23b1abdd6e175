import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces import Trace
from servescope.traces.errors import BadRow
from servescope.traces.formats import gather as module
from servescope.traces.formats import spool
from servescope.traces.formats.gather import MOVED, gather, tabulate
from servescope.traces.formats.links import Chain
from servescope.traces.formats.rejects import Rejects
from servescope.traces.formats.source import File, Options, Source

NS = 10**9
Row = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "t").write_text("what it says has no meaning here")
    return tmp_path / "t"


def a_source(path: Path, aside: Path | None = None, **options: Any) -> Source:
    source = Source((File(path, "t"),), "t", Options(**options), Rejects(aside))
    source.begin(source.files[0], 1)
    return source


def gathered(source: Source, rows: Iterable[Row], **facts: Any) -> Trace:
    """Gather rows of Python; tokens and the number of the row are made up where left out."""
    whole = [
        {"source_row": number, "input_tokens": 1, "output_tokens": 2, "stamp_ns": 0, **row}
        for number, row in enumerate(rows, start=1)
    ]
    columns = [name for name in whole[0] if name != "source_row"]
    return gather(source, tabulate(source, whole, *columns), **{"format": "test", **facts})


def stamped(*seconds: float | None) -> list[Row]:
    return [{"stamp_ns": None if s is None else int(s * 4) * NS // 4} for s in seconds]


def test_stamps_become_seconds_since_the_first(path: Path) -> None:
    trace = gathered(a_source(path), stamped(1_700_000_000.25, 1_700_000_001))
    calls = trace.collect()
    assert calls["arrival_s"].to_list() == [0.0, 0.75]
    assert calls["call_id"].to_list() == ["1", "2"]
    known = trace.provenance
    assert (known.t0, known.t0_ns) == ("2023-11-14 22:13:20.25", 1_700_000_000_250_000_000)
    assert (known.rows_read, known.rows_kept, known.rows_dropped) == (2, 2, {})
    assert known.doubts == ()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.none() | st.integers(0, 3) | st.integers(0, 10**18), min_size=1, max_size=30))
def test_calls_are_in_order_of_arrival_and_ties_stay_as_they_stood(
    tmp_path_factory: pytest.TempPathFactory, stamps: list[int | None]
) -> None:
    """Whether they are in memory or on disk; calls of unknown arrival come first."""
    path = tmp_path_factory.mktemp("gather") / "t"
    path.touch()
    known = [stamp for stamp in stamps if stamp is not None]
    expected = sorted(
        ((stamp, row) for row, stamp in enumerate(stamps, start=1)),
        key=lambda pair: (pair[0] is not None, pair[0] or 0),
    )
    for limit in (0, 1 << 30):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(spool, "MEMORY_BYTES", limit)
            patched.setattr(module, "BATCH_ROWS", 4)
            trace = gathered(a_source(path), [{"stamp_ns": stamp} for stamp in stamps])
        calls = trace.collect()
        moved = known != sorted(known)
        assert trace.provenance.doubts == ((MOVED,) if moved else ())
        rows = [row for _, row in expected] if moved else list(range(1, len(stamps) + 1))
        assert calls["source_row"].to_list() == rows
        of_row = dict(enumerate(stamps, start=1))
        for row, arrival_s in zip(rows, calls["arrival_s"], strict=True):
            if of_row[row] is None:
                assert arrival_s is None
                continue
            since = of_row[row] - min(known)
            # Past 2^53 ns (104 days) the nanoseconds are no double, and are rounded twice.
            slack = math.ulp(since / NS) if since > 2**53 else 0.0
            assert abs(arrival_s - since / NS) <= slack


def test_a_zero_and_its_words_can_be_given(path: Path) -> None:
    trace = gathered(a_source(path), stamped(5, 7), zero_ns=4 * NS, t0=lambda ns: f"{ns} of ours")
    assert trace.collect()["arrival_s"].to_list() == [1.0, 3.0]
    assert trace.provenance.t0 == "4000000000 of ours"


def test_programs_with_a_zero_of_their_own_stay_as_they_stand(path: Path) -> None:
    rows = [
        {"program_id": program, "stamp_ns": second * NS}
        for program, second in [("a", 0), ("a", 9), ("b", 0), ("b", 4)]
    ]
    trace = gathered(a_source(path), rows, zero_ns=0, arrival_basis="program", chain=Chain())
    calls = trace.collect()
    assert calls["arrival_s"].to_list() == [0.0, 9.0, 0.0, 4.0]
    assert calls["delay_s"].to_list() == [None, 9.0, None, 4.0]
    assert (trace.provenance.t0, trace.provenance.doubts) == (None, ())


def test_calls_are_chained_in_order_of_arrival_and_overlaps_are_said(path: Path) -> None:
    rows = [
        {"program_id": "p", "stamp_ns": second * NS, "observed_e2e_s": took}
        for second, took in [(20, 1.0), (0, 5.0), (3, 1.0)]
    ]
    trace = gathered(a_source(path), rows, chain=Chain("tool"), doubts=["known before"])
    calls = trace.collect()
    assert calls["call_id"].to_list() == ["2", "3", "1"]
    assert calls["parents"].to_list() == [[], ["2"], ["3"]]
    assert calls["delay_s"].to_list() == [None, 0.0, 16.0]
    assert trace.provenance.doubts == (
        MOVED,
        "known before",
        "1 turns arrived before the turn before them had ended; their pause is taken as 0.",
    )


@pytest.mark.parametrize(
    ("row", "message", "reason"),
    [
        ({"input_tokens": -1}, r"input_tokens is -1\.", "input_tokens is negative"),
        ({"output_tokens": -7}, r"output_tokens is -7\.", "output_tokens is negative"),
        ({"delay_s": float("nan")}, r"delay_s is nan\.", "delay_s is no time"),
        ({"delay_s": -0.5}, r"delay_s is -0\.5\.", "delay_s is no time"),
        ({"observed_e2e_s": float("inf")}, r"observed_e2e_s is inf\.", "observed_e2e_s is no time"),
        ({"observed_ttft_s": -1.0}, r"observed_ttft_s is -1\.0\.", "observed_ttft_s is no time"),
        ({"stamp_ns": 2**63}, f"stamp_ns holds {2**63}, .* in 63 bits", "stamp_ns does not fit"),
        ({"input_tokens": 10**30}, "which has no place in 63 bits", "input_tokens does not fit"),
        (
            {"input_tokens": 10**4000},
            "holds a number of 13288 bits, which has no place",
            "input_tokens does not fit",
        ),
        ({"prefix_blocks": [1, 2**64]}, f"holds {2**64}, .* 64 bits", "prefix_blocks does not fit"),
        ({"prefix_blocks": [5, -2]}, "holds -2, which has no place", "prefix_blocks does not fit"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_a_number_that_makes_no_sense_rejects_its_row(
    path: Path, tmp_path: Path, row: Row, message: str, reason: str
) -> None:
    good = dict.fromkeys(row)
    with pytest.raises(BadRow, match=rf"^t, line 2: .*{message}"):
        gathered(a_source(path), [good, row, good])
    trace = gathered(a_source(path, tmp_path / "r.jsonl"), [good, row, good])
    assert trace.collect()["source_row"].to_list() == [1, 3]
    known = trace.provenance
    assert (known.rows_read, known.rows_kept, known.rows_dropped) == (3, 2, {reason: 1})
    (line,) = (tmp_path / "r.jsonl").read_text().splitlines()
    assert json.loads(line)["where"] == "t, line 2"


def test_unknown_is_not_negative(path: Path) -> None:
    rows = [{"input_tokens": None, "delay_s": None, "prefix_blocks": None}]
    facts = {"block_tokens": 4, "block_rule": "ceil"}
    assert gathered(a_source(path), rows, **facts).collect()["input_tokens"].to_list() == [None]


def test_a_trace_without_any_good_row_is_none(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRow, match=r"t has no row that can be read\. Give another"):
        gather(a_source(path), [], format="test")
    with pytest.raises(BadRow, match=r"See .*r\.jsonl for why"):
        gathered(a_source(path, tmp_path / "r.jsonl"), [{"input_tokens": -1}])


@pytest.mark.parametrize(
    ("tokens", "rule", "blocks", "fits"),
    [
        (8, "ceil", 2, True),
        (9, "ceil", 3, True),
        (9, "ceil", 2, False),
        (9, "floor", 2, True),
        (9, "floor", 3, False),
        (0, "ceil", 0, True),
        (3, "floor", 0, True),
        (9, "component", 7, True),
        (None, "ceil", 7, True),
    ],
)
def test_blocks_fit_the_prompt_by_the_rule(
    path: Path, tokens: int | None, rule: str, blocks: int, fits: bool
) -> None:
    rows = [{"input_tokens": tokens, "prefix_blocks": list(range(blocks))}]
    facts = {"block_tokens": 4, "block_rule": rule, "block_scope": "global"}
    if fits:
        assert gathered(a_source(path), rows, **facts).provenance.block_rule == rule
    else:
        with pytest.raises(
            BadRow,
            match=f"line 1: {blocks} prefix blocks do not fit {tokens} tokens in blocks of 4",
        ):
            gathered(a_source(path), rows, **facts)


def test_a_name_that_repeats_rejects_its_row_even_far_away(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 2)
    rows = [{"call_id": name} for name in ("a", "b", "c", "d", "a", None, "e")]
    with pytest.raises(BadRow, match=r"^t, line 5: a call named a came before\."):
        gathered(a_source(path), rows)
    trace = gathered(a_source(path, tmp_path / "r.jsonl"), rows)
    assert trace.collect()["call_id"].to_list() == ["a", "b", "c", "d", "e"]
    assert trace.provenance.rows_dropped == {"name repeats": 2}
    assert "the call has no name" in (tmp_path / "r.jsonl").read_text()


TEXTS: list[Row] = [
    {"input_text": "eight by", "output_text": "tes.", "input_tokens": None, "output_tokens": None},
    {"input_messages": '[{"role":"user","content":"12345"}]', "input_tokens": None},
    {"input_text": "counted", "output_text": "too", "input_tokens": 50, "output_tokens": 60},
    {"input_tokens": None},
]
TEXTS = [{"input_text": None, "input_messages": None, "output_text": None, **row} for row in TEXTS]
UNCOUNTED = (
    "The source holds text where others hold token counts; name a --tokenizer to count what it"
    " leaves out."
)


def test_texts_are_moved_to_a_table_of_their_own(path: Path) -> None:
    trace = gathered(a_source(path), TEXTS)
    calls = trace.collect()
    assert not set(module.TEXTS) & set(calls.columns)
    assert calls["content_ref"].to_list() == ["1", "2", "3", None]
    assert calls["input_tokens"].to_list() == [None, None, 50, None]
    assert trace.tables["contents"].collect().rows() == [
        ("1", "eight by", None, "tes."),
        ("2", None, '[{"role":"user","content":"12345"}]', None),
        ("3", "counted", None, "too"),
    ]
    assert (trace.provenance.tokenizer, trace.provenance.doubts) == (None, (UNCOUNTED,))


def test_texts_that_the_source_counts_need_no_tokenizer(path: Path) -> None:
    trace = gathered(a_source(path), [TEXTS[2]])
    assert trace.provenance.doubts == ()
    assert trace.tables["contents"].collect().height == 1


def test_a_tokenizer_counts_what_the_source_does_not(path: Path) -> None:
    trace = gathered(a_source(path, tokenizer="estimate"), TEXTS)
    calls = trace.collect()
    assert calls["input_tokens"].to_list() == [2, 2, 50, None]
    assert calls["output_tokens"].to_list() == [1, 2, 60, 2]
    assert trace.provenance.tokenizer == "estimate: one token for 4 bytes"
    assert trace.provenance.doubts == ()


def test_the_texts_of_a_rejected_row_are_not_kept(path: Path, tmp_path: Path) -> None:
    rows = [TEXTS[2], {**TEXTS[2], "input_tokens": -1}]
    trace = gathered(a_source(path, tmp_path / "r.jsonl"), rows)
    assert trace.tables["contents"].collect()["content_ref"].to_list() == ["1"]


def test_without_texts_a_tokenizer_has_counted_nothing(path: Path) -> None:
    trace = gathered(a_source(path, tokenizer="estimate"), [{}])
    assert (trace.provenance.tokenizer, dict(trace.tables)) == (None, {})


def family(**parents: list[str] | None) -> list[Row]:
    return [
        {"call_id": name, "parents": those, "delay_s": 1.0 if those else None}
        for name, those in parents.items()
    ]


def test_calls_that_wait_for_themselves_are_rejected(path: Path, tmp_path: Path) -> None:
    rows = family(a=[], b=["a", "c"], c=["b"], d=["c"], e=None)
    with pytest.raises(
        BadRow, match=r"^t, line 2: call b waits for itself through its parents \(a, c\)"
    ):
        gathered(a_source(path), rows, check_links=True)
    trace = gathered(a_source(path, tmp_path / "r.jsonl"), rows, check_links=True)
    calls = trace.collect()
    assert calls["call_id"].to_list() == ["a", "d", "e"]
    assert calls["parents"].to_list() == [[], [], None]
    assert trace.provenance.rows_dropped == {"parents form a cycle": 2}
    assert trace.provenance.rows_read == 5


def test_parents_that_are_not_there_are_forgotten_and_that_is_said(path: Path) -> None:
    """A call that loses its last parent waits for nothing any more, so it has no pause either."""
    rows = family(a=[], b=["gone"], c=["gone", "a"], d=["c"])
    trace = gathered(a_source(path), rows, check_links=True)
    calls = trace.collect()
    assert calls["parents"].to_list() == [[], [], ["a"], ["c"]]
    assert calls["delay_s"].to_list() == [None, None, 1.0, 1.0]
    assert trace.provenance.doubts == (
        "2 calls wait for calls that are not in the trace; those parents are forgotten.",
    )


def test_good_links_are_left_alone(path: Path) -> None:
    rows = family(a=[], b=["a"], c=["a", "b"], d=None)
    trace = gathered(a_source(path), rows, check_links=True)
    assert trace.collect()["parents"].to_list() == [[], ["a"], ["a", "b"], None]
    assert trace.provenance.doubts == ()


def test_rows_come_in_batches_by_number_and_by_weight(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heights(rows: list[Row], *columns: str) -> list[int]:
        numbered = ({"source_row": n, **row} for n, row in enumerate(rows))
        return [batch.height for batch in tabulate(a_source(path), numbered, *columns)]

    monkeypatch.setattr(module, "BATCH_ROWS", 3)
    assert heights([{}] * 7, "model") == [3, 3, 1]
    monkeypatch.setattr(module, "BATCH_WEIGHT", 10)
    assert heights([{"prefix_blocks": [1] * 6}] * 3, "prefix_blocks") == [2, 1]
    assert heights([{"input_text": "x" * 10}] * 2, "input_text") == [1, 1]


def test_a_field_that_a_row_lacks_is_null(path: Path) -> None:
    (batch,) = tabulate(a_source(path), [{"source_row": 1}], "model", "prefix_blocks")
    assert batch.rows() == [(1, None, None)]
    assert batch.schema["prefix_blocks"] == pl.List(pl.UInt64)
