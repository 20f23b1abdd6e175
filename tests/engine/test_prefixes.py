"""A prefix cache finds what was put in, drops the oldest first, and never what is held."""

from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.engine.prefixes import Prefixes, Segment


def text(words: str, tokens: int = 16) -> list[Segment]:
    """A text of so many tokens a letter."""
    return [Segment(word, tokens) for word in words]


def test_what_two_texts_begin_with_alike_is_kept_once() -> None:
    tree = Prefixes()
    assert tree.insert(text("abc"), 48)[1] == 3
    assert tree.insert(text("abd"), 48)[1] == 1
    assert tree.blocks == tree.idle == 4
    assert tree.find(text("abx")).end == 32
    assert tree.find(text("x")).end == 0
    tree.check()


def test_a_block_belongs_to_the_text_in_which_it_ends() -> None:
    tree = Prefixes()
    node, new = tree.insert(text("ab", tokens=24), 48)
    assert (new, node.depth_blocks) == (3, 3)
    assert [each.blocks for each in node.up()] == [2, 1]
    assert tree.insert([Segment("a", 24), Segment("c", 10)], 34)[1] == 1


def test_an_answer_that_is_computed_but_for_its_last_token_is_found_so_far() -> None:
    tree = Prefixes()
    tree.insert(text("a"), 16)
    tree.insert([*text("a"), Segment("answer", 40)], 55)
    found = tree.find([*text("a"), Segment("answer", 40), *text("b")])
    assert found.end == 55


def test_the_least_recently_used_leaf_goes_first_from_its_tail() -> None:
    tree = Prefixes()
    tree.insert(text("ab", tokens=32), 64)
    tree.insert(text("c", tokens=32), 32)
    tree.insert(text("ab", tokens=32), 64)  # now c is the oldest
    assert tree.drop(1) == 1
    assert tree.find(text("c", tokens=32)).end == 16
    assert tree.drop(3) == 3
    assert tree.find(text("c", tokens=32)).end == 0
    assert tree.find(text("ab", tokens=32)).end == 32
    tree.check()


def test_what_is_held_stays_and_so_does_all_above_it() -> None:
    tree = Prefixes()
    node, _ = tree.insert(text("abc"), 48)
    tree.insert(text("x"), 16)
    tree.hold(node)
    assert tree.idle == tree.idle_to(tree.find(text("x"))) == 1
    assert tree.drop(9) == 1
    assert tree.find(text("abc")).end == 48
    tree.let_go(node)
    assert tree.drop(9) == 3
    assert tree.blocks == 0
    tree.check()


def test_a_text_that_is_used_over_and_over_takes_no_more_memory() -> None:
    tree = Prefixes()
    for _ in range(20_000):
        tree.insert(text("abc"), 48)
        tree.insert(text("x"), 16)
    assert len(tree._leaves) < 5_000
    assert tree.drop(1) == 1
    assert tree.find(text("abc")).end == 32  # it was used before x
    assert tree.drop(9) == 3
    tree.check()


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "hold", "let_go", "drop", "find"]),
        st.text("ab", min_size=1, max_size=4),
        st.integers(1, 40),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(ACTS, st.sampled_from([5, 16, 24]))
def test_blocks_add_up_whatever_happens(acts: list[tuple[str, str, int]], tokens: int) -> None:
    tree, held = Prefixes(), []
    for kind, words, number in acts:
        words_of = text(words, tokens)
        if kind == "insert":
            length = min(number, len(words) * tokens)
            node, _ = tree.insert(words_of, length)
            assert node.end >= length
        elif kind == "hold":
            held.append(tree.find(words_of))
            tree.hold(held[-1])
        elif kind == "let_go" and held:
            tree.let_go(held.pop(number % len(held)))
        elif kind == "drop":
            idle = tree.idle
            assert tree.drop(number) == min(number, idle)
        tree.check()
