"""Burn rates that can be counted by hand, and what they may not depend on."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.analysis import SLO, Measured
from servescope.analysis.burn import Burn, burns_of, worst
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]


def burns(rows: list[dict[str, Any]], slo: str, attainment: float = 0.9) -> tuple[Burn, ...]:
    return burns_of(Measured(frame_of_rows(rows).lazy()), SLO.parse(slo), attainment)


def stream(call: Make, waits: list[float]) -> list[dict[str, Any]]:
    return [call(f"{n:04}", float(n), n + wait) for n, wait in enumerate(waits)]


def test_a_share_burns_what_it_missed_over_what_it_may(call: Make, failed: Make) -> None:
    """Of 100 calls 3 are slow and 2 failed: 5 % where 10 % may miss."""
    rows = stream(call, [0.1] * 95 + [9.0] * 3)
    rows += [failed("x", 98.0), failed("y", 99.0)]
    (burn,) = burns(rows, "ttft<1s")
    assert burn.rate == pytest.approx(0.5)
    assert burn.allowed == pytest.approx(0.1)
    assert (len(burn.sizes), burn.sizes.sum()) == (10, 100)
    assert burn.rates.tolist() == pytest.approx([0.0] * 9 + [5.0])
    assert burn.condition == "90 % of calls within TTFT < 1 s"


def test_a_percentile_is_a_share_of_its_own(call: Make) -> None:
    """2 % at or above the bound burn p99 twice and p50 a twenty-fifth of the time."""
    rows = stream(call, [0.1] * 98 + [1.0] * 2)
    rates = [burn.rate for burn in burns(rows, "p99(ttft)<1s, p50(ttft)<1s")]
    assert rates == pytest.approx([2.0, 0.04])


def test_a_mean_burns_by_its_bound(call: Make) -> None:
    (burn,) = burns(stream(call, [0.1] * 50 + [0.3] * 50), "mean(ttft)<400ms")
    assert (burn.kind, burn.rate) == ("mean", pytest.approx(0.5))
    assert burn.rates.tolist() == pytest.approx([0.25] * 5 + [0.75] * 5)


def test_gaps_are_pooled(call: Make) -> None:
    """Each call has a gap of 0.1 s and one of 0.4 s; half of all gaps are too long."""
    rows = [call(f"{n:04}", float(n), n + 0.1, n + 0.2, n + 0.6) for n in range(50)]
    (burn,) = burns(rows, "p90(tbt)<300ms")
    assert (burn.rate, burn.sizes.sum()) == (pytest.approx(5.0), 100)


def test_a_single_token_is_no_value_of_what_is_between_tokens(call: Make) -> None:
    rows = [call(f"{n:04}", float(n), n + 0.1) for n in range(50)]
    rows += [call(f"{n:04}", float(n), n + 0.1, n + 0.6) for n in range(50, 100)]
    (burn,) = burns(rows, "p90(tpot)<300ms")
    assert (burn.rate, burn.sizes.sum()) == (pytest.approx(10.0), 50)


def test_a_group_is_asked_of_its_own_calls_alone(call: Make) -> None:
    rows = stream(call, [0.1] * 60 + [2.0] * 40)
    for number, row in enumerate(rows):
        row["call_class"] = "batch" if number >= 60 else "chat"
    asked = "class=chat: p90(ttft)<1s; class=batch: p90(ttft)<1s; class=none: p90(ttft)<1s"
    chat, batch = burns(rows, asked)  # nothing is known of a class without calls
    assert (chat.rate, batch.rate) == (0.0, pytest.approx(10.0))
    assert chat.condition == "TTFT p90 < 1 s where class is chat"


def test_an_slo_of_programs_is_judged_by_programs(call: Make) -> None:
    rows = [
        call(f"{n:04}", float(n), n + (3.0 if n < 10 else 0.5), program_id=f"p{n // 2}")
        for n in range(100)
    ]
    (burn,) = burns(rows, "jct<2s")
    assert (burn.rate, burn.sizes.sum()) == (pytest.approx(1.0), 50)


def test_few_programs_are_few_sections_and_none_are_none(call: Make) -> None:
    assert [len(burns(stream(call, [0.1] * n), "ttft<1s")[0].sizes) for n in (1, 9, 12)] == [
        1,
        1,
        2,
    ]
    assert burns([], "ttft<1s") == ()
    assert worst(()) is None


@settings(max_examples=25)
@given(
    st.lists(st.floats(0.01, 10), min_size=5, max_size=60), st.sampled_from([0.5, 2.0]),
    st.floats(0.05, 5),
)  # fmt: skip
def test_in_another_unit_of_time_it_burns_the_same_and_a_delay_never_burns_less(
    call: Make, waits: list[float], stretch: float, delay: float
) -> None:
    asked = "ttft<{}s, p90(ttft)<{}s, mean(ttft)<{}s"
    plain = burns(stream(call, waits), asked.format(1.5, 1.5, 1.5))
    bound = 1.5 * stretch
    rows = [call(f"{n:04}", n * stretch, (n + wait) * stretch) for n, wait in enumerate(waits)]
    rescaled = burns(rows, asked.format(bound, bound, bound))
    later = burns(stream(call, [wait + delay for wait in waits]), asked.format(1.5, 1.5, 1.5))
    for was, same, now in zip(plain, rescaled, later, strict=True):
        assert now.rate >= was.rate
        if all(abs(wait - 1.5) > 1e-6 for wait in waits):
            assert same.rate == pytest.approx(was.rate)
