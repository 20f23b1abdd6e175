"""Pairs of runs whose difference is known, and what is said of them."""

import re
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from servescope.analysis import SLO, compare
from servescope.analysis.comparison import Difference, ShareDifference
from servescope.analysis.evidence import of_sections
from servescope.analysis.intervals import Interval
from servescope.analysis.verdicts import in_words
from servescope.traces import Run
from servescope.traces.errors import InputError

Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]
Rows = list[dict[str, Any]]


def versus(a: Run, b: Run, slo: SLO | None = None) -> Any:
    """Compare two runs; returns what is said of both and of the challenger in one."""
    found = compare([a, b], slo)
    (challenge,) = found.challenges
    told = {name: getattr(challenge, name) for name in type(challenge).__slots__}
    both = {name: getattr(found, name) for name in ("pairs", "sections", "doubts")}
    return SimpleNamespace(a=found.baseline, b=challenge.name, **{**told, **both})


@pytest.fixture
def rows(call: Make) -> Callable[..., Rows]:
    """Return a function that makes programs of two calls; every wait is `slower` times as long."""

    def make(slower: float = 1.0, programs: int = 80, noise: int = 0, tail: float = 0.01) -> Rows:
        rng = np.random.default_rng(7)
        own = np.random.default_rng(noise)
        made = []
        for program in range(programs):
            due = 10.0 * program
            for turn in (0, 1):
                ttft, step = rng.lognormal(-1, 0.3), rng.lognormal(-3, 0.3)
                ttft *= slower * own.lognormal(0, 0.02)
                sent = due + 5.0 * turn
                first = sent + ttft
                chunks = (first, first + step, first + step + tail)
                fields = {"program_id": f"p{program}", "sent_s": sent + 0.001, "turn": turn}
                made.append(call(f"{program}-{turn}", sent, *chunks, **fields))
        return made

    return make


def named(comparison: Any, metric: str, statistic: str) -> Difference:
    return next(
        row for row in comparison.differences if (row.metric, row.statistic) == (metric, statistic)
    )


def test_a_run_compared_with_a_twin_differs_in_nothing(rows: Any, a_run: MakeRun) -> None:
    a, b = a_run(rows(), "old"), a_run(rows(), "new")
    for found in (versus(a, b), versus(a, b, SLO.parse("ttft<400ms"))):
        assert (found.a, found.b, found.pairs, found.sections) == ("old", "new", 160, 10)
        assert {row.verdict for row in found.differences} == {"equivalent"}
        assert found.verdict.startswith("old and new are equivalent within 5")


def test_a_faster_run_is_better_by_the_factor_that_is_known(rows: Any, a_run: MakeRun) -> None:
    found = versus(
        a_run(rows(1.0, noise=1, programs=200), "old"),
        a_run(rows(0.5, noise=2, programs=200), "new"),
    )
    row = named(found, "ttft_due", "p99")
    assert row.label == "TTFT from due p99"
    assert row.verdict == "better"
    assert row.ratio is not None
    assert row.ratio.estimate == pytest.approx(0.5, rel=0.05)
    assert not row.ratio.excludes(0.5)
    assert re.fullmatch(
        r"new served it better: its mean JCT is 0\.\d\d of old's \(0\.\d\d to 0\.\d\d, 95 %\)\.",
        found.verdict,
    )


def test_the_order_of_the_runs_does_not_change_who_won(rows: Any, a_run: MakeRun) -> None:
    """Ratios turn over, shares change sign, and the sentence stays the same."""
    fast, slow = a_run(rows(0.5), "fast"), a_run(rows(1.0), "slow")
    slo = SLO.parse("ttft<250ms")
    for objective in (None, slo):
        there, back = versus(slow, fast, objective), versus(fast, slow, objective)
        assert there.verdict == back.verdict
        assert there.verdict.startswith("fast served it better: ")
        for one, other in zip(there.differences, back.differences, strict=True):
            assert one.ratio is not None
            assert other.ratio is not None
            assert one.ratio.low == pytest.approx(1 / other.ratio.high)
    found = versus(slow, fast, slo).slo
    assert found is not None
    assert found.verdict == "better"
    assert found.b > found.a


def test_a_verdict_by_slo_names_shares_points_and_the_price(rows: Any, a_run: MakeRun) -> None:
    """The new run starts three times sooner and then stalls three times longer."""
    a = a_run(rows(1.0, noise=1, programs=200), "old")
    b = a_run(rows(0.3, noise=2, tail=0.5, programs=200), "new")
    found = versus(a, b, SLO.parse("ttft:300"))
    assert re.fullmatch(
        r"new served it better: 100\.0% of calls within TTFT < 300 ms against \d+\.\d% for old"
        r" \(\+\d+\.\d to \+\d+\.\d points, 95 %\)\. The price: (TBT|Longest stall) .*\.",
        found.verdict,
    )
    assert "Longest stall p99 x " in found.verdict
    assert "TTFT" not in found.verdict.split("The price")[1]


def test_an_interval_of_shares_stays_within_a_hundred_points(
    rows: Any, failed: Make, a_run: MakeRun
) -> None:
    """Half of the run fails in one stroke: four units of time know little of it."""
    good = rows()
    bad = [
        failed(row["call_id"], row["due_s"], program_id=row["program_id"]) if n >= 40 else row
        for n, row in enumerate(good)
    ]
    found = versus(a_run(good, "a"), a_run(bad, "b"), SLO.parse("ttft<9s")).slo
    assert found is not None
    assert (found.a, found.b) == (1.0, 0.25)
    assert found.difference is not None
    assert found.difference.low == -1.0


def test_an_slo_with_jct_is_told_of_programs(rows: Any, a_run: MakeRun) -> None:
    a, b = a_run(rows(1.0), "a"), a_run(rows(1.0), "b")
    assert "of programs within JCT < 60 s" in versus(a, b, SLO.parse("jct<60s")).verdict


def test_too_few_programs_give_numbers_but_no_certainty(rows: Any, a_run: MakeRun) -> None:
    a, b = a_run(rows(1.0, programs=49), "a"), a_run(rows(0.5, programs=49), "b")
    found = versus(a, b)
    assert found.sections is None
    assert {row.verdict for row in found.differences} == {"unknown"}
    assert re.fullmatch(
        r"b's mean JCT is \S+ s, a's \S+ s; too few programs to say how sure\.", found.verdict
    )
    assert "49 programs are too few for an interval; replay at least 50." in found.doubts
    by_slo = versus(a, b, SLO.parse("ttft<300ms"))
    assert by_slo.slo is not None
    assert by_slo.slo.verdict == "unknown"
    assert by_slo.verdict.endswith("; too few programs to say how sure.")


@pytest.mark.parametrize(("programs", "doubted"), [(80, True), (500, False)])
def test_few_programs_are_doubted(rows: Any, a_run: MakeRun, programs: int, doubted: bool) -> None:
    a, b = a_run(rows(programs=programs), "a"), a_run(rows(programs=programs), "b")
    assert any("programs are few" in doubt for doubt in versus(a, b).doubts) is doubted


def test_runs_of_one_name_are_told_apart_by_their_folders(rows: Any, a_run: MakeRun) -> None:
    a, b = a_run(rows(), "same", doubts=("It rained.",)), a_run(rows(), "same")
    found = versus(a, b)
    assert (found.a, found.b) == (str(a.path), str(b.path))
    assert found.doubts[0] == f"{a.path}: It rained."


def test_runs_of_different_plans_cannot_be_paired(rows: Any, a_run: MakeRun) -> None:
    a, b = a_run(rows(), "a"), a_run(rows(), "b", plan_sha256="another")
    with pytest.raises(InputError, match=r"did not run the same plan.*\. Replay both"):
        versus(a, b)


def test_only_programs_that_both_hold_whole_are_compared(rows: Any, a_run: MakeRun) -> None:
    """The second run was killed: it lacks the last 20 calls and one of a program before."""
    everything = rows()
    cut = [row for row in everything[:-20] if row["call_id"] != "3-1"]
    found = versus(a_run(everything, "whole"), a_run(cut, "killed"))
    assert found.pairs == 160 - 20 - 2
    # the ideal of a slowdown is read off all calls of a run
    same = [row for row in found.differences if row.metric != "slowdown"]
    assert {row.ratio and row.ratio.estimate for row in same} == {1.0}
    assert any(doubt.startswith("11 programs are not whole") for doubt in found.doubts)


def test_runs_without_a_program_in_common_cannot_be_compared(rows: Any, a_run: MakeRun) -> None:
    for others in ([], rows(programs=1)[:1]):
        with pytest.raises(InputError, match=r"no program in common.*\. Let them run"):
            versus(a_run(rows(), "a"), a_run(others, "b"))


def test_without_an_slo_a_run_that_fails_its_slow_programs_is_not_better(
    rows: Any, failed: Make, a_run: MakeRun
) -> None:
    """Every third program is slow in one run and turned away in the other."""

    def spoilt(row: dict[str, Any], by: str) -> dict[str, Any]:
        if int(row["program_id"][1:]) % 3:
            return row
        if by == "failure":
            return failed(row["call_id"], row["due_s"], program_id=row["program_id"])
        return row | {"last_token_s": row["last_token_s"] + 60}

    slow = a_run([spoilt(row, "delay") for row in rows(noise=1)], "slow")
    choosy = a_run([spoilt(row, "failure") for row in rows(noise=2)], "choosy")
    for found in (versus(slow, choosy), versus(choosy, slow)):
        assert re.fullmatch(
            r"choosy was faster where it answered: its mean JCT is .* of slow's \(.*\)\. But it"
            r" failed 33\.8% of programs against 0\.0% for slow; give an SLO to say which served it"
            r" better\.",
            found.verdict,
        )
        assert any("33.8%" in doubt and "answered calls alone" in doubt for doubt in found.doubts)
    decided = versus(slow, choosy, SLO.parse("jct<30s"))
    assert "are equivalent" in decided.verdict  # a minute late or never: both are misses


def test_a_draw_in_latency_still_tells_of_failures(rows: Any, failed: Make, a_run: MakeRun) -> None:
    turned_away = [
        failed(row["call_id"], row["due_s"], program_id=row["program_id"])
        if int(row["program_id"][1:]) % 4 == 0
        else row
        for row in rows()
    ]
    found = versus(a_run(rows(), "a"), a_run(turned_away, "b"))
    assert "are equivalent" in found.verdict
    assert found.verdict.endswith(" But b failed 25.0% of programs against 0.0%.")


def test_a_run_that_failed_altogether_has_no_jct_but_loses_by_slo(
    rows: Any, failed: Make, a_run: MakeRun
) -> None:
    dead = [failed(r["call_id"], r["due_s"], program_id=r["program_id"]) for r in rows()]
    a, b = a_run(rows(), "a"), a_run(dead, "b")
    assert versus(a, b).verdict == (
        "No mean JCT can be compared: in one run no program was served whole."
    )
    assert versus(a, b).differences == ()
    assert versus(a, b, SLO.parse("ttft<9s")).verdict == (
        "a served it better: 100.0% of calls within TTFT < 9 s against 0.0% for b"
        " (+96.2 to +100.0 points, 95 %)."
    )


def test_a_statistic_of_zero_has_no_ratio(call: Make, a_run: MakeRun) -> None:
    """Two chunks that were read at once are a gap of 0."""

    def made(gap: float) -> Rows:
        return [call(str(n), float(n), n + 0.5, n + 0.5 + gap) for n in range(300)]

    found = versus(a_run(made(0.0), "a"), a_run(made(0.1), "b"))
    stall = named(found, "stall", "p99")
    assert (stall.a, stall.ratio, stall.verdict) == (0.0, None, "unknown")
    assert stall.b == pytest.approx(0.1)


def test_chunks_of_several_tokens_are_compared_by_icl_and_single_tokens_by_tbt(
    rows: Any, a_run: MakeRun
) -> None:
    coarse = [row | {"output_tokens": 30} for row in rows()]
    of_tokens = {row.metric for row in versus(a_run(rows(), "a"), a_run(rows(), "b")).differences}
    of_chunks = {row.metric for row in versus(a_run(coarse, "a"), a_run(coarse, "b")).differences}
    assert of_tokens - of_chunks == {"tbt"}
    assert of_chunks - of_tokens == {"icl"}


def test_the_price_names_one_statistic_a_metric_and_its_factor_for_the_winner() -> None:
    """A won: what got better from A to B is what A paid, turned over."""
    sure = {"p_value": 0.001, "holm": 0.01, "bh": 0.01, "equivalence": 1.0}
    jct = Difference("jct", "mean", 1.0, 2.0, Interval(2.0, 1.5, 2.5), **sure)
    ttft = Difference("ttft", "p50", 3.0, 1.0, Interval(1 / 3, 0.2, 0.5), **sure)
    rows = (ttft, replace(ttft, statistic="p99"), replace(ttft, metric="ttft_due"), jct)
    no_failures = ShareDifference("programs", 0.0, 0.0)
    found = of_sections(1.0, 2.0, np.ones(10), np.linspace(1.9, 2.1, 10))
    told, decided = in_words("a", "b", "", None, no_failures, rows, found, 0.05, None)
    assert told == (
        "a served it better: its mean JCT is 0.50 of b's (0.40 to 0.67, 95 %)."
        " The price: TTFT p50 x 3.00."
    )
    assert decided == "worse"


def test_what_cannot_be_told_apart_says_how_long_to_run(rows: Any, a_run: MakeRun) -> None:
    """Programs of their own in both runs: as unlike as two runs of one plan can be."""
    rng = np.random.default_rng(4)
    wild = [
        [row | {"last_token_s": row["due_s"] + rng.lognormal(1, 1.5)} for row in rows()]
        for _ in range(2)
    ]
    found = versus(a_run(wild[0], "a"), a_run(wild[1], "b"))
    assert found.decided == "cannot tell"
    longer = re.search(
        r"a difference of 5% so takes ([0-9.e+]+) times as long, or (\d+) repeats\.",
        found.verdict,
    )
    assert longer is not None
    assert float(longer[1]) == pytest.approx(found.times_longer, rel=0.06)
    assert int(longer[2]) >= found.times_longer


def test_three_systems_are_compared_with_the_first_and_corrected_together(
    rows: Any, a_run: MakeRun
) -> None:
    a, b, c = a_run(rows(1.0), "a"), a_run(rows(0.5), "b"), a_run(rows(2.0), "c")
    found = compare([a, b, c])
    assert found.names == ("a", "b", "c")
    assert [challenge.decided for challenge in found.challenges] == ["better", "worse"]
    alone = versus(a, b)
    together = found.challenges[0]
    for one, other in zip(alone.differences, together.differences, strict=True):
        assert one.p_value == other.p_value
        assert one.holm <= other.holm
    assert found.verdict.count("served it better") == 2


def test_repeats_of_two_systems_are_paired_repeat_by_repeat(rows: Any, a_run: MakeRun) -> None:
    """Two repeats of ten minutes have ten sections in all; every program counts twice."""
    runs = [
        [a_run(rows(slower, noise=noise), name) for noise in (1, 2)]
        for slower, name in ((1.0, "a"), (0.8, "b"))
    ]
    found = compare(runs)
    assert (found.repeats, found.sections, found.pairs) == (2, 10, 320)
    assert found.challenges[0].decided == "better"
    with pytest.raises(InputError, match=r"has 2 repeats and .* has 1\. Compare as many of each"):
        compare([runs[0], runs[1][0]])


def test_five_repeats_have_two_sections_each_and_ten_one(rows: Any, a_run: MakeRun) -> None:
    many = [[a_run(rows(programs=12), "a") for _ in range(10)] for _ in range(2)]
    assert compare([many[0][:5], many[1][:5]]).sections == 10
    assert compare(many).sections == 10


def test_a_run_is_not_compared_with_itself(rows: Any, a_run: MakeRun) -> None:
    run = a_run(rows(), "a")
    with pytest.raises(InputError, match="is named twice"):
        compare([run, run])


def test_a_single_run_is_no_comparison(rows: Any, a_run: MakeRun) -> None:
    with pytest.raises(InputError, match="nothing to compare"):
        compare([a_run(rows(), "a")])


def test_a_difference_that_matters_to_nobody_is_no_finding(rows: Any, a_run: MakeRun) -> None:
    """Two replays of one server once differed by a surely measured thousandth, and one won."""
    found = versus(a_run(rows(), "a"), a_run(rows(1.002), "b"))
    row = named(found, "e2e", "p50")
    assert row.ratio is not None
    assert row.ratio.excludes(1.0)
    assert row.verdict == "equivalent"
    assert "are equivalent" in found.verdict


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"asked": {"backend": "openai-chat"}}, r"asked differently \(backend\)"),
        ({"model": "other"}, "two models are compared"),
        ({"clock": "real"}, "ran in virtual time and b in real time"),
        (
            {"probe": {"each": False, "refused": ["ignore_eos"]}},
            "differ in which fields of a request they refuse, whether every chunk says its tokens",
        ),
    ],
)
def test_runs_that_were_not_asked_alike_are_doubted(
    rows: Any, a_run: MakeRun, fields: dict[str, Any], says: str
) -> None:
    alike = {"asked": {"backend": "openai"}, "model": "m", "probe": {"each": True}}
    found = versus(a_run(rows(), "a", **alike), a_run(rows(), "b", **{**alike, **fields}))
    assert any(re.search(says, doubt) for doubt in found.doubts)


def test_a_cache_that_was_warm_in_one_run_is_doubted(rows: Any, a_run: MakeRun) -> None:
    warm = [row | {"cached_tokens": 9} for row in rows()]
    found = versus(a_run(rows(), "cold"), a_run(warm, "warm"))
    assert any("cold took 0% of the prompts from its cache and warm 90%" in d for d in found.doubts)


def test_an_invalid_run_gives_no_verdict(rows: Any, a_run: MakeRun) -> None:
    found = versus(a_run(rows(), "a", validity="invalid"), a_run(rows(0.5), "b"))
    assert found.verdict.startswith("No verdict: a is invalid. What the numbers say: b served")


def test_other_token_counts_of_the_same_calls_are_doubted(rows: Any, a_run: MakeRun) -> None:
    more = [row | {"input_tokens": 11} for row in rows()]
    found = versus(a_run(rows(), "a"), a_run(more, "b"))
    assert any("they did not do the same work" in doubt for doubt in found.doubts)


@pytest.mark.parametrize("status", ["cancelled", "not_sent"])
def test_what_the_user_stopped_is_no_failure_of_the_server(
    rows: Any, a_run: MakeRun, status: str
) -> None:
    """The last ten programs of B were in flight, or had a turn to come, when it was stopped."""
    stopped = [
        row
        if int(row["program_id"][1:]) < 70 or row["turn"] == 0
        else row | {"status": status, "due_s": None if status == "not_sent" else row["due_s"]}
        for row in rows()
    ]
    found = versus(a_run(rows(), "a"), a_run(stopped, "b"), SLO.parse("ttft<400ms"))
    assert found.pairs == 140
    assert found.slo is not None
    assert found.slo.a == found.slo.b
