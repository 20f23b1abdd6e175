import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen.program import Call
from servescope.loadgen.prompts import FIRST_ID, LAST_ID, Prompts


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
    assert Prompts(0).token_ids(call(5)).tolist() == [353, 717, 358, 648, 329]


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
