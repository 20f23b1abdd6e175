"""How unevenly something is held: by few programs, few clients, few blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from servescope.analysis.sample import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Concentration:
    """Holdings, largest first, and what share of the whole is held up to each: shape (n,)."""

    upto: Floats

    @classmethod
    def of(cls, holdings: npt.ArrayLike) -> Concentration | None:
        """Rank holdings of 0 or more; None if there are none, or all are 0."""
        ranked = np.sort(np.asarray(holdings, dtype=np.float64))[::-1]
        total = ranked.sum()
        return cls(np.cumsum(ranked) / total) if len(ranked) and total > 0 else None

    @property
    def gini(self) -> float:
        """Gini coefficient: 0 for all alike, near 1 for one that holds all."""
        n = len(self.upto)
        return float(2 * self.upto.mean() - 1 - 1 / n) if n > 1 else 0.0

    def holders_of(self, share: float) -> int:
        """Return the fewest holders of a share of the whole."""
        return int(np.searchsorted(self.upto, share - 1e-12)) + 1

    def share_holding(self, share: float) -> float:
        """Return the smallest share of holders of a share of the whole."""
        return self.holders_of(share) / len(self.upto)

    def curve(self, points: int = 100) -> tuple[Floats, Floats]:
        """Return shares of holders, largest first, and what they hold, at so many points."""
        n = len(self.upto)
        at = np.unique(np.geomspace(1, n, min(points, n)).round().astype(np.int64))
        return at / n, self.upto[at - 1]
