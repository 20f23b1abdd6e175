"""What calls are like one after the other: their kind and lengths, and how these go together.

Lengths are quantiles of two normal numbers a call. These drift from window to window, and wander
within it as sums of autoregressions of several memories, so that long prompts follow long ones as
often as in the trace; kinds of calls come in runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import optimize, signal, special

from servescope.analysis.models.lengths import Lengths, normal
from servescope.analysis.models.quantiles import MIN_COUNT, Share, all_rounded, rounded
from servescope.analysis.sample import Floats, Ints

MEMORIES = (1.5, 6.0, 24.0, 96.0, 384.0)  # calls after which a component has faded to 1/e
_WORTH = 0.005  # of the variance of prompts, from which memory is told of
_LEAST = 0.004  # of a variance, below which a component is chance
_IN_PART, _MOST_PARTS = 200, 16  # calls of a part of a window, and parts at most
_MOST = 0.98  # of the variance that may be drift and memory
_SEED = 11  # of the ranks of ties

Name = tuple[str | None, str | None, str | None]  # model, class and status


class Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kind of call: what it asks and how it ends, its share, and how its lengths are.

    With the probability `again`, the next call is of this kind because this one is.
    """

    model: str | None = None
    call_class: str | None = None
    status: str | None = None
    share: Share
    again: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    lengths: Lengths


class Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A component of normal scores with a memory of `calls`: its variances and correlation."""

    calls: Annotated[float, msgspec.Meta(gt=0)]
    inputs: Annotated[float, msgspec.Meta(ge=0)]
    outputs: Annotated[float, msgspec.Meta(ge=0)]
    correlation: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.0


class Marks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Kinds and lengths of calls in the order in which they arrive.

    `input_drift` and `output_drift` are the means of the normal scores in part after part of window
    after window, each of which has so many `parts` of as many calls; they begin again where they
    end.
    """

    kinds: Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1)]
    memories: tuple[Memory, ...] = ()
    parts: Annotated[int, msgspec.Meta(ge=1)] = 1
    input_drift: tuple[float, ...] = ()
    output_drift: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls,
        kind: Ints,
        names: list[Name],
        inputs: Floats,
        outputs: Floats,
        window: Ints,
        min_count: int = MIN_COUNT,
    ) -> Marks:
        """Fit calls in order of arrival: their kind (an index of `names`), lengths and window.

        Kinds of fewer than twice `min_count` calls become one, which keeps what all of them have in
        common, or part of the largest one if they are fewer together.
        """
        sizes = np.bincount(kind, minlength=len(names))
        large = np.flatnonzero(sizes >= 2 * min_count)
        rare = np.flatnonzero((sizes > 0) & (sizes < 2 * min_count))
        said_of = [names[each] for each in large.tolist()]
        place = np.zeros(len(names), np.int64)
        place[large] = np.arange(len(large))
        if not len(large) or sizes[rare].sum() >= 2 * min_count:
            place[rare] = len(large)
            said_of.append(_common([names[each] for each in rare.tolist()]))
        else:
            place[rare] = int(np.argmax(large == sizes.argmax()))
        kind = place[kind]
        rng = np.random.default_rng(_SEED)
        said, answered = np.empty(len(kind)), np.empty(len(kind))
        kinds = []
        for number, (model, call_class, status) in enumerate(said_of):
            here = kind == number
            lengths = Lengths.fit(inputs[here], outputs[here], min_count)
            said[here], answered[here] = lengths.ranks(inputs[here], outputs[here], rng)
            share = float(here.mean())
            followed = here[:-1]
            stays = float(here[1:][followed].mean()) if followed.any() else share
            again = (stays - share) / (1 - share) if share < 1 else 0.0
            kinds.append(
                Kind(
                    model=model,
                    call_class=call_class,
                    status=status,
                    share=rounded(share),
                    again=rounded(min(max(again, 0.0), 0.999)),
                    lengths=lengths,
                )
            )
        scores = np.stack([normal(said), normal(answered)])
        in_window = len(kind) / max(1, len(np.unique(window)))
        parts = int(np.clip(in_window // max(_IN_PART, 20 * min_count), 1, _MOST_PARTS))
        part = _part_of(window, parts)
        drifts = [
            _drift(row, tokens, part, min_count, partial(_mean_at, kinds, column))
            for column, (row, tokens) in enumerate(zip(scores, (inputs, outputs), strict=True))
        ]
        sizes = np.maximum(np.bincount(part), 1)
        left = np.stack([row - (np.bincount(part, row) / sizes)[part] for row in scores])
        return cls(
            kinds=tuple(kinds),
            memories=_memories(left, in_window / parts),
            parts=parts,
            input_drift=all_rounded(drifts[0]) if drifts[0].any() else (),
            output_drift=all_rounded(drifts[1]) if drifts[1].any() else (),
        )

    def sample(
        self, rngs: list[np.random.Generator], windows: Ints, counts: Ints
    ) -> tuple[Ints, Floats, Floats]:
        """Return kind, prompt and answer (tokens) of the calls of windows, in order.

        `rngs` has the randomness of each window, `windows` its number, `counts` its calls.
        """
        if not counts.sum():
            return np.empty(0, np.int64), np.empty(0), np.empty(0)
        rows = 2 + 2 * len(self.memories) + 2 * (len(self.kinds) > 1)
        drawn = np.zeros((rows, len(counts), int(counts.max())))
        held = np.arange(drawn.shape[2]) < counts[:, None]
        for row, (rng, count) in enumerate(zip(rngs, counts.tolist(), strict=True)):
            drawn[:, row, :count] = rng.standard_normal((rows, count))
        place = np.arange(drawn.shape[2]) * self.parts // np.maximum(counts, 1)[:, None]
        part = windows[:, None] * self.parts + np.minimum(place, self.parts - 1)
        scores = self._scores(drawn, part)
        said, answered = (special.ndtr(score[held]) for score in scores)
        kind = self._kinds(special.ndtr(drawn[-2:]), held)
        inputs, outputs = np.empty(len(kind)), np.empty(len(kind))
        for number, each in enumerate(self.kinds):
            here = kind == number
            inputs[here], outputs[here] = each.lengths.at(said[here], answered[here])
        return kind, inputs, outputs

    def _scores(self, drawn: Floats, part: Ints) -> tuple[Floats, Floats]:
        """Return the normal scores of prompts and answers: shape (windows, calls), as `part`."""
        drifts = [np.array(drift or (0.0,)) for drift in (self.input_drift, self.output_drift)]
        kept = [sum(m.inputs for m in self.memories), sum(m.outputs for m in self.memories)]
        white = [
            max(1 - float(d @ d) / len(d) - k, 1 - _MOST) for d, k in zip(drifts, kept, strict=True)
        ]
        # a call's own two scores are independent: the answer's is a rank among like prompts
        shared = sum(m.correlation * np.sqrt(m.inputs * m.outputs) for m in self.memories)
        if len(drifts[0]) == len(drifts[1]):
            shared += float(drifts[0] @ drifts[1]) / len(drifts[0])
        against = float(np.clip(-shared / np.sqrt(white[0] * white[1]), -1, 1))
        other = against * drawn[0] + np.sqrt(1 - against**2) * drawn[1]
        found = [
            drift[part % len(drift)] + np.sqrt(own) * noise
            for drift, own, noise in zip(drifts, white, (drawn[0], other), strict=True)
        ]
        for number, memory in enumerate(self.memories):
            one, other = drawn[2 + 2 * number], drawn[3 + 2 * number]
            other = memory.correlation * one + np.sqrt(1 - memory.correlation**2) * other
            for row, (noise, variance) in enumerate(
                ((one, memory.inputs), (other, memory.outputs))
            ):
                if variance:
                    found[row] += np.sqrt(variance) * _autoregression(noise, memory.calls)
        return found[0], found[1]

    def _kinds(self, drawn: Floats, held: npt.NDArray[np.bool_]) -> Ints:
        """Return the kind of every call: runs that go on, and draws by share between them."""
        if len(self.kinds) == 1:
            return np.zeros(int(held.sum()), np.int64)
        shares = np.array([kind.share for kind in self.kinds])
        again = np.array([kind.again for kind in self.kinds])
        # kinds that stay longer are begun more rarely, so that the shares come out
        begun = shares * (1 - again)
        bounds = np.cumsum(begun / begun.sum())[:-1]
        fresh = np.searchsorted(bounds, drawn[0], side="right")
        kind = fresh[:, 0]
        kinds = [kind]
        for call in range(1, fresh.shape[1]):
            kind = np.where(drawn[1, :, call] < again[kind], kind, fresh[:, call])
            kinds.append(kind)
        return np.asarray(np.stack(kinds, axis=1)[held])

    def log_score(self, kind: Ints, inputs: Floats, outputs: Floats) -> float:
        """Return the log-likelihood (nats) of calls as if they were independent of each other."""
        score = 0.0
        for number, each in enumerate(self.kinds):
            here = kind == number
            score += float(here.sum() * np.log(each.share))
            score += each.lengths.log_score(inputs[here], outputs[here])
        return score

    def summary(self) -> list[str]:
        """Say how long calls are, by kind, and how far their lengths remember."""
        said = []
        for kind in self.kinds:
            named = [name for name in (kind.model, kind.call_class, kind.status) if name]
            answers = float(np.mean([law.mean for law in kind.lengths.outputs]))
            said.append(
                f"{' '.join(named) or 'calls'}: {100 * kind.share:.3g} %, on average"
                f" {kind.lengths.inputs.mean:,.0f} tokens in and {answers:,.0f} out."
            )
        kept = sum(memory.inputs for memory in self.memories)
        if kept >= _WORTH:
            said.append(
                f"Of the variance of prompts' scores {100 * kept:.2g} % is remembered from call to"
                f" call, at the longest over {self.memories[-1].calls:g} calls."
            )
        return said


def _common(names: list[Name]) -> Name:
    """Return the model, class and status that all have, None where they differ."""
    one, other, third = (
        each[0] if len(set(each)) == 1 else None for each in zip(*names, strict=True)
    )
    return one, other, third


def _autoregression(noise: Floats, calls: float) -> Floats:
    """Return AR(1) series of variance 1 along the last axis, each begun in its stationary law."""
    fade = np.exp(-1 / calls)
    driven = noise * np.sqrt(1 - fade**2)
    driven[:, 0] = noise[:, 0]
    return np.asarray(signal.lfilter([1.0], [1.0, -fade], driven, axis=1))


def _part_of(window: Ints, parts: int) -> Ints:
    """Return the part, counted over all windows, that each of the calls, in order, is in."""
    sizes = np.bincount(window)
    number = np.arange(len(window)) - (np.cumsum(sizes) - sizes)[window]
    return np.asarray(window * parts + number * parts // sizes[window])


def _drift(
    scores: Floats,
    tokens: Floats,
    part: Ints,
    min_count: int,
    mean_at: Callable[[Floats, float], Floats],
) -> Floats:
    """Return the shift of the scores of each part that gives it the mean length it has.

    It is drawn to 0 as far as it may be chance. `mean_at` says which mean (tokens) a shift makes.
    """
    sizes = np.bincount(part)
    known = sizes >= 3 * min_count
    if known.sum() < 2:
        return np.zeros(len(sizes))
    means = np.bincount(part, scores, len(sizes))[known] / sizes[known]
    spread = float(np.mean(means**2))
    kept = max(0.0, 1 - float(np.mean(1 / sizes[known])) / spread) if spread else 0.0
    if not kept:
        return np.zeros(len(sizes))
    shifts = np.linspace(-2, 2, 81)
    made = mean_at(shifts, min(kept * spread, _MOST))
    whole = float(tokens.mean())
    wanted = np.bincount(part, tokens, len(sizes))[known] / sizes[known]
    found = np.zeros(len(sizes))
    found[known] = np.interp(whole + kept * (wanted - whole), made, shifts)
    return found


def _mean_at(kinds: list[Kind], place: int, shifts: Floats, variance: float) -> Floats:
    """Return the mean length (tokens) that shifts of the scores make: prompts or answers."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    ranks = special.ndtr(shifts[:, None] + np.sqrt(1 - variance) * nodes)
    made = np.zeros(len(shifts))
    for kind in kinds:
        laws = kind.lengths.outputs if place else (kind.lengths.inputs,)
        for law in laws:
            at = law.at(ranks.ravel()).reshape(ranks.shape)
            made += kind.share / len(laws) * (at @ weights) / weights.sum()
    return np.asarray(np.maximum.accumulate(made))


def _memories(scores: Floats, in_window: float) -> tuple[Memory, ...]:
    """Return the components whose sums over blocks of calls vary as those of two series do.

    Blocks of 2, 4, ... calls are looked at, up to a sixth of a part. None remembers for more than
    an eighth of a part: beyond, there is drift.
    """
    count = scores.shape[1]
    sizes = 2 ** np.arange(1, 11)
    sizes = sizes[sizes <= min(count // 16, in_window / 6)]
    memories = np.array([calls for calls in MEMORIES if calls <= in_window / 8])
    if len(sizes) < 3 or not len(memories):
        return ()
    centred = scores - scores.mean(axis=1, keepdims=True)
    seen = np.array([_of_blocks(centred, size) for size in sizes.tolist()])
    seen -= (
        np.array([centred[0] @ centred[0], centred[1] @ centred[1], centred[0] @ centred[1]])
        / count
    )
    made = np.array([[_excess(size, calls) for calls in memories] for size in sizes.tolist()])
    sure = 1 / np.sqrt(2 * sizes / count)  # over the chance error of a block's variance
    inputs, outputs = (
        optimize.nnls(made * sure[:, None], seen[:, column] * sure)[0] for column in (0, 1)
    )
    inputs, outputs = (
        _held(np.where(found < _LEAST, 0.0, found), float(row @ row) / count)
        for found, row in zip((inputs, outputs), centred, strict=True)
    )
    both = (inputs > 0) & (outputs > 0)
    cross = np.zeros(len(memories))
    if both.any():
        columns = made[:, both] * sure[:, None]
        cross[both] = np.linalg.lstsq(columns, seen[:, 2] * sure, rcond=None)[0]
    limit = np.sqrt(inputs * outputs)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.where(limit > 0, np.clip(cross / limit, -1, 1), 0.0)
    return tuple(
        Memory(
            calls=calls,
            inputs=rounded(inputs[k]),
            outputs=rounded(outputs[k]),
            correlation=rounded(correlation[k]),
        )
        for k, calls in enumerate(memories.tolist())
        if inputs[k] or outputs[k]
    )


def _held(variances: Floats, whole: float) -> Floats:
    """Return variances that are no more together than a part of that of the series."""
    return variances * min(1.0, _MOST * whole / max(float(variances.sum()), 1e-12))


def _of_blocks(scores: Floats, size: int) -> Floats:
    """Return variances and covariance of the sums of two series over blocks, over their size."""
    blocks = scores.shape[1] // size
    sums = scores[:, : blocks * size].reshape(2, blocks, size).sum(axis=2)
    one, other = sums - sums.mean(axis=1, keepdims=True)
    return np.asarray(np.array([one @ one, other @ other, one @ other]) / (blocks * size))


def _excess(size: int, calls: float) -> float:
    """Return how much an AR(1) series adds to the variance of sums over blocks, over their size."""
    lags = np.arange(1, size)
    return float(2 * ((1 - lags / size) * np.exp(-lags / calls)).sum())
