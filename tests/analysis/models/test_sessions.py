"""Sessions: turns, pauses, growth and what they share are found, and drawn again."""

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from made_sessions import ADDED, EFFECT, MEDIAN_S, SIGMA, chats
from scipy import stats

from servescope.analysis.demand import Demand
from servescope.analysis.models.sequences import in_order
from servescope.analysis.models.sessions import PAUSE, Sessions
from servescope.traces import Trace, load
from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance

RAGPULSE = Path(__file__).parents[4] / "shared/data/ragpulse/0_trace.part1.jsonl.gz"


@pytest.fixture(scope="module")
def chat_model() -> Sessions:
    return Sessions.fit(chats(1))


@pytest.fixture(scope="module")
def drawn(chat_model: Sessions) -> pl.DataFrame:
    return chat_model.sample(np.random.default_rng(5), 20_000)


def test_turns_are_geometric_again(drawn: pl.DataFrame) -> None:
    turns = drawn.group_by("program").len()["len"].to_numpy()
    assert len(turns) == 20_000
    upto = np.arange(1, 30)
    share = np.searchsorted(np.sort(turns), upto, side="right") / len(turns)
    assert np.abs(share - stats.geom.cdf(upto, 1 / 3)).max() < 0.02


def test_pauses_are_log_normal_again_and_alike_within_a_session(
    chat_model: Sessions, drawn: pl.DataFrame
) -> None:
    pauses = drawn["delay_s"].drop_nulls().to_numpy()
    law = stats.lognorm(SIGMA, scale=MEDIAN_S)
    assert stats.kstest(pauses, law.cdf).statistic < 0.02
    assert chat_model.effects.program[PAUSE][PAUSE] == pytest.approx(EFFECT, abs=0.08)
    follows = pl.col("program") == pl.col("program").shift(1)
    pairs = drawn.select(
        "delay_s", before=pl.when(follows).then(pl.col("delay_s").shift(1))
    ).drop_nulls()
    known = 6 / np.pi * np.arcsin(EFFECT / 2)  # Spearman's of two normal scores
    assert stats.spearmanr(pairs["delay_s"], pairs["before"]).statistic == pytest.approx(
        known, abs=0.05
    )


def test_prompts_grow_from_the_context_before(chat_model: Sessions, drawn: pl.DataFrame) -> None:
    assert chat_model.growth is not None
    assert chat_model.growth.base == "context"
    follows = pl.col("program") == pl.col("program").shift(1)
    added = drawn.select(
        pl.when(follows).then(
            pl.col("input_tokens") - (pl.col("input_tokens") + pl.col("output_tokens")).shift(1)
        )
    ).to_series()
    quantiles = np.quantile(added.drop_nulls().to_numpy(), [0.1, 0.5, 0.9])
    assert quantiles == pytest.approx(stats.poisson(ADDED).ppf([0.1, 0.5, 0.9]) + 1, rel=0.05)
    assert (drawn.filter(pl.col("turn") == 0)["input_tokens"] == 500).all()


def test_arrivals_count_the_time_calls_take_and_pauses_do_not() -> None:
    model = Sessions.fit(chats(2, 1500, service_s=7.0))
    some = model.sample(np.random.default_rng(0), 500)
    gap = some.select((pl.col("offset_s").diff() - pl.col("delay_s")).alias("took")).to_series()
    assert gap.drop_nulls().to_numpy() == pytest.approx(7.0, abs=1e-3)


def test_calls_are_ordered_and_each_waits_for_the_one_before(drawn: pl.DataFrame) -> None:
    assert drawn["program"].is_sorted()
    turn = pl.int_range(pl.len()).over("program")
    assert drawn.select((pl.col("turn") == turn).all()).item()
    later = drawn.filter(pl.col("turn") > 0)
    assert (later["parents"].list.first() == later["turn"] - 1).all()
    roots = drawn.filter(pl.col("turn") == 0)
    assert roots["parents"].list.len().sum() == 0
    assert roots["delay_s"].null_count() == roots.height
    assert (roots["offset_s"] == 0).all()


def test_a_draw_is_the_same_again_from_a_model_that_was_saved(chat_model: Sessions) -> None:
    saved = msgspec.json.decode(msgspec.json.encode(chat_model), type=Sessions)
    assert saved == chat_model
    one, two = (each.sample(np.random.default_rng(3), 300) for each in (chat_model, saved))
    assert one.equals(two)
    assert not one.equals(saved.sample(np.random.default_rng(4), 300))


def test_no_session_lasts_longer_than_is_said(chat_model: Sessions, drawn: pl.DataFrame) -> None:
    assert chat_model.longest_s is not None
    assert drawn["offset_s"].max() <= chat_model.longest_s  # type: ignore[operator]
    short = msgspec.structs.replace(chat_model, longest_s=20.0)
    some = short.sample(np.random.default_rng(0), 400)
    assert some["offset_s"].max() <= 20.0  # type: ignore[operator]
    assert some["program"].n_unique() == 400


def test_none_are_drawn_where_none_are_wanted(chat_model: Sessions) -> None:
    none = chat_model.sample(np.random.default_rng(0), 0)
    assert none.height == 0
    assert none.schema == chat_model.sample(np.random.default_rng(0), 2).schema


def test_sessions_of_one_turn_have_no_pauses() -> None:
    model = Sessions.fit(chats(3, 300, mean_turns=1.0))
    assert model.pauses == ()
    assert model.growth is None
    some = model.sample(np.random.default_rng(0), 50)
    assert some["turn"].max() == 0
    assert some["delay_kind"].null_count() == 50
    assert len(model.summary()) >= 1


def test_what_few_calls_show_is_not_kept() -> None:
    frame = chats(4, 200).frame.collect()
    rare = ["rare"] * 5 + ["common"] * (frame.height - 5)
    about = Provenance(format="none", source="made up", kind="synthetic", arrival_basis="trace")
    model = Sessions.fit(Trace.of(frame.with_columns(model=pl.Series(rare)), about), min_count=50)
    assert [label.model for label in model.labels] == ["common"]
    laws = [model.turns, *(law.law for law in model.pauses)]
    assert all(len(law.values) <= 200 / 50 + 2 * 5 for law in laws)
    assert b"rare" not in msgspec.json.encode(model)


def test_a_trace_scores_better_under_its_own_model(chat_model: Sessions) -> None:
    held_out = chats(8, 1000)
    other = Sessions.fit(chats(9, 1000, mean_turns=6.0))
    assert chat_model.log_score(held_out) > other.log_score(held_out)


def test_calls_without_programs_are_refused() -> None:
    frame = chats(5, 20).frame.collect().drop("program_id", "parents", "turn")
    trace = Trace.of(frame, Provenance(format="none", source="made up", arrival_basis="trace"))
    with pytest.raises(InputError, match="session or program"):
        Sessions.fit(Demand.of(trace))


@pytest.mark.skipif(not RAGPULSE.exists(), reason="needs ../shared/data/ragpulse")
def test_sessions_of_a_real_trace_come_back() -> None:
    trace = load(RAGPULSE)
    calls = in_order(Demand.of(trace))
    drawn = Sessions.fit(trace).sample(np.random.default_rng(1), 20_000)
    turns = [
        each.group_by(by).len()["len"] for each, by in ((calls, "program_id"), (drawn, "program"))
    ]
    assert stats.ks_2samp(*turns).statistic < 0.02
    pauses = [each.drop_nulls() for each in (calls["pause_s"], drawn["delay_s"])]
    assert stats.ks_2samp(*pauses).statistic < 0.02

    def successive(pause: str, program: str, frame: pl.DataFrame) -> float:
        before = pl.when(pl.col(program) == pl.col(program).shift(1)).then(pl.col(pause).shift(1))
        pairs = frame.select(now=pause, before=before).drop_nulls()
        return float(stats.spearmanr(pairs["now"], pairs["before"]).statistic)

    real = successive("pause_s", "program_id", calls)
    assert successive("delay_s", "program", drawn) == pytest.approx(real, abs=0.05)
    lengths = ("input_tokens", "output_tokens")
    both = [stats.spearmanr(*(each[name] for name in lengths)).statistic for each in (calls, drawn)]
    assert both[1] == pytest.approx(both[0], abs=0.02)
