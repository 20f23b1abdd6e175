"""How prompts change from one turn to the next: they grow, or are cut."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from servescope.analysis.models.given import Given, edges_of
from servescope.analysis.models.quantiles import MIN_COUNT, all_rounded, rounded
from servescope.analysis.sample import Floats, Ints

Before = Literal["prompt", "answer", "context"]
_CHOICES: tuple[tuple[Before, Before], ...] = (
    ("prompt", "prompt"),
    ("prompt", "answer"),
    ("context", "context"),
    ("context", "answer"),
)
_PARTS = 16
_PLACES = 4  # stretches of the prompt before, each with laws of growth of its own
_EACH = 100  # times `min_count`: calls that a place has at least
_CLEARLY = 1.07  # times less spread than of the prompt before


class Growth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The law of a prompt given the prompt and the answer before.

    It is shorter than the one before with a chance in `cut`, up to each of the `edges` of that one,
    and above the last; then `kept` is the share that is left of it. Else `grown` is by how much it
    exceeds the `base`, given what it depends `of`: the prompt before, its answer, or the context,
    which is both. There is one law up to each of the `places` of the prompt before. Prompts stay
    within `bounds`, the means of the few least and greatest.
    """

    base: Before
    of: Before
    edges: tuple[float, ...]
    cut: tuple[float, ...]
    kept: Given | None
    places: tuple[float, ...]
    grown: tuple[Given, ...]
    bounds: tuple[float, float]

    @classmethod
    def fit(
        cls, prompt: Floats, last: Floats, answer: Floats | None, min_count: int = MIN_COUNT
    ) -> Growth:
        """Fit prompts after others, whose answers may not be known; shapes (n,), n > 0."""
        shorter = prompt < last
        longer = ~shorter if (~shorter).sum() >= min_count else np.ones(len(prompt), bool)
        base, of, law = _least_spread(prompt[longer], last[longer], answer, longer, min_count)
        least = _EACH * min_count
        places = edges_of(last[longer], min(_PLACES, int(longer.sum()) // least), least)
        grown = [law]
        if places:
            held, given = _before(base, last, answer), _before(of, last, answer)
            place = np.searchsorted(places, last, side="left")
            grown = [
                Given.fit(given[here], (prompt - held)[here], min_count, whole=True)
                for here in (longer & (place == each) for each in range(len(places) + 1))
            ]
        edges, chances = _hazard(last, shorter, min_count)
        ends = np.sort(np.concatenate([prompt, last]))
        return cls(
            base=base,
            of=of,
            edges=edges,
            cut=chances,
            kept=Given.fit(last[shorter], (prompt / np.maximum(last, 1.0))[shorter], min_count)
            if any(chances)
            else None,
            places=places,
            grown=tuple(grown),
            bounds=(rounded(ends[:min_count].mean()), rounded(ends[-min_count:].mean())),
        )

    def at(self, last: Floats, answer: Floats | None, u: Floats) -> Floats:
        """Return the prompts with the shares u below them, given those before and their answers."""
        chance = self._chances(last)
        base, of = (_before(what, last, answer) for what in (self.base, self.of))
        up = np.maximum(u - chance, 0.0) / np.maximum(1 - chance, 1e-12)
        prompt = base + self._grown(last, of, np.minimum(up, 1.0))
        short = np.flatnonzero(u < chance)
        if len(short) and self.kept is not None:
            down = u[short] / chance[short]
            prompt[short] = np.rint(last[short] * self.kept.at(last[short], down))
        return np.clip(prompt, *self.bounds)

    def rank(self, prompt: Floats, last: Floats, answer: Floats | None) -> Floats:
        """Return the share of prompts below these, given those before and their answers."""
        chance = self._chances(last)
        base, of = (_before(what, last, answer) for what in (self.base, self.of))
        more = np.empty(len(prompt))
        for here, law in self._placed(last):
            more[here] = law.rank(of[here], prompt[here] - base[here])
        ranks = chance + (1 - chance) * more
        if self.kept is not None:
            short = prompt < last
            kept = self.kept.rank(last[short], prompt[short] / np.maximum(last[short], 1.0))
            ranks[short] = chance[short] * kept
        return ranks

    def _grown(self, last: Floats, of: Floats, u: Floats) -> Floats:
        more = np.empty(len(u))
        for here, law in self._placed(last):
            more[here] = law.at(of[here], u[here])
        return more

    def _placed(self, last: Floats) -> Iterator[tuple[Ints, Given]]:
        """Yield where the prompt before is in each place, and the law there."""
        place = np.searchsorted(self.places, last, side="left")
        for each, law in enumerate(self.grown):
            here = np.flatnonzero(place == each)
            if len(here):
                yield here, law

    def _chances(self, last: Floats) -> Floats:
        return self._cut[np.searchsorted(self.edges, last, side="left")]

    @cached_property
    def _cut(self) -> Floats:
        return np.array(self.cut)


def _least_spread(
    prompt: Floats,
    last: Floats,
    answer: Floats | None,
    longer: npt.NDArray[np.bool_],
    min_count: int,
) -> tuple[Before, Before, Given]:
    """Return what prompts grow from and depend on: the prompt before, if all is about as good."""
    best: tuple[Before, Before, Given] | None = None
    least = np.inf
    answers = None if answer is None else answer[longer]
    for base, of in _CHOICES if answers is not None else _CHOICES[:1]:
        given, more = _before(of, last, answers), prompt - _before(base, last, answers)
        law = Given.fit(given, more, min_count, whole=True)
        spread = law.spread(given, more)
        if best is None or spread < least:
            best = (base, of, law)
            least = spread if best[:2] != _CHOICES[0] else spread / _CLEARLY
    assert best is not None
    return best


def _before(what: Before, last: Floats, answer: Floats | None) -> Floats:
    if what == "prompt" or answer is None:
        return last
    return answer if what == "answer" else last + answer


def _hazard(
    last: Floats, shorter: npt.NDArray[np.bool_], min_count: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the chance of a cut in stretches of the prompt before, each with as many cuts."""
    cuts = last[shorter]
    if len(cuts) < 2 * min_count:
        return (), (rounded(len(cuts) / len(last)) if len(cuts) >= min_count else 0.0,)
    edges = edges_of(cuts, min(_PARTS, len(cuts) // min_count), min_count)
    cell = np.searchsorted(edges, last, side="left")
    many = np.bincount(cell, minlength=len(edges) + 1)
    chances = np.bincount(cell, weights=shorter, minlength=len(edges) + 1) / np.maximum(many, 1)
    return edges, all_rounded(chances)
