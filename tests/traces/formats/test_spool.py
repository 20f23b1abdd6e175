from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces.errors import OutputFailed
from servescope.traces.formats import spool
from servescope.traces.formats.spool import Spool

TYPES = {"at": pl.Int64, "row": pl.Int64}
stamps = st.none() | st.integers(0, 3) | st.integers(-(2**63), 2**63 - 1)
pieces = st.lists(st.lists(stamps, max_size=8), min_size=1, max_size=6).filter(any)


def a_batch(stamps: list[int | None], first_row: int = 0) -> pl.DataFrame:
    rows = range(first_row, first_row + len(stamps))
    return pl.DataFrame({"at": stamps, "row": rows}, schema=TYPES)


def filled(batches: list[list[int | None]]) -> Spool:
    held, row = Spool(), 0
    for stamps in batches:
        held.add(a_batch(stamps, row))
        row += len(stamps)
    return held


def stable(batches: list[list[int | None]]) -> list[tuple[int | None, int]]:
    """Sort by stamp, ties as they stood, nulls first, as Python does it."""
    flat = [stamp for stamps in batches for stamp in stamps]
    pairs = [(stamp, row) for row, stamp in enumerate(flat)]
    return sorted(pairs, key=lambda pair: (pair[0] is not None, pair[0] or 0))


@pytest.fixture(params=[128 << 20, 0], ids=["in memory", "on disk"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(spool, "MEMORY_BYTES", request.param)
    return int(request.param)


def is_on_disk(held: Spool) -> bool:
    return "SCAN" in held.frame().explain(optimized=False) and "DF [" not in held.frame().explain()


def test_batches_come_back_in_order_wherever_they_are(limit: int) -> None:
    batches = [[3, 1], [], [2], [None, 5]]
    held = filled(batches)
    assert is_on_disk(held) == (limit == 0)
    assert held.height == 5
    assert held.frame().collect()["row"].to_list() == [0, 1, 2, 3, 4]
    assert pl.concat(held.batches()).equals(held.frame().collect())


def test_what_was_in_memory_goes_to_disk_with_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is that of two batches: the third one moves all of them."""
    size = int(a_batch([1, 2]).estimated_size())
    monkeypatch.setattr(spool, "MEMORY_BYTES", 2 * size)
    assert not is_on_disk(filled([[1, 2], [3, 4]]))
    held = filled([[1, 2], [3, 4], [5, 6], [7]])
    assert is_on_disk(held)
    assert held.frame().collect()["at"].to_list() == [1, 2, 3, 4, 5, 6, 7]


def test_nothing_is_an_empty_table() -> None:
    assert Spool().height == 0
    assert Spool().frame().collect().is_empty()


def test_every_batch_can_be_changed(limit: int) -> None:
    held = filled([[3], [1, 2]]).map(lambda batch: batch.filter(pl.col("at") > 1))
    assert held.height == 2
    assert held.frame().collect().rows() == [(3, 0), (2, 2)]


@pytest.mark.parametrize("every", [1, 2, 512])
@settings(deadline=None, max_examples=60)
@given(batches=pieces)
def test_sorting_on_disk_is_a_stable_sort(every: int, batches: list[list[int | None]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spool, "MEMORY_BYTES", 0)
        patched.setattr(spool, "SAMPLE_EVERY", every)
        ordered = filled(batches).sorted("at")
        assert ordered.frame().collect().rows() == stable(batches)
        assert ordered.height == len(stable(batches))


@settings(deadline=None, max_examples=30)
@given(batches=pieces)
def test_sorting_in_memory_is_a_stable_sort(batches: list[list[int | None]]) -> None:
    assert filled(batches).sorted("at").frame().collect().rows() == stable(batches)


def test_many_ties_are_sorted_too(limit: int) -> None:
    batches: list[list[int | None]] = [[row % 3 for row in range(2000)] for _ in range(5)]
    assert filled(batches).sorted("at").frame().collect().rows() == stable(batches)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spool, "MEMORY_BYTES", 0)
    monkeypatch.setattr(spool, "_temporary_folder", lambda: tmp_path / "gone")
    with pytest.raises(OutputFailed, match="cannot be written"):
        filled([[1]])
