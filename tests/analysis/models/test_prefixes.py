"""Prefix reuse, drawn: made-up processes whose sharing is known, and the laws any draw obeys."""

from __future__ import annotations

import re
from itertools import pairwise

import msgspec
import numpy as np
import polars as pl
import pytest

from servescope.analysis.models import growing
from servescope.analysis.models.draws import Draws
from servescope.analysis.models.prefixes import Prefixes
from servescope.analysis.reuse import Reuse
from servescope.traces import load
from servescope.traces.errors import InputError
from servescope.traces.provenance import Provenance
from servescope.traces.trace import Trace

BLOCK = 100


def trace_of(
    prompts: list[list[int]], when: np.ndarray, scope: str = "global", **columns: list[object]
) -> Trace:
    """Return calls with these blocks, each prompt filling its last block."""
    about = Provenance(
        format="test",
        source="test",
        arrival_basis="trace" if scope == "global" else "program",
        block_tokens=BLOCK,
        block_rule="ceil",
        block_scope=scope,
    )
    frame = pl.DataFrame(
        {
            "arrival_s": when,
            "input_tokens": [len(prompt) * BLOCK for prompt in prompts],
            "output_tokens": [10] * len(prompts),
            "prefix_blocks": pl.Series(prompts, dtype=pl.List(pl.UInt64)),
            **columns,
        }
    )
    return Trace.of(frame, about)


def calls_of(trace: Trace) -> pl.DataFrame:
    """Return what a model is told of the calls of a trace."""
    return trace.collect().select("arrival_s", "input_tokens", "output_tokens")


def reuse_of(lists: pl.Series) -> Reuse:
    """Return what an endless cache finds in these prompts, none empty."""
    number = {block: at for at, block in enumerate(lists.explode().unique().to_list())}
    prompts = [np.array([number[block] for block in prompt]) for prompt in lists.to_list()]
    return Reuse(len(number)).add_all(prompts)


def conversations(count: int, go_on: float, pause_s: float, seed: int) -> Trace:
    """Return calls of chains: each goes on with a chance, after an exponential pause, and grows."""
    rng = np.random.default_rng(seed)
    calls: list[tuple[float, list[int]]] = []
    fresh = iter(range(10**9))
    for begin in np.cumsum(rng.exponential(1.0, count)).tolist():
        now, prompt = begin, [next(fresh) for _ in range(int(rng.integers(3, 30)))]
        calls.append((now, prompt))
        while rng.random() < go_on:
            now += rng.exponential(pause_s)
            prompt = [*prompt, next(fresh)]
            calls.append((now, prompt))
    calls.sort()
    return trace_of([prompt for _, prompt in calls], np.array([at for at, _ in calls]))


# --- planted truths ------------------------------------------------------------------------------


def test_a_system_prompt_is_found_and_all_begin_with_it() -> None:
    """Three blocks of all calls are one popular prefix; the rest of every prompt is its own."""
    prompts = [[1, 2, 3, 10 + 2 * at, 11 + 2 * at] for at in range(200)]
    trace = trace_of(prompts, np.arange(200.0))
    model = Prefixes.fit(trace)
    assert [(node.parent, node.blocks) for node in model.popular] == [(-1, 3)]
    drawn = model.begin(Draws(1)).window(0, calls_of(trace)).to_list()
    assert len({tuple(prompt[:3]) for prompt in drawn}) == 1
    assert len({block for prompt in drawn for block in prompt[3:]}) == 400


def test_popular_prefixes_keep_their_shares() -> None:
    """Two system prompts, the second of which has two kinds of tools below it."""
    rng = np.random.default_rng(0)
    kinds = [[1, 2], [5, 6, 7], [5, 6, 8, 9]]
    kind = rng.choice(3, 3000, p=[0.5, 0.3, 0.2])
    prompts = [[*kinds[k], 100 + at] for at, k in enumerate(kind.tolist())]
    model = Prefixes.fit(trace_of(prompts, np.arange(3000.0)))
    trace = trace_of([[0] * 6] * 3000, np.arange(3000.0))
    drawn = model.begin(Draws(1)).window(0, calls_of(trace)).to_list()
    firsts = pl.Series([prompt[0] for prompt in drawn]).value_counts()["count"].sort().to_list()
    assert firsts == pytest.approx([1500, 1500], abs=120)
    thirds = pl.Series([prompt[2] for prompt in drawn]).value_counts()["count"].sort()
    assert thirds[-1] == pytest.approx(900, abs=100)


def test_conversations_without_names_go_on_as_often_and_as_soon() -> None:
    """Chains of 2 prompts in the mean: half of the prompts find all but their last block."""
    trace = conversations(1500, 0.5, 20.0, 1)
    model = Prefixes.fit(trace)
    calls = calls_of(trace)
    real = reuse_of(trace.collect()["prefix_blocks"])
    drawn = [reuse_of(model.begin(Draws(seed)).window(0, calls)) for seed in range(3)]
    assert real.hit_rate is not None
    assert np.mean([each.hit_rate for each in drawn]) == pytest.approx(real.hit_rate, abs=0.02)
    sizes = np.array([100, 300, 1000, 3000])
    curves = np.mean([each.hits(sizes) / sum(each.blocks) for each in drawn], axis=0)
    assert curves == pytest.approx(real.hits(sizes) / sum(real.blocks), abs=0.03)
    when = calls["arrival_s"].to_numpy()
    for each in drawn:
        age = np.array(each.age)
        hit = np.flatnonzero(age > 0)
        assert np.median(when[hit] - when[hit - age[hit]]) == pytest.approx(13.9, rel=0.25)


def test_the_turns_of_a_program_go_on_from_the_turn_before() -> None:
    """Every turn keeps what the one before had, as in the trace; no program shares with another."""
    prompts, home, turn = [], [], []
    for program in range(40):
        for at in range(6):
            prompts.append(list(range(5 + 3 * at)))
            home.append(f"program {program}")
            turn.append(at)
    trace = trace_of(
        prompts, np.array(turn, float), "program", program_id=list(home), turn=list(turn)
    )
    model = Prefixes.fit(trace)
    assert model.turns is not None
    assert model.turns.share == 1.0
    calls = calls_of(trace).with_columns(
        program=pl.Series(home).rank("dense"), turn=pl.Series(turn)
    )
    drawn = model.begin(Draws(0)).window(0, calls).to_list()
    for at, prompt in enumerate(drawn):
        if turn[at]:
            assert prompt[: len(drawn[at - 1])] == drawn[at - 1]
    assert len({prompt[0] for prompt in drawn}) == 40


def test_what_shares_nothing_shares_nothing() -> None:
    """Prompts of blocks of their own stay so."""
    prompts = [[3 * at, 3 * at + 1, 3 * at + 2] for at in range(300)]
    trace = trace_of(prompts, np.arange(300.0))
    lists = Prefixes.fit(trace).begin(Draws(0)).window(0, calls_of(trace))
    assert lists.explode().n_unique() == 900


# --- what every draw obeys -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def chained() -> tuple[Prefixes, pl.DataFrame]:
    """Return a model of conversations and calls to draw for."""
    trace = conversations(600, 0.6, 10.0, 2)
    return Prefixes.fit(trace), calls_of(trace)


def windows(model: Prefixes, calls: pl.DataFrame, draws: Draws, count: int = 4) -> pl.Series:
    """Return the blocks of calls that are drawn in windows of as many calls."""
    prompts = model.begin(draws)
    edges = np.linspace(0, calls.height, count + 1).astype(int).tolist()
    return pl.concat([prompts.window(k, calls[a:b]) for k, (a, b) in enumerate(pairwise(edges))])


def test_the_same_seed_gives_the_same_ids_and_streams_share_none(
    chained: tuple[Prefixes, pl.DataFrame],
) -> None:
    """Also after the model was written and read."""
    model, calls = chained
    once = windows(model, calls, Draws(1))
    again = msgspec.json.decode(msgspec.json.encode(model), type=Prefixes)
    assert again == model
    assert once.equals(windows(again, calls, Draws(1)))
    other = windows(model, calls, Draws(1, stream=1))
    assert not set(once.explode().to_list()) & set(other.explode().to_list())


def test_windows_go_on_from_windows_before(chained: tuple[Prefixes, pl.DataFrame]) -> None:
    """What an endless cache finds hardly depends on where windows end."""
    model, calls = chained
    one = reuse_of(windows(model, calls, Draws(3), 1)).hit_rate
    many = reuse_of(windows(model, calls, Draws(3), 10)).hit_rate
    assert one == pytest.approx(many, abs=0.08)


def test_blocks_fit_the_length_of_the_prompt(chained: tuple[Prefixes, pl.DataFrame]) -> None:
    """The last block is partly full; a prompt of no token has none."""
    model, _ = chained
    calls = pl.DataFrame(
        {"arrival_s": [0.0, 1.0, 2.0, 3.0], "input_tokens": [0, 1, BLOCK, BLOCK + 1]}
    )
    lists = model.begin(Draws(0)).window(0, calls)
    assert lists.list.len().to_list() == [0, 1, 1, 2]
    floor = msgspec.structs.replace(model, rule="floor")
    assert floor.begin(Draws(0)).window(0, calls).list.len().to_list() == [0, 0, 1, 1]
    assert model.begin(Draws(0)).window(0, calls[:0]).len() == 0


def test_memory_is_bounded(
    chained: tuple[Prefixes, pl.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many prompts wait to be gone on from, the oldest are forgotten."""
    model, calls = chained
    monkeypatch.setattr(growing, "_HELD_BLOCKS", 500)
    prompts = model.begin(Draws(0))
    for window in range(20):
        prompts.window(window, calls[:100].with_columns(pl.col("arrival_s") + 100 * window))
        assert prompts.held_blocks <= 500


def test_no_id_of_the_source_is_in_the_model() -> None:
    """Ids are large numbers here, so that no count could be one by accident."""
    base = 10**15
    prompts = [[base, base + 1, base + 2 + at] for at in range(100)]
    said = msgspec.json.encode(Prefixes.fit(trace_of(prompts, np.arange(100.0)))).decode()
    assert str(base)[:8] not in said


def test_the_longest_prompt_is_not_in_the_model() -> None:
    """One call of 777 blocks leaves no edge of its own."""
    trace = conversations(300, 0.5, 10.0, 3)
    calls = trace.collect().select("arrival_s", "prefix_blocks")
    longest = list(range(10**10, 10**10 + 777))
    prompts = [*calls["prefix_blocks"].to_list(), longest]
    when = np.append(calls["arrival_s"].to_numpy(), calls["arrival_s"][-1] + 1.0)
    said = msgspec.json.encode(Prefixes.fit(trace_of(prompts, when))).decode()
    numbers = {float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", said)}
    assert not numbers & {776.0, 777.0, 778.0}


def test_a_trace_without_blocks_is_refused() -> None:
    """Nothing could be said of sharing."""
    trace = trace_of([[1]] * 30, np.arange(30.0))
    bare = Trace.of(trace.collect().drop("prefix_blocks"), trace.provenance)
    with pytest.raises(InputError, match="does not say which prompts share"):
        Prefixes.fit(bare)
    with pytest.raises(InputError, match="has a prefix block"):
        Prefixes.fit(trace_of([[]] * 30, np.arange(30.0)))
    with pytest.raises(InputError, match="only 5 calls"):
        Prefixes.fit(trace_of([[1]] * 5, np.arange(5.0)))


# --- a real trace --------------------------------------------------------------------------------


def test_the_curve_of_the_bundled_trace_is_met() -> None:
    """The hit rate of caches of 500 blocks to endless ones, in the mean of three seeds."""
    trace = load("mooncake:sample")
    model = Prefixes.fit(trace)
    calls = calls_of(trace)
    real = reuse_of(trace.collect()["prefix_blocks"].list.unique(maintain_order=True))
    drawn = [reuse_of(windows(model, calls, Draws(seed), 1)) for seed in range(3)]
    sizes = np.array([500, 1000, 2000, 4000, 8000, 10**6])
    curves = np.mean([each.hits(sizes) / sum(each.blocks) for each in drawn], axis=0)
    assert curves == pytest.approx(real.hits(sizes) / sum(real.blocks), abs=0.04)
    assert model.summary()
