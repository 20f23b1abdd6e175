"""The small language of objectives, and who meets them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from servescope.analysis import SLO, attainment
from servescope.analysis.slo import Condition, judged
from servescope.traces import Run
from servescope.traces.errors import InputError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "slo.md"
Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]


@pytest.mark.parametrize(
    "text",
    [
        "ttft<500ms",
        "ttft < 0.5 s",
        "ttft<.5s",
        "  ttft  <  500  ms  ",
        "ttft<=500ms",
        "ttft:500",
        "ttft: 500ms",
        "ttft:0.5s",
        "TTFT<500MS",
        "ttft<0.5S,",
        ",ttft<500.ms",
    ],
)
def test_one_condition_can_be_written_in_several_ways(text: str) -> None:
    assert SLO.parse(text).conditions == (Condition("ttft", 0.5),)


@pytest.mark.parametrize(
    "text",
    [
        "ttft<500ms,tpot<50ms",
        "ttft<500ms, tpot<50ms",
        "ttft < 500 ms , tpot < 50 ms",
        "ttft<0.5s tpot<50ms",
        "ttft:500 tpot:50",
        "ttft:500,tpot:50",
        "ttft:500\ntpot<50ms",
    ],
)
def test_several_conditions_stand_with_commas_or_spaces_between(text: str) -> None:
    assert SLO.parse(text).conditions == (Condition("ttft", 0.5), Condition("tpot", 0.05))


def test_vllms_name_of_e2e_is_understood() -> None:
    assert SLO.parse("e2el:5000").conditions == (Condition("e2e", 5.0),)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "The SLO holds no condition."),
        (" , ", "The SLO holds no condition."),
        ("quick", "'quick' is not a condition of an SLO."),
        ("ttft", "'ttft' is not a condition of an SLO."),
        ("ttft>500ms", "'ttft>500ms' is not a condition of an SLO."),
        ("ttft<500ms,<3s", "'<3s' is not a condition of an SLO."),
        ("ttft<1.2.3s", "'ttft<1.2.3s' is not a condition of an SLO."),
        ("ttft<-1s", "'ttft<-1s' is not a condition of an SLO."),
        ("ttft<500min", "'ttft<500min' is not a condition of an SLO."),
        ("ttft<500mstpot<50ms", "'ttft<500mstpot<50ms' is not a condition of an SLO."),
        ("ttft<500ms and tpot<50ms", "'and tpot<50ms' is not a condition of an SLO."),
        ("speed<500ms", "An SLO cannot be asked of 'speed'."),
        ("tbt<50ms", "An SLO cannot be asked of 'tbt'."),
        ("ttft<500", "'ttft<500' has no unit."),
        ("ttft<500 stall<5ms", "'ttft<500' has no unit."),
        ("ttft<0ms", "No ttft is below 0."),
    ],
)
def test_what_is_no_objective_is_refused_in_two_sentences(text: str, wrong: str) -> None:
    with pytest.raises(InputError) as refused:
        SLO.parse(text)
    assert refused.value.wrong == wrong
    assert refused.value.mend.endswith(".")


def test_the_refusal_of_an_unknown_metric_names_those_that_can_be_asked() -> None:
    with pytest.raises(InputError, match=r"Choose among ttft, ttft_due, tpot, stall, e2e"):
        SLO.parse("itl<50ms")


def test_an_objective_reads_well() -> None:
    assert str(SLO.parse("ttft<2s,stall<100ms")) == "TTFT < 2 s and Longest stall < 100 ms"
    assert (SLO.parse("ttft<2s").per, SLO.parse("ttft<2s,jct<1s").per) == ("calls", "programs")


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
    met = attainment(run.trace, SLO.parse("ttft<500ms"))
    assert (met.met, met.asked, met.per, met.share) == (2, 10, "calls", 0.2)
    assert met.goodput_rps == 2 / 10.0
    assert attainment(run.trace, SLO.parse("ttft_due<500ms")).met == 2  # the unstamped, less late


def test_a_failed_call_misses_even_an_objective_on_the_client(failed: Make, a_run: MakeRun) -> None:
    assert attainment(a_run([failed("x", 0.0)]).trace, SLO.parse("e2e<1s")).met == 0


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
        judgement = judged(a_run(rows).trace, SLO.parse(text))
        assert judgement["met"].to_list() == [False, True, True, False]


def test_gaps_that_were_not_measured_are_misses(call: Make, a_run: MakeRun) -> None:
    uncounted = call("a", 0.0, 1.0, 1.01, output_tokens=None)
    unstamped = call("b", 0.0, 1.0, 1.01, chunk_s=None)
    empty = call("c", 0.0)
    run = a_run([uncounted, unstamped, empty])
    assert judged(run.trace, SLO.parse("tpot<1s"))["met"].to_list() == [False, True, False]
    assert judged(run.trace, SLO.parse("stall<1s"))["met"].to_list() == [True, False, False]


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
    judgement = judged(run.trace, SLO.parse("jct<10s,ttft<2s"))
    met = judgement.filter("met")["program_id"].to_list()
    assert (judgement.height, met) == (4, ["good"])
    assert attainment(run.trace, SLO.parse("jct<10s")).met == 2
    assert attainment(run.trace, SLO.parse("jct<10s")).asked == 4


def test_a_run_of_no_calls_meets_nothing(a_run: MakeRun) -> None:
    met = attainment(a_run([]).trace, SLO.parse("ttft<1s"))
    assert (met.met, met.asked, met.share, met.goodput_rps) == (0, 0, 0.0, None)


def test_every_example_on_the_page_parses_to_what_the_page_says() -> None:
    """The table pairs what is written with what is understood."""
    rows = re.findall(r"^\| `([^`]+)` \| ([^|`]+) \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 6
    for text, understood in rows:
        assert str(SLO.parse(text)) == understood.strip()


def test_every_refusal_on_the_page_is_refused() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 3
    for text, said in rows:
        with pytest.raises(InputError) as refused:
            SLO.parse(text)
        assert str(refused.value) == said
