"""A part of a run is what its calls alone would be, and programs that begin in it stay whole."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import mixed

from servescope.analysis import METRICS, SLO, Measured, attained, gaps, kept, totals_of
from servescope.analysis.attainment import by_group, judged, requirements
from servescope.analysis.cut import EVERYTHING, TURNS, Cut, choices_of
from servescope.analysis.measured import Part
from servescope.analysis.totals import TOTALS, Whole
from servescope.traces import Run
from servescope.traces.errors import InputError
from servescope.traces.server import COUNTERS, KNOWN

Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]

CUTS = st.builds(
    Cut,
    st.none() | st.integers(0, 60).map(lambda n: n / 4),
    st.none() | st.integers(0, 60).map(lambda n: n / 4),
    st.lists(
        st.sampled_from(
            [
                ("class", "chat"), ("class", "code"), ("class", ""), ("client", "client-1"),
                ("tenant", "client-2"), ("turn", "1"), ("turns", "2 to 3"), ("replica", "r1"),
                ("model", "one"), ("priority", "0"), ("class", "unheard of"),
            ]
        ),
        max_size=2,
    ).map(tuple),
)  # fmt: skip


def alone(frame: pl.DataFrame, cut: Cut) -> Measured:
    """Measure the rows of a part as if there had been no others."""
    return Measured(frame.filter(cut.chosen(frame.columns)).lazy())


def begun(frame: pl.DataFrame, cut: Cut) -> list[str]:
    """Return the programs whose first call is in a part, in their order."""
    first = frame.sort("due_s", "call_id", nulls_last=True).unique(
        "program_id", keep="first", maintain_order=True
    )
    return first.filter(cut.chosen(frame.columns))["program_id"].to_list()


@given(st.integers(0, 40), st.integers(0, 10_000), CUTS)
@settings(max_examples=60)
def test_a_part_is_what_its_calls_alone_would_be(
    call: Make, calls: int, seed: int, cut: Cut
) -> None:
    frame = mixed(call, calls, seed)
    whole = Measured(frame.lazy())
    part, expected = whole.cut(cut), alone(frame, cut)
    assert part.calls.drop("row").equals(expected.calls.drop("row"))
    assert part.height == expected.height
    for metric in METRICS.values():
        if metric.per == "program":
            continue
        for sample in (part.spread(metric.name), part.distributions[metric.name]):
            assert sample.values.tolist() == expected.sample(metric.name).values.tolist()
    assert part.programs["program_id"].to_list() == begun(frame, cut)
    known = whole.programs.filter(pl.col("program_id").is_in(begun(frame, cut)))
    assert part.programs.equals(known)
    assert part.spread("jct").values.tolist() == known["jct"].drop_nulls().sort().to_list()
    found, wanted = totals_of(Whole(part)), totals_of(Whole(expected))
    for name in TOTALS:
        if name != "programs_rps":  # of those that begin in it
            assert found[name] == pytest.approx(wanted[name]), name


@given(st.integers(0, 60), st.integers(0, 10_000), CUTS)
@settings(max_examples=40)
def test_who_meets_an_slo_in_a_part_is_who_would_alone(
    call: Make, calls: int, seed: int, cut: Cut
) -> None:
    frame = mixed(call, calls, seed)
    part, expected = Measured(frame.lazy()).cut(cut), alone(frame, cut)
    slo = SLO.parse(
        "class=chat: ttft<300ms, stall<200ms; client=client-1: tpot<90ms, fluidity(1s,100ms)>0.8"
    )
    assert judged(part, slo).equals(judged(expected, slo))
    assert attained(part, slo) == attained(expected, slo)
    statistics = SLO.parse("class=chat: p50(ttft)<1s, p90(tbt)<1s; p50(e2e)<2s, mean(icl)<1s")
    for found, wanted in zip(
        requirements(part, statistics), requirements(expected, statistics), strict=True
    ):
        assert (found.count, found.value) == (wanted.count, pytest.approx(wanted.value))
    groups = [by_group(each, slo, "turns", {"turns": TURNS}) for each in (part, expected)]
    assert groups[0].equals(groups[1])


@given(st.integers(0, 40), st.integers(0, 10_000), CUTS)
@settings(max_examples=30)
def test_of_a_part_the_programs_that_begin_in_it_are_judged_as_in_the_whole(
    call: Make, calls: int, seed: int, cut: Cut
) -> None:
    frame = mixed(call, calls, seed)
    whole = Measured(frame.lazy())
    slo = SLO.parse("jct<6s, ttft<600ms")
    table = judged(whole, slo).filter(pl.col("program_id").is_in(begun(frame, cut)))
    assert judged(whole.cut(cut), slo).equals(table)
    assert attained(whole.cut(cut), slo).met == table["met"].sum()


def test_intervals_of_a_part_are_those_of_its_own_sections(call: Make) -> None:
    """Programs of one call are cut nowhere, so that every interval must be the same."""
    frame = mixed(call, 400, 3, alone=True)
    cut = Cut(5.0, 40.0, (("replica", "r1"),))
    part, expected = Measured(frame.lazy()).cut(cut), alone(frame, cut)
    ours = part.summary.filter(pl.col("metric") != "slowdown")  # its ideal is the whole run's
    theirs = expected.summary.filter(pl.col("metric") != "slowdown")
    assert theirs["p50_low"].count() > 10
    assert ours.equals(theirs)


@given(st.integers(1, 60), st.integers(0, 10_000), CUTS)
@settings(max_examples=40)
def test_gaps_in_buckets_are_right_to_a_twentieth_of_a_percent(
    call: Make, calls: int, seed: int, cut: Cut
) -> None:
    frame = mixed(call, calls, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "EXACT_VALUES", 1)
        patch.setattr(kept, "LARGE", 0)
        patch.setattr(kept, "STRETCHES", 5)
        whole = Measured(frame.lazy())
        part = whole.cut(cut)
        several = whole.kept.exact
        found = {name: (part.spread(name), part.distributions[name]) for name in ("tbt", "icl")}
    assert several == (part.gaps_are == "exact")
    for name, samples in found.items():
        expected = alone(frame, cut).sample(name)
        for sample in samples:
            assert len(sample) == len(expected)
            ranked = np.repeat(sample.values, sample.weights)
            assert ranked == pytest.approx(expected.values, rel=0.0005)


def test_a_cut_of_nothing_is_the_run_itself_and_says_how_gaps_are_taken(call: Make) -> None:
    whole = Measured(mixed(call, 30, 1).lazy())
    assert whole.cut(EVERYTHING) is whole
    assert whole.gaps_are == "exact"
    assert not EVERYTHING
    assert Cut(0.0)


def test_a_part_can_be_cut_again(call: Make) -> None:
    frame = mixed(call, 60, 2)
    early, chat = Cut(until_s=8.0), Cut(where=(("class", "chat"),))
    twice = Measured(frame.lazy()).cut(early).cut(chat)
    both = Cut(until_s=8.0, where=(("class", "chat"),))
    assert isinstance(twice, Part)
    assert twice.calls["call_id"].to_list() == alone(frame, both).calls["call_id"].to_list()
    assert twice.sample("icl").values.tolist() == alone(frame, both).sample("icl").values.tolist()


def test_a_run_says_by_what_it_can_be_cut_the_commonest_first() -> None:
    calls = pl.DataFrame(
        {
            "turn": [0, 3, 1, 2],
            "call_class": ["chat", "code", "code", None],
            "client_id": ["a", "b", "c", "c"],
        }
    )
    found = choices_of(calls, 2)
    assert list(found) == ["class", "client", "turn", "turns"]
    assert found["class"] == ["code", "chat"]
    assert found["client"][0] == "c"
    assert len(found["client"]) == 2
    assert "2 to 3" in found["turns"]  # two calls, the others one each
    assert choices_of(calls, 9)["turns"] == ["first (cold)", "2 to 3", "4 to 7"]


def test_what_a_run_does_not_know_is_refused(call: Make, a_run: MakeRun) -> None:
    run = Measured.of(a_run([call("a", 0.0, 1.0)]))
    with pytest.raises(InputError, match="cannot be cut by 'colour'"):
        run.cut(Cut(where=(("colour", "red"),)))


def test_the_file_is_read_once_for_all_parts(
    call: Make, a_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run([call(str(n), float(n), n + 1.0, n + 1.5) for n in range(4)])
    whole = Measured.of(run)
    whole.cut(EVERYTHING)
    (run.path / "calls.parquet").unlink()
    later = whole.cut(Cut(2.0))
    assert later.sample("icl").values.tolist() == [0.5, 0.5]
    assert later.calls["stall"].to_list() == [0.5, 0.5]
    assert whole.sample("tbt").values.tolist() == [0.5] * 4


def test_counters_of_servers_grow_from_the_last_scrape_before_the_window() -> None:
    said = pl.DataFrame(
        {"t_s": [0.0, 1.0, 2.0, 3.0] * 2, "replica": ["a"] * 4 + ["b"] * 4, "up": True}
        | {name: [0.0, 5.0, 7.0, 11.0, 0.0, 1.0, None, 3.0] for name in KNOWN},
        strict=False,
    )
    inside = Cut(2.0, 4.0).of_servers(said)
    assert inside["t_s"].to_list() == [2.0, 3.0, 2.0, 3.0]
    assert inside[COUNTERS[0]].to_list() == [2.0, 6.0, None, 2.0]
    assert inside["running"].to_list() == [7.0, 11.0, None, 3.0]
    of_b = Cut(where=(("replica", "b"), ("class", "chat"))).of_servers(said)
    assert of_b["replica"].unique().to_list() == ["b"]
    assert of_b.height == 4
