"""What calls are like one after the other: kinds, lengths, memory and drift."""

import msgspec
import numpy as np
import pytest
from scipy import signal, stats

from servescope.analysis.models.marks import Marks
from servescope.analysis.sample import Floats, Ints

CALLS, WINDOWS = 40_000, 10
WINDOW = np.arange(CALLS) // (CALLS // WINDOWS)
UNNAMED = [(None, None, None)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def remembering(calls: float, seed: int) -> Floats:
    """Draw an AR(1) series of variance 1 with a memory of so many calls."""
    fade = np.exp(-1 / calls)
    noise = rng(seed).normal(size=CALLS) * np.sqrt(1 - fade**2)
    noise[0] /= np.sqrt(1 - fade**2)
    return np.asarray(signal.lfilter([1.0], [1.0, -fade], noise))


def fitted(x: Floats, y: Floats, window: Ints = WINDOW) -> Marks:
    """Fit log-normal lengths of two normal scores."""
    return Marks.fit(np.zeros(len(x), np.int64), UNNAMED, *lengths(x, y), window)


def lengths(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    return np.rint(np.exp(6 + x)) + 1, np.rint(np.exp(4 + 0.8 * y)) + 1


def drawn(marks: Marks, windows: int = WINDOWS, each: int = 4000) -> tuple[Ints, Floats, Floats]:
    rngs = [rng(100 + window) for window in range(windows)]
    return marks.sample(rngs, np.arange(windows), np.full(windows, each))


def ahead(values: Floats, lag: int) -> float:
    """Return the correlation of the logs of values with those so many calls later."""
    logs = np.log(np.maximum(values, 1))
    return float(np.corrcoef(logs[:-lag], logs[lag:])[0, 1])


@pytest.mark.parametrize("rho", [-0.6, 0.0, 0.5, 0.9])
def test_prompts_and_answers_hang_together_as_they_did(rho: float) -> None:
    """The rank correlation of a Gaussian copula is 6 / pi asin(rho / 2)."""
    x, noise = rng(1).normal(size=(2, CALLS))
    _, inputs, outputs = drawn(fitted(x, rho * x + np.sqrt(1 - rho**2) * noise))
    found = stats.spearmanr(inputs, outputs).statistic
    assert found == pytest.approx(6 / np.pi * np.arcsin(rho / 2), abs=0.02)


def test_independent_calls_remember_next_to_nothing() -> None:
    marks = fitted(*rng(1).normal(size=(2, CALLS)))
    assert sum(memory.inputs + memory.outputs for memory in marks.memories) < 0.02
    assert np.abs(marks.input_drift or (0.0,)).max() < 0.05


@pytest.mark.parametrize("calls", [6.0, 24.0])
def test_a_memory_is_found_again(calls: float) -> None:
    """Half of the variance of prompts' scores is an AR(1) series, nothing of the answers'."""
    x = np.sqrt(0.5) * remembering(calls, 2) + np.sqrt(0.5) * rng(3).normal(size=CALLS)
    marks = fitted(x, rng(4).normal(size=CALLS))
    assert sum(memory.inputs for memory in marks.memories) == pytest.approx(0.5, abs=0.1)
    assert sum(memory.outputs for memory in marks.memories) < 0.02
    assert max(marks.memories, key=lambda memory: memory.inputs).calls == calls
    _, inputs, _ = drawn(marks)
    for lag in (1, 4, 16, 64):
        assert ahead(inputs, lag) == pytest.approx(0.5 * np.exp(-lag / calls), abs=0.05)


def test_a_memory_between_those_of_the_model_is_made_of_both() -> None:
    x = np.sqrt(0.6) * remembering(12.0, 2) + np.sqrt(0.4) * rng(3).normal(size=CALLS)
    _, inputs, _ = drawn(fitted(x, rng(4).normal(size=CALLS)))
    for lag in (1, 4, 16, 64):
        assert ahead(inputs, lag) == pytest.approx(0.6 * np.exp(-lag / 12), abs=0.1)


def test_prompts_and_answers_that_remember_together_do_so_again() -> None:
    common = np.sqrt(0.5) * remembering(24.0, 2)
    x, y = (common + np.sqrt(0.5) * rng(seed).normal(size=CALLS) for seed in (3, 4))
    _, inputs, outputs = drawn(fitted(x, y))
    together = stats.spearmanr(inputs, outputs).statistic
    assert together == pytest.approx(6 / np.pi * np.arcsin(0.25), abs=0.03)
    # a call's answer is drawn among those to like prompts, so later answers follow it too
    logs = np.log(inputs), np.log(np.maximum(outputs, 1))
    later = np.corrcoef(logs[0][:-4], logs[1][4:])[0, 1]
    assert later == pytest.approx(0.5 * np.exp(-4 / 24), abs=0.1)


def test_drift_from_window_to_window_is_found_again() -> None:
    """The mean length of every window comes out, in the order of the windows."""
    shift = 0.7 * np.sin(np.arange(WINDOWS))
    x, y = rng(1).normal(size=(2, CALLS))
    marks = fitted(x + shift[WINDOW], y)
    assert len(marks.input_drift) == WINDOWS * marks.parts
    assert np.abs(marks.output_drift or (0.0,)).max() < 0.05
    real = lengths(x + shift[WINDOW], y)[0].reshape(WINDOWS, -1).mean(axis=1)
    found = drawn(marks)[1].reshape(WINDOWS, -1).mean(axis=1)
    assert found == pytest.approx(real, rel=0.12)
    assert np.corrcoef(np.log(found), shift)[0, 1] > 0.99


def test_drift_begins_again_where_it_ends() -> None:
    x, y = rng(1).normal(size=(2, CALLS))
    marks = fitted(x + np.where(WINDOW % 2, 0.5, -0.5), y)
    windows = np.array([3, 3 + 2 * WINDOWS])
    once, later = (marks.sample([rng(1)], windows[k : k + 1], np.array([500])) for k in (0, 1))
    assert np.array_equal(once[1], later[1])


def runs(shares: tuple[float, ...], again: float) -> Ints:
    """Draw kinds that come in runs: after one, the same with probability again + its share."""
    fresh = rng(5).choice(len(shares), CALLS, p=shares)
    stays = rng(6).random(CALLS) < again
    place = np.maximum.accumulate(np.where(stays, 0, np.arange(CALLS)))
    return fresh[place]


NAMES = [("big", "chat", "ok"), ("small", "chat", "ok"), ("small", None, "error")]


def three_kinds(again: float = 0.5) -> tuple[Ints, Marks]:
    kind = runs((0.6, 0.3, 0.1), again)
    x, y = rng(1).normal(size=(2, CALLS))
    inputs, outputs = lengths(x + kind, y)
    outputs[kind == 2] = 0
    return kind, Marks.fit(kind, list(NAMES), inputs, outputs, WINDOW)


def test_kinds_have_their_names_shares_and_runs() -> None:
    kind, marks = three_kinds()
    assert [(k.model, k.call_class, k.status) for k in marks.kinds] == NAMES
    assert [k.share for k in marks.kinds] == pytest.approx(np.bincount(kind) / CALLS, rel=1e-5)
    assert [k.again for k in marks.kinds] == pytest.approx([0.5] * 3, abs=0.03)
    made, _, _ = drawn(marks)
    assert np.bincount(made) / CALLS == pytest.approx([0.6, 0.3, 0.1], abs=0.01)
    for number, share in enumerate((0.6, 0.3, 0.1)):
        before = made[:-1] == number
        stays = (made[1:][before] == number).mean()
        assert stays == pytest.approx(0.5 + 0.5 * share, abs=0.03)


def test_failed_calls_keep_that_they_have_no_answer() -> None:
    _, marks = three_kinds()
    kind, inputs, outputs = drawn(marks)
    assert (outputs[kind == 2] == 0).all()
    assert (outputs[kind < 2] > 0).all()
    assert np.median(inputs[kind == 2]) == pytest.approx(np.exp(8), rel=0.1)
    assert np.median(inputs[kind == 0]) == pytest.approx(np.exp(6), rel=0.1)


def test_rare_kinds_become_part_of_the_largest() -> None:
    kind = np.concatenate([np.zeros(500, np.int64), np.ones(19, np.int64)])
    ones = np.ones(519)
    window = np.zeros(519, np.int64)
    marks = Marks.fit(kind, NAMES[:2], ones, ones, window, min_count=10)
    assert [k.model for k in marks.kinds] == ["big"]
    assert marks.kinds[0].share == 1


def test_rare_kinds_that_are_many_together_keep_what_they_have_in_common() -> None:
    kind = np.repeat([0, 1, 2], [500, 15, 15])
    names = [("big", "chat", "ok"), ("one", "chat", "ok"), ("two", "agent", "ok")]
    ones, window = np.ones(530), np.zeros(530, np.int64)
    marks = Marks.fit(kind, names, ones, ones, window, min_count=10)
    assert [k.share for k in marks.kinds] == pytest.approx([500 / 530, 30 / 530])
    assert [(k.model, k.call_class, k.status) for k in marks.kinds] == [
        ("big", "chat", "ok"),
        (None, None, "ok"),
    ]


def test_calls_of_one_kind_score_as_their_lengths() -> None:
    _, marks = three_kinds()
    inputs, outputs = np.full(10, 400.0), np.full(10, 50.0)
    first = marks.kinds[0]
    expected = 10 * np.log(first.share) + first.lengths.log_score(inputs, outputs)
    assert marks.log_score(np.zeros(10, np.int64), inputs, outputs) == pytest.approx(expected)


def test_windows_are_drawn_alone_as_together() -> None:
    _, marks = three_kinds()
    counts = np.array([5, 0, 300])
    together = marks.sample([rng(k) for k in range(3)], np.arange(3), counts)
    alone = [marks.sample([rng(k)], np.array([k]), counts[k : k + 1]) for k in range(3)]
    for column in range(3):
        assert np.array_equal(together[column], np.concatenate([each[column] for each in alone]))


def test_no_calls_are_like_nothing() -> None:
    _, marks = three_kinds()
    assert [len(each) for each in marks.sample([rng()], np.zeros(1, int), np.zeros(1, int))] == [
        0, 0, 0,
    ]  # fmt: skip


def test_constant_lengths_stay_what_they_are() -> None:
    whole = np.full(2000, 512.0), np.full(2000, 64.0)
    window = np.arange(2000) // 200
    marks = Marks.fit(np.zeros(2000, np.int64), UNNAMED, *whole, window)
    _, inputs, outputs = drawn(marks, each=50)
    assert (set(inputs), set(outputs)) == ({512.0}, {64.0})


def test_a_file_holds_what_is_drawn() -> None:
    _, marks = three_kinds()
    again = msgspec.json.decode(msgspec.json.encode(marks), type=Marks)
    assert again == marks
    for one, other in zip(drawn(again, each=100), drawn(marks, each=100), strict=True):
        assert np.array_equal(one, other)


def test_what_is_known_is_said() -> None:
    _, marks = three_kinds()
    said = marks.summary()
    assert said[0].startswith("big chat ok: 60")
    assert "0 out." in said[2]
