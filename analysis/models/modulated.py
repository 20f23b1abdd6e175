"""Arrivals whose rate jumps among a few states: a Markov-modulated Poisson process (MMPP)."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from servescope.analysis.models.chains import poisson_logs, smoothed, stationary
from servescope.analysis.models.quantiles import all_rounded
from servescope.analysis.models.stretches import WINDOW_S, Stretches, check_enough
from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError

MOST_STATES = 4
_STEPS = 40  # of EM
_ENOUGH = 1e-6  # gain in log-likelihood an arrival at which EM ends
_LEAST = 1e-3  # level of a quiet state


class Modulated(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="modulated"
):
    """An MMPP: in state i the rate is `levels[i]` times the mean, for `hold_s[i]` on average.

    Then it jumps to state j with chance `jumps[i][j]`. Another rate changes the rates of all states
    alike and leaves the times that they last.
    """

    levels: tuple[float, ...]
    hold_s: tuple[float, ...]
    jumps: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        states = len(self.levels)
        square = len(self.jumps) == states and all(len(row) == states for row in self.jumps)
        if len(self.hold_s) != states or states < 2 or not square:
            raise InputError(
                "The states of a modulated rate do not agree in number.",
                "Give each of two states or more a level, a hold_s and a row of jumps.",
            )
        if min(self.levels) < 0 or not max(self.levels) > 0 or not min(self.hold_s) > 0:
            raise InputError(
                "A modulated rate has a level below 0 or a state that lasts no time.",
                "Give levels of 0 or more, one above, and hold_s above 0.",
            )

    @classmethod
    def fit(
        cls,
        arrivals: Floats,
        span_s: float,
        window_s: float = WINDOW_S,
        states: int | None = None,
    ) -> Modulated:
        """Fit by EM to the counts in bins that hold one arrival on average.

        At most 16,384 arrivals are looked at, evenly spread. Without `states` it takes 2 to 4 by
        BIC. Raises InputError of too few arrivals.
        """
        check_enough(arrivals, span_s)
        cut = Stretches.of(arrivals, span_s, window_s)
        bins = max(8, math.ceil(cut.count.mean()))
        counts = cut.counts(bins)
        expected = np.broadcast_to(cut.rate_rps * cut.width_s / bins, counts.shape)
        best: tuple[float, Floats, Floats] | None = None
        for many in (states,) if states else range(2, MOST_STATES + 1):
            score, levels, transition = _expectation_maximisation(counts, expected, many)
            bic = (many - 1 + many * (many - 1)) * math.log(cut.count.sum()) - 2 * score
            if best is not None and bic > best[0]:
                break
            best = bic, levels, transition
        assert best is not None
        _, levels, transition = best
        generator = _generator(transition, cut.width_s / bins)
        return cls._of(levels, generator)

    @classmethod
    def _of(cls, levels: Floats, generator: Floats) -> Modulated:
        leave = np.maximum(-np.diag(generator), 1e-9)
        jumps = generator / leave[:, None]
        np.fill_diagonal(jumps, 0.0)
        totals = jumps.sum(axis=1, keepdims=True)
        even = (1 - np.eye(len(levels))) / (len(levels) - 1)
        jumps = np.where(totals > 0, jumps / np.maximum(totals, 1e-300), even)
        order = np.argsort(levels)
        return cls(
            levels=all_rounded(levels[order]),
            hold_s=all_rounded(1 / leave[order]),
            jumps=tuple(all_rounded(row) for row in jumps[np.ix_(order, order)]),
        )

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""
        states = len(self.levels)
        return states - 1 + states * (states - 1)

    def sample(self, rng: np.random.Generator, rate_rps: float, width_s: float) -> Floats:
        """Draw the times of a window, ascending in [0, width_s)."""
        shares, levels, generator = self._law()
        hold_s = -1 / np.diag(generator)
        ahead = np.cumsum(np.array(self.jumps), axis=1).tolist()
        state = int(rng.choice(len(shares), p=shares))
        visited, lasts = [], []
        left = width_s
        many = 16 + int(1.5 * width_s * float(shares @ (1 / hold_s)))
        while left > 0:
            for lasting, u in zip(
                rng.standard_exponential(many).tolist(), rng.random(many).tolist(), strict=True
            ):
                stay = min(lasting * float(hold_s[state]), left)
                visited.append(state)
                lasts.append(stay)
                left -= stay
                if left <= 0:
                    break
                row = ahead[state]
                state = next((k for k, upto in enumerate(row) if u * row[-1] < upto), state)
        stays = np.array(lasts)
        counts = rng.poisson(rate_rps * levels[visited] * stays)
        begins = np.repeat(np.cumsum(stays) - stays, counts)
        times = np.sort(begins + rng.random(len(begins)) * np.repeat(stays, counts))
        return times[: np.searchsorted(times, width_s)]

    def log_score(self, arrivals: Floats, span_s: float, rate_rps: float) -> float:
        """Return the log-likelihood (nats) of arrivals in [0, span_s), by exact recursion."""
        if not rate_rps:
            return -math.inf if len(arrivals) else 0.0
        shares, levels, generator = self._law()
        rates = rate_rps * levels
        # between arrivals the chance of a state grows by exp((generator - rates) t)
        value, left = np.linalg.eig(generator - np.diag(rates))
        right = np.linalg.inv(left)
        gaps = np.diff(arrivals, prepend=0.0, append=span_s)
        grown = np.exp(gaps[:, None] * value[None, :])
        steps = np.real((left * grown[:, None, :]) @ right)
        steps[:-1] *= rates
        total, whole = _product(np.maximum(steps, 0.0))
        return whole + math.log(max(float((shares @ total).sum()), 1e-300))

    def summary(self) -> str:
        """Say what it is."""
        states = ", ".join(
            f"{level:.3g} for {hold:.3g} s"
            for level, hold in zip(self.levels, self.hold_s, strict=True)
        )
        return f"The rate jumps among {len(self.levels)} states, in mean rates: {states}."

    def _law(self) -> tuple[Floats, Floats, Floats]:
        """Return shares of time, levels of mean 1, and the generator of the chain."""
        hold_s = np.array(self.hold_s)
        generator = np.array(self.jumps) / hold_s[:, None]
        np.fill_diagonal(generator, 0.0)
        np.fill_diagonal(generator, -generator.sum(axis=1))
        fast = float(-np.diag(generator).min())
        shares = stationary(np.eye(len(hold_s)) + generator / (2 * fast))
        levels = np.array(self.levels)
        return shares, levels / float(shares @ levels), generator


def _expectation_maximisation(
    counts: Floats, expected: Floats, states: int
) -> tuple[float, Floats, Floats]:
    """Return log-likelihood, levels and the chances of a step from bin to bin."""
    levels, transition = _first_guess(counts, expected, states)
    before, score = -math.inf, -math.inf
    for _ in range(_STEPS):
        begin = stationary(transition)
        logs = poisson_logs(counts, expected, levels)
        score, chance, jumps = smoothed(logs, transition, begin)
        if score - before < _ENOUGH * counts.sum():
            break
        before = score
        seen = np.einsum("bsk,bs->k", chance, counts)
        due = np.einsum("bsk,bs->k", chance, expected)
        levels = np.maximum(seen / np.maximum(due, 1e-12), _LEAST)
        transition = (jumps + 1e-6) / (jumps + 1e-6).sum(axis=1, keepdims=True)
    return score, levels / float(stationary(transition) @ levels), transition


def _first_guess(counts: Floats, expected: Floats, states: int) -> tuple[Floats, Floats]:
    """Part the bins by their smoothed rates, so that each part holds as many arrivals."""
    bins = len(counts)
    reach = min(5, bins)
    upto = np.vstack([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
    low = np.clip(np.arange(bins) - reach // 2, 0, bins - reach)
    level = (upto[low + reach] - upto[low]) / (reach * expected)
    order = np.argsort(level, axis=None, kind="stable")
    mass = np.cumsum(counts.ravel()[order]) - counts.ravel()[order] / 2
    state = np.empty(counts.size, np.int64)
    state[order] = np.minimum(mass / max(mass[-1], 1.0) * states, states - 1).astype(np.int64)
    seen = np.bincount(state, counts.ravel(), states)
    due = np.bincount(state, expected.ravel(), states)
    levels = np.maximum(seen / np.maximum(due, 1e-12), _LEAST * (1 + np.arange(states)))
    path = state.reshape(counts.shape)
    pairs = (path[:-1] * states + path[1:]).ravel()
    jumps = np.bincount(pairs, minlength=states**2).reshape(states, states) + 1.0
    return levels, jumps / jumps.sum(axis=1, keepdims=True)


def _generator(transition: Floats, bin_s: float) -> Floats:
    """Return the generator of the chain that makes a step from bin to bin."""
    value, left = np.linalg.eig(transition)
    plain = (transition - np.eye(len(transition))) / bin_s
    if np.iscomplexobj(value) or value.min() < 1e-3:
        return np.asarray(plain)
    rooted = (left * np.log(value)) @ np.linalg.inv(left) / bin_s
    rooted = np.maximum(rooted, 0.0)
    np.fill_diagonal(rooted, 0.0)
    np.fill_diagonal(rooted, -rooted.sum(axis=1))
    return np.asarray(rooted)


def _product(steps: Floats) -> tuple[Floats, float]:
    """Return the product of matrices, shape (n, states, states), and the log of its scale."""
    total = 0.0
    while len(steps) > 1:
        odd = steps[-1:] if len(steps) % 2 else steps[:0]
        steps = np.concatenate([steps[: len(steps) // 2 * 2 : 2] @ steps[1::2], odd])
        scale = np.maximum(steps.max(axis=(1, 2)), 1e-300)
        total += float(np.log(scale).sum())
        steps = steps / scale[:, None, None]
    return steps[0], total
