"""What holds for every dialect; each has its own tests in endpoints/."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen import endpoints
from servescope.loadgen.endpoints import BUILT_IN, Ask, Dialect, Piece, openai
from servescope.loadgen.program import Call
from servescope.traces import plugins
from servescope.traces.errors import InputError

each_dialect = pytest.mark.parametrize("dialect", list(BUILT_IN.values()), ids=list(BUILT_IN))
READERS = {dialect.read: name for name, dialect in reversed(BUILT_IN.items())}
each_reader = pytest.mark.parametrize("read", list(READERS), ids=list(READERS.values()))
Read = Callable[[list[bytes]], list[Piece]]

ASK = Ask(
    Call("c", "p", 0, 3, 7, priority=1),
    "tiny",
    prompt="a b c",
    messages=[{"role": "user", "content": "a b c"}],
)
COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "tokens")
# Every name that a dialect reads, at any depth, and a strange one.
_NAMES = """
    choices text delta content reasoning_content reasoning tool_calls finish_reason token_ids usage
    prompt_tokens completion_tokens prompt_tokens_details completion_tokens_details cached_tokens
    reasoning_tokens error message id timings prompt_n cache_n predicted_n meta_info type token
    special details generated_tokens input_length stop stop_type tokens_predicted tokens_evaluated
    strange
"""
NAMES = _NAMES.split()
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
# Events that fit some dialect: counts are counts, texts are texts, and any of them may be missing.
COUNT, TEXT = st.none() | st.integers(0, 2**40), st.none() | st.text(max_size=5)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={**fields, "strange": VALUES})


FINISH = some(type=TEXT, message=TEXT)
DELTA = some(content=TEXT, reasoning=TEXT, tool_calls=st.none() | st.lists(VALUES, max_size=2))
CHOICE = some(text=TEXT, delta=st.none() | DELTA, token_ids=st.none() | st.lists(st.integers()))
USAGE = some(
    prompt_tokens=COUNT,
    completion_tokens=COUNT,
    prompt_tokens_details=st.none() | some(cached_tokens=COUNT),
)
FITTING = some(
    choices=st.none() | st.lists(CHOICE, max_size=3),
    usage=st.none() | USAGE,
    timings=st.none() | some(prompt_n=COUNT, cache_n=COUNT, predicted_n=COUNT),
    error=VALUES,
    text=TEXT,
    meta_info=st.none()
    | some(prompt_tokens=COUNT, completion_tokens=COUNT, finish_reason=st.none() | FINISH),
    token=st.none() | some(text=TEXT, special=st.none() | st.booleans()),
    details=st.none() | some(generated_tokens=COUNT, input_length=COUNT),
    content=TEXT,
    stop=st.none() | st.booleans(),
    tokens_predicted=COUNT,
    tokens_evaluated=COUNT,
)


def are_sound(pieces: list[Piece], count: int) -> bool:
    numbers = [getattr(piece, name) for piece in pieces for name in COUNTS]
    return (
        len(pieces) == count
        and all(type(piece) is Piece for piece in pieces)
        and all(isinstance(piece.text, str) for piece in pieces)
        and all(isinstance(piece.error, str | None) for piece in pieces)
        and all(number is None or (type(number) is int and number >= 0) for number in numbers)
    )


@each_reader
@given(objects=st.lists(FITTING, max_size=4))
def test_unknown_fields_nulls_and_missing_keys_are_no_fault(
    read: Read, objects: list[dict[str, Any]]
) -> None:
    events = [msgspec.json.encode(each) for each in objects]
    assert are_sound(read(events), len(events))


@each_reader
@given(objects=st.lists(OBJECTS | VALUES, max_size=4), tail=st.binary(max_size=6))
def test_whatever_a_server_writes_is_read_or_a_decode_error(
    read: Read, objects: list[Any], tail: bytes
) -> None:
    events = [*map(msgspec.json.encode, objects), tail]
    try:
        pieces = read(events)
    except msgspec.DecodeError:
        return
    assert are_sound(pieces, len(events))


@each_reader
@pytest.mark.parametrize(
    "events",
    [
        [b'{"error":null'],
        [b""],
        [b"{}", b"{},{}"],
        [b"{}],[{}"],
        [b"{}{}"],
        [b'{"error":"a', b'b"}', b"{},{}"],
        [b"[DONE]"],
        [b"1"],
        [b"[]"],
        [b'{"error":"\xff"}'],
        [b"\xff\xfe"],
    ],
)
def test_what_is_not_one_json_object_an_event_raises(read: Read, events: list[bytes]) -> None:
    with pytest.raises(msgspec.DecodeError):
        read(events)


@each_reader
def test_no_events_are_no_pieces(read: Read) -> None:
    assert read([]) == []


@each_dialect
def test_a_request_is_json_that_streams_so_many_tokens_without_chance(dialect: Dialect) -> None:
    body = msgspec.json.encode(dialect.body(ASK))
    assert b":7" in body
    assert b'"temperature":0' in body or b'"do_sample":false' in body
    assert b'"stream":true' in body or dialect.path.endswith("_stream")
    assert b"a b c" in body


@each_dialect
def test_a_dialect_says_what_it_is(dialect: Dialect) -> None:
    assert dialect.path.startswith("/")
    assert dialect.says


@pytest.mark.parametrize("name", [*COUNTS[:4], "tokens"])
def test_a_count_alone_is_no_chunk(name: str) -> None:
    assert not Piece(**{name: 3}).has_text  # type: ignore[arg-type]


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"There is no backend 'vlmm'\. Known: openai"):
        endpoints.named("vlmm")


def test_a_stranger_adds_a_dialect_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "house"

        @staticmethod
        def load() -> Dialect:
            return Dialect("/say", "prompt", openai.completions, openai.read, "the house's own")

    monkeypatch.setattr(plugins, "entry_points", lambda group: [Point])
    assert endpoints.named("house").path == "/say"
    assert endpoints.named("openai") is openai.COMPLETIONS


def test_a_worker_that_loads_the_dialects_loads_no_tables() -> None:
    code = (
        "import sys, servescope.loadgen.endpoints;"
        "print({'polars', 'pandas', 'scipy', 'pyarrow', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
