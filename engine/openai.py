"""OpenAI's messages, as vLLM writes them: what is asked, what is answered, chunk by chunk.

The text is made up: every generated token is one word. A prompt given as text counts
one token per whitespace-separated word; a prompt given as token ids counts the ids.
"""

import time

import msgspec

from servescope.engine.request import Request

TOKEN = " token"


class StreamOptions(msgspec.Struct):
    """The OpenAI field `stream_options`."""

    include_usage: bool = False


class Ask(msgspec.Struct, kw_only=True):
    """The fields that both kinds of request share; others, as sampling, are ignored.

    Exactly `max_tokens` tokens are generated, so `ignore_eos` and `min_tokens` change nothing.
    """

    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    request_id: str | None = None
    priority: int = 0
    program_id: str | None = None


class CompletionAsk(Ask, kw_only=True):
    """The body of `POST /v1/completions`."""

    prompt: str | list[int]


class Part(msgspec.Struct):
    """One part of a chat message; only text counts."""

    text: str = ""


class Message(msgspec.Struct):
    """One chat message."""

    content: str | list[Part] | None = None


class ChatAsk(Ask, kw_only=True):
    """The body of `POST /v1/chat/completions`."""

    messages: list[Message]


class Usage(msgspec.Struct):
    """Token counts of a finished request."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int


class Answer(msgspec.Struct):
    """What OpenAI calls a completion, or one chunk of it."""

    id: str
    kind: str = msgspec.field(name="object")
    created: int
    model: str
    choices: list[dict[str, object]]
    usage: Usage | msgspec.UnsetType = msgspec.UNSET


def prompt_tokens(prompt: str | list[int]) -> int:
    """Return a completion prompt's token count: its ids, or its words."""
    return len(prompt.split()) if isinstance(prompt, str) else len(prompt)


def chat_tokens(messages: list[Message]) -> int:
    """Return a chat's token count: the words of all its texts."""
    texts: list[str] = []
    for message in messages:
        if isinstance(message.content, str):
            texts.append(message.content)
        else:
            texts += (part.text for part in message.content or ())
    return sum(len(text.split()) for text in texts)


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
        self, request: Request, output_tokens: int, model: str, chat: bool, include_usage: bool
    ) -> None:
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
        usage = self._event([], usage_of(request, output_tokens)) if include_usage else b""
        self.end = usage + b"data: [DONE]\n\n"

    def next(self, fresh: int, sent: int) -> bytes:
        """Return the events of `fresh` tokens, after `sent` tokens before them."""
        ends = sent + fresh == self.output_tokens
        head = b"" if sent else self.first
        tail = self.last + self.end if ends else b""
        return head + self.middle * (fresh - ends) + tail

    def _event(
        self, choices: list[dict[str, object]], usage: Usage | msgspec.UnsetType = msgspec.UNSET
    ) -> bytes:
        answer = Answer(self.request.id, self.kind, self.created, self.model, choices, usage)
        return b"data: " + msgspec.json.encode(answer) + b"\n\n"


def usage_of(request: Request, output_tokens: int) -> Usage:
    """Return the token counts of a request that runs to its end."""
    total = request.input_tokens + output_tokens
    return Usage(request.input_tokens, total, output_tokens)
