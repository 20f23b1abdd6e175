import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen.chat_tokenizer import ChatTokenizer
from servescope.loadgen.program import Call, Program
from servescope.loadgen.prompts import FIRST_ID, LAST_ID, Prompts
from servescope.traces.errors import InputError

HERE = Path(__file__).parents[1]
TINY = HERE / "data" / "tokenizer"
OVERHEAD = 20  # tokens: its template takes fewer for a turn and the first word of one


def call(tokens: int, stream: str = "s", blocks: tuple[int, ...] = ()) -> Call:
    return Call("c", "p", 0, tokens, 1, prompt_stream=stream, prefix_blocks=blocks)


@given(tokens=st.integers(1, 5000), seed=st.integers(0, 2**32))
def test_a_prompt_has_exactly_the_planned_tokens_of_a_safe_vocabulary(
    tokens: int, seed: int
) -> None:
    ids = Prompts(seed).token_ids(call(tokens))
    assert len(ids) == tokens
    assert ids.min() >= FIRST_ID
    assert ids.max() <= LAST_ID


def test_the_same_seed_makes_the_same_prompt_and_another_seed_another() -> None:
    same = [Prompts(7).token_ids(call(1000)) for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], Prompts(8).token_ids(call(1000)))


def test_a_prompt_does_not_change_between_releases() -> None:
    """Plans are promised byte for byte: these ids change only with a note in the changelog."""
    assert Prompts(0).token_ids(call(5)).tolist() == [761, 957, 790, 912, 905]


def test_equal_blocks_make_equal_tokens_wherever_they_stand() -> None:
    prompts = Prompts(1, block_tokens=512)
    a = prompts.token_ids(call(1536, blocks=(4, 5, 6)))
    b = prompts.token_ids(call(1100, blocks=(4, 9, 6)))
    assert np.array_equal(a[:512], b[:512])
    assert not np.array_equal(a[512:1024], b[512:1024])
    assert np.array_equal(a[1024 : 1024 + 76], b[1024:])


def test_a_prompt_is_longer_than_its_full_blocks_and_its_end_is_its_own() -> None:
    """Where a last block that is not full has no id (Weka), nobody shares those tokens."""
    prompts = Prompts(1, block_tokens=64)
    one = Call("one", "p", 0, 150, 1, prefix_blocks=(4, 5))
    two = Call("two", "p", 1, 150, 1, prefix_blocks=(4, 5))
    a, b = prompts.token_ids(one), prompts.token_ids(two)
    assert len(a) == 150
    assert np.array_equal(a[:128], b[:128])
    assert not np.array_equal(a[128:], b[128:])


def test_a_longer_prompt_of_a_stream_begins_with_the_shorter_one() -> None:
    prompts = Prompts(1)
    assert np.array_equal(prompts.token_ids(call(400))[:300], prompts.token_ids(call(300)))


def test_streams_share_nothing() -> None:
    prompts = Prompts(1)
    a, b = (prompts.token_ids(call(4000, stream=name)) for name in "ab")
    share = float((a == b).mean())
    assert share < 3 / (LAST_ID - FIRST_ID)


def test_tokens_are_spread_over_the_whole_vocabulary() -> None:
    """A chi-square of 768 equal cells stays within five standard deviations of its mean."""
    ids = Prompts(3).token_ids(call(200_000)) - FIRST_ID
    cells = LAST_ID - FIRST_ID + 1
    expected = len(ids) / cells
    chi2 = float((((np.bincount(ids, minlength=cells) - expected) ** 2) / expected).sum())
    assert abs(chi2 - (cells - 1)) < 5 * (2 * (cells - 1)) ** 0.5


def test_a_text_prompt_has_a_word_for_every_token() -> None:
    assert len(Prompts(0).text(call(321)).split()) == 321


def test_a_text_does_not_change_between_releases() -> None:
    assert Prompts(0).text(call(5)) == "and make find were now"


def test_an_end_without_ids_does_not_repeat_itself() -> None:
    """Whatever is past the named blocks is one text of its own, however many blocks long."""
    ids = Prompts(1, block_tokens=16).token_ids(call(80, blocks=(4,)))
    assert len({tuple(ids[i : i + 16]) for i in range(0, 80, 16)}) == 5


# --- real texts ---------------------------------------------------------------------------------

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def real(text: str | None = None, messages: object = None) -> Call:
    said = None if messages is None else json.dumps(messages)
    return Call("r", "p", 0, 40, 9, prompt_stream="s", text=text, messages=said)


def test_a_real_text_is_sent_as_it_is() -> None:
    prompts = Prompts(0)
    assert prompts.prompt(real("Why?")) == prompts.text(real("Why?")) == "Why?"
    assert prompts.messages(real("Why?")) == [{"role": "user", "content": "Why?"}]


def test_real_messages_are_sent_as_they_are() -> None:
    prompts = Prompts(0)
    assert prompts.messages(real(messages=CHAT)) == CHAT
    assert prompts.text(real(messages=CHAT)) == prompts.prompt(real(messages=CHAT))
    assert prompts.text(real(messages=CHAT)) == "Be brief.\nWhy?"


def test_without_a_real_text_a_completions_endpoint_is_asked_ids() -> None:
    assert Prompts(0).prompt(call(5)) == [761, 957, 790, 912, 905]


@pytest.mark.parametrize("messages", ["Why?", {"role": "user"}, [1], 3])
def test_real_messages_that_are_no_list_are_refused(messages: object) -> None:
    with pytest.raises(InputError, match="call r are no list of chat messages"):
        Prompts(0).messages(real(messages=messages))


# --- chats, with the tokenizer of the served model ----------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> ChatTokenizer:
    pytest.importorskip("tokenizers", reason="needs the extra servescope[tokenizers]")
    return ChatTokenizer.load(str(TINY))


def opening(tokenizer: ChatTokenizer, messages: list[dict[str, Any]]) -> str:
    """The rendered chat without what asks the model to speak."""
    assert tokenizer.template is not None
    return tokenizer.template.render(messages).removesuffix("<|im_start|>assistant\n")


def test_chats_are_exact_only_with_a_chat_template(tiny: ChatTokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    bare = ChatTokenizer.load(str(tmp_path))
    assert [Prompts(0, tokenizer=each).exact for each in (None, bare, tiny)] == [False, False, True]
    assert len(Prompts(0, tokenizer=bare).messages(call(50))[0]["content"].split()) == 50
    assert tiny.count_text(Prompts(0, tokenizer=bare).text(call(50))) == 50


@given(
    tokens=st.integers(OVERHEAD, 3000),
    seed=st.integers(0, 2**32),
    blocks=st.lists(st.integers(0, 2**64 - 1), max_size=4),
)
def test_a_chat_has_exactly_the_planned_tokens(
    tiny: ChatTokenizer, tokens: int, seed: int, blocks: list[int]
) -> None:
    prompts = Prompts(seed, 512, tiny)
    asked = call(tokens, blocks=tuple(blocks))
    assert tiny.count(prompts.messages(asked)) == tokens
    assert tiny.count_text(prompts.text(asked)) == tokens
    assert prompts.inexact == 0


def test_a_prompt_shorter_than_the_template_is_one_word_and_is_counted(
    tiny: ChatTokenizer,
) -> None:
    prompts = Prompts(0, tokenizer=tiny)
    (message,) = prompts.messages(call(5))
    assert len(message["content"].split()) == 1
    assert prompts.inexact == 1


@given(
    shared=st.lists(st.integers(0, 100), min_size=1, max_size=3),
    lengths=st.tuples(st.integers(1, 600), st.integers(1, 600)),
)
def test_equal_leading_blocks_make_equal_leading_text(
    tiny: ChatTokenizer, shared: list[int], lengths: tuple[int, int]
) -> None:
    """Both prompts begin with all the words of their common blocks, but what the template takes."""
    block = 64
    asked = [
        Call(name, name, 0, len(shared) * block + tokens, 1, prefix_blocks=(*shared, own))
        for name, tokens, own in zip("ab", lengths, (1000, 2000), strict=True)
    ]
    prompts = Prompts(3, block, tiny)
    a, b = (prompts.messages(each)[0]["content"].split() for each in asked)
    alike = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    alike = min(alike, len(b))
    assert alike >= min(len(shared) * block, len(a), len(b))
    assert alike < len(shared) * block + 8
    for words, each in zip((a, b), asked, strict=True):
        assert len(words) >= each.input_tokens - OVERHEAD


# --- chats of several turns ---------------------------------------------------------------------

lengths = st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), min_size=1, max_size=8)


def chat(*turns: tuple[int, int], first: int = 20) -> Program:
    """A chat whose user says `turns[k][0]` tokens in turn k and is answered `turns[k][1]`."""
    calls: list[Call] = []
    said = first
    for number, (asked, answered) in enumerate(turns):
        before = (f"t{number - 1}",) if number else ()
        said += asked
        calls.append(Call(f"t{number}", "p", number, said, answered, before, prompt_stream="p"))
        said += answered
    return Program("p", 0.0, tuple(calls))


@given(turns=lengths)
def test_every_turn_of_a_chat_has_the_planned_tokens(
    tiny: ChatTokenizer, turns: list[tuple[int, int]]
) -> None:
    prompts, program = Prompts(5, tokenizer=tiny), chat(*turns)
    for each in program.calls:
        assert tiny.count(prompts.messages(each, program)) == each.input_tokens
    assert prompts.inexact == 0


@given(turns=lengths)
def test_a_turn_begins_with_the_whole_chat_before_it(
    tiny: ChatTokenizer, turns: list[tuple[int, int]]
) -> None:
    """A user who says enough for the template's part of a turn: no chat begins anew."""
    program = chat(*((asked + OVERHEAD, answered) for asked, answered in turns))
    prompts = Prompts(5, tokenizer=tiny)
    chats = [prompts.messages(each, program) for each in program.calls]
    for number, (before, after) in enumerate(pairwise(chats)):
        assert len(after) == 2 * number + 3
        assert opening(tiny, after).startswith(opening(tiny, before))
        assert after[-2]["role"] == "assistant"
        assert len(after[-2]["content"].split()) == program.calls[number].output_tokens


def test_a_turn_without_room_for_a_word_begins_the_chat_anew(tiny: ChatTokenizer) -> None:
    """Two tokens more than was said: the template alone takes more for a turn."""
    program = chat((30, 50), (2, 50), (60, 50))
    prompts = Prompts(5, tokenizer=tiny)
    chats = [prompts.messages(each, program) for each in program.calls]
    assert [len(each) for each in chats] == [1, 1, 3]
    assert chats[1][0]["content"].startswith(chats[0][0]["content"])
    assert chats[2][0] == chats[1][0]


def test_a_chat_that_its_client_cut_begins_anew(tiny: ChatTokenizer) -> None:
    a = Call("a", "p", 0, 100, 50, prompt_stream="p")
    b = Call("b", "p", 1, 200, 50, ("a",), prompt_stream="p#1")
    (message,) = Prompts(5, tokenizer=tiny).messages(b, Program("p", 0.0, (a, b)))
    assert message["role"] == "user"


@given(turns=lengths, said=st.lists(st.text(max_size=60), min_size=8, max_size=8))
def test_a_chat_may_hold_what_the_server_really_answered(
    tiny: ChatTokenizer, turns: list[tuple[int, int]], said: list[str]
) -> None:
    program = chat(*((asked + 400, answered) for asked, answered in turns))
    prompts = Prompts(5, tokenizer=tiny, history="generated")
    answers = {each.id: text for each, text in zip(program.calls, said, strict=False)}
    for number, each in enumerate(program.calls):
        messages = prompts.messages(each, program, answers)
        assert [m["content"] for m in messages[1::2]] == said[:number]
        assert tiny.count(messages) == each.input_tokens


def test_an_answer_that_is_not_known_is_made_up(tiny: ChatTokenizer) -> None:
    program = chat((40, 30), (40, 30), (40, 30))
    planned = Prompts(5, tokenizer=tiny).messages(program.calls[2], program)
    prompts = Prompts(5, tokenizer=tiny, history="generated")
    assert prompts.messages(program.calls[2], program, {"t1": "Yes."})[:3] == planned[:3]
    assert prompts.messages(program.calls[2], program) == planned
    assert Prompts(5, tokenizer=tiny).messages(program.calls[2], program, {"t1": "No"}) == planned


def test_a_join_holds_the_longest_of_its_branches(tiny: ChatTokenizer) -> None:
    """A root, two branches and a join that has room for either of them, but not for the root's."""
    root = Call("root", "p", 0, 100, 20, prompt_stream="p")
    short = Call("short", "p", 1, 150, 20, ("root",), prompt_stream="p")
    long = Call("long", "p", 2, 180, 20, ("root",), prompt_stream="p")
    huge = Call("huge", "p", 3, 180, 900, ("root",), prompt_stream="p")
    join = Call("join", "p", 4, 260, 20, ("short", "long", "huge", "gone"), prompt_stream="p")
    program = Program("p", 0.0, (root, short, long, huge, join))
    prompts = Prompts(5, tokenizer=tiny)
    joined = prompts.messages(join, program)
    assert joined[:-2] == prompts.messages(long, program)
    assert prompts.messages(short, program)[:2] == prompts.messages(long, program)[:2]
    assert tiny.count(joined) == 260


def test_prefix_blocks_say_all_there_is_in_a_prompt_with_a_planned_history(
    tiny: ChatTokenizer,
) -> None:
    a = Call("a", "p", 0, 128, 64, prompt_stream="p", prefix_blocks=(1, 2))
    b = Call("b", "p", 1, 256, 64, ("a",), prompt_stream="p", prefix_blocks=(1, 2, 3, 4))
    program = Program("p", 0.0, (a, b))
    planned = Prompts(5, 64, tiny).messages(b, program)
    assert planned == Prompts(5, 64, tiny).messages(b)
    assert len(planned) == 1
    answered = Prompts(5, 64, tiny, "generated").messages(b, program, {"a": "Yes."})
    assert [m["role"] for m in answered] == ["user", "assistant", "user"]
    assert answered[1]["content"] == "Yes."
    assert tiny.count(answered) == 256


def test_a_made_up_turn_may_follow_real_ones(tiny: ChatTokenizer) -> None:
    a = real(messages=CHAT)
    b = Call("b", "p", 1, 120, 5, ("r",), prompt_stream="s")
    messages = Prompts(5, tokenizer=tiny).messages(b, Program("p", 0.0, (a, b)))
    assert messages[:2] == CHAT
    assert [m["role"] for m in messages[2:]] == ["assistant", "user"]
    assert tiny.count(messages) == 120


def test_a_template_that_refuses_the_real_turns_is_given_the_new_one_alone(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((TINY / "tokenizer.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    model = ChatTokenizer.load(str(tmp_path))
    b = Call("b", "p", 1, 120, 5, ("r",), prompt_stream="s")
    messages = Prompts(5, tokenizer=model).messages(b, Program("p", 0.0, (real(messages=CHAT), b)))
    assert len(messages) == 1
    assert model.count(messages) == 120


def test_without_a_tokenizer_a_chat_has_a_word_for_every_token() -> None:
    program = chat((10, 7), (30, 5))
    messages = Prompts(0).messages(program.calls[1], program)
    assert [len(m["content"].split()) for m in messages] == [30, 7, 30]


def test_a_chat_does_not_depend_on_what_was_made_before(
    tiny: ChatTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forwards, backwards, and with next to nothing remembered: the same bytes."""
    program = chat(*[(25, 30), (5, 40), (60, 10)] * 4)
    forwards = Prompts(5, tokenizer=tiny)
    expected = [forwards.messages(each, program) for each in program.calls]
    backwards = Prompts(5, tokenizer=tiny)
    assert [backwards.messages(c, program) for c in program.calls[::-1]] == expected[::-1]
    monkeypatch.setattr("servescope.loadgen.prompts._REMEMBERED", 2)
    forgetful = Prompts(5, tokenizer=tiny)
    assert [forgetful.messages(each, program) for each in program.calls] == expected


def test_a_chat_is_the_same_in_every_process(tiny: ChatTokenizer) -> None:
    program = chat((25, 30), (60, 10))
    here = json.dumps(Prompts(5, tokenizer=tiny).messages(program.calls[1], program))
    script = (
        "import json, sys, msgspec\n"
        "from servescope.loadgen.chat_tokenizer import ChatTokenizer\n"
        "from servescope.loadgen.program import Program\n"
        "from servescope.loadgen.prompts import Prompts\n"
        "program = msgspec.json.decode(sys.argv[1], type=Program)\n"
        "prompts = Prompts(5, tokenizer=ChatTokenizer.load(sys.argv[2]))\n"
        "print(json.dumps(prompts.messages(program.calls[1], program)))\n"
        "assert 'polars' not in sys.modules\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", script, msgspec.json.encode(program).decode(), str(TINY)],
        env=os.environ | {"PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here


# --- a server that nobody here wrote ------------------------------------------------------------


async def asked(url: str, path: str, **body: object) -> dict[str, Any]:
    fields = {"model": "tiny", "temperature": 0, "ignore_eos": True, **body}
    async with aiohttp.ClientSession() as session, session.post(url + path, json=fields) as answer:
        assert answer.status == 200
        said: dict[str, Any] = await answer.json()
        return said


@pytest.mark.thirdparty
async def test_llama_cpp_counts_the_tokens_that_were_planned(
    llama_url: str, tiny: ChatTokenizer
) -> None:
    """The same tokenizer and template in C++: chats with its own answers, texts and ids."""
    program = chat((30, 20), (200, 40), (15, 30), (700, 8), (60, 8))
    for history in ("planned", "generated"):
        prompts = Prompts(9, tokenizer=tiny, history=history)  # type: ignore[arg-type]
        answers: dict[str, str] = {}
        for each in program.calls:
            said = await asked(
                llama_url,
                "/v1/chat/completions",
                messages=prompts.messages(each, program, answers),
                max_tokens=each.output_tokens,
            )
            assert said["usage"]["prompt_tokens"] == each.input_tokens
            answers[each.id] = said["choices"][0]["message"]["content"]
    for each in program.calls:
        for prompt in (prompts.text(each), prompts.prompt(each)):
            said = await asked(llama_url, "/v1/completions", prompt=prompt, max_tokens=1)
            assert said["usage"]["prompt_tokens"] == each.input_tokens


@given(tokens=st.integers(1, 3000), seed=st.integers(0, 100))
def test_ids_as_json_are_the_same_ids(tokens: int, seed: int) -> None:
    made, call = Prompts(seed), Call("c", "p", 0, tokens, 1, prompt_stream="s")
    assert msgspec.json.decode(msgspec.json.encode(made.prompt_json(call))) == made.prompt(call)


def test_a_real_text_is_no_list_of_ids() -> None:
    call = Call("c", "p", 0, 3, 1, text="what it said")
    assert Prompts(0).prompt_json(call) == "what it said"
