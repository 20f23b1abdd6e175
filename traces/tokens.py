"""Counting tokens of text, for sources that keep text and no counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from servescope.traces.errors import InputError

if TYPE_CHECKING:
    import tokenizers

ESTIMATE = "estimate"
BYTES_PER_TOKEN = 4
_CACHED = 100_000


class Tokenizer:
    """Counts the tokens of texts and of chat messages; each message is counted once.

    A chat is counted as the sum of its messages' texts: what a chat template adds is left out.
    """

    def __init__(self, name: str, length: Callable[[str], int]) -> None:
        self.name = name
        self._length = length
        self._known: dict[str, int] = {}

    @classmethod
    def of(cls, name: str | None) -> Tokenizer | None:
        """Return the tokenizer of a tokenizer.json (or the folder that holds it), or "estimate".

        The estimate is one token for 4 bytes of UTF-8, rounded up. None has no tokenizer. Raises
        InputError for a file that cannot be used, and without the extra servescope[tokenizers].
        """
        if name is None:
            return None
        if name == ESTIMATE:
            told = f"{ESTIMATE}: one token for {BYTES_PER_TOKEN} bytes"
            return cls(told, lambda text: math.ceil(len(text.encode()) / BYTES_PER_TOKEN))
        path, loaded = opened(name, f"Give a tokenizer.json, or the word {ESTIMATE}.")
        return cls(str(path), lambda text: len(loaded.encode(text, add_special_tokens=False).ids))

    def count(self, text: str) -> int:
        """Return how many tokens a text has."""
        if text not in self._known:
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[text] = self._length(text)
        return self._known[text]

    def count_texts(self, texts: Iterable[str | None]) -> list[int | None]:
        """Count each text; null stays null."""
        return [None if text is None else self.count(text) for text in texts]

    def count_prompts(
        self, texts: Iterable[str | None], chats: Iterable[str | None]
    ) -> list[int | None]:
        """Count prompts that are a text, or the JSON of a list of chat messages."""
        return [
            sum(map(self.count, texts_of(msgspec.json.decode(chat))))
            if chat is not None
            else None
            if text is None
            else self.count(text)
            for text, chat in zip(texts, chats, strict=True)
        ]


def opened(name: str, mend: str) -> tuple[Path, tokenizers.Tokenizer]:
    """Open a tokenizer.json, or that of a folder; raises InputError, which ends with `mend`.

    A length that texts are to be cut or filled to, which some files ask for, is left out.
    """
    path = Path(name).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        import tokenizers
    except ImportError:
        raise InputError(
            "The package tokenizers is not installed.",
            "Run: pip install 'servescope[tokenizers]'; to count, --tokenizer estimate needs none.",
        ) from None
    try:
        loaded = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(f"{path} is no tokenizer that can be read: {error}.", mend) from None
    loaded.no_truncation()
    loaded.no_padding()
    return path, loaded


def texts_of(messages: Any) -> list[str]:
    """Return the texts in chat messages: contents, parts of contents, and calls of tools."""
    found: list[str] = []
    for message in messages if isinstance(messages, list) else [messages]:
        if isinstance(message, str):
            found.append(message)
            continue
        if not isinstance(message, dict):
            continue
        content = message.get("content")
        if isinstance(content, str):
            found.append(content)
        elif isinstance(content, list):
            found += [
                p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)
            ]
        if message.get("tool_calls"):
            found.append(msgspec.json.encode(message["tool_calls"]).decode())
    return found
