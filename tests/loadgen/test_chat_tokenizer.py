import hashlib
import json
import random
from itertools import pairwise
from pathlib import Path

import pytest

from servescope.loadgen.chat_tokenizer import ChatTokenizer
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts
from servescope.traces.errors import InputError

tokenizers = pytest.importorskip("tokenizers")

TINY = Path(__file__).parents[1] / "data" / "tokenizer"
CHAT = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} \n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXT = "the of and to in is was for on that with as it at by from be are this have"
WORDS = TEXT.split()


def of_words(folder: Path, template: str | None = None) -> Path:
    """A tokenizer whose tokens are whole words, so that anybody can count them."""
    names = ["[UNK]", "[BOS]", "[U]", "[A]", *WORDS]
    model = tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, "[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["[UNK]", "[BOS]", "[U]", "[A]"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", 1)]
    )
    made.enable_truncation(8)
    made.enable_padding(length=4)
    made.save(str(folder / "tokenizer.json"))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def test_a_chat_is_counted_with_what_its_template_adds(tmp_path: Path) -> None:
    template = "{% for m in messages %}[U] {{ m.content }} {% endfor %}[A]"
    tokenizer = ChatTokenizer.load(str(of_words(tmp_path, template)))
    assert tokenizer.has_template
    assert tokenizer.count([{"role": "user", "content": "the of"}]) == 4
    assert tokenizer.count([{"role": "user", "content": "the"}] * 2) == 5


def test_a_length_to_cut_or_fill_texts_to_is_not_the_servers(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.load(str(of_words(tmp_path)))
    assert tokenizer.count([{"role": "user", "content": "the " * 20}]) == 20
    assert tokenizer.count([{"role": "user", "content": "the"}]) == 1


def test_a_text_is_counted_with_what_a_server_puts_before_it(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.load(str(of_words(tmp_path)))
    assert tokenizer.count_text("the of") == 3


def test_without_a_template_a_chat_is_the_sum_of_its_texts(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.load(str(of_words(tmp_path) / "tokenizer.json"))
    assert not tokenizer.has_template
    said = [{"role": "user", "content": "the of"}, {"role": "assistant", "content": "and"}]
    assert tokenizer.count(said) == 3


def test_special_tokens_are_no_ids_to_send(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer.load(str(of_words(tmp_path)))
    assert tokenizer.plain_ids(2, 9) == [4, 5, 6, 7, 8, 9]
    assert tokenizer.plain_ids(256, 1023) == list(range(4, 24))
    assert ChatTokenizer.load(str(TINY)).plain_ids(256, 1023) == list(range(256, 1024))


def test_a_vocabulary_of_nothing_but_special_tokens_is_refused(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, "[UNK]"))
    made.add_special_tokens(["[UNK]"])
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="has no plain tokens"):
        ChatTokenizer.load(str(tmp_path)).plain_ids(256, 1023)


def test_every_word_is_one_token_between_any_others() -> None:
    """All words in a row, and shuffled: each time as many tokens as words, after the first."""
    tokenizer = ChatTokenizer.load(str(TINY))
    model = tokenizers.Tokenizer.from_file(str(TINY / "tokenizer.json"))
    assert len(set(tokenizer.words)) == len(tokenizer.words) > 500
    assert tokenizer.additive
    draw = random.Random(0)
    words = list(tokenizer.words)
    for _ in range(5):
        ids = model.encode("\n " + " ".join(words)).ids
        assert [model.id_to_token(i) for i in ids[-len(words) :]] == [f"Ġ{w}" for w in words]
        draw.shuffle(words)


def test_the_digest_changes_with_the_tokenizer_and_with_the_template(tmp_path: Path) -> None:
    plain = ChatTokenizer.load(str(of_words(tmp_path))).digest
    assert plain == hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert ChatTokenizer.load(str(tmp_path)).digest != plain


def test_a_template_that_leaves_out_what_is_said_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leaves out what a user says"):
        ChatTokenizer.load(str(of_words(tmp_path, "nothing")))


@pytest.mark.parametrize("name", ["gone.json", "estimate"])
def test_what_is_no_tokenizer_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} is no tokenizer .* Give a tokenizer\.json, or"):
        ChatTokenizer.load(str(tmp_path / name))


# --- the families of tokenizers that models have ------------------------------------------------


def corpus() -> list[str]:
    """Sentences of made-up words, the common ones far more common than the others."""
    draw = random.Random(1)
    made = ["".join(draw.choices("bcdfghklmnprst", k=2)[:1]) + v + e
            for v in "aeiou" for e in ("n", "r", "st", "lo", "mi", "sa")]  # fmt: skip
    made = list(dict.fromkeys([*WORDS, *made, *(a + b for a, b in pairwise(made))]))
    weights = [1 / (i + 1) for i in range(len(made))]
    return [" ".join(draw.choices(made, weights, k=12)) for _ in range(800)]


def sentencepiece_bpe() -> tokenizers.Tokenizer:
    """As Llama 2 has it: no word is cut off before tokens are looked for."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", "<s>"], show_progress=False
    )
    made.train_from_iterator(corpus(), trainer)
    made.pre_tokenizer = None
    steps = [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    made.normalizer = tokenizers.normalizers.Sequence(steps)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return made


def unigram() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(corpus(), trainer)
    return made


def wordpiece() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    made.train_from_iterator(corpus(), trainer)
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return made


def of_bytes() -> tokenizers.Tokenizer:
    """No word of it is a token: the hard case."""
    return tokenizers.Tokenizer.from_str(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False,
                                  "trim_offsets": True, "use_regex": True},
                "model": {
                    "type": "BPE",
                    "vocab": {c: i for i, c in enumerate(
                        tokenizers.pre_tokenizers.ByteLevel.alphabet())},
                    "merges": [],
                },
            }
        )
    )  # fmt: skip


@pytest.mark.parametrize("family", [sentencepiece_bpe, unigram, wordpiece])
def test_prompts_are_exact_in_every_family_of_tokenizers(tmp_path: Path, family: object) -> None:
    family().save(str(tmp_path / "tokenizer.json"))  # type: ignore[operator]
    (tmp_path / "chat_template.jinja").write_text(CHAT)
    tokenizer = ChatTokenizer.load(str(tmp_path))
    assert len(tokenizer.words) >= 16
    prompts = Prompts(0, tokenizer=tokenizer)
    for tokens in (60, 61, 100, 1000):
        call = Call(f"c{tokens}", "p", 0, tokens, 1, prompt_stream=f"s{tokens}")
        assert tokenizer.count(prompts.messages(call)) == tokens
        assert tokenizer.count_text(prompts.text(call)) == tokens
    assert prompts.inexact == 0


def test_a_tokenizer_without_whole_words_is_filled_as_far_as_they_go(tmp_path: Path) -> None:
    """Bytes only: a prompt ends with a whole word, and what cannot be filled is counted."""
    of_bytes().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text(CHAT)
    tokenizer = ChatTokenizer.load(str(tmp_path))
    assert tokenizer.words == ()
    prompts = Prompts(0, tokenizer=tokenizer)
    calls = [Call(f"c{n}", "p", 0, n, 1, prompt_stream="s") for n in range(300, 320)]
    off = [tokenizer.count(prompts.messages(call)) - call.input_tokens for call in calls]
    assert -10 < min(off) <= max(off) <= 0  # less than one more word
    assert prompts.inexact == sum(each != 0 for each in off)
