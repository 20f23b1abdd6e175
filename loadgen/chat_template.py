"""A model's chat template: what a server makes of chat messages before it tokenizes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from servescope.traces.errors import InputError

if TYPE_CHECKING:
    from jinja2 import Template


class ChatTemplate:
    """Renders chat messages as the transformers library does, with the turn of the model opened."""

    def __init__(self, source: str, special: Mapping[str, str], name: str = "the template") -> None:
        """Compile a Jinja template; raises InputError if it is none.

        `special` names special tokens (bos_token and the like), which templates write by name.
        """
        self.source = source
        self.name = name
        self._special = dict(special)
        self._template = _compiled(source, name)

    @classmethod
    def of(cls, folder: Path) -> ChatTemplate | None:
        """Return the template of a model's folder, or None if it has none.

        chat_template.jinja goes before the chat_template of tokenizer_config.json, and of several
        the one called default is taken. Raises InputError for files that cannot be used.
        """
        config = _config(folder / "tokenizer_config.json")
        path = folder / "chat_template.jinja"
        source: Any = _text(path) if path.is_file() else config.get("chat_template")
        if isinstance(source, list):
            named = {each.get("name"): each.get("template") for each in source}
            source = named.get("default")
        if not isinstance(source, str):
            return None
        return cls(source, _special_tokens(config), str(folder))

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Return the text that the model is given; raises InputError if the template refuses."""
        try:
            return self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._special,
            )
        except Exception as error:  # a template is a program of its own, and fails in any manner
            raise InputError(
                f"The chat template of {self.name} refuses the messages: {error}.",
                "Give messages that this model takes, or the tokenizer of another model.",
            ) from None


def _compiled(source: str, name: str) -> Template:
    """Compile a template in the surroundings that templates of Hugging Face are written for."""
    # A worker that sends token ids never gets here, and starts the faster for it.
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock, Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Lets {% generation %} through: it marks what a model said, and prints nothing itself."""

        tags = {"generation"}  # noqa: RUF012 - the name and kind that jinja2 asks for

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> Any:
            return caller()

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise InputError(
            f"The chat template of {name} is no template: {error}.",
            "Mend it, or take the model's files anew.",
        ) from None


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any, **options: Any) -> str:
    """Return JSON without escapes for HTML, which jinja2's own filter makes."""
    return json.dumps(value, **{"ensure_ascii": False, **options})


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that a configuration names, as texts."""
    tokens = {}
    for key, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            tokens[key] = text
    return tokens


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(_text(path), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise _unreadable(path, error) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read: {error}.", "Take the model's files anew.")
