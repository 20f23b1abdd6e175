"""Whether arrival shapes are found again: parameters, their intervals, and the family itself.

    python benchmarks/recovery.py [--replicates 50] [--choices 20]

Every replicate is drawn from a known process and fitted. Intervals are those of the parametric
bootstrap on the log scale: the estimate, and as far on both sides as 9 refits to its own draws
spread (Student's t). The second table says which family is chosen how often.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from multiprocessing import get_context

import numpy as np
from scipy import special

from servescope.analysis.models.clusters import Clusters
from servescope.analysis.models.intensity import Seasonal
from servescope.analysis.models.modulated import Modulated
from servescope.analysis.models.renewal import Poisson, Renewal
from servescope.analysis.models.selection import choose
from servescope.analysis.models.self_exciting import SelfExciting
from servescope.analysis.models.shapes import SHAPES, AnyShape

RATE_RPS, SPAN_S = 5.0, 600.0
REFITS = 9
DAY_S = 86_400.0
HOURS = tuple(1 + 0.6 * math.sin(2 * math.pi * hour / 24) for hour in range(24))
TRUTHS: dict[str, AnyShape] = {
    "poisson": Poisson(),
    "gamma renewal": Renewal(gaps="gamma", shape=0.3),
    "weibull renewal": Renewal(gaps="weibull", shape=0.6),
    "seasonal": Seasonal(bin_s=2.0, sigma=0.7, rho=0.8),
    "modulated": Modulated(levels=(0.2, 3.4), hold_s=(15.0, 5.0), jumps=((0.0, 1.0), (1.0, 0.0))),
    "self-exciting": SelfExciting(branching=0.6, decay_per_s=2.0),
    "clusters": Clusters(size=5.0, spread_s=1.0),
}
Values = dict[str, float]


def values_of(shape: AnyShape) -> Values:
    """Return the parameters that are compared, all above 0."""
    match shape:
        case Renewal():
            return {"shape": shape.shape}
        case Modulated():
            low, high = shape.levels
            return {
                "ratio of rates": high / low,
                "quiet for (s)": shape.hold_s[0],
                "busy for (s)": shape.hold_s[1],
            }
        case SelfExciting():
            return {"branching": shape.branching, "decay (1/s)": shape.decay_per_s}
        case Clusters():
            return {"size": shape.size, "spread (s)": shape.spread_s}
        case Seasonal():
            if shape.profile:
                return {"rate at 6 h": shape.profile[6], "rate at 18 h": shape.profile[18]}
            # of the log rate a second later, whatever the bins
            return {"sigma": shape.sigma, "rho over 2 s": max(shape.rho, 1e-3) ** (2 / shape.bin_s)}
        case _:
            return {}


def two_states(at: np.ndarray, span_s: float, window_s: float) -> Modulated:
    return Modulated.fit(at, span_s, window_s, states=2)


CASES: dict[str, tuple[AnyShape, Callable[..., AnyShape], float, float]] = {
    **{
        name: (truth, two_states if name == "modulated" else SHAPES[name], RATE_RPS, SPAN_S)
        for name, truth in TRUTHS.items()
        if name != "poisson"
    },
    "profile of the day": (
        Seasonal(bin_s=600.0, sigma=0.0, rho=0.0, profile=HOURS),
        SHAPES["seasonal"],
        0.05,
        4 * DAY_S,
    ),
}


def recovered(job: tuple[str, int]) -> tuple[str, Values, Values]:
    """Return the estimates of a replicate, and how far their intervals reach on the log scale."""
    name, seed = job
    truth, fit, rate, span = CASES[name]
    rng = np.random.default_rng((seed, list(CASES).index(name)))
    window = span if span < DAY_S else 600.0
    at = truth.sample(rng, rate, span)
    found = fit(at, span, window)
    again = [
        values_of(fit(found.sample(rng, len(at) / span, span), span, window)) for _ in range(REFITS)
    ]
    student = float(special.stdtrit(REFITS - 1, 0.975)) * math.sqrt(1 + 1 / REFITS)
    reach = {
        key: student * float(np.std([math.log(max(each[key], 1e-9)) for each in again], ddof=1))
        for key in again[0]
    }
    return name, values_of(found), reach


def chosen(job: tuple[str, int]) -> tuple[str, str, bool]:
    name, seed = job
    rng = np.random.default_rng((seed, 1000 + list(TRUTHS).index(name)))
    at = TRUTHS[name].sample(rng, RATE_RPS, 4 * SPAN_S)
    candidates = {family: fit for family, fit in SHAPES.items() if family != "cascade"}
    choice = choose(at, 4 * SPAN_S, candidates, seed, window_s=200.0)
    return name, choice.family, choice.doubt is not None


def main(replicates: int, choices: int) -> None:
    # polars has threads, which no fork survives
    with get_context("spawn").Pool(initializer=warnings.simplefilter, initargs=("error",)) as pool:
        held: dict[tuple[str, str], list[tuple[float, bool]]] = defaultdict(list)
        # seeds in turn, so that slow processes are spread
        jobs = [(name, seed) for seed in range(replicates) for name in CASES]
        for name, estimates, reach in pool.imap_unordered(recovered, jobs):
            for key, true in values_of(CASES[name][0]).items():
                inside = abs(math.log(max(estimates[key], 1e-9) / true)) <= reach[key]
                held[name, key].append((estimates[key], inside))
        if held:
            print("| process | parameter | truth | bias | deviation | coverage of 95 % |")
            print("|---|---|--:|--:|--:|--:|")
        for (name, key), pairs in sorted(held.items()):
            true = values_of(CASES[name][0])[key]
            estimate, inside = np.array(pairs, np.float64).T
            bias, deviation = estimate.mean() / true - 1, estimate.std() / true
            said = f"{bias:+.1%} | {deviation:.1%} | {inside.mean():.0%}"
            print(f"| {name} | {key} | {true:.3g} | {said} |", flush=True)
        picked: dict[str, Counter[str]] = defaultdict(Counter)
        doubted: Counter[str] = Counter()
        jobs = [(name, seed) for seed in range(choices) for name in TRUTHS]
        for name, family, doubt in pool.imap_unordered(chosen, jobs):
            picked[name][family] += 1
            doubted[name] += doubt
        if picked:
            print("\n| drawn from | chosen | with a doubt |\n|---|---|--:|")
        for name, counts in picked.items():
            said = ", ".join(
                f"{each} {count / choices:.0%}" for each, count in counts.most_common()
            )
            print(f"| {name} | {said} | {doubted[name] / choices:.0%} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=50)
    parser.add_argument("--choices", type=int, default=20)
    given = parser.parse_args()
    main(given.replicates, given.choices)
