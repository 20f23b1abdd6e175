"""What prompts have in common: a chat's history, a shared prefix, streams that part."""

from hypothesis import given
from hypothesis import strategies as st

from servescope.loadgen.program import Call, Program
from servescope.loadgen.texts import texts_of


def call(name: str, tokens: int, output: int, *parents: str, **more: object) -> Call:
    return Call(name, "p", 0, tokens, output, parents, prompt_stream="p", **more)  # type: ignore[arg-type]


def program(*calls: Call) -> Program:
    return Program("p", 0.0, calls)


def test_a_turn_holds_the_prompt_and_the_answer_before_it() -> None:
    texts = texts_of(program(call("a", 100, 20), call("b", 150, 10, "a")), None)
    assert texts == {"a": (("a?", 100),), "b": (("a?", 100), ("a", 20), ("b?", 30))}


def test_a_turn_too_short_for_the_answer_holds_the_prompt_alone() -> None:
    texts = texts_of(program(call("a", 100, 20), call("b", 110, 10, "a")), None)
    assert texts["b"] == (("a?", 100), ("b?", 10))


def test_a_turn_that_was_cut_begins_anew() -> None:
    texts = texts_of(program(call("a", 100, 20), call("b", 90, 10, "a")), None)
    assert texts["b"] == (("b?", 90),)


def test_calls_of_one_stream_without_links_share_the_shorter_prompt() -> None:
    texts = texts_of(program(call("a", 100, 20), call("b", 150, 10)), None)
    assert texts["b"] == (("a?", 100), ("b?", 50))


def test_two_children_of_one_stream_share_as_much_as_the_shorter_is_long() -> None:
    """Their prompts are cut from one text, as those that are sent are."""
    made = program(call("a", 100, 20), call("b", 150, 10, "a"), call("c", 170, 10, "a"))
    texts = texts_of(made, None)
    assert texts["b"] == (("a?", 100), ("a", 20), ("b?", 30))
    assert texts["c"] == (*texts["b"], ("c?", 20))


def test_prefix_blocks_come_first_and_the_rest_is_the_calls_own() -> None:
    texts = texts_of(program(call("a", 40, 5, prefix_blocks=(7, 8, 9))), 16)
    assert texts["a"] == ((7, 16), (8, 16), (9, 8))
    texts = texts_of(program(call("a", 40, 5, prefix_blocks=(7,))), 16)
    assert texts["a"] == ((7, 16), ("a?", 24))


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 50), st.booleans()), min_size=1))
def test_a_text_is_as_long_as_its_prompt(turns: list[tuple[int, int, bool]]) -> None:
    calls = [
        call(str(n), tokens, output, *([str(n - 1)] if follows and n else []))
        for n, (tokens, output, follows) in enumerate(turns)
    ]
    texts = texts_of(program(*calls), None)
    for each in calls:
        assert sum(tokens for _, tokens in texts[each.id]) == each.input_tokens
        assert all(tokens > 0 for _, tokens in texts[each.id])
