import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from servescope.loadgen.chat_template import ChatTemplate
from servescope.traces.errors import InputError

HERE = Path(__file__).parents[1]
HELLO = [{"role": "user", "content": "hello"}]


def rendered(source: str, messages: list[dict[str, Any]] = HELLO, **special: str) -> str:
    return ChatTemplate(source, special).render(messages)


def test_chatml_is_rendered_with_the_models_turn_opened() -> None:
    template = ChatTemplate.of(HERE / "data" / "tokenizer")
    assert template is not None
    said = [*HELLO, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "bye"}]
    assert template.render(said) == (
        "<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\nhi<|im_end|>\n"
        "<|im_start|>user\nbye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_lines_that_hold_only_statements_leave_no_trace() -> None:
    lines = ("{% for m in messages %}", "  {% if true %}", "{{ m.content }}!", "  {% endif %}")
    source = "\n".join([*lines, "{% endfor %}"])
    assert rendered(source) == "hello!\n"


def test_special_tokens_are_known_by_name_and_what_is_unknown_is_empty() -> None:
    source = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ nobody }}{{ tools }}"
    assert rendered(source, bos_token="<s>", eos_token="</s>") == "<s>hello</s>None"


def test_json_in_a_template_is_not_escaped_for_a_page() -> None:
    said = [{"role": "user", "content": "<é & 'x'>"}]
    assert rendered("{{ messages[0].content | tojson }}", said) == "\"<é & 'x'>\""
    assert rendered("{{ {'b': 1, 'a': 2} | tojson(indent=1) }}") == '{\n "b": 1,\n "a": 2\n}'


def test_loops_may_be_left_and_what_marks_generation_prints_nothing() -> None:
    source = (
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% break %}{% endfor %}"
    )
    assert rendered(source, HELLO * 3) == "hello"


def test_a_template_may_ask_for_the_date() -> None:
    assert rendered("{{ strftime_now('%Y') }}") in (str(datetime.now().year),)


def test_a_template_that_refuses_messages_says_why() -> None:
    source = "{{ raise_exception('Roles must alternate') }}"
    with pytest.raises(InputError, match=r"refuses the messages: Roles must alternate\. Give"):
        rendered(source)


@pytest.mark.parametrize(
    "source", ["{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}", "{{ 1 / 0 }}"]
)
def test_a_template_is_kept_in_its_box(source: str) -> None:
    with pytest.raises(InputError, match="refuses the messages"):
        rendered(source)


def test_what_is_no_template_is_refused() -> None:
    with pytest.raises(InputError, match=r"is no template: .*\. Mend it"):
        rendered("{% for m in messages %}")


def folder(path: Path, config: object = None, jinja: str | None = None) -> Path:
    if config is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    if jinja is not None:
        (path / "chat_template.jinja").write_text(jinja)
    return path


@pytest.mark.parametrize(
    ("config", "jinja", "text"),
    [
        ({"chat_template": "config"}, None, "config"),
        ({"chat_template": "config"}, "file", "file"),
        (None, "file", "file"),
        ({"bos_token": "<s>"}, "{{ bos_token }}", "<s>"),
        ({"bos_token": {"content": "<s>", "lstrip": False}}, "{{ bos_token }}", "<s>"),
        ({"bos_token": None, "add_bos_token": True}, "{{ bos_token }}{{ add_bos_token }}", ""),
        (
            {
                "chat_template": [
                    {"name": "tool_use", "template": "tools"},
                    {"name": "default", "template": "default"},
                ]
            },
            None,
            "default",
        ),
    ],
)
def test_a_folder_says_its_template_in_one_of_several_ways(
    tmp_path: Path, config: object, jinja: str | None, text: str
) -> None:
    template = ChatTemplate.of(folder(tmp_path, config, jinja))
    assert template is not None
    assert template.render(HELLO) == text


@pytest.mark.parametrize("config", [None, {}, {"chat_template": None}, {"chat_template": []}])
def test_a_folder_may_have_no_template(tmp_path: Path, config: object) -> None:
    assert ChatTemplate.of(folder(tmp_path, config)) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"{"),
        ("tokenizer_config.json", b"[]"),
        ("tokenizer_config.json", b"\xff"),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} cannot be read: .*\. Take the model's files"):
        ChatTemplate.of(tmp_path)
