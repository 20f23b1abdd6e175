import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats.source import HEAD_BYTES, Source

LONG = b"0123456789" * 20_000


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_content_head_and_digest_are_those_of_the_unpacked_bytes(
    a_file: Callable[..., Path], pack: Callable[[bytes], bytes]
) -> None:
    source = Source.at(a_file(pack(LONG), "no-ending"))
    assert source.content == LONG
    assert source.head == LONG[:HEAD_BYTES]
    assert source.sha256 == hashlib.sha256(LONG).hexdigest()


def test_several_archives_in_a_row_are_one_file(a_file: Callable[..., Path]) -> None:
    path = a_file(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert Source.at(path).content == b"one\ntwo\n"


def test_a_file_of_one_byte_is_a_file(a_file: Callable[..., Path]) -> None:
    assert Source.at(a_file(b"\x1f")).content == b"\x1f"


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv does not exist\. Check the path"):
        Source.at(tmp_path / "gone.csv")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        Source.at(tmp_path)


def test_an_empty_file_is_said_to_be_empty(a_file: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="is empty"):
        Source.at(a_file(b""))


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-12],
        lambda packed: packed[:5],
        lambda packed: packed[:20] + b"zzzz" + packed[24:],
        lambda packed: packed[:-8] + b"\x00\x00\x00\x00" + packed[-4:],
        lambda packed: packed + b"rubbish",
    ],
    ids=["cut at the end", "cut in its header", "overwritten", "wrong checksum", "rubbish after"],
)
def test_a_damaged_archive_is_said_to_be_damaged(
    a_file: Callable[..., Path], damage: Callable[[bytes], bytes]
) -> None:
    source = Source.at(a_file(damage(gzip.compress(bytes(range(256)) * 9)), "t.gz"))
    with pytest.raises(BadRow, match=r"t\.gz is a damaged gzip file: .*\. Copy or download"):
        _ = source.content


def test_a_file_that_vanishes_is_an_input_error(a_file: Callable[..., Path]) -> None:
    path = a_file(b"here")
    source = Source.at(path)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file or directory"):
        _ = source.head
