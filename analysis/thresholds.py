"""Who meets an SLO while its bounds are moved: what each call and program needs, kept in order.

The answers are those of `attainment.attained` for the SLO of the same bounds, a thousand times a
minute instead of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from servescope.analysis.attainment import Attainment, judged
from servescope.analysis.measured import Measured
from servescope.analysis.sample import Bools, Floats
from servescope.analysis.slo import SLO, Bound, Condition, Group, Per
from servescope.analysis.totals import Whole
from servescope.traces.run import Run

POINTS = 200
# Over which bounds (s) a curve is drawn, and what each one bounds.
RANGES = {
    "ttft": (0.01, 100.0),
    "stall": (0.001, 10.0),
    "tpot": (0.001, 1.0),
    "jct": (0.1, 1000.0),
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What must be below what (s): TTFT, the longest stall, TPOT of calls, JCT; None asks nothing.

    With a bound on JCT, programs are asked, which must meet it with all their calls within the
    other bounds.
    """

    ttft_s: float | None = None
    stall_s: float | None = None
    tpot_s: float | None = None
    jct_s: float | None = None

    @property
    def asked(self) -> dict[str, float]:
        """The bounds that ask something, by metric."""
        named = ((name.removesuffix("_s"), bound) for name, bound in asdict(self).items())
        return {name: bound for name, bound in named if bound is not None}

    @property
    def per(self) -> Per:
        """Who is asked."""
        return "calls" if self.jct_s is None else "programs"

    @property
    def slo(self) -> SLO:
        """The SLO that asks the same."""
        conditions = tuple(Condition(name, Bound(bound)) for name, bound in self.asked.items())
        return SLO((Group(conditions),))


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Attainment (a share) and goodput (1/s) over one bound (s), the others fixed: shape (n,) each.

    `goodput` is NaN where the run took no time.
    """

    grid_s: Floats
    attainment: Floats
    goodput: Floats
    per: Per


class Thresholds:
    """A run as sliders ask it: what each call and program needs each bound to be above.

    What a bound takes is read when it is first asked; stalls take reading every chunk.
    """

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._of_calls = _Asked()
        self._of_programs = _Asked()

    @classmethod
    def of(cls, run: Run | Measured) -> Thresholds:
        """Return a run without its warm-up, or what was measured of a whole run already."""
        return cls(run if isinstance(run, Measured) else Measured.of(run))

    def attained(self, bounds: Bounds) -> Attainment:
        """Return how many meet the bounds, and the goodput."""
        met = self._met(bounds.asked, bounds.per)
        programs = met if bounds.per == "programs" else self._met(bounds.asked, "programs")
        tokens = self._tokens if bounds.per == "calls" else self._tokens_of_programs
        whole = self._whole
        return Attainment(
            met=int(met.sum()),
            asked=len(met),
            per=bounds.per,
            goodput_rps=whole.per_second(int(met.sum())),
            program_goodput_rps=whole.per_second(int(programs.sum())),
            token_goodput_tps=whole.per_second(int(tokens[met].sum())),
        )

    def curve(self, bounds: Bounds, over: str, grid_s: npt.ArrayLike | None = None) -> Curve:
        """Return what would be met if the bound on a metric were another, the rest as it is.

        `over` is ttft, stall, tpot or jct. The grid is the same for all runs, log-spaced over
        `RANGES`, where none is given.
        """
        grid = np.geomspace(*RANGES[over], POINTS) if grid_s is None else np.asarray(grid_s, float)
        per = "programs" if over == "jct" else bounds.per
        others = {name: bound for name, bound in bounds.asked.items() if name != over}
        met = self._met(others, per)
        needed, order = self._side(per).in_order(over, self._needed(over, per))
        upto = np.concatenate([[0], np.cumsum(met[order])])
        counts = upto[np.searchsorted(needed, grid, side="left")]
        span_s = self._whole.span_s
        return Curve(
            grid,
            counts / max(1, len(met)),
            counts / span_s if span_s > 0 else np.full(len(grid), np.nan),
            per,
        )

    def _side(self, per: Per) -> _Asked:
        return self._of_calls if per == "calls" else self._of_programs

    def _met(self, asked: Mapping[str, float], per: Per) -> Bools:
        """Return which calls or programs are answered and below all bounds."""
        met = np.isfinite(self._needed(None, per))
        for name, bound in asked.items():
            met &= self._needed(name, per) < bound
        return met

    def _needed(self, name: str | None, per: Per) -> Floats:
        """Return what a bound must be above for each call or program; infinite if none would do.

        Without a name only answers are asked for: 0, or infinite for a failure.
        """
        side = self._side(per)
        if name not in side.needed:
            if per == "calls" or name == "jct":
                needed = self._judged(name)
            else:  # a program needs what the worst of its calls needs
                by_program = self._needed(name, "calls")[self._by_program]
                needed = np.maximum.reduceat(by_program, self._begins)
            side.needed[name] = needed
        return side.needed[name]

    def _judged(self, name: str | None) -> Floats:
        """Return how many times a bound of 1 s would have to be as loose: seconds."""
        conditions = () if name is None else (Condition(name, Bound(1.0)),)
        return judged(self._measured, SLO((Group(conditions),)))["scale"].to_numpy()

    @cached_property
    def _whole(self) -> Whole:
        return Whole(self._measured)

    @cached_property
    def _by_program(self) -> npt.NDArray[np.int64]:
        """The places of calls, program by program."""
        return np.argsort(self._measured.program_of, kind="stable")

    @cached_property
    def _begins(self) -> npt.NDArray[np.int64]:
        sizes = np.bincount(self._measured.program_of)
        return np.cumsum(sizes) - sizes

    @cached_property
    def _tokens(self) -> Floats:
        tokens = self._measured.columns("output_tokens")["output_tokens"]
        return tokens.fill_null(0).to_numpy().astype(np.float64)

    @cached_property
    def _tokens_of_programs(self) -> Floats:
        return np.bincount(self._measured.program_of, self._tokens).astype(np.float64, copy=False)


class _Asked:
    """What calls, or programs, need a bound to be above, by metric."""

    def __init__(self) -> None:
        self.needed: dict[str | None, Floats] = {}
        self._in_order: dict[str, tuple[Floats, npt.NDArray[np.int32]]] = {}

    def in_order(self, name: str, needed: Floats) -> tuple[Floats, npt.NDArray[np.int32]]:
        """Return what is needed in ascending order, and whose it is."""
        if name not in self._in_order:
            order = np.argsort(needed).astype(np.int32)
            self._in_order[name] = needed[order], order
        return self._in_order[name]
