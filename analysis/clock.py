"""The clock that stamped a trace: its tick, its unit, and what may be said below it.

Most public traces are stamped by a clock coarser than their traffic. Whatever is computed from
gaps between such stamps measures the clock, so this comes before every other number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from servescope.analysis.sample import Floats, in_sections, sums_in
from servescope.traces.quality import FINEST_S, common_step
from servescope.traces.uses import TICKS_NEEDED

Kind = Literal["grid", "batches", "phase", "declared"]

_SURE = 1e-6  # p-value below which a clock is called coarse
_BATCHED = 1.5  # calls a stamp from which stamps may be those of batches
_ALIKE = 0.9  # phase concentration of the stamps of batches
_FAVOURED = 0.1  # phase concentration that is worth a word
_PERIODS = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
_ROUND = tuple(m * 10.0**e for e in range(-3, 3) for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7.5))
_SECTIONS = 60
_STAMPS = 1_000_000  # of more stamps so many, evenly spread, are searched for a phase
_DRAWS = 200_000  # de-ticked gaps that an estimate is averaged over


@dataclass(frozen=True, slots=True)
class Tick:
    """How coarse a clock is, and how that was seen.

    `grid`: every stamp is a multiple of `step_s`. `batches`: many calls share stamps that come
    every `step_s`. `phase`: stamps favour one phase of `step_s`; they are finer, but not evenly so.
    `declared`: the format says so, and the stamps are too few to tell. `strength` is the mean
    resultant length of the phases (Rayleigh's R): 1 for all alike, 0 for even. `offset_s` is their
    mean phase.
    """

    step_s: float
    kind: Kind
    strength: float
    p_value: float
    offset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Audit:
    """What a clock's stamps show; times are seconds, `tick` is None for a clock with none seen.

    `unit` is how the source writes time, and `stamp_unit` the largest unit in which all stamps are
    whole. `out_of_order` and `duplicates` are None where programs have a clock each.
    """

    stamps: int
    distinct: int
    span_s: float
    out_of_order: int | None
    tied_share: float | None
    duplicates: int | None
    largest_gap_s: float | None
    largest_gap_at_s: float | None
    tick: Tick | None
    unit: str | None
    stamp_unit: str | None

    @property
    def finest_s(self) -> float:
        """Smallest time scale of which anything may be said: twice the tick; 0 without one."""
        return TICKS_NEEDED * self.tick.step_s if self.tick else 0.0

    @property
    def too_coarse_for_gaps(self) -> bool:
        """Whether the mean gap is below `finest_s`, so that only counts can be believed."""
        return self.span_s < self.finest_s * max(1, self.stamps - 1)


def grid_of(stamps: Floats) -> float | None:
    """Return the step (s) of which all stamps are multiples; None for one below 0.2 us, or chance.

    Chance: the first two stamps say the step, and each of the others is a multiple of g steps with
    probability 1 / g.
    """
    if len(stamps) < 2:
        return None
    step = 0
    for begin in range(0, len(stamps), 250_000):
        step = common_step(stamps[begin : begin + 250_000] - stamps[0], step)
        if step == 1:
            return None
    if step < 2 or _log_chance(stamps, step * FINEST_S) > math.log(_SURE):
        return None
    return step * FINEST_S


def _log_chance(stamps: Floats, grid_s: float) -> float:
    """Return the log of the probability that stamps without a clock are on a grid (`grid_of`)."""
    others = int(np.count_nonzero(np.diff(stamps))) - 1
    return -others * math.log(grid_s / FINEST_S)


def tick_of(stamps: Floats, declared_s: float | None = None) -> Tick | None:
    """Find the coarsest clock that the stamps (s, ascending) show; None if they show none.

    `declared_s` is what the format says, believed where the stamps do not show more.
    """
    return _tick(stamps, grid_of(stamps), declared_s)


def _tick(stamps: Floats, grid_s: float | None, declared_s: float | None) -> Tick | None:
    found = None
    if grid_s is not None:
        found = Tick(grid_s, "grid", 1.0, math.exp(max(-700.0, _log_chance(stamps, grid_s))))
    found = _batches(stamps, found) or found
    found = _phase(stamps, found) or found
    if declared_s and (found is None or found.step_s < declared_s * (1 - 1e-9)):
        strength, _ = _resultant(stamps, declared_s) if len(stamps) else (1.0, 0.0)
        return Tick(declared_s, "declared", strength, math.nan)
    return found


def _resultant(stamps: Floats, period_s: float) -> tuple[float, float]:
    """Return the mean resultant length of the phases, and the mean phase in seconds."""
    mean = complex(np.exp(2j * np.pi / period_s * (stamps - stamps[0])).mean())
    offset = float(np.angle(mean)) / (2 * math.pi) * period_s
    return abs(mean), float(stamps[0]) + offset


def _batches(stamps: Floats, grid: Tick | None) -> Tick | None:
    """Find stamps that many calls share and that come at a steady beat."""
    distinct = np.unique(stamps)
    if len(distinct) < 10 or len(stamps) < _BATCHED * len(distinct):
        return None
    # a batch may have two stamps, a millisecond apart, so the beat need not be the usual gap
    beats = np.quantile(np.diff(distinct), (0.5, 0.75, 0.9)).tolist()
    near = [
        *beats,
        *(period for period in _ROUND if any(abs(period / beat - 1) < 0.02 for beat in beats)),
    ]
    steps = [step for step in near if grid is None or step > 1.5 * grid.step_s]
    if not steps:
        return None
    best = max(steps, key=lambda step: (round(_resultant(distinct, step)[0], 4), step))
    strength, offset = _resultant(distinct, best)
    p = math.exp(-len(distinct) * strength**2)
    if strength < _ALIKE or p > _SURE:
        return None
    return Tick(best, "batches", strength, p, offset)


def _phase(stamps: Floats, known: Tick | None) -> Tick | None:
    """Find the longest period of which the stamps favour a phase.

    The phases of one burst are alike, so calls are no independent witnesses. Sections of many calls
    are: without a clock the mean of their phasors is 0 whatever the traffic does that has no such
    period. Hotelling's T^2 over sections tests that.
    """
    chosen = stamps
    if len(stamps) > _STAMPS:
        chosen = stamps[np.linspace(0, len(stamps) - 1, _STAMPS).astype(np.int64)]
    span = float(chosen[-1] - chosen[0]) if len(chosen) else 0.0
    best = None
    for period in _PERIODS:
        if known and period < 1.5 * known.step_s:
            continue
        if span < 2 * _SECTIONS * period:
            break
        section = in_sections(len(chosen), _SECTIONS)
        angle = 2 * math.pi / period * (chosen - chosen[0])
        sums = sums_in(section, _SECTIONS, np.cos(angle), np.sin(angle))
        strength = float(np.hypot(*sums.sum(axis=0))) / len(chosen)
        p = _hotelling(sums.T)
        if strength >= _FAVOURED and p < _SURE:
            best = Tick(period, "phase", strength, p, _resultant(chosen, period)[1])
    return best


def _hotelling(sums: Floats) -> float:
    """Return the p-value of a mean of 0: shape (2, sections)."""
    from scipy import stats

    filled = sums[:, np.abs(sums).sum(axis=0) > 0]
    count = filled.shape[1]
    if count < 10:
        return 1.0
    mean, spread = filled.mean(axis=1), np.cov(filled)
    if np.linalg.matrix_rank(spread) < 2:
        return 1.0
    t2 = float(count * mean @ np.linalg.solve(spread, mean))
    return float(stats.f.sf(t2 * (count - 2) / (2 * (count - 1)), 2, count - 2))


def audit(
    stamps: Floats,
    *,
    declared_s: float | None = None,
    unit: str | None = None,
    out_of_order: int | None = None,
    duplicates: int | None = None,
) -> Audit:
    """Audit the stamps (s, ascending) of a trace."""
    gaps = np.diff(stamps)
    widest = int(gaps.argmax()) if len(gaps) else None
    grid = grid_of(stamps)
    return Audit(
        stamps=len(stamps),
        distinct=int(np.count_nonzero(gaps)) + min(1, len(stamps)),
        span_s=float(stamps[-1] - stamps[0]) if len(stamps) else 0.0,
        out_of_order=out_of_order,
        tied_share=float((gaps == 0).mean()) if len(gaps) else None,
        duplicates=duplicates,
        largest_gap_s=None if widest is None else float(gaps[widest]),
        largest_gap_at_s=None if widest is None else float(stamps[widest]),
        tick=_tick(stamps, grid, declared_s),
        unit=unit,
        stamp_unit=_unit_of(grid),
    )


def _unit_of(grid_s: float | None) -> str | None:
    if grid_s is None:
        return None
    for name, size in (("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(grid_s / size - round(grid_s / size)) < 1e-9 and grid_s >= size * (1 - 1e-9):
            return name
    return None


def deticked(stamps: Floats, tick: Tick, rng: np.random.Generator) -> Floats:
    """Return the stamps with every call drawn evenly within its tick, ascending.

    The tick is centred on the mean phase of the stamps, so a batch that is stamped a millisecond
    early stays one batch. Nothing finer than the tick is real in what comes back.
    """
    cell = np.floor((stamps - tick.offset_s) / tick.step_s + 0.5)
    drawn = tick.offset_s + (cell + rng.random(len(stamps)) - 0.5) * tick.step_s
    return np.sort(drawn)


def draws_of(stamps: Floats, tick: Tick | None, seed: int) -> list[Floats]:
    """Return de-ticked stamps, several times if they are few; the stamps themselves without a tick.

    A statistic of gaps is the mean over them.
    """
    if tick is None:
        return [stamps]
    rng = np.random.default_rng(seed)
    times = max(1, min(20, _DRAWS // max(1, len(stamps))))
    return [deticked(stamps, tick, rng) for _ in range(times)]
