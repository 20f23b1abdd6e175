"""The served model's tokenizer: counts tokens as its server does, and knows one-token words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servescope.loadgen.chat_template import ChatTemplate
from servescope.traces.errors import InputError
from servescope.traces.tokens import opened, texts_of

if TYPE_CHECKING:
    import tokenizers

# Common words have low ids wherever a vocabulary is ordered, so the rest need not be looked at.
_IDS_READ = 30_000
_CANDIDATES, _WORDS, _FEW = 4096, 1024, 64
# A word of plain letters, and the mark that vocabularies keep for the space before it.
_MARKED = re.compile(r"[Ġ▁ ]([a-z]{2,})")
_UNMARKED = re.compile(r"([a-z]{2,})")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ChatTokenizer:
    """A model's tokenizer and, where its folder has one, its chat template.

    Each of `words` is one token wherever it stands between others, with the space before it; if
    `additive`, that holds for any of them in any order, whatever else is in the text. `digest` is
    the SHA-256 of what decides the counts.
    """

    name: str
    digest: str
    template: ChatTemplate | None
    words: tuple[str, ...]
    additive: bool
    _model: tokenizers.Tokenizer

    @classmethod
    def load(cls, path: str) -> ChatTokenizer:
        """Load a folder of the transformers library, or a tokenizer.json with its neighbours.

        Needs the extra servescope[tokenizers]; raises InputError without it, and for files that
        cannot be used.
        """
        file, model = opened(path, "Give a tokenizer.json, or the model's folder that holds it.")
        template = ChatTemplate.of(file.parent)
        if template and "the" not in template.render([{"role": "user", "content": "the"}]):
            raise InputError(
                f"The chat template of {template.name} leaves out what a user says.",
                "Give the tokenizer of a chat model.",
            )
        digest = hashlib.sha256(file.read_bytes())
        digest.update(template.source.encode() if template else b"")
        words = _words(model)
        return cls(str(file), digest.hexdigest(), template, words, _additive(model, words), model)

    def __repr__(self) -> str:
        return f"ChatTokenizer({self.name!r})"

    @property
    def has_template(self) -> bool:
        """Whether it is known what the server makes of chat messages."""
        return self.template is not None

    def count(self, messages: Sequence[Mapping[str, Any]]) -> int:
        """Return the tokens of a chat after the template; without one, the sum of its texts.

        Raises InputError if the template refuses the messages.
        """
        texts = [self.template.render(messages)] if self.template else texts_of(list(messages))
        return sum(len(self._model.encode(text, add_special_tokens=False)) for text in texts)

    def count_text(self, text: str) -> int:
        """Return the tokens of a prompt that is a text, with those that a server puts around it."""
        return len(self._model.encode(text))

    def plain_ids(self, first: int, last: int) -> list[int]:
        """Return the ids from first to last that are in the vocabulary and stand for plain text.

        A vocabulary that has none there gives all its plain ids.
        """
        special = self._model.get_added_tokens_decoder()
        size = self._model.get_vocab_size()
        for ids in (range(first, min(last + 1, size)), range(size)):
            plain = [i for i in ids if i not in special and self._model.id_to_token(i) is not None]
            if plain:
                return plain
        raise InputError(f"{self.name} has no plain tokens.", "Give another tokenizer.")


def _words(model: tokenizers.Tokenizer) -> tuple[str, ...]:
    """Return words that are one token each after a space, the most common ones of the vocabulary.

    A word passes if one more of it makes a text one token longer.
    """
    special = model.get_added_tokens_decoder()
    read = range(min(model.get_vocab_size(), _IDS_READ))
    tokens = [model.id_to_token(i) or "" for i in read if i not in special]
    found = _matching(_MARKED, tokens)
    if len(found) < _FEW:  # vocabularies of whole words mark the other tokens
        found = list(dict.fromkeys([*found, *_matching(_UNMARKED, tokens)]))[:_CANDIDATES]
    two, three = (
        model.encode_batch([" ".join([word] * times) for word in found], add_special_tokens=False)
        for times in (2, 3)
    )
    passed = [
        word for word, a, b in zip(found, two, three, strict=True) if len(b.ids) - len(a.ids) == 1
    ]
    return tuple(passed[:_WORDS])


def _matching(form: re.Pattern[str], tokens: Iterable[str]) -> list[str]:
    found = (match[1] for token in tokens if (match := form.fullmatch(token)))
    return list(dict.fromkeys(found))[:_CANDIDATES]


def _additive(model: tokenizers.Tokenizer, words: Sequence[str]) -> bool:
    """Return whether each word is tokenized alone, so that counts of words add up.

    So it is where the tokenizer cuts a text at its spaces before it looks for tokens.
    """
    if not words or model.pre_tokenizer is None:
        return False
    text = " ".join([*words, *reversed(words)])
    plain = model.normalizer.normalize_str(text) if model.normalizer else text
    pieces = model.pre_tokenizer.pre_tokenize_str(plain)
    return len(pieces) == 2 * len(words)
