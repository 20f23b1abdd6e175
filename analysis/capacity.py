"""The highest load at which a system meets an SLO, and which load to try next to learn more of it.

Each probe is a run at one load, and says how fast it burned what the SLO allows (`burn`). A share
of misses is right on average in a run of any length, while a percentile of a short run is too low
more often than not, so that a bisection on pass and fail overestimates capacity. Here all probes
count in one curve of burn over load, and capacity is where the curve crosses 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from servescope.analysis.burn import Burn, worst
from servescope.analysis.sample import Floats

LEVEL = 0.95
# The curve's slope is by how many per cent the odds of a miss grow with a per cent of load: 1 where
# answers take long by themselves, 50 near saturation. A lognormal prior, spread wide.
SLOPES = np.geomspace(1.0, 150.0, 40)
_PRIOR = -0.5 * np.square(np.log(SLOPES) - math.log(12.0))
_GRID = 121
NEAR = 8.0  # probes count whose burn should be within this factor of the limit
MOST_ALIKE = 0.8
TORN = 10.0

# Shares of the budget: of a probe that brackets, of all of them, of one that measures, of those.
BRACKETING, BRACKETED, MEASURING, MEASURED = 1 / 24, 0.4, 1 / 8, 0.74
CLOSE = 1.15  # a bracket this narrow is measured rather than halved
FARTHEST_BELOW = 0.05  # of a load by which the estimate is confirmed

Stage = Literal["bracket", "measure", "confirm"]


@dataclass(frozen=True, slots=True)
class Probe:
    """A run at one load: its length (s), and the burn of every condition of the SLO.

    One that is `reused` was made for something else and takes nothing of a search's budget.
    """

    load: float
    seconds: float
    burns: tuple[Burn, ...]
    stage: Stage = "bracket"
    reused: bool = False

    @property
    def rate(self) -> float:
        """The burn rate of the condition that is worst off; 0 where nothing was judged."""
        burn = worst(self.burns)
        return burn.rate if burn else 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """A load to try next, for how long (s), and what for."""

    load: float
    seconds: float
    stage: Stage


@dataclass(frozen=True, slots=True)
class Capacity:
    """The highest load that meets the SLO, and its bounds: each holds with 95 % for itself.

    `condition` is the one that limits it. `slope` is the elasticity of the odds of a miss (or of
    the mean) at that load.
    """

    load: float
    low: float
    high: float
    condition: str
    slope: float

    def burn_at(self, loads: Floats, allowed: float, *, share: bool = True) -> Floats:
        """Return the fitted burn rate at some loads, of a share or of a mean: shape (loads,)."""
        growth = np.power(loads / self.load, self.slope)
        if share:
            odds = allowed / (1 - allowed) * growth
            growth = odds / (1 + odds) / allowed
        return np.asarray(growth, dtype=np.float64)


def capacity_of(probes: Sequence[Probe]) -> Capacity | None:
    """Estimate capacity from probes; None unless some load passed and some load failed.

    Of several conditions the one that fails first limits it.
    """
    names = dict.fromkeys(burn.condition for probe in probes for burn in probe.burns)
    found = [_of_condition(name, probes) for name in names]
    known = [each for each in found if each is not None]
    if not known:
        return None
    first = min(known, key=lambda each: each.load)
    low = min(each.low for each in known)
    return Capacity(first.load, low, first.high, first.condition, first.slope)


def next_ask(
    probes: Sequence[Probe], begin: float, budget_s: float, most: float = math.inf
) -> Ask | None:
    """Return which load to try next; None when the budget is spent, or `most` meets the SLO.

    First loads are doubled or halved until one passes and one fails, and the bracket is narrowed;
    then longer probes on both sides of the estimate measure it, and the last one, a quarter of the
    budget, confirms it at its lower bound. A search that was not confirmed goes on when it is given
    more.
    """
    spent = sum(probe.seconds for probe in probes if not probe.reused)
    left = budget_s - spent
    short = BRACKETING * budget_s
    if left < short / 2 or confirmed(probes):
        return None
    if not probes:
        return Ask(min(begin, most), short, "bracket")
    low, high = bracket(probes)
    if high is None and low is not None:
        return Ask(min(2 * low, most), short, "bracket") if low < most else None
    if low is None and high is not None:
        return Ask(high / 2, short, "bracket")
    assert low is not None
    assert high is not None
    found = capacity_of(probes)
    if (spent < BRACKETED * budget_s and high / low > CLOSE) or found is None:
        return Ask(math.sqrt(low * high), short, "bracket")
    if spent < MEASURED * budget_s:
        # the curve is surest where misses are rare enough to be local and common enough to count
        apart = min(math.log(2) / found.slope, 0.1)
        below = sum(probe.stage == "measure" for probe in probes) % 2 == 0
        aside = -apart if below else apart / 2
        return Ask(min(found.load * math.exp(aside), most), MEASURING * budget_s, "measure")
    lowest = found.load * (1 - FARTHEST_BELOW)
    return Ask(min(max(found.low, lowest), most), left, "confirm")


def confirmed(probes: Sequence[Probe]) -> bool | None:
    """Say whether the last probe that was to confirm the answer did; None if there was none."""
    last = next((probe for probe in reversed(probes) if probe.stage == "confirm"), None)
    return None if last is None else last.rate < 1


def torn(probes: Sequence[Probe]) -> tuple[Probe, Probe] | None:
    """Return two probes that contradict each other; None if there are none.

    Of those that measure, one burned ten times the limit and another, at a higher load, a tenth of
    it: which stretch of the workload they held decided more than the load.
    """
    long = [probe for probe in probes if probe.stage != "bracket"]
    for failed in long:
        for passed in long:
            if failed.rate >= TORN and passed.rate <= 1 / TORN and failed.load < passed.load:
                return failed, passed
    return None


def bracket(probes: Sequence[Probe]) -> tuple[float | None, float | None]:
    """Return the highest load that passes and the lowest that fails; None where there is none.

    Burn cannot fall with load: where it does, neighbouring loads are pooled (isotonic regression by
    pooling adjacent violators), each probe weighing as much as its length. Where pooling leaves
    nothing on one side, the loads by themselves count.
    """
    loads = sorted({probe.load for probe in probes})
    alone = []
    pools: list[tuple[float, float, int]] = []  # burn, length, loads
    for load in loads:
        here = [probe for probe in probes if probe.load == load]
        seconds = sum(probe.seconds for probe in here)
        alone.append(sum(probe.rate * probe.seconds for probe in here) / seconds)
        pools.append((alone[-1], seconds, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (b, t, n), (c, u, m) = pools[-2:]
            pools[-2:] = [((b * t + c * u) / (t + u), t + u, n + m)]
    pooled = [burned for burned, _, count in pools for _ in range(count)]

    def those(rates: Sequence[float], passes: bool) -> list[float]:
        return [load for load, rate in zip(loads, rates, strict=True) if (rate < 1) == passes]

    passed = those(pooled, True) or those(alone, True)
    failed = those(pooled, False) or those(alone, False)
    return max(passed, default=None), min(failed, default=None)


def _of_condition(name: str, probes: Sequence[Probe]) -> Capacity | None:
    """Fit the curve of one condition: to all probes first, then to those near the limit."""
    known = [(probe, burn) for probe in probes for burn in probe.burns if burn.condition == name]
    alone = [Probe(probe.load, probe.seconds, (burn,)) for probe, burn in known]
    low, high = bracket(alone)
    if low is None or high is None:
        return None
    low, high = min(low, high) / 1.3, max(low, high) * 1.3
    found = _fit(alone, low, high)
    for _ in range(4):
        if found is None:
            break
        near = _near(alone, found)
        reach = math.log(max(found.high / found.load, found.load / found.low)) * 2 + 0.02
        again = _fit(near, max(low, found.load * math.exp(-reach)),
                     min(high, found.load * math.exp(reach)))  # fmt: skip
        if again is None:
            break
        found = again
    return found


def _near(probes: Sequence[Probe], found: Capacity) -> list[Probe]:
    """Return the probes near the limit, chosen by their loads and never by what came out."""
    reach = math.log(NEAR) / found.slope
    while True:
        near = [p for p in probes if abs(math.log(p.load / found.load)) <= reach]
        rates = [probe.rate for probe in near]
        several = len({probe.load for probe in near}) > 1
        if len(near) == len(probes) or (several and max(rates) >= 0.5 and min(rates) < 2):
            return near
        reach *= 1.3


def _fit(probes: Sequence[Probe], low: float, high: float) -> Capacity | None:
    """Return the quasi-posterior of the load at the limit, over a grid of it and of the slope.

    A logistic curve of the share of misses over log load (of a mean: its log), by quasi-likelihood.
    Calls are not independent, so the likelihood is divided by how far sections scatter around the
    curve; that this is itself estimated from few probes widens it to a t.
    """
    burns = [probe.burns[0] for probe in probes]
    x = np.log([probe.load for probe in probes])
    sizes = np.array([burn.sizes.sum() for burn in burns])
    allowed, share = burns[0].allowed, burns[0].kind == "share"
    hits = np.array([burn.rate for burn in burns]) * allowed * sizes
    if hits.sum() <= 0 or not sizes.all():
        return None
    grid = np.linspace(math.log(low), math.log(high), _GRID)
    limit = math.log(allowed / (1 - allowed)) if share else 0.0
    eta = limit + SLOPES[None, :, None] * (x[None, None, :] - grid[:, None, None])
    eta = np.clip(eta, -40.0, 40.0)
    normal = np.logaddexp(0.0, eta) if share else np.exp(eta)
    likelihood = (hits * eta - sizes * normal).sum(axis=2)
    scatter = 10.0
    for _ in range(4):  # the scatter is around the curve, which hangs a little on the scatter
        posterior = likelihood / scatter + _PRIOR
        place = np.unravel_index(int(np.argmax(posterior)), posterior.shape)
        scatter = _scatter(burns, eta[place], share=share)
    posterior = likelihood / scatter + _PRIOR
    freedom = max(len(probes) - 2, 1)
    fallen = 2 * (posterior.max() - posterior) / freedom
    weight = np.exp(-(freedom + 1) / 2 * np.log1p(fallen))
    below = np.cumsum(weight.sum(axis=1))
    low_x, middle, high_x = np.interp((1 - LEVEL, 0.5, LEVEL), below / below[-1], grid)
    slope = math.exp(float((weight.sum(axis=0) * np.log(SLOPES)).sum() / weight.sum()))
    return Capacity(math.exp(middle), math.exp(low_x), math.exp(high_x), burns[0].condition, slope)


def _scatter(burns: Sequence[Burn], eta: Floats, *, share: bool) -> float:
    """Return how many times a section's variance is that of independent calls (dispersion).

    From how far sections are from the curve, more where neighbours of one probe are alike, and from
    how far whole probes are; the larger of the two.
    """
    squares, alike, count, of_probes = 0.0, 0.0, 0, 0.0
    for burn, at in zip(burns, eta, strict=True):
        expected = 1 / (1 + math.exp(-at)) if share else math.exp(at)
        variance = max(expected * (1 - expected) if share else expected, 1e-12)
        known = burn.sizes > 0
        off = burn.sizes[known] * (burn.rates[known] * burn.allowed - expected)
        residuals = off / np.sqrt(burn.sizes[known] * variance)
        squares += float(np.square(residuals).sum())
        alike += float((residuals[1:] * residuals[:-1]).sum())
        count += len(residuals)
        of_probes += float(off.sum()) ** 2 / (float(burn.sizes.sum()) * variance)
    r = min(max(alike / squares, 0.0), MOST_ALIKE) if squares else 0.0
    of_sections = squares / max(count - 2, 1) * (1 + r) / (1 - r)
    return max(of_sections, of_probes / max(len(burns) - 2, 1) if len(burns) > 2 else 0.0, 1e-3)


def in_words(
    name: str, probes: Sequence[Probe], found: Capacity | None, *, unit: str, per_s: float | None
) -> str:
    """Return the answer of a search in words.

    A load is so many `unit`; `per_s` programs arrive a second at a load of 1, if that is not what
    a load says already.
    """
    if not probes:
        return f"{name}: nothing was tried yet."

    def told(load: float) -> str:
        return f"{load:.3g} {unit}" + (f" ({load * per_s:.3g} programs/s)" if per_s else "")

    if found is None:
        low, high = bracket(probes)
        if low is not None:
            return f"{name} meets the SLO at every load that was tried, up to {told(low)}."
        assert high is not None
        return f"{name} misses the SLO at every load that was tried, down to {told(high)}."
    limit = f" What limits it: {found.condition}."
    last = probes[-1]
    if last.stage != "confirm":
        confirms = ""
    else:
        of = f"a run of {last.seconds:.0f} s at {last.load:.3g} burned {last.rate:.2g} times"
        fits = "confirms it" if last.rate < 1 else "does not confirm it"
        confirms = f" The last probe {fits}: {of} what the SLO allows."
        if last.rate >= 1:
            confirms += " With a larger budget the search goes on from there."
    if torn(probes):
        return f"{name} may meet the SLO up to {told(found.load)}: not sure.{limit}{confirms}"
    return (
        f"{name} meets the SLO up to {told(found.load)}, and with 95 % confidence up to"
        f" {found.low:.3g}." + limit + confirms
    )


def rows_of(probes: Sequence[Probe]) -> list[dict[str, float | str]]:
    """Return a row a probe: load, seconds, stage, burn rate, the condition that is worst off."""
    rows: list[dict[str, float | str]] = []
    for probe in probes:
        burn = worst(probe.burns)
        rows.append(
            {
                "load": probe.load,
                "seconds": probe.seconds,
                "stage": probe.stage,
                "burn": probe.rate,
                "condition": burn.condition if burn else "",
            }
        )
    return rows
