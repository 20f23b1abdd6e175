import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.traces.formats import peek

# Whatever JSON can hold, with signs and quotes in its texts and plain names of fields.
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('[]{},:"\\ab', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", min_size=1), inner, max_size=3)
    ),
)
containers = values.filter(lambda value: isinstance(value, dict | list))


def fields(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            here = f"{path}.{name}" if path else name
            yield here
            yield from fields(inner, here)
    if isinstance(value, list):
        yield f"{path}[]"
        for inner in value:
            yield from fields(inner, f"{path}[]")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b'{"a": [{"b": 1}]}', {"a", "a[]", "a[].b"}),
        (b' \n[{"a": {"b": [1, 2]}}, {"c": 1}]', {"[]", "[].a", "[].a.b", "[].a.b[]", "[].c"}),
        (b'{"a": "{\\"b\\": 1}, [", "c": 1}', {"a", "c"}),
        (b'{"a": 1}\n{"b": 2}', {"a"}),
        (b'{"a": {"b": 1, "c": "cut o', {"a", "a.b", "a.c"}),
        (b'{"a": 1, "b', {"a"}),
        (b"", set()),
        (b"a,b\n1,2", set()),
        (b'"text"', set()),
        (b"{]}", set()),
    ],
)
def test_the_fields_of_the_first_value_are_its_paths(head: bytes, expected: set[str]) -> None:
    assert peek.paths(head) == expected


@given(containers, st.sampled_from([None, 1]))
def test_paths_are_those_of_a_reading_by_json(value: Any, indent: int | None) -> None:
    assert peek.paths(json.dumps(value, indent=indent).encode()) == set(fields(value))


@given(containers, st.data())
def test_a_value_that_is_cut_off_has_nothing_that_the_whole_has_not(
    value: Any, data: st.DataObject
) -> None:
    text = json.dumps(value).encode()
    cut = data.draw(st.integers(0, len(text)))
    assert peek.paths(text[:cut]) <= peek.paths(text)


def test_fields_after_a_long_list_are_found_too() -> None:
    """A long prompt in small blocks, written with its fields in order of the alphabet."""
    line = {"hash_ids": [1] * 30_000, "timestamp": 0}
    assert peek.paths(json.dumps(line, separators=(",", ":")).encode()) == {
        "hash_ids",
        "hash_ids[]",
        "timestamp",
    }


@given(st.binary())
def test_any_bytes_can_be_looked_at(head: bytes) -> None:
    for start in (b"", b"{", b"["):
        peek.paths(start + head)
