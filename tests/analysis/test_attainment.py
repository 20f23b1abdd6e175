"""Who meets an SLO, on runs whose answers are known by hand."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import STREAMS, streams

from servescope.analysis import SLO, Measured, attained
from servescope.analysis.attainment import (
    attained_at,
    by_group,
    jain,
    judged,
    requirements,
    unasked,
)
from servescope.traces import Run
from servescope.traces.errors import InputError

Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]


def test_failed_and_unmeasured_calls_are_misses_and_stay_in_the_denominator(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    rows = [
        call("good", 0.0, 0.4),
        call("at the bound", 0.0, 0.5),
        call("late by the client", 0.0, 0.8, sent_s=0.4),
        call("empty answer", 1.0, end_s=1.1),
        call("never stamped as sent", 1.0, 1.1, sent_s=None),
        call("truncated", 1.0, 1.1, status="truncated"),
        call("unknown", 1.0, 1.1, status=None),
        failed("503", 1.0),
        failed("given up", 9.0, "not_sent", sent_s=None),
        call("last", 9.0, 10.0),
    ]
    run = a_run(rows)
    met = attained(Measured.of(run), SLO.parse("ttft<500ms"))
    assert (met.met, met.asked, met.per, met.share) == (2, 10, "calls", 0.2)
    assert met.goodput_rps == 2 / 10.0
    assert (
        attained(Measured.of(run), SLO.parse("ttft_due<500ms")).met == 2
    )  # the unstamped, less late


def test_a_failed_call_misses_even_an_objective_on_the_client(failed: Make, a_run: MakeRun) -> None:
    assert attained(Measured.of(a_run([failed("x", 0.0)])), SLO.parse("e2e<1s")).met == 0


def test_one_token_has_no_gap_that_could_be_too_long_and_forty_at_once_are_a_miss(
    call: Make, a_run: MakeRun
) -> None:
    """A proxy that holds an answer back and hands it over whole must not win by it."""
    rows = [
        call("at once", 0.0, 1.0, output_tokens=40),
        call("one token", 0.0, 1.0),
        call("smooth", 0.0, 1.0, 1.05),
        call("stalled", 0.0, 1.0, 3.0),
    ]
    for text in ("stall<100ms", "tpot<100ms", "stall<100ms tpot<100ms"):
        judgement = judged(Measured.of(a_run(rows)), SLO.parse(text))
        assert judgement["met"].to_list() == [False, True, True, False]


def test_gaps_that_were_not_measured_are_misses(call: Make, a_run: MakeRun) -> None:
    uncounted = call("a", 0.0, 1.0, 1.01, output_tokens=None)
    unstamped = call("b", 0.0, 1.0, 1.01, chunk_s=None)
    empty = call("c", 0.0)
    run = a_run([uncounted, unstamped, empty])
    assert judged(Measured.of(run), SLO.parse("tpot<1s"))["met"].to_list() == [False, True, False]
    assert judged(Measured.of(run), SLO.parse("stall<1s"))["met"].to_list() == [True, False, False]


def test_an_objective_with_jct_is_met_by_programs_all_of_whose_calls_meet_the_rest(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    rows = [
        call("a", 0.0, 1.0, program_id="good"),
        call("b", 2.0, 3.0, program_id="good"),
        call("c", 0.0, 1.0, program_id="slow call"),
        call("d", 2.0, 4.5, program_id="slow call"),
        call("e", 0.0, 1.0, program_id="long"),
        call("f", 19.0, 20.0, program_id="long"),
        call("g", 0.0, 1.0, program_id="failed"),
        failed("h", 2.0, program_id="failed"),
    ]
    run = a_run(rows)
    judgement = judged(Measured.of(run), SLO.parse("jct<10s,ttft<2s"))
    met = judgement.filter("met")["program_id"].to_list()
    assert (judgement.height, met) == (4, ["good"])
    assert attained(Measured.of(run), SLO.parse("jct<10s")).met == 2
    assert attained(Measured.of(run), SLO.parse("jct<10s")).asked == 4


def test_a_run_of_no_calls_meets_nothing(a_run: MakeRun) -> None:
    met = attained(Measured.of(a_run([])), SLO.parse("ttft<1s"))
    assert (met.met, met.asked, met.share, met.goodput_rps) == (0, 0, 0.0, None)


def test_the_scale_of_a_call_is_how_far_it_is_from_its_nearest_bound(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    """TTFT 0.5 s of 1 s and E2E 3 s of 2 s: it would meet bounds 1.5 times as loose."""
    rows = [call("a", 0.0, 0.5, 3.0), call("b", 1.0, 1.25, 1.5), failed("c", 2.0)]
    table = judged(Measured.of(a_run(rows)), SLO.parse("ttft<1s,e2e<2s"))
    assert table["scale"].to_list() == pytest.approx([1.5, 0.25, math.inf])
    assert table["met"].to_list() == [False, True, False]
    assert attained_at(table, (0.2, 0.26, 1.0, 1.51, 1e9)) == pytest.approx(
        [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3]
    )


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 1.7, 4.0])
def test_the_curve_says_what_the_scaled_slo_says(
    call: Make, failed: Make, a_run: MakeRun, scale: float
) -> None:
    rows = [call(str(n), n, n + 0.1 * n + 0.1, n + 1.0 + 0.3 * n) for n in range(10)]
    measured = Measured.of(a_run([*rows, failed("x", 3.0)]))
    slo = SLO.parse("ttft<300ms+10ms*input,stall<1.5s")
    (share,) = attained_at(judged(measured, slo), [scale])
    assert share == attained(measured, slo.scaled(scale)).share


def test_goodput_is_counted_in_calls_programs_and_tokens(call: Make, a_run: MakeRun) -> None:
    """Over 10 s two calls of five tokens meet it; a sister of one of them does not."""
    rows = [
        call("a", 0.0, 1.0, 1.1, 1.2, program_id="p"),
        call("b", 2.0, 8.0, 8.1, program_id="p"),
        call("c", 5.0, 6.0, 10.0),
    ]
    met = attained(Measured.of(a_run(rows)), SLO.parse("ttft<2s"))
    assert (met.met, met.asked, met.per) == (2, 3, "calls")
    assert met.goodput_rps == pytest.approx(0.2)
    assert met.program_goodput_rps == pytest.approx(0.1)
    assert met.token_goodput_tps == pytest.approx(0.5)


def test_a_group_asks_only_its_own_calls(call: Make, failed: Make, a_run: MakeRun) -> None:
    rows = [
        call("chat", 0.0, 3.0, call_class="chat"),
        call("batch", 0.0, 3.0, call_class="batch"),
        call("other", 0.0, 300.0, call_class=None),
        failed("gone", 0.0, call_class=None),
    ]
    table = judged(
        Measured.of(a_run(rows)), SLO.parse("class=chat: ttft<2s; class=batch: ttft<60s")
    )
    assert dict(zip(["batch", "chat", "gone", "other"], table["met"], strict=True)) == {
        "chat": False,
        "batch": True,
        "other": True,
        "gone": False,
    }


def test_a_program_belongs_to_a_group_by_its_first_call(call: Make, a_run: MakeRun) -> None:
    rows = [
        call("a", 0.0, 1.0, program_id="p", call_class="agent"),
        call("b", 9.0, 10.0, program_id="p", call_class="tool"),
        call("c", 0.0, 10.0, program_id="q", call_class="tool"),
    ]
    table = judged(Measured.of(a_run(rows)), SLO.parse("class=agent: jct<5s"))
    assert dict(table.select("program_id", "met").iter_rows()) == {"p": False, "q": True}


def test_a_failure_took_for_ever_in_a_quantile_and_is_left_out_of_a_mean(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    rows = [call(str(n), n, n + 1.0) for n in range(392)]
    eight = [failed(f"x{n}", 392.0 + n) for n in range(8)]
    slo = SLO.parse("p98(ttft)<2s, p99(ttft)<2s, mean(ttft)<2s, p99(jct)<2s")
    found = requirements(Measured.of(a_run([*rows, *eight])), slo)
    assert [each.value for each in found] == [1.0, math.inf, 1.0, math.inf]
    assert [each.met for each in found] == [True, False, True, False]


@settings(max_examples=25)
@given(STREAMS, st.sampled_from([0.5, 2.0, 8.0]), st.sampled_from([0.125, 1.0]))
def test_who_meets_an_slo_depends_on_no_unit_and_only_shrinks_as_answers_come_later(
    call: Make, gaps: list[list[int]], stretch: float, delay: float
) -> None:
    asked = "ttft<{}ms, stall<{}ms"
    slo = SLO.parse(asked.format(260, 900))
    met = attained(streams(call, gaps), slo).met
    longer = SLO.parse(asked.format(260 * stretch, 900 * stretch))
    assert attained(streams(call, gaps, stretch=stretch), longer).met == met
    assert attained(streams(call, gaps, delay=delay), slo).met <= met
    looser = SLO.parse(asked.format(520, 1800))
    assert attained(streams(call, gaps), looser).met >= met


def test_too_few_values_do_not_tell_whether_a_quantile_is_below_its_bound(
    call: Make, a_run: MakeRun
) -> None:
    """Of 298 values the largest lies below p99 in more than one of twenty samples."""
    rows = [call(str(n), n, n + 1.0) for n in range(299)]
    slo = SLO.parse("p99(ttft)<2s")
    (few,) = requirements(Measured.of(a_run(rows[:298])), slo)
    (enough,) = requirements(Measured.of(a_run(rows)), slo)
    assert (few.value, few.met, few.verdict) == (
        1.0,
        None,
        "cannot tell from 298 values: it takes 299",
    )
    assert (enough.met, enough.verdict) == (True, "yes")


def test_a_group_that_is_for_no_call_is_named(call: Make, a_run: MakeRun) -> None:
    run = Measured.of(a_run([call("a", 0.0, 1.0, call_class="chat")]))
    slo = SLO.parse("class=chat: ttft<1s; class=zz turn=3: ttft<1ms; e2e<9s")
    assert unasked(run, slo) == ["class is zz and turn is 3"]


def test_nothing_measured_meets_no_requirement(failed: Make, a_run: MakeRun) -> None:
    (found,) = requirements(Measured.of(a_run([failed("x", 0.0)])), SLO.parse("p50(tbt)<1s"))
    assert (found.value, found.met) == (None, False)


def test_an_answer_of_one_token_is_no_failure_in_a_quantile_between_tokens(
    call: Make, a_run: MakeRun
) -> None:
    rows = [call("a", 0.0, 1.0), call("b", 0.0, 1.0, 1.5)]
    (found,) = requirements(Measured.of(a_run(rows)), SLO.parse("p99(tpot)<1s"))
    assert found.value == 0.5


def test_a_requirement_of_a_group_is_of_its_calls(call: Make, a_run: MakeRun) -> None:
    rows = [call("a", 0.0, 1.0, 1.1, turn=0), call("b", 0.0, 5.0, 5.4, turn=1)]
    slo = SLO.parse("turn=0: p50(ttft)<2s, p50(tbt)<1s; turn=1: p50(tbt)<1s")
    found = requirements(Measured.of(a_run(rows)), slo)
    assert [each.value for each in found] == pytest.approx([1.0, 0.1, 0.4])


def test_fluidity_is_asked_of_every_call(call: Make, a_run: MakeRun) -> None:
    """The first call meets its three deadlines; the second misses nine of twelve in one stall."""
    rows = [call("a", 0.0, 0.5, 0.6, 0.7), call("b", 0.0, 0.5, 1.5, 1.55)]
    table = judged(Measured.of(a_run(rows)), SLO.parse("fluidity(500ms,100ms)>=0.9"))
    assert table["met"].to_list() == [True, False]


def test_jain_is_one_for_equals_and_a_share_for_one_that_has_all() -> None:
    assert jain([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain([1.0, 2.0]) == pytest.approx(9 / 10)
    assert jain([]) is jain([0.0]) is None


def test_classes_are_told_apart_so_that_a_mixture_hides_nothing(
    call: Make, failed: Make, a_run: MakeRun
) -> None:
    rows = [
        call("a", 0.0, 1.0, call_class="chat"),
        call("b", 0.0, 3.0, call_class="chat"),
        call("c", 0.0, 3.0, call_class="batch"),
        failed("d", 0.0, call_class="chat"),
    ]
    table = by_group(Measured.of(a_run(rows)), SLO.parse("ttft<2s"), "call_class")
    told = table.select("call_class", "calls", "failed", "share", "e2e_mean").rows()
    assert told == [("chat", 3, 1, pytest.approx(1 / 3), 2.0), ("batch", 1, 0, 0.0, 3.0)]
    assert table["ttft_p50"].null_count() == 2  # of two values, and of one
    assert by_group(Measured.of(a_run(rows)), None, "client_id").is_empty()


def test_a_selector_that_a_table_does_not_know_is_refused(call: Make, a_run: MakeRun) -> None:
    measured = Measured(a_run([call("a", 0.0, 1.0)]).rows.drop("priority"))
    with pytest.raises(InputError, match="asks by priority, which the run does not know"):
        judged(measured, SLO.parse("priority=1: ttft<1s"))
