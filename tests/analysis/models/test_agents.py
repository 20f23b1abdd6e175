"""Agent programs: sub-agents and overlapping calls are found, and drawn again."""

import msgspec
import numpy as np
import polars as pl
import pytest
from made_sessions import agents, chats

from servescope.analysis.models.agents import Agents
from servescope.traces import Trace
from servescope.traces.provenance import Provenance

ABOUT = Provenance(format="none", source="made up", kind="synthetic", arrival_basis="trace")


@pytest.fixture(scope="module")
def model() -> Agents:
    return Agents.fit(agents(1))


@pytest.fixture(scope="module")
def drawn(model: Agents) -> pl.DataFrame:
    return model.sample(np.random.default_rng(2), 2000)


def test_sub_agents_are_told_from_the_chain_they_hang_on(model: Agents) -> None:
    assert model.forks is not None
    assert model.subs is not None
    assert model.main.programs == 1500
    assert model.main.turns.mean == pytest.approx(10)
    assert model.subs.turns.mean == pytest.approx(2)
    assert model.forks.some == pytest.approx(0.5, abs=0.05)
    assert model.forks.at_once.mean == pytest.approx(3)
    assert model.forks.waited == 1
    assert model.forks.until.mean == 1
    assert model.forks.launch_s.mean == pytest.approx(0.5)


def test_programs_have_their_calls_and_joins_again(drawn: pl.DataFrame) -> None:
    calls = drawn.group_by("program").len()["len"]
    assert set(calls.unique()) == {10, 16}
    assert (calls == 16).mean() == pytest.approx(0.5, abs=0.05)
    waits = drawn["parents"].list.len()
    assert (waits > 1).sum() == pytest.approx((calls == 16).sum(), rel=0.15)
    assert set(waits.filter(waits > 1).unique()) == {4}


def test_a_call_comes_its_pause_after_the_last_that_it_waits_for(drawn: pl.DataFrame) -> None:
    ends = drawn.select("program", parents="turn", end=pl.col("offset_s") + 2.0)
    links = (
        drawn.explode("parents")
        .drop_nulls("parents")
        .join(ends.with_columns(pl.col("parents").cast(pl.Int32)), on=["program", "parents"])
    )
    assert (links["parents"] < links["turn"]).all()
    ready = links.group_by("program", "turn").agg(
        pl.col("end").max(), pl.col("offset_s").first(), pl.col("delay_s").first()
    )
    assert ready["offset_s"].to_numpy() == pytest.approx(
        (ready["end"] + ready["delay_s"]).to_numpy(), abs=1e-6
    )


def test_chains_have_no_sub_agents() -> None:
    model = Agents.fit(chats(1, 300))
    assert model.forks is None
    assert model.subs is None
    some = model.sample(np.random.default_rng(0), 20)
    assert some["parents"].list.len().max() == 1  # type: ignore[comparison-overlap]


def test_few_sub_agents_are_left_out() -> None:
    few = Agents.fit(agents(2, programs=30), min_count=100)
    assert few.forks is None
    assert few.main.turns.mean == pytest.approx(10)


def test_calls_that_overlap_wait_for_what_has_ended() -> None:
    # two calls at once, then two more once both have ended
    steps = pl.DataFrame(
        {"program": np.repeat(np.arange(300), 20), "step": np.tile(range(20), 300)}
    )
    pair, second = pl.col("step") // 2, pl.col("step") % 2
    base = pl.col("program") * 20
    frame = steps.select(
        call_id=(base + pl.col("step")).cast(pl.String),
        program_id=pl.col("program").cast(pl.String),
        arrival_s=pl.col("program") * 1000.0 + 10.0 * pair + 1.0 * second,
        observed_e2e_s=pl.lit(5.0),
        input_tokens=pl.lit(100),
        output_tokens=pl.lit(10),
        parents=pl.when(pair > 0)
        .then(
            pl.concat_list(base + 2 * pair - 2, base + 2 * pair - 1).list.eval(
                pl.element().cast(pl.String)
            )
        )
        .otherwise(pl.lit([], pl.List(pl.String))),
    )
    model = Agents.fit(Trace.of(frame, ABOUT))
    assert model.tangled
    some = model.sample(np.random.default_rng(1), 100)
    several = (some["parents"].list.len() == 2).mean()
    assert several == pytest.approx(0.9, abs=0.35)
    linked = some.explode("parents").drop_nulls("parents")
    assert (linked["parents"] < linked["turn"]).all()
    assert some["delay_s"].min() >= 0  # type: ignore[operator]


def test_a_draw_is_the_same_again_from_a_model_that_was_saved(model: Agents) -> None:
    saved = msgspec.json.decode(msgspec.json.encode(model), type=Agents)
    one, two = (each.sample(np.random.default_rng(3), 200) for each in (model, saved))
    assert one.equals(two)
    assert model.sample(np.random.default_rng(3), 0).schema == one.schema


def test_labels_of_sub_agents_come_after_those_of_the_chain() -> None:
    frame = agents(5, programs=200).frame.collect()
    inner = pl.col("input_tokens") < 1000
    named = frame.with_columns(model=pl.when(inner).then(pl.lit("small")).otherwise(pl.lit("big")))
    model = Agents.fit(Trace.of(named, ABOUT))
    some = model.sample(np.random.default_rng(0), 50)
    names = pl.Series([label.model for label in model.labels])
    assert ((some["input_tokens"] < 1000) == (names.gather(some["label"]) == "small")).all()


def test_a_trace_scores_better_under_its_own_model(model: Agents) -> None:
    longer = Agents.fit(agents(3, programs=400, steps=14))
    held_out = agents(4, programs=300)
    assert model.log_score(held_out) > longer.log_score(held_out)


def test_what_is_drawn_leads_to_the_same_model_again(model: Agents, drawn: pl.DataFrame) -> None:
    calls = drawn.select(
        "turn",
        "delay_s",
        "delay_kind",
        "input_tokens",
        "output_tokens",
        call_id=pl.format("{}/{}", "program", "turn"),
        program_id=pl.col("program").cast(pl.String),
        arrival_s="offset_s",
        observed_e2e_s=pl.lit(2.0),
        parents=pl.concat_str("program", pl.lit("/")).repeat_by(pl.col("parents").list.len()),
    )
    numbers = drawn["parents"].to_list()
    named = [
        [f"{before}{number}" for before, number in zip(*pair, strict=True)]
        for pair in zip(calls["parents"].to_list(), numbers, strict=True)
    ]
    again = Agents.fit(Trace.of(calls.with_columns(parents=pl.Series(named)), ABOUT))
    assert again.forks is not None
    assert model.forks is not None
    assert again.forks.some == pytest.approx(model.forks.some, abs=0.05)
    assert again.forks.at_once == model.forks.at_once
    assert again.forks.waited == model.forks.waited
