import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.traces.errors import InputError
from servescope.traces.tokens import Tokenizer, texts_of


def of(name: str) -> Tokenizer:
    tokenizer = Tokenizer.of(name)
    assert tokenizer is not None
    return tokenizer


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A real tokenizer.json of whole words, which puts a start before every text it is let to."""
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "[BOS]": 1, "the": 2, "quick": 3, "fox": 4}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", 1)]
    )
    model.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_no_name_is_no_tokenizer() -> None:
    assert Tokenizer.of(None) is None


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("héé", 2), ("🦊" * 3, 3)]
)
def test_the_estimate_is_a_token_for_4_bytes(text: str, tokens: int) -> None:
    assert of("estimate").count(text) == tokens


@given(st.text())
def test_the_estimate_is_never_less_than_a_quarter_of_the_bytes(text: str) -> None:
    tokens, size = of("estimate").count(text), len(text.encode())
    assert size <= 4 * tokens < size + 4


def test_a_tokenizer_counts_what_it_is_given_and_no_start(words: Path) -> None:
    assert of(str(words)).count("the quick brown fox") == 4
    assert of(str(words)).count("") == 0


def test_a_folder_may_hold_the_tokenizer(words: Path) -> None:
    tokenizer = of(str(words.parent))
    assert (tokenizer.name, tokenizer.count("the fox")) == (str(words), 2)


def test_a_length_that_a_file_cuts_or_fills_texts_to_does_not_change_their_counts(
    words: Path,
) -> None:
    """Files of models for sentences ask for both."""
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer.from_file(str(words))
    model.enable_truncation(4)
    model.enable_padding(length=3)
    model.save(str(words))
    assert of(str(words)).count("the quick brown fox the") == 5
    assert of(str(words)).count("the") == 1


def test_unknown_texts_have_unknown_counts(words: Path) -> None:
    assert of(str(words)).count_texts(["the fox", None, ""]) == [2, None, 0]


def test_a_prompt_is_a_text_or_the_sum_of_its_messages(words: Path) -> None:
    chat = json.dumps(
        [{"role": "system", "content": "the fox"}, {"role": "user", "content": "quick"}]
    )
    assert of(str(words)).count_prompts(["the", None, None], [None, chat, None]) == [1, 3, None]


def test_a_message_is_counted_once_however_often_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    tokenizer = Tokenizer("t", length)
    assert tokenizer.count_texts(["aa", "b", "aa"]) == [2, 1, 2]
    assert asked == ["aa", "b"]
    monkeypatch.setattr("servescope.traces.tokens._CACHED", 2)
    assert tokenizer.count_texts(["ccc", "aa"]) == [3, 2]
    assert asked == ["aa", "b", "ccc", "aa"]


@pytest.mark.parametrize(
    ("messages", "texts"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], ["a", "b"]),
        ({"role": "user", "content": "a"}, ["a"]),
        (["a", "b"], ["a", "b"]),
        ([{"content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}], ["a"]),
        ([{"content": None, "tool_calls": [{"id": "x"}]}], ['[{"id":"x"}]']),
        ([{"content": "a", "tool_calls": []}], ["a"]),
        ([{"content": [{"text": 3}, "x", None]}, 5, None], []),
        ([], []),
        ("a", ["a"]),
    ],
)
def test_the_texts_of_messages_are_contents_their_parts_and_calls_of_tools(
    messages: Any, texts: list[str]
) -> None:
    assert texts_of(messages) == texts


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "bad.json").write_text("{}")
    for name in ("bad.json", "gone.json"):
        with pytest.raises(
            InputError, match=rf"{name} is no tokenizer that can be read: .*\. Give"
        ):
            Tokenizer.of(str(tmp_path / name))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def no_tokenizers(name: str, *args: object, **kwargs: object) -> object:
        if name == "tokenizers":
            raise ImportError(name)
        return there(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_tokenizers)
    with pytest.raises(InputError, match=r"pip install 'servescope\[tokenizers\]'"):
        Tokenizer.of("tokenizer.json")
    assert of("estimate").count("a") == 1
