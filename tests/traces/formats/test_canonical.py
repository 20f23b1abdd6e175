import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from servescope.traces import Trace, load
from servescope.traces.errors import BadRow, InputError, MissingColumns
from servescope.traces.formats.canonical import sniff

TABLE = pl.DataFrame({"arrival_s": [0, 5], "input_tokens": [1, None], "output_tokens": [3, 4]})


def a_parquet(path: Path, table: pl.DataFrame = TABLE, **metadata: str) -> Path:
    table.write_parquet(path, metadata=metadata or None)
    return path


def test_parquet_is_recognised_by_its_first_bytes(tmp_path: Path) -> None:
    assert sniff(a_parquet(tmp_path / "t").read_bytes())
    assert not sniff(b"PARQUET")


def test_any_parquet_with_canonical_names_is_a_trace(tmp_path: Path) -> None:
    trace = load(a_parquet(tmp_path / "t[1]*.parquet"))
    calls = trace.collect()
    assert calls["call_id"].to_list() == ["0", "1"]
    assert calls["arrival_s"].to_list() == [0.0, 5.0]
    assert calls["input_tokens"].to_list() == [1, None]
    assert (trace.provenance.format, trace.provenance.kind) == ("canonical", "real")
    assert trace.provenance.sha256


def test_provenance_comes_from_the_file_that_was_first_read(tmp_path: Path) -> None:
    trace = load("burstgpt:sessions")
    trace.write(tmp_path / "t.parquet")
    again = load(tmp_path / "t.parquet")
    assert again.provenance == trace.provenance
    assert again.provenance.source == "burstgpt:sessions"
    assert isinstance(again, Trace)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 3, "source": "x"}', "{}"])
def test_metadata_that_is_no_provenance_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadRow, match="not a readable Parquet file"):
        load(a_parquet(tmp_path / "t", servescope=text))


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[:-30], lambda whole: whole[:4], lambda whole: whole + b"x"],
)
def test_a_cut_file_is_refused(
    tmp_path: Path, a_file: Callable[..., Path], damage: Callable[[bytes], bytes]
) -> None:
    whole = a_parquet(tmp_path / "t").read_bytes()
    with pytest.raises(BadRow, match="not a readable Parquet file"):
        load(a_file(damage(whole), "cut"))


def test_a_damaged_page_shows_when_it_is_read(tmp_path: Path, a_file: Callable[..., Path]) -> None:
    whole = bytearray(a_parquet(tmp_path / "t").read_bytes())
    whole[6:30] = b"z" * 24
    with pytest.raises(BadRow, match="damaged cannot be read"):
        load(a_file(bytes(whole), "damaged")).collect()


def test_a_gzipped_parquet_is_told_to_unpack(tmp_path: Path, a_file: Callable[..., Path]) -> None:
    packed = gzip.compress(a_parquet(tmp_path / "t").read_bytes())
    with pytest.raises(BadRow, match="Unpack it if it is gzipped"):
        load(a_file(packed, "t.gz"))


def test_foreign_columns_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(MissingColumns, match="does not know: latency_ms"):
        load(a_parquet(tmp_path / "t", TABLE.with_columns(latency_ms=3)))


def test_several_files_are_not_one_trace(tmp_path: Path) -> None:
    a_parquet(tmp_path / "one")
    a_parquet(tmp_path / "two")
    with pytest.raises(InputError, match="is more than one Parquet file"):
        load(tmp_path)
