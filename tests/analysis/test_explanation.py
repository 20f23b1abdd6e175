"""What is said of why, on runs in which the reason was planted."""

from collections.abc import Callable
from typing import Any

import pytest

from servescope.analysis import Measured
from servescope.analysis.explanation import explain
from servescope.analysis.totals import Whole
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]


def whole(rows: list[dict[str, Any]]) -> Whole:
    return Whole(Measured(frame_of_rows(rows).lazy()))


def test_the_part_of_jct_that_changed_is_named(call: Make) -> None:
    """B waits 2 s longer for first tokens and decodes as fast."""
    a = [call(str(n), 10.0 * n, 10.0 * n + 1, 10.0 * n + 2) for n in range(50)]
    b = [call(str(n), 10.0 * n, 10.0 * n + 3, 10.0 * n + 4) for n in range(50)]
    (parts, *_) = explain(("a", "b"), (whole(a), whole(b)))
    assert parts == "Of mean JCT, b against a: queue + prefill +2 s."


def test_a_mixture_that_hides_its_classes_is_shown(call: Make) -> None:
    """B is slower in both classes and served fewer of the long ones, so its mean is lower."""

    def rows(short: int, long: int, slower: float) -> list[dict[str, Any]]:
        made = []
        for n in range(short + long):
            took = slower * (1.0 if n < short else 10.0)
            kind = "short" if n < short else "long"
            made.append(call(f"{kind}{n}", 20.0 * n, 20.0 * n + took, call_class=kind))
        return made

    told = explain(("a", "b"), (whole(rows(50, 50, 1.0)), whole(rows(90, 40, 1.2))))
    assert "Mean E2E by class, b over a: long x 1.20, short x 1.20." in told
    assert any("Simpson's paradox" in text for text in told)


def test_a_class_that_went_against_the_whole_is_named(call: Make) -> None:
    def rows(chat: float, batch: float) -> list[dict[str, Any]]:
        return [
            call(
                str(n), 20.0 * n, 20.0 * n + (chat if n % 2 else batch),
                call_class="chat" if n % 2 else "batch",
            )
            for n in range(100)
        ]  # fmt: skip

    told = explain(("a", "b"), (whole(rows(1.0, 9.0)), whole(rows(2.0, 3.0))))
    assert "Against the whole went: chat." in told


def test_two_alike_have_nothing_to_explain(call: Make, failed: Make) -> None:
    rows = [call(str(n), 10.0 * n, 10.0 * n + 1) for n in range(50)]
    assert explain(("a", "b"), (whole(rows), whole(rows))) == ()
    dead = [failed("x", 0.0)]
    assert explain(("a", "b"), (whole(dead), whole(dead))) == ()


@pytest.mark.parametrize("cached", [(0, 9), (9, 0)])
def test_what_servers_say_is_told_where_it_differs(call: Make, cached: tuple[int, int]) -> None:
    a, b = (
        whole([call(str(n), 10.0 * n, 10.0 * n + 1, cached_tokens=hit) for n in range(50)])
        for hit in cached
    )
    (told,) = explain(("a", "b"), (a, b))
    shares = " and ".join(f"{hit * 10}%" for hit in cached)
    assert told == f"Meanwhile, a and b: prompt tokens cached {shares}."
