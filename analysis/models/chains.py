"""Hidden Markov chains along many stretches of time at once."""

from __future__ import annotations

import numpy as np

from servescope.analysis.sample import Floats


def stationary(transition: Floats) -> Floats:
    """Return the shares of time that a chain spends in its states: shape (states,)."""
    states = len(transition)
    balance = np.vstack([(transition - np.eye(states)).T, np.ones(states)])
    found = np.linalg.lstsq(balance, np.append(np.zeros(states), 1.0), rcond=None)[0]
    found = np.maximum(found, 0.0)
    return np.asarray(found / found.sum())


def poisson_logs(counts: Floats, expected: Floats, levels: Floats) -> Floats:
    """Return the log-likelihood of the times in bins, less what no level changes.

    Bins have `counts` arrivals, shape (bins, stretches); `expected` at level 1 broadcasts with
    them. The result has shape (bins, stretches, levels).
    """
    return np.asarray(counts[..., None] * np.log(levels) - expected[..., None] * levels)


def forward(logs: Floats, transition: Floats, begin: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the log-likelihood of each stretch, and the chance of each state given bins so far.

    `logs` is of what is seen in each state, shape (bins, stretches, states). The third array is the
    likelihood of every bin given those before it, over its greatest in `logs`.
    """
    top = logs.max(axis=-1)
    seen = np.exp(logs - top[..., None])
    state, likely = np.empty_like(seen), np.empty(seen.shape[:2])
    now = np.broadcast_to(begin, seen.shape[1:])
    for bin_, evidence in enumerate(seen):
        now = (now @ transition if bin_ else now) * evidence
        likely[bin_] = now.sum(axis=-1)
        now = now / likely[bin_][:, None]
        state[bin_] = now
    return (np.log(likely) + top).sum(axis=0), state, likely


def smoothed(logs: Floats, transition: Floats, begin: Floats) -> tuple[float, Floats, Floats]:
    """Return the log-likelihood, the chance of each state given all bins, and expected jumps.

    The chances have shape (bins, stretches, states), the jumps (states, states).
    """
    score, state, likely = forward(logs, transition, begin)
    seen = np.exp(logs - logs.max(axis=-1, keepdims=True)) / likely[..., None]
    after = np.ones_like(state)
    back = transition.T
    for bin_ in range(len(logs) - 1, 0, -1):
        after[bin_ - 1] = (after[bin_] * seen[bin_]) @ back
    width = state.shape[-1]
    jumps = state[:-1].reshape(-1, width).T @ (after[1:] * seen[1:]).reshape(-1, width)
    return float(score.sum()), state * after, jumps * transition
