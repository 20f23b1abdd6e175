"""OpenAI's messages, as vLLM writes them: what is asked, what is answered, chunk by chunk.

The text is made up: every generated token is one word. A prompt given as text counts
one token per whitespace-separated word; a prompt given as token ids counts the ids.
"""

import time
from array import array
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from servescope.engine.kvcache import BLOCK_TOKENS
from servescope.engine.prefixes import Segment
from servescope.engine.request import Request
from servescope.traces.errors import InputError

TOKEN = " token"
DONE = b"data: [DONE]\n\n"


class StreamOptions(msgspec.Struct):
    """The OpenAI field `stream_options`."""

    include_usage: bool = False


class Ask(msgspec.Struct, kw_only=True):
    """The fields that both kinds of request share; others, as sampling, are ignored.

    Exactly `max_tokens` tokens are generated, so `ignore_eos` changes nothing. `job_id`,
    `is_last_step` and `this_func_call` are Continuum's, `program_id` is ours.
    """

    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    n: int = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    request_id: str | None = None
    priority: int = 0
    program_id: str | None = None
    job_id: str | None = None
    is_last_step: bool | None = None
    this_func_call: str | None = None


class CompletionAsk(Ask, kw_only=True):
    """The body of `POST /v1/completions`."""

    prompt: str | list[int | str | list[int]]


class Part(msgspec.Struct):
    """One part of a chat message; only text counts."""

    text: str = ""


class Message(msgspec.Struct):
    """One chat message."""

    content: str | list[Part] | None = None


class ChatAsk(Ask, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: list[Message]


class PromptDetails(msgspec.Struct):
    """What of a prompt was found in the prefix cache."""

    cached_tokens: int


class Usage(msgspec.Struct):
    """Token counts of a finished request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptDetails | msgspec.UnsetType = msgspec.UNSET


class Answer(msgspec.Struct):
    """What OpenAI calls a completion, or one chunk of it."""

    id: str
    kind: str = msgspec.field(name="object")
    created: int
    model: str
    choices: list[dict[str, object]]
    usage: Usage | msgspec.UnsetType = msgspec.UNSET


Tokens = Sequence[int] | Sequence[str]


def prompt_tokens(prompt: str | list[int | str | list[int]]) -> Tokens:
    """Return a completion prompt's tokens: its ids, or its words.

    Raises InputError for several prompts, which vLLM would serve side by side.
    """
    if isinstance(prompt, str):
        return prompt.split()
    if prompt and not isinstance(prompt[0], int):
        if len(prompt) > 1:
            raise InputError("Only one prompt is served.", "Send a request for each.")
        (only,) = prompt
        return only.split() if isinstance(only, str) else only  # type: ignore[return-value]
    if not all(isinstance(token, int) for token in prompt):
        raise InputError("The prompt mixes token ids and texts.", "Send one or the other.")
    return prompt  # type: ignore[return-value]


def chat_tokens(messages: list[Message]) -> Tokens:
    """Return a chat's tokens: the words of all its texts."""
    texts: list[str] = []
    for message in messages:
        if isinstance(message.content, str):
            texts.append(message.content)
        else:
            texts += (part.text for part in message.content or ())
    return [word for text in texts for word in text.split()]


def pieces(tokens: Tokens) -> tuple[Segment, ...]:
    """Return a prompt block by block, each named by a hash of all text up to its end."""
    named: list[Segment] = []
    before = b""
    for start in range(0, len(tokens), BLOCK_TOKENS):
        block = tokens[start : start + BLOCK_TOKENS]
        if isinstance(block[0], int):
            text = array("q", block).tobytes()
        else:
            text = "\0".join(block).encode()  # type: ignore[arg-type]
        before = blake2b(before + text, digest_size=8).digest()
        named.append(Segment(int.from_bytes(before, "little"), len(block)))
    return tuple(named)


def completion_choice(text: str, finish_reason: str | None) -> dict[str, object]:
    """Return the one choice of a completion or of its chunk."""
    return {
        "index": 0,
        "text": text,
        "logprobs": None,
        "finish_reason": finish_reason,
        "stop_reason": None,
    }


def chat_choice(text: str, finish_reason: str | None) -> dict[str, object]:
    """Return the one choice of a chat completion."""
    return {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": None,
        "finish_reason": finish_reason,
        "stop_reason": None,
    }


def chat_delta(delta: dict[str, str], finish_reason: str | None) -> dict[str, object]:
    """Return the one choice of a chat chunk."""
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


class Frames:
    """The server-sent events of one answer: all but a few are the same bytes."""

    def __init__(
        self,
        request: Request,
        output_tokens: int,
        model: str,
        chat: bool,
        include_usage: bool,
        cached: bool = False,
    ) -> None:
        self.cached = cached
        self.include_usage = include_usage
        self.request = request
        self.output_tokens = output_tokens
        self.kind = "chat.completion.chunk" if chat else "text_completion"
        self.created = int(time.time())
        self.model = model
        if chat:
            self.first = self._event([chat_delta({"role": "assistant", "content": ""}, None)])
            self.middle = self._event([chat_delta({"content": TOKEN}, None)])
            self.last = self._event([chat_delta({"content": TOKEN}, "length")])
        else:
            self.first = b""
            self.middle = self._event([completion_choice(TOKEN, None)])
            self.last = self._event([completion_choice(TOKEN, "length")])

    def next(self, fresh: int, sent: int) -> bytes:
        """Return the events of `fresh` tokens, after `sent` tokens before them."""
        ends = sent + fresh == self.output_tokens
        head = b"" if sent else self.first
        tail = self.last + self._end() if ends else b""
        return head + self.middle * (fresh - ends) + tail

    def _end(self) -> bytes:
        if not self.include_usage:
            return DONE
        usage = usage_of(self.request, self.output_tokens, cached=self.cached)
        return self._event([], usage) + DONE

    def _event(
        self, choices: list[dict[str, object]], usage: Usage | msgspec.UnsetType = msgspec.UNSET
    ) -> bytes:
        answer = Answer(self.request.id, self.kind, self.created, self.model, choices, usage)
        return b"data: " + msgspec.json.encode(answer) + b"\n\n"


def usage_of(request: Request, output_tokens: int, *, cached: bool = False) -> Usage:
    """Return the token counts of a request that runs to its end.

    `cached` says whether there is a prefix cache, of which to tell.
    """
    total = request.input_tokens + output_tokens
    details = PromptDetails(request.found_tokens) if cached else msgspec.UNSET
    return Usage(request.input_tokens, total, output_tokens, details)
