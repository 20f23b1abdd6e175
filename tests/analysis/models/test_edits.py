"""Edits of models: what was changed is changed in what is drawn, and nothing else."""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from made_sessions import agents, chats

from servescope.analysis.models.clients import Clients
from servescope.analysis.models.edits import (
    EDITS,
    added,
    edited,
    flattened,
    longer,
    mixed,
    only,
    with_lengths_of,
    without,
)
from servescope.analysis.models.fitting import fit
from servescope.analysis.models.lengths import Lengths
from servescope.analysis.models.marks import Kind, Marks
from servescope.analysis.models.model import About, Arrivals, Blocks, Model, Stream
from servescope.analysis.models.quantiles import Quantiles
from servescope.analysis.models.renewal import Law, Poisson, WindowedRenewal
from servescope.analysis.models.schedule import Schedule
from servescope.analysis.models.synthesis import synthesize
from servescope.traces.errors import InputError


def lengths(inputs: float, outputs: float) -> Lengths:
    """Uniform prompts and answers about two means."""

    def law(mean: float) -> Quantiles:
        return Quantiles(levels=(0.0, 1.0), values=(0.5 * mean, 1.5 * mean), whole=True)

    return Lengths(inputs=law(inputs), edges=(0.5,), outputs=(law(outputs), law(outputs)))


def made(name: str, *kinds: Kind, rates: tuple[float, ...] = (2.0,), **changes: object) -> Model:
    stream = Stream(
        name="calls",
        arrivals=Arrivals(schedule=Schedule(window_s=600.0, rates_rps=rates), shape=Poisson()),
        marks=Marks(kinds=kinds),
        **changes,
    )
    about = About(
        source=f"{name}.csv",
        calls=100,
        span_s=6000.0,
        min_count=10,
        made_by="hand",
        licence="MIT",
        fidelity={"auc": 0.5},
    )
    return Model(name=name, about=about, streams=(stream,))


CODE = made(
    "code",
    Kind(share=0.75, call_class="edit", lengths=lengths(2000, 50)),
    Kind(share=0.25, call_class="ask", lengths=lengths(1000, 200)),
    rates=(1.0, 0.0, 5.0),
)
KINDS = (Kind(share=1.0, lengths=lengths(400, 100)),)
CHAT = made("chat", *KINDS, client="client-1")
DRAWN_S = 6000.0


def mean(calls: pl.DataFrame, column: str) -> float:
    return float(calls[column].to_numpy().mean())


def draw(model: Model, seed: int = 0) -> pl.DataFrame:
    """Draw ten windows; the model is the same after it was saved and loaded."""
    again = Model.from_json(model.to_json())
    assert again == model
    return synthesize(again, DRAWN_S, seed).frame.collect()


def known(source: str) -> Model:
    return {"chat": CHAT, "code": CODE, "a:b": CHAT}[source]


def test_models_are_added_with_names_of_their_own() -> None:
    both = added(CODE, made("other", *KINDS), rate_rps=4.0)
    assert [stream.name for stream in both.streams] == ["calls", "calls 2"]
    assert both.rate_rps == pytest.approx(6.0)
    assert both.about.source == "code.csv + other.csv"
    assert both.about.licence == "MIT"
    assert both.about.calls == 200
    assert both.about.edits[-1] == "added other, 4 calls/s"
    assert not both.about.fidelity
    calls = draw(both)
    assert calls["call_id"].is_unique().all()
    assert calls["call_class"].is_null().sum() == pytest.approx(4 * DRAWN_S, rel=0.03)
    twice = added(CHAT, CHAT)
    assert [stream.client for stream in twice.streams] == ["client-1", "client-1 2"]


def test_models_of_different_blocks_are_not_put_together() -> None:
    blocks = [made(f"b{n}", *KINDS, blocks=Blocks(tokens=n)) for n in (16, 64)]
    with pytest.raises(InputError, match="different blocks"):
        added(*blocks)


def test_a_mix_has_the_shares_and_the_rate_that_are_wanted() -> None:
    mix = mixed([CODE, CHAT], [0.7, 0.3])
    assert mix.rate_rps == pytest.approx(2.0)
    assert mix.about.edits[-1] == "mixed: 70 % code, 30 % chat; 2 calls/s"
    calls = draw(mix)
    share = calls["call_class"].is_null().mean()
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / calls.height))
    assert mixed([CODE, CHAT], [1, 1], rate_rps=7.0).rate_rps == pytest.approx(7.0)
    for shares in ([1.0], [0.5, 0.0], [0.5, math.inf]):
        with pytest.raises(InputError, match="cannot have the shares"):
            mixed([CODE, CHAT], shares)


def test_a_mix_with_a_model_of_unknown_rate_needs_one() -> None:
    stream = Stream(name="silent", arrivals=None, marks=Marks(kinds=KINDS))
    silent = Model(name="silent", about=CHAT.about, streams=(stream,))
    with pytest.raises(InputError, match="rate of silent is not known"):
        mixed([silent, CODE], [1, 1])
    assert mixed([CODE, silent], [1, 1]).rate_rps == pytest.approx(2.0)


def test_answers_twice_as_long_leave_prompts_alone() -> None:
    before, after = draw(CODE), draw(longer(CODE, outputs=2))
    assert (after["input_tokens"] == before["input_tokens"]).all()
    assert after["arrival_s"].equals(before["arrival_s"])
    assert mean(after, "output_tokens") == pytest.approx(
        2 * mean(before, "output_tokens"),
        rel=0.01,
    )
    shorter = draw(longer(CODE, inputs=0.5))
    assert (shorter["output_tokens"] == before["output_tokens"]).all()
    assert mean(shorter, "input_tokens") == pytest.approx(
        0.5 * mean(before, "input_tokens"),
        rel=0.01,
    )


def test_tails_are_scaled_and_no_prompt_vanishes() -> None:
    values = np.random.default_rng(0).pareto(2.0, 20_000) * 10
    law = Lengths.fit(np.rint(values) + 1, np.rint(values) + 1)
    heavy = made("heavy", Kind(share=1.0, lengths=law))
    before, after = draw(heavy), draw(longer(heavy, inputs=10, outputs=0.01))
    ratio = after["input_tokens"].to_numpy() / before["input_tokens"].to_numpy()
    assert ratio == pytest.approx(10, abs=5)
    assert after["output_tokens"].min() == 1


def test_sessions_get_longer_where_something_is_new() -> None:
    """Prompts of a chat are 500 tokens and, for each turn, 100 more and the answer before."""
    model = fit(chats(1), shape="poisson")
    turns = mean(synthesize(model).frame.collect(), "turn")
    for inputs, outputs in ((1, 1), (1, 2), (2, 1), (0.5, 0.5)):
        drawn = synthesize(longer(model, inputs, outputs)).frame.collect()
        expected = 500 * inputs + turns * (101 * inputs + 201 * outputs)
        assert mean(drawn, "input_tokens") == pytest.approx(expected, rel=0.05)
        assert mean(drawn, "output_tokens") == pytest.approx(201 * outputs, rel=0.02)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_sub_agents_get_longer_too(factor: float) -> None:
    model = fit(agents(1), shape="poisson")
    before, after = (synthesize(m).frame.collect() for m in (model, longer(model, factor, factor)))
    for column in ("input_tokens", "output_tokens"):
        wanted = factor * mean(before, column)
        assert mean(after, column) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
def test_lengths_are_scaled_by_numbers_above_0(factor: float) -> None:
    with pytest.raises(InputError, match="Lengths cannot be scaled"):
        longer(CHAT, outputs=factor)


def test_the_lengths_of_another_model_with_arrivals_and_classes_as_they_were() -> None:
    before, after = draw(CODE), draw(with_lengths_of(CODE, CHAT))
    assert after["arrival_s"].equals(before["arrival_s"])
    assert after["call_class"].equals(before["call_class"])
    assert mean(after, "input_tokens") == pytest.approx(400, rel=0.02)
    assert mean(after, "output_tokens") == pytest.approx(100, rel=0.02)
    of_both = draw(with_lengths_of(CHAT, CODE))
    assert mean(of_both, "input_tokens") == pytest.approx(0.75 * 2000 + 0.25 * 1000, rel=0.02)
    of_chats = draw(with_lengths_of(CHAT, fit(chats(1), shape="poisson")))
    assert mean(of_chats, "output_tokens") == pytest.approx(201, rel=0.02)


def test_calls_that_failed_keep_their_lengths() -> None:
    failing = made(
        "failing",
        Kind(share=0.5, status="ok", lengths=lengths(400, 100)),
        Kind(share=0.5, status="error", lengths=lengths(400, 0)),
    )
    calls = draw(with_lengths_of(failing, CODE))
    failed = calls["status"].cast(pl.String) == "error"
    assert calls.filter(failed)["output_tokens"].max() == 0
    assert mean(calls.filter(~failed), "input_tokens") == pytest.approx(1750, rel=0.02)


def test_sessions_do_not_take_the_lengths_of_others() -> None:
    with pytest.raises(InputError, match="grow from turn to turn"):
        with_lengths_of(fit(chats(1), shape="poisson"), CHAT)


def test_without_a_course_of_time_windows_differ_by_chance_alone() -> None:
    laws = tuple(Law(gaps="gamma", shape=1.0, windows=1) for _ in range(3))
    arrivals = Arrivals(
        schedule=Schedule(window_s=600.0, rates_rps=(1.0, 9.0, 2.0)),
        shape=WindowedRenewal(window_s=600.0, laws=laws),
    )
    marks = Marks(kinds=KINDS, input_drift=(-0.9, 0.9, 0.0))
    stream = Stream(name="calls", arrivals=arrivals, marks=marks)
    drifting = Model(name="drifting", about=CHAT.about, streams=(stream,))

    def windows(model: Model) -> pl.DataFrame:
        drawn = synthesize(model, 60_000.0).frame.with_columns(w=pl.col("arrival_s") // 600)
        return drawn.group_by("w").agg(n=pl.len(), tokens=pl.col("input_tokens").mean()).collect()

    before, after = windows(drifting), windows(flattened(drifting))
    assert before["n"].to_numpy().var() > 100 * mean(before, "n")
    dispersion = after["n"].to_numpy().var() / mean(after, "n")
    assert dispersion == pytest.approx(1, abs=4 * math.sqrt(2 / 100))
    assert mean(after, "n") == pytest.approx(4 * 600, rel=0.01)
    assert before["tokens"].to_numpy().std() > 50
    chance = 400 / math.sqrt(12) / math.sqrt(2400)
    assert after["tokens"].to_numpy().std() == pytest.approx(chance, rel=0.3)
    assert mean(after, "tokens") == pytest.approx(400, rel=0.01)


def test_a_class_of_calls_is_left_out_with_its_rate() -> None:
    left = without(CODE, "ask")
    assert left.rate_rps == pytest.approx(1.5)
    assert set(draw(left)["call_class"]) == {"edit"}
    assert only(CODE, "ask").rate_rps == pytest.approx(0.5)
    assert only(CODE, "ask", "edit").streams == CODE.streams
    both = added(CODE, CHAT)
    assert [stream.name for stream in without(both, "calls").streams] == ["calls 2"]
    assert only(both, "calls 2", "edit").rate_rps == pytest.approx(3.5)
    assert without(both, "ask").about.edits[-1] == "without ask"


def test_what_cannot_be_left_out_is_said() -> None:
    with pytest.raises(InputError, match="no class of calls 'edits'") as told:
        without(CODE, "edits")
    assert "edit" in told.value.mend
    with pytest.raises(InputError, match="has no calls"):
        without(CODE, "calls")


EDITS_IN_WORDS: list[tuple[str, Callable[[], Model]]] = [
    ("add=chat", lambda: added(CODE, CHAT)),
    ("add=chat:3", lambda: added(CODE, CHAT, 3.0)),
    ("add=a:b", lambda: added(CODE, CHAT)),
    ("add=a:b:3", lambda: added(CODE, CHAT, 3.0)),
    ("mix=chat:0.25", lambda: mixed([CODE, CHAT], [0.75, 0.25])),
    ("lengths=chat", lambda: with_lengths_of(CODE, CHAT)),
    ("inputs=0.5", lambda: longer(CODE, inputs=0.5)),
    ("outputs=2", lambda: longer(CODE, outputs=2)),
    ("flat", lambda: flattened(CODE)),
    ("rate=2", lambda: CODE.scaled(2, "users")),
    ("rate=2:faster", lambda: CODE.scaled(2, "faster")),
    ("without=ask", lambda: without(CODE, "ask")),
    ("only=ask|edit", lambda: only(CODE, "ask", "edit")),
]


@pytest.mark.parametrize(("step", "wanted"), EDITS_IN_WORDS)
def test_edits_are_written_in_words(step: str, wanted: Callable[[], Model]) -> None:
    assert edited(CODE, step, known) == wanted()
    assert step.partition("=")[0] in EDITS


@pytest.mark.parametrize(
    "step",
    [
        *("outputs", "outputs=", "outputs=two", "flat=1", "rate=2:slower", "mix=chat", "add="),
        *("mix=chat:1", "mix=chat:nan", "lengths=", "without="),
    ],
)
def test_what_is_not_understood_is_told_how_to_write(step: str) -> None:
    with pytest.raises(InputError, match="is not understood") as told:
        edited(CODE, step, known)
    assert told.value.mend == f"Write {EDITS[step.partition('=')[0]].form}."


def test_unknown_edits_name_those_there_are() -> None:
    with pytest.raises(InputError, match="no edit 'double'") as told:
        edited(CODE, "double=2")
    assert told.value.mend == f"Known: {', '.join(EDITS)}."
    with pytest.raises(InputError, match="no model 'chat'"):
        edited(CODE, "add=chat")


def test_an_edit_says_what_was_done_and_drops_the_scores() -> None:
    for step, _ in EDITS_IN_WORDS:
        after = edited(CODE, step, known)
        assert after.about.edits
        assert not after.about.fidelity


def test_clients_of_different_models_are_different_ones() -> None:
    shared = made("shared", *KINDS, clients=Clients(shares=(0.5, 0.3), others=2))
    calls = draw(added(shared, shared))
    assert calls["client_id"].n_unique() == 8
    one = added(CHAT, shared)  # "client-1" is that of the chat alone
    names = draw(one)["client_id"].value_counts()
    assert dict(names.iter_rows())["client-1"] == pytest.approx(2 * DRAWN_S, rel=0.05)
