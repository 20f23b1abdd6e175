"""The small language of objectives, and who meets them."""

import re
from pathlib import Path

import pytest

from servescope.analysis import SLO
from servescope.analysis.slo import Bound, Condition
from servescope.traces.errors import InputError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "slo.md"


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
    assert SLO.parse(text).groups[0].conditions == (Condition("ttft", Bound(0.5)),)


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
    assert SLO.parse(text).groups[0].conditions == (
        Condition("ttft", Bound(0.5)),
        Condition("tpot", Bound(0.05)),
    )


def test_a_bound_grows_with_the_tokens_of_the_call() -> None:
    (condition,) = SLO.parse("e2e < 1s + 50ms*output + 0.5ms * input + 1s").groups[0].conditions
    assert condition == Condition("e2e", Bound(2.0, pytest.approx(0.0005), pytest.approx(0.05)))


def test_a_statistic_is_asked_of_the_run_and_not_of_each() -> None:
    slo = SLO.parse("P99.9(TBT)<=100ms mean(jct):60000")
    assert slo.groups[0].conditions == (
        Condition("tbt", Bound(0.1), pytest.approx(0.999)),
        Condition("jct", Bound(60.0), "mean"),
    )
    assert slo.per == "calls"
    assert not slo.of_each


def test_groups_are_for_calls_of_their_own() -> None:
    slo = SLO.parse('class="long reads" turn=0: ttft<3s; tenant=ACME: jct<60s, ttft<1s; e2e<9s')
    assert [group.where for group in slo.groups] == [
        (("class", "long reads"), ("turn", "0")),
        (("tenant", "ACME"),),
        (),
    ]
    assert slo.per == "programs"


def test_an_slo_times_a_factor_has_every_bound_and_deadline_times_it() -> None:
    text = "ttft<1s+2ms*input, p99(tbt)<100ms, fluidity(500ms,50ms)>=0.9"
    twice = "ttft<2s+4ms*input, p99(tbt)<200ms, fluidity(1s,100ms)>=0.9"
    assert SLO.parse(text).scaled(2.0) == SLO.parse(twice)


def test_vllms_name_of_e2e_is_understood() -> None:
    assert SLO.parse("e2el:5000").groups[0].conditions == (Condition("e2e", Bound(5.0)),)


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
    with pytest.raises(InputError, match=r"Choose among ttft, ttft_due, ttfo"):
        SLO.parse("itl<50ms")


def test_an_objective_reads_well() -> None:
    assert str(SLO.parse("ttft<2s,stall<100ms")) == "TTFT < 2 s and Longest stall < 100 ms"
    assert (SLO.parse("ttft<2s").per, SLO.parse("ttft<2s,jct<1s").per) == ("calls", "programs")


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


def test_what_is_asked_of_each_is_the_slo_without_what_is_asked_of_the_run() -> None:
    slo = SLO.parse("class=a: ttft<1s, p99(tbt)<100ms; class=b: p99(ttft)<1s; mean(jct)<9s")
    assert str(slo.each) == "TTFT < 1 s where class is a"
    assert not SLO.parse("p99(ttft)<1s").each.groups
