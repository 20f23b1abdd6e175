"""Damaged files: whatever is in them, a loader ends in one clear error or in a sound trace.

Every format's small sample in tests/data/formats is mutated; what once broke a loader is kept in
tests/data/corpus and read again for ever.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servescope.traces import Trace, inspect, load
from servescope.traces.errors import ServescopeError
from servescope.traces.formats import BUILT_IN, Options, Source
from servescope.traces.formats.rejects import Rejects
from servescope.traces.formats.source import File

DATA = Path(__file__).parents[2] / "data"
SAMPLES = sorted(path for path in (DATA / "formats").rglob("*") if path.is_file())
CORPUS = sorted((DATA / "corpus").glob("*-*"))
SAID = Options(unit="s", block_tokens=16, block_rule="ceil")

NASTY = st.sampled_from(
    [
        *(b"", b"\0", b'"', b"'", b",", b"\n", b"\r\n", b"{", b"}", b"[", b"]", b"[" * 2000, b":"),
        *(b"null", b"true", b"{}", b"[]", b'""', b"-1", b"-0.5", b"1e999", b"NaN", b"Infinity"),
        *(
            b"9" * 30,
            b"9" * 5000,
            b"18446744073709551616",
            b"0.1",
            b"1e-320",
            b"\xff\xfe",
            b"\xed\xa0\x80",
        ),
        *(b"\\ud800", b"\xef\xbb\xbf", b"1970-13-45T99:99:99Z", b"9999-12-31T23:59:59Z", b"  "),
        *("é".encode(), b"\xef\xbc\x92", b"=1+1", b"__import__('os').abort()"),
    ]
)


@st.composite
def damages(draw: st.DrawFn) -> list[tuple[float, float, bytes]]:
    """Return cuts: from where to where, as shares of the file, and what stands there instead."""
    count = draw(st.integers(1, 3))
    return [
        (draw(st.floats(0, 1)), draw(st.sampled_from([0.0, 0.001, 0.01, 0.3, 1.0])), draw(NASTY))
        for _ in range(count)
    ]


def damaged(content: bytes, cuts: list[tuple[float, float, bytes]]) -> bytes:
    for place, share, instead in cuts:
        start = int(place * len(content))
        content = content[:start] + instead + content[start + int(share * len(content)) :]
    return content


def format_of(path: Path) -> str:
    inside = path.relative_to(DATA / "formats")
    return inside.parts[0].split(".")[0]


def clear(refused: ServescopeError) -> bool:
    """Return whether an error says both what is wrong and how to mend it."""
    return bool(refused.wrong.strip() and refused.mend.strip())


def read(path: Path, name: str, aside: Path | None = None) -> Trace | None:
    """Return the trace, or None if the loader refused it as it should."""
    file = File(path, path.name)
    try:
        return BUILT_IN[name].read(Source((file,), path.name, SAID, Rejects(aside)))
    except ServescopeError as refused:
        return None if clear(refused) else pytest.fail(f"no clear error: {refused!r}")


def assert_sound(trace: Trace) -> None:
    """The loader said that every row was looked at; here all are looked at again."""
    replace(trace, checked=False).collect()
    inspect(trace)
    about = trace.provenance
    assert about.rows_read is None or about.rows_read == about.rows_kept + sum(  # type: ignore[operator]
        about.rows_dropped.values()
    )


def test_every_format_has_a_sample() -> None:
    assert {format_of(path) for path in SAMPLES} == set(BUILT_IN) - {"canonical"}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: str(path.relative_to(DATA / "formats")))
def test_a_sample_is_recognised(path: Path) -> None:
    from servescope.traces.formats import recognise

    assert recognise(File(path, path.name)) == format_of(path)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: str(path.relative_to(DATA / "formats")))
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=damages())
def test_damage_ends_in_an_error_or_a_sound_trace(
    path: Path, tmp_path: Path, cuts: list[tuple[float, float, bytes]]
) -> None:
    broken = tmp_path / path.name
    broken.write_bytes(damaged(path.read_bytes(), cuts))
    trace = read(broken, format_of(path))
    if trace is not None:
        assert_sound(trace)
    aside = tmp_path / "aside.jsonl"
    aside.unlink(missing_ok=True)
    rest = read(broken, format_of(path), aside)
    if rest is not None:
        assert_sound(rest)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_once_broke_a_loader_does_so_no_more(path: Path) -> None:
    """A file of the corpus is called NAME-what.ending, by the format that it broke."""
    trace = read(path, path.name.partition("-")[0])
    if trace is not None:
        assert_sound(trace)


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused_clearly(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "any"
    path.write_bytes(content)
    with pytest.raises(ServescopeError, match=re.escape(str(path))):
        load(path)
