"""The prompts of a plan: the same bytes for the same seed, on every machine and in any order.

Every token is a hash of the seed, the stream it belongs to and its place in it, so a prompt can be
made when it is needed, and prompts share exactly the prefixes that the trace says they share. Texts
are made of words in the same manner; with the model's tokenizer, of words that are a token each, as
many as make the whole chat as long as planned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from servescope.loadgen.program import Call, Program
from servescope.traces.errors import InputError
from servescope.traces.tokens import texts_of

if TYPE_CHECKING:
    from servescope.loadgen.chat_tokenizer import ChatTokenizer

# Ids that every vocabulary has and that are no special tokens: past the control ids, and all of
# three digits, so that a prompt's JSON is a table look-up.
FIRST_ID, LAST_ID = 256, 999

# Short words that common tokenizers hold as one token with the space before them.
_TEXT = """
the of and to in is was for on that with as it at by from be are this have or had not but one
all were when we there can an your which their said if do will each about how up out them then
she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may water long little
"""
WORDS = tuple(_TEXT.split())

_FEW = 16  # a tokenizer with fewer one-token words than that gets the common ones
_ENDS = 4  # words at either end of a text that are counted in their surroundings
_TRIES = 64
_MANY = 1 << 40
_REMEMBERED = 16_384  # turns of chats


class _Turn(NamedTuple):
    """A call in a chat: its message is so many words of its stream, from a place of it on.

    `anew` says that nothing before it is in the chat any more.
    """

    call: Call
    start: int
    words: int
    anew: bool


class _Span(NamedTuple):
    """A message that is so many words of a call's stream or blocks, from a place of it on."""

    role: str
    call: Call
    start: int
    words: int


class _Said(NamedTuple):
    """A message, a shorter one to count in its stead, and how many tokens that one leaves out."""

    message: dict[str, Any]
    counted: dict[str, Any]
    left_out: int = 0


@dataclass(slots=True)
class Prompts:
    """Makes the prompt of any call; `block_tokens` is what one id of `prefix_blocks` stands for.

    What a chat's earlier calls were answered is made up like the rest if `history` is planned, and
    is what the server said if it is generated. `inexact` counts the texts that no number of words
    makes as long as planned: the chat template alone may be longer.
    """

    seed: int
    block_tokens: int | None = None
    tokenizer: ChatTokenizer | None = None
    history: Literal["planned", "generated"] = "planned"
    inexact: int = field(default=0, init=False)
    _ids: npt.NDArray[np.int64] = field(init=False, repr=False)
    _written: npt.NDArray[np.bytes_] = field(init=False, repr=False)
    _words: Sequence[str] = field(default=WORDS, init=False, repr=False)
    _shorten: bool = field(default=False, init=False, repr=False)
    _overheads: tuple[int, int] = field(default=(0, 0), init=False, repr=False)
    _known: dict[int, _Turn] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        model = self.tokenizer
        if model is None:
            self._ids = np.arange(FIRST_ID, LAST_ID + 1)
        else:
            self._ids = np.array(model.plain_ids(FIRST_ID, LAST_ID))
        self._written = _written(self._ids)
        if model is None:
            return
        if len(model.words) >= _FEW:
            self._words, self._shorten = model.words, model.additive
        if model.has_template:
            user, assistant = ({"role": r, "content": "the"} for r in ("user", "assistant"))
            one, three = model.count([user]), model.count([user, assistant, user])
            self._overheads = one - 1, three - one - 2

    @property
    def exact(self) -> bool:
        """Whether chats are as long as planned, to the token: the chat template is known."""
        return self.tokenizer is not None and self.tokenizer.has_template

    def token_ids(self, call: Call) -> npt.NDArray[np.int64]:
        """Return the made-up prompt as token ids, shape (input_tokens,): no tokenizer is needed."""
        return self._ids[self._drawn(len(self._ids), (call, 0, call.input_tokens))]

    def prompt(self, call: Call) -> list[int] | str:
        """Return what a completions endpoint is asked: the real text if there is one, or ids."""
        if call.text is not None or call.messages is not None:
            return self.text(call)
        ids: list[int] = self.token_ids(call).tolist()
        return ids

    def prompt_json(self, call: Call) -> msgspec.Raw | str:
        """Return the same with ids as JSON: 100,000 of them take a millisecond, not twenty."""
        if call.text is not None or call.messages is not None:
            return self.text(call)
        drawn = self._drawn(len(self._ids), (call, 0, call.input_tokens))
        return msgspec.Raw(b"[" + self._written[drawn].tobytes()[:-1] + b"]")

    def text(self, call: Call) -> str:
        """Return the prompt as a text: the real one, or words.

        With a tokenizer the words have as many tokens as planned, with those that a server puts
        around a text; without one, about a token each. Real messages are put together by the chat
        template if it is known, or else by line ends.
        """
        if call.text is not None:
            return call.text
        model = self.tokenizer
        if call.messages is not None:
            messages = _decoded(call)
            if model is not None and model.template is not None:
                return model.template.render(messages)
            return "\n".join(texts_of(messages))
        words = call.input_tokens
        if model is not None:
            words, over = self._filled(
                call,
                0,
                words,
                lambda said: model.count_text(said.counted["content"]) + said.left_out,
            )
            self.inexact += over != 0
        return " ".join(self._text_words((call, 0, words)))

    def messages(
        self,
        call: Call,
        program: Program | None = None,
        answers: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return what a chat endpoint is asked: the real messages, or a chat as long as planned.

        The chat holds the turns before the call, which are looked for in its program: each as it
        was sent, with its answer. `answers` are the texts generated so far, by call id; one that is
        missing is made up. A chat begins anew where the trace's does (another `prompt_stream`), and
        where its earlier turns leave no room for a new one. Prefix blocks say all that is in a
        prompt, so with a planned history they make one message. Raises InputError for real messages
        that are no list.
        """
        said = answers or {} if self.history == "generated" else {}
        turns: list[_Turn] = []
        key, answer = 0, None
        for each in self._chain(call, program):
            key = hash((key, answer, each))
            turn = self._known.get(key)
            if turn is None:
                turn = self._known[key] = self._next(turns, each, said)
                if len(self._known) > _REMEMBERED:
                    del self._known[next(iter(self._known))]
            turns = [turn] if turn.anew else [*turns, turn]
            answer = said.get(each.id)
        return [each.message for each in self._said(turns, said)]

    def _chain(self, call: Call, program: Program | None) -> list[Call]:
        """Return the calls of a chat, the first one first; of several parents the longest counts.

        A parent that took more tokens than the prompt has cannot be in it.
        """
        chain = [call]
        in_blocks = self.block_tokens and call.prefix_blocks and self.history == "planned"
        if program is None or not call.parents or in_blocks:
            return chain
        calls = {each.id: each for each in program.calls}
        while len(chain) <= len(calls):
            last = chain[-1]
            before = [
                parent
                for parent in map(calls.get, last.parents)
                if parent is not None
                and parent.prompt_stream == last.prompt_stream
                and _end(parent) < last.input_tokens
            ]
            if not before:
                break
            chain.append(max(before, key=_end))
        return chain[::-1]

    def _next(self, turns: list[_Turn], call: Call, answers: Mapping[str, str]) -> _Turn:
        """Return a call's turn after others: with them if they leave room for a word, or anew."""
        if call.text is not None or call.messages is not None:
            return _Turn(call, 0, 0, True)
        if turns:
            start = _end(turns[-1].call)
            history = self._said(turns, answers, answered=True)
            try:
                words, over = self._left(history, call, start)
            except InputError:  # the template does not take what the trace has before it
                over = 1
            if over <= 0:
                self.inexact += over != 0
                return _Turn(call, start, words, False)
        words, over = self._left([], call, 0)
        self.inexact += over != 0
        return _Turn(call, 0, words, True)

    def _left(self, history: list[_Said], call: Call, start: int) -> tuple[int, int]:
        """Return how many words are left for a new message, and by how many tokens it is over."""
        model = self.tokenizer
        room = call.input_tokens - start
        if model is None or not model.has_template:
            return room, 0
        before = [said.counted for said in history]
        left_out = sum(said.left_out for said in history)
        return self._filled(
            call,
            start,
            room - self._overheads[1 if history else 0],
            lambda said: model.count([*before, said.counted]) + left_out + said.left_out,
        )

    def _filled(
        self, call: Call, start: int, guess: int, count: Callable[[_Said], int]
    ) -> tuple[int, int]:
        """Return how many words fill a prompt, at least 1, and by how many tokens it is over."""

        def over(words: int) -> int:
            if not self._shorten or words <= 2 * _ENDS:
                ends = self._text_words((call, start, words))
            else:
                last = start + words - _ENDS
                ends = self._text_words((call, start, _ENDS), (call, last, _ENDS))
            message = {"role": "user", "content": " ".join(ends)}
            return count(_Said(message, message, words - len(ends))) - call.input_tokens

        low, high = (0, 0), (_MANY, 0)  # too few and too many words, and what they are over
        words = max(1, guess)
        for _ in range(_TRIES):
            excess = over(words)
            if excess == 0:
                return words, 0
            low, high = ((words, excess), high) if excess < 0 else (low, (words, excess))
            if high[0] - low[0] <= 1:
                break
            words -= excess  # right at once where a word is a token
            if not low[0] < words < high[0]:
                words = (low[0] + high[0]) // 2
        return low if low[0] else high

    def _said(
        self, turns: Sequence[_Turn], answers: Mapping[str, str], *, answered: bool = False
    ) -> list[_Said]:
        """Return the messages of turns and their answers, that of the last one if `answered`."""
        parts: list[_Span | dict[str, Any]] = []
        for call, start, words, _ in turns:
            if call.text is not None:
                parts.append({"role": "user", "content": call.text})
            elif call.messages is not None:
                parts += _decoded(call)
            else:
                parts.append(_Span("user", call, start, words))
            if call.id in answers:
                parts.append({"role": "assistant", "content": answers[call.id]})
            else:
                parts.append(_Span("assistant", call, call.input_tokens, call.output_tokens))
        if not answered:
            parts.pop()
        return self._made(parts)

    def _made(self, parts: Sequence[_Span | dict[str, Any]]) -> list[_Said]:
        """Write out the spans among messages, all at once: a long chat has many short ones."""
        spans = [part for part in parts if isinstance(part, _Span)]
        words = iter(self._text_words(*(each[1:] for each in spans)))
        said = []
        for part in parts:
            if isinstance(part, _Span):
                said.append(self._message(part.role, list(islice(words, part.words))))
            else:
                said.append(_Said(part, part))
        return said

    def _message(self, role: str, words: list[str]) -> _Said:
        message = {"role": role, "content": " ".join(words)}
        if not self._shorten or len(words) <= 2 * _ENDS:
            return _Said(message, message)
        ends = words[:_ENDS] + words[-_ENDS:]
        return _Said(message, {"role": role, "content": " ".join(ends)}, len(words) - len(ends))

    def _text_words(self, *spans: tuple[Call, int, int]) -> list[str]:
        """Return the words of spans, one after the other."""
        words = self._words
        return [words[i] for i in self._drawn(len(words), *spans).tolist()]

    def _drawn(self, kinds: int, *spans: tuple[Call, int, int]) -> npt.NDArray[np.intp]:
        """Return a number below `kinds` for each place of calls' prompts: (call, start, count)."""
        if not spans:
            return np.empty(0, dtype=np.intp)
        places = np.concatenate([self._places(*span) for span in spans])
        return (_mixed(places) % np.uint64(kinds)).astype(np.intp)

    def _places(self, call: Call, start: int, count: int) -> npt.NDArray[np.uint64]:
        """Return what tells places of a call's stream or blocks from all others."""
        place = np.arange(start, start + count, dtype=np.uint64)
        if not (self.block_tokens and call.prefix_blocks):
            return place + (_named(call.prompt_stream) ^ _seeded(self.seed))
        block = np.uint64(self.block_tokens)
        # A prompt's end may have no id: what nobody named is nobody else's.
        ids = np.append(np.array(call.prefix_blocks, dtype=np.uint64), _named(call.id))
        number = np.minimum(place // block, np.uint64(len(ids) - 1))
        streams = _mixed(ids) ^ _seeded(self.seed)
        place += streams[number.astype(np.intp)] - number * block
        return place


def _end(call: Call) -> int:
    """Return the tokens that have been said once a call was answered."""
    return call.input_tokens + call.output_tokens


def _decoded(call: Call) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(call.messages or "", type=list[dict[str, Any]])
    except msgspec.DecodeError as error:
        raise InputError(
            f"The messages of call {call.id} are no list of chat messages: {error}.",
            "Mend the trace, or replay it without its texts.",
        ) from None


def _written(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bytes_]:
    """Return each id as it stands in a JSON list, all of one width, a comma behind."""
    width = max((len(str(i)) for i in ids.tolist()), default=1)
    return np.array([f"{i:>{width}},".encode() for i in ids.tolist()], dtype=f"S{width + 1}")


@lru_cache(maxsize=1024)
def _named(name: str) -> npt.NDArray[np.uint64]:
    """Return a number for a name, shape (1,)."""
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), dtype="<u8")


@lru_cache(maxsize=16)
def _seeded(seed: int) -> npt.NDArray[np.uint64]:
    """Return a seed scrambled, shape (1,)."""
    return _mixed(np.array([seed], dtype=np.uint64))


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit integers one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
