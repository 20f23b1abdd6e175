"""What the calls of a program have in common, and what passes from one to the next.

Several numbers of a call (its pause, its growth, ...) stand here as normal scores. Each is the sum
of what the program's length says, of an effect of the program and of a first-order vector
autoregression within it, so that over all calls it is standard normal.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from scipy.special import ndtri

from servescope.analysis.models.quantiles import all_rounded
from servescope.analysis.sample import Floats, Ints

_LAGS = (1, 2, 4, 8, 16, 32)  # calls apart over which dependence is read
_FEWEST = 30  # pairs below which nothing is read
_MOST = 0.995


class Effects(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The dependence of K numbers of a call: tuples of K, and of K rows of K.

    `length` is the correlation with the normal score of the program's number of calls; `program`
    and `call` hold the covariances of the two other parts, together of variance 1; `carried` takes
    the last part of a call to what is expected of that of the next, a row a number.
    """

    length: tuple[float, ...]
    program: tuple[tuple[float, ...], ...]
    call: tuple[tuple[float, ...], ...]
    carried: tuple[tuple[float, ...], ...]

    @classmethod
    def none(cls, many: int) -> Effects:
        """Return that of numbers which have nothing in common."""
        zeros, ones = _rows(np.zeros((many, many))), _rows(np.eye(many))
        return cls(length=(0.0,) * many, program=zeros, call=ones, carried=zeros)

    @classmethod
    def fit(
        cls, ranks: Floats, lengths: Floats, program: Ints, adds_up: tuple[int, ...] = ()
    ) -> Effects:
        """Read them off ranks in (0, 1), shape (n, K), nan where a call has no such number.

        `lengths` are the ranks of the programs' number of calls, same shape. Calls of a program
        stand together, in order. Rank correlations at lags within programs are matched. Numbers
        that add up over calls, as growth does, have no effect of the program, which would too.
        """
        many = ranks.shape[1]
        length = np.array([latent(ranks[:, k], lengths[:, k]) for k in range(many)])
        scale = np.sqrt(np.outer(1 - length**2, 1 - length**2))
        pairs = [np.flatnonzero(program[lag:] == program[:-lag]) for lag in _LAGS]

        def apart(a: int, b: int) -> Floats:
            """Correlate number a of a call with number b of the one so many before."""
            found = [
                latent(ranks[pair + lag, a], ranks[pair, b])
                for lag, pair in zip(_LAGS, pairs, strict=True)
            ]
            return np.asarray((np.array(found) - length[a] * length[b]) / scale[a, b])

        weights = np.array([len(pair) for pair in pairs], np.float64)
        decay = np.array([[apart(a, b) for b in range(many)] for a in range(many)])
        together = np.array(
            [[latent(ranks[:, a], ranks[:, b]) for b in range(many)] for a in range(many)]
        )
        together = (together - np.outer(length, length)) / scale
        far = weights[1:] if weights[1:].any() else np.ones(len(weights) - 1)
        effect = np.average((decay + decay.swapaxes(0, 1))[..., 1:] / 2, axis=-1, weights=far)
        for k in range(many):
            effect[k, k] = _share(decay[k, k], weights)
            together[k, k] = 1.0
        effect[list(adds_up), :] = effect[:, list(adds_up)] = 0.0
        effect = _proper(effect)
        call = _proper(together - effect)
        # Yule and Walker's equation; what is carried on may not exceed what there is
        carried = (decay[..., 0] - effect) @ np.linalg.pinv(call, rcond=1e-3, hermitian=True)
        carried *= min(1.0, _MOST / _gain(carried, call))
        return cls(
            length=all_rounded(length),
            program=_rows(effect),
            call=_rows(call),
            carried=_rows(carried),
        )

    def sample(self, rng: np.random.Generator, lengths: Floats, alive: Sequence[int]) -> Floats:
        """Draw the scores of all calls, the first of all programs, then the second, ...: (n, K).

        Programs are in descending order of their number of calls: `alive[t]` of them have a call t.
        `lengths` are the scores of their length as each number sees it, shape (n, K).
        """
        many = len(self.length)
        pull = np.array(self.length)
        keeps = np.array(self.carried)
        call = np.array(self.call)
        if not alive:
            return np.zeros((0, many))
        effect = rng.standard_normal((alive[0], many)) @ _root(np.array(self.program)).T
        fresh = rng.standard_normal((sum(alive), many))
        scores = fresh @ _root(call - keeps @ call @ keeps.T).T
        scores[: alive[0]] = fresh[: alive[0]] @ _root(call).T
        before, begin = 0, alive[0]
        for now in alive[1:]:
            scores[begin : begin + now] += scores[before : before + now] @ keeps.T
            before, begin = begin, begin + now
        begin = 0
        for now in alive:
            scores[begin : begin + now] += effect[:now]
            begin += now
        return np.asarray(pull * lengths + np.sqrt(1 - pull**2) * scores)


def latent(u: Floats, v: Floats) -> float:
    """Return the correlation of two normal scores whose ranks, ties at their middle, are given.

    Spearman's, freed of what ties take away, as it is of a normal law (Pearson 1907).
    """
    known = np.isfinite(u) & np.isfinite(v)
    if known.sum() < _FEWEST:
        return 0.0
    a, b = u[known] - 0.5, v[known] - 0.5
    spread = 12 * float((a * a).mean() * (b * b).mean())
    if spread < 1e-9:
        return 0.0
    rank = float(np.clip((a * b).mean() / spread, -1, 1))
    return float(np.clip(2 * np.sin(np.pi / 6 * rank), -_MOST, _MOST))


def _share(decay: Floats, pairs: Floats) -> float:
    """Return the share of the program's effect, of correlations at lags.

    What is left is to decay from call to call; neighbours are met exactly.
    """
    first = float(np.clip(decay[0], 0, _MOST))
    share = np.linspace(0, first, 101)
    carried = (first - share) / (1 - share)
    model = share[:, None] + (1 - share[:, None]) * carried[:, None] ** np.array(_LAGS)
    return float(share[(((model - decay) ** 2) * pairs).sum(axis=1).argmin()])


def _gain(carried: Floats, call: Floats) -> float:
    """Return the greatest part of a direction's deviation that is carried on; a little at least."""
    root = _root(call)
    back = np.linalg.pinv(root, rcond=1e-3)
    return max(float(np.linalg.norm(back @ carried @ root, 2)), 1e-9)


def _proper(covariance: Floats) -> Floats:
    """Return the nearest covariance with the same diagonal: no negative variance in any mix."""
    spread = np.sqrt(np.maximum(np.diag(covariance), 0))
    scale = np.outer(spread, spread)
    alike = np.divide(covariance, scale, out=np.eye(len(spread)), where=scale > 1e-9)
    values, vectors = np.linalg.eigh(np.clip(alike, -1, 1))
    near = (vectors * np.maximum(values, 1e-6)) @ vectors.T
    spread /= np.sqrt(np.diag(near))
    return np.asarray(near * np.outer(spread, spread))


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


def _rows(matrix: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(all_rounded(row) for row in matrix)


def scores(ranks: Floats) -> Floats:
    """Return the normal scores of ranks in [0, 1], those at the ends moved in a little."""
    return np.asarray(ndtri(np.clip(ranks, 1e-9, 1 - 1e-9)))
