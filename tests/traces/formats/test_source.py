import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces.errors import BadRow, InputError
from servescope.traces.formats import source as module
from servescope.traces.formats.rejects import Rejects
from servescope.traces.formats.source import HEAD_BYTES, File, Source, lines_in

Write = Callable[..., Path]
LONG = b"0123456789" * 20_000
PACKINGS = [bytes, gzip.compress, zstandard.compress]
packings = pytest.mark.parametrize("pack", PACKINGS, ids=["plain", "gzip", "zstd"])


def a_file_of(path: Path) -> File:
    return File(path, path.name)


def blocks(
    path: Path, *, quoted: bool = False, aside: Path | None = None
) -> list[tuple[int, bytes]]:
    return list(a_file_of(path).blocks(Rejects(aside), quoted=quoted))


@packings
def test_content_head_and_digest_are_those_of_the_unpacked_bytes(
    a_file: Write, pack: Callable[[bytes], bytes]
) -> None:
    file = a_file_of(a_file(pack(LONG), "no-ending"))
    assert file.content == LONG
    assert file.head() == LONG[:HEAD_BYTES]
    assert file.head(3) == b"012"
    assert file.sha256 == hashlib.sha256(LONG).hexdigest()


@packings
def test_a_byte_order_mark_is_no_part_of_the_text_but_of_the_digest(
    a_file: Write, pack: Callable[[bytes], bytes]
) -> None:
    path = a_file(pack(b"\xef\xbb\xbfa,b\n"))
    file = a_file_of(path)
    assert (file.content, file.head()) == (b"a,b\n", b"a,b\n")
    assert blocks(path) == [(1, b"a,b\n")]
    assert file.sha256 == hashlib.sha256(b"\xef\xbb\xbfa,b\n").hexdigest()


@pytest.mark.parametrize("pack", PACKINGS[1:], ids=["gzip", "zstd"])
def test_several_archives_in_a_row_are_one_file(
    a_file: Write, pack: Callable[[bytes], bytes]
) -> None:
    path = a_file(pack(b"one\n") + pack(b"") + pack(LONG) + pack(b"two\n"))
    assert a_file_of(path).content == b"one\n" + LONG + b"two\n"


def test_a_zstd_stream_without_its_size_is_read(a_file: Write) -> None:
    packed = io.BytesIO()
    with zstandard.ZstdCompressor(write_content_size=False).stream_writer(
        packed, closefd=False
    ) as writer:
        for _ in range(30):
            writer.write(LONG)
            writer.flush()
    assert a_file_of(a_file(packed.getvalue())).content == LONG * 30


def test_a_file_of_one_byte_is_a_file(a_file: Write) -> None:
    assert a_file_of(a_file(b"\x1f")).content == b"\x1f"


NOISE = hashlib.shake_256(b"").digest(3000)  # it does not pack, so damage hits what is stored


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
@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_damaged_archive_is_said_to_be_damaged(
    a_file: Write, packing: str, damage: Callable[[bytes], bytes]
) -> None:
    checked = zstandard.ZstdCompressor(write_checksum=True)
    packed = gzip.compress(NOISE) if packing == "gzip" else checked.compress(NOISE)
    file = a_file_of(a_file(damage(packed), "t.packed"))
    with pytest.raises(
        BadRow, match=rf"t\.packed is a damaged {packing} file: .*\. Copy or download"
    ):
        _ = file.content


def test_a_file_that_vanishes_is_an_input_error(a_file: Write) -> None:
    path = a_file(b"here")
    file = a_file_of(path)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file or directory"):
        file.head()


def test_the_digest_of_several_files_is_that_of_their_list(a_file: Write) -> None:
    paths = [a_file(b"one", "a"), a_file(gzip.compress(b"two"), "b")]
    listed = "".join(
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for content, name in [(b"one", "a"), (b"two", "b")]
    )
    source = Source(tuple(map(a_file_of, paths)), "t")
    assert source.sha256 == hashlib.sha256(listed.encode()).hexdigest()
    assert source.head() == b"one"


def test_a_row_is_named_by_file_and_line(a_file: Write) -> None:
    one, two = a_file_of(a_file(b"x", "one")), a_file_of(a_file(b"x", "two"))
    source = Source((one, two), "both")
    assert source.where(7) == "both, row 7"
    source.begin(one, 1, first=2)
    source.begin(two, 11, unit="record")
    assert [source.where(row) for row in (1, 10, 11, 15)] == [
        "one, line 2",
        "one, line 11",
        "two, record 1",
        "two, record 5",
    ]
    with pytest.raises(BadRow, match=r"^two, record 2: it is odd\. Mend it\.$"):
        source.reject(12, "it is odd.", "Mend it.", reason="odd")


@pytest.mark.parametrize(
    ("block", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"\n\n", 2), (b"a\nb", 2)]
)
def test_lines_are_counted_with_or_without_their_last_end(block: bytes, lines: int) -> None:
    assert lines_in(block) == lines


@settings(deadline=None, max_examples=100)
@given(st.text("ab\n\r,", max_size=60).map(str.encode), st.integers(1, 20), st.booleans())
def test_blocks_are_whole_lines_with_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, chunk: int, quoted: bool
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "t"
    path.write_bytes(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "CHUNK_BYTES", chunk)
        found = list(a_file_of(path).blocks(Rejects(), quoted=quoted))
    assert b"".join(block for _, block in found) == text
    assert all(block.endswith(b"\n") for _, block in found[:-1])
    line = 1
    for first, block in found:
        assert first == line
        line += lines_in(block)


def test_a_line_end_between_quotes_does_not_end_a_block(
    a_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b'a,b\n1,"x\ny\nz"\n2,"q"\n'
    for chunk in range(1, len(text) + 1):
        monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
        found = list(a_file_of(a_file(text)).blocks(Rejects(), quoted=True))
        assert b"".join(block for _, block in found) == text
        assert all(block.count(b'"') % 2 == 0 for _, block in found)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_a_line_that_is_too_long_is_rejected_and_the_next_ones_are_read(
    a_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """A line is too long once more than the limit was read and no end has come."""
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(module, "LONGEST_LINE", 20)
    path = a_file(b"one\n" + b"x" * 300 + b"\nthree\nfour\n", "t")
    with pytest.raises(BadRow, match=r"^t, line 2: it is longer than 0 MiB\. Give a file with"):
        blocks(path)
    found = blocks(path, aside=tmp_path / "r.jsonl")
    assert b"".join(block for _, block in found) == b"one\nthree\nfour\n"
    assert next(block for first, block in found if first == 3).startswith(b"three")
    (line,) = (tmp_path / "r.jsonl").read_text().splitlines()
    assert (json.loads(line)["where"], json.loads(line)["reason"]) == ("t, line 2", "line too long")


def test_a_last_line_that_is_too_long_ends_the_file(
    a_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 8)
    monkeypatch.setattr(module, "LONGEST_LINE", 20)
    found = blocks(a_file(b"one\n" + b"x" * 300), aside=tmp_path / "r.jsonl")
    assert found == [(1, b"one\n")]
