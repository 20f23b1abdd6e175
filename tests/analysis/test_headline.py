"""The headline of a run says what the rows of a sweep and the report say, and reads less."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from made_runs import mixed

from servescope.analysis import SLO, Measured, headline
from servescope.analysis.cut import Cut
from servescope.analysis.headline import headline_of, rate_of
from servescope.analysis.sweep import rows_of
from servescope.traces import Run
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]
MakeRun = Callable[..., Run]

SLOS = (
    "ttft<300ms",
    "tpot<90ms, e2e<2s; class=chat: ttft<200ms",
    "stall<100ms",
    "jct<6s",
    "fluidity(1s,100ms)>0.8",
    "p50(ttft)<1s",
)


@pytest.mark.parametrize("text", [None, *SLOS])
@pytest.mark.parametrize("warmup_s", [0.0, 3.0])
def test_it_is_what_the_row_of_a_sweep_says(
    call: Make, a_run: MakeRun, text: str | None, warmup_s: float
) -> None:
    run = a_run(mixed(call, 900, 4).to_dicts(), warmup_s=warmup_s)
    slo = SLO.parse(text) if text else None
    row = rows_of([run], slo).row(0, named=True)
    found = asdict(headline.headline(Run.open(run.path).without_warmup(warmup_s), slo))
    assert found == {name: row[name] for name in found}
    assert found["ttft_p99_s"] is not None


def test_of_many_calls_what_takes_long_is_not_told(
    call: Make, a_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headline, "MOST_CALLS", 10)
    run = a_run(mixed(call, 40, 4).to_dicts(), planned_calls=40)
    told = [headline.headline(run, SLO.parse(text)).attainment for text in SLOS]
    assert [share is not None for share in told] == [True, True, False, False, False, False]


def test_it_reads_no_chunks(call: Make, a_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Measured, "_read", None)
    run = a_run(mixed(call, 40, 4).to_dicts())
    assert headline.headline(run, SLO.parse("ttft<1s")).calls == 40


def test_a_run_that_was_killed_has_what_is_there(call: Make, a_run: MakeRun) -> None:
    run = a_run([call("a", 0.0, 1.0, 1.5), call("b", 4.0, 5.0)])
    ended = run.rows.filter(call_id="a").collect()
    (run.path / "calls.parquet").unlink()
    reopened = Run.open(run.path)
    reopened.append(ended)
    found = headline.headline(reopened, SLO.parse("ttft<2s"))
    assert (found.calls, found.failed, found.offered_rps, found.attainment) == (1, 0, 0.25, 1.0)
    assert found.ttft_p99_s is None


def test_of_nothing_there_is_none(a_run: MakeRun) -> None:
    found = asdict(headline.headline(a_run([]), SLO.parse("ttft<1s")))
    assert (found.pop("calls"), found.pop("failed")) == (0, 0)
    assert set(found.values()) == {None}


def test_a_part_has_a_headline_of_its_own(call: Make) -> None:
    rows = [call(str(n), float(n), n + 1.0, call_class="ab"[n % 2]) for n in range(20)]
    part = Measured(frame_of_rows(rows).lazy()).cut(Cut(4.0, where=(("class", "a"),)))
    found = headline_of(part, SLO.parse("ttft<500ms"), rate_of(part.starts))
    assert (found.calls, found.offered_rps, found.attainment) == (8, 0.5, 0.0)
