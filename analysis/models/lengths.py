"""How long prompts are, and how long the answers to prompts of that length."""

from __future__ import annotations

from functools import cached_property

import msgspec
import numpy as np
from scipy import special

from servescope.analysis.models.quantiles import MIN_COUNT, Quantiles, all_rounded
from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError

_BINS = 24  # of prompts, each with a law of its answers
_EDGE = 1e-6  # ranks are kept so far from 0 and 1


class Lengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The joint law of prompt and answer lengths (tokens).

    `inputs` is the law of prompts; `outputs[k]` that of the answers to prompts whose rank lies
    between edges k - 1 and k: conditional quantile functions, so any dependence is kept that shows
    in so many groups.
    """

    inputs: Quantiles
    edges: tuple[float, ...]
    outputs: tuple[Quantiles, ...]

    def __post_init__(self) -> None:
        if len(self.outputs) != len(self.edges) + 1:
            raise InputError(
                f"{len(self.edges)} edges do not part {len(self.outputs)} laws of answers.",
                "Fit the model again, or mend its lengths.",
            )
        if min(law.values[0] for law in (self.inputs, *self.outputs)) < 0:
            raise InputError("There are lengths below 0.", "Fit the model again, or mend them.")

    @classmethod
    def fit(cls, inputs: Floats, outputs: Floats, min_count: int = MIN_COUNT) -> Lengths:
        """Fit the laws of calls with prompts `inputs` and answers `outputs` (tokens).

        Every group of prompts has ten times `min_count` calls or more.
        """
        law = Quantiles.fit(inputs, min_count, whole=True)
        ranks = law.rank(inputs)
        bins = int(np.clip(len(inputs) // (10 * min_count), 1, _BINS))
        cuts = np.unique(np.quantile(ranks, np.arange(1, bins) / bins)) if bins > 1 else np.empty(0)
        edges = all_rounded(cuts)
        group = np.searchsorted(edges, ranks, side="right")
        sizes = np.bincount(group, minlength=len(edges) + 1)
        if sizes.min() < 2 * min_count:  # atoms leave groups with few calls or none
            kept = [k for k in range(len(edges)) if sizes[k] >= 2 * min_count]
            edges = tuple(edges[k] for k in kept)
            group = np.searchsorted(edges, ranks, side="right")
            if edges and (group == len(edges)).sum() < 2 * min_count:
                edges = edges[:-1]
                group = np.minimum(group, len(edges))
        return cls(
            inputs=law,
            edges=edges,
            outputs=tuple(
                Quantiles.fit(outputs[group == k], min_count, whole=True)
                for k in range(len(edges) + 1)
            ),
        )

    @cached_property
    def _cuts(self) -> Floats:
        """Return the shortest prompt (tokens) of each group after the first."""
        edges = np.array(self.edges)
        low = np.full(len(edges), self.inputs.values[0] - 1)
        high = self.inputs.at(np.ones(len(edges))) + 1
        for _ in range(64):  # ranks rise with prompts, so halving finds where they pass an edge
            middle = np.floor((low + high) / 2)
            passed = self.inputs.rank(middle) >= edges
            low, high = np.where(passed, low, middle), np.where(passed, middle, high)
        return high

    def at(self, said: Floats, answered: Floats) -> tuple[Floats, Floats]:
        """Return prompts and answers (tokens) of ranks in (0, 1), the second within the group."""
        inputs = self.inputs.at(said)
        group = np.searchsorted(self._cuts, inputs, side="right")
        outputs = np.empty_like(inputs)
        for k, law in enumerate(self.outputs):
            here = group == k
            outputs[here] = law.at(answered[here])
        return inputs, outputs

    def ranks(
        self, inputs: Floats, outputs: Floats, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Return the ranks of prompts, and of answers within their group; ties are drawn."""
        group = np.searchsorted(self._cuts, inputs, side="right")
        answered = np.empty(len(inputs))
        for k, law in enumerate(self.outputs):
            here = group == k
            answered[here] = law.rank(outputs[here], rng.random(int(here.sum())))
        said = self.inputs.rank(inputs, rng.random(len(inputs)))
        return np.clip(said, _EDGE, 1 - _EDGE), np.clip(answered, _EDGE, 1 - _EDGE)

    def log_score(self, inputs: Floats, outputs: Floats) -> float:
        """Return the log-likelihood (nats) of calls that are independent of each other."""
        group = np.searchsorted(self._cuts, inputs, side="right")
        answers = sum(law.log_score(outputs[group == k]) for k, law in enumerate(self.outputs))
        return self.inputs.log_score(inputs) + answers


def normal(ranks: Floats) -> Floats:
    """Return the normal scores of ranks in (0, 1)."""
    return np.asarray(special.ndtri(ranks))
