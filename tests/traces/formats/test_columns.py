from collections.abc import Callable
from pathlib import Path

import pytest

from servescope.traces import load
from servescope.traces.errors import InputError
from servescope.traces.formats.columns import TARGETS, column_map
from servescope.traces.schema import SCHEMA

Write = Callable[..., Path]


def test_words_and_files_make_one_map(a_file: Write) -> None:
    path = a_file('[columns]\narrival = "ts"\nmodel = "usage.model"\n', "map.toml")
    assert column_map(["input_tokens=prompt_len", f"@{path}", "error = what=why", "turn="]) == {
        "input_tokens": "prompt_len",
        "arrival": "ts",
        "model": "usage.model",
        "error": "what=why",
        "turn": "",
    }
    assert column_map([str(path)]) == {"arrival": "ts", "model": "usage.model"}
    assert column_map([]) == {}


def test_a_map_in_toml_reads_a_table(a_file: Write) -> None:
    named = '[columns]\narrival = "ts"\ninput_tokens = "a"\noutput_tokens = "b"\n'
    columns = column_map([str(a_file(named, "map.toml"))])
    assert load(a_file("ts,a,b\n1,2,3\n"), columns=columns).collect()["input_tokens"][0] == 2


@pytest.mark.parametrize("word", ["input_tokens", "=prompt", "", "prompt.csv"])
def test_a_word_that_names_no_column(word: str) -> None:
    with pytest.raises(InputError, match=f"'{word}' says no column"):
        column_map([word])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("columns =", "map.toml is no TOML"),
        ("[column]\n", r"map.toml has no table \[columns\]"),
        ("columns = 3\n", r"map.toml has no table \[columns\]"),
        ("[columns]\nmodel = 3\n", r"map.toml has no table \[columns\] of texts"),
        (b"\xff\xfe", "map.toml is no TOML"),
    ],
)
def test_a_file_that_holds_no_map(a_file: Write, content: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        column_map([str(a_file(content, "map.toml"))])


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"nowhere.toml cannot be read: No such file"):
        column_map(["@nowhere.toml"])


def test_a_column_that_is_named_twice() -> None:
    with pytest.raises(InputError, match="Column model is named twice"):
        column_map(["model=a", "model=b"])


def test_every_canonical_column_can_be_named() -> None:
    assert SCHEMA.keys() - TARGETS.keys() == {"source_row", "content_ref"}
