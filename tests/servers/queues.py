"""Single-server queues whose calls share a load: the traffic on which intervals are tried."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Kind = Literal["poisson", "bursty"]

RATE = 10.0  # calls a second
SIGMA = 0.8  # of the logarithm of the service time
SWING, SOJOURN_S = 0.4, 20.0  # of bursty arrivals: 1.4 and 0.6 of the rate, 20 s each on average


def gaps(rng: np.random.Generator, calls: int, kind: str) -> Floats:
    """Draw times between arrivals (s): Poisson, or modulated by a two-state Markov chain."""
    if kind == "poisson":
        return rng.exponential(1 / RATE, calls)
    stays = int(calls / RATE / SOJOURN_S * 1.5) + 200
    sojourns = rng.exponential(SOJOURN_S, stays)
    rates = RATE * (1 + SWING * np.where((np.arange(stays) + rng.integers(2)) % 2, 1, -1))
    moments = np.concatenate([[0.0], np.cumsum(sojourns)])
    expected = np.concatenate([[0.0], np.cumsum(sojourns * rates)])
    arrivals = np.interp(np.cumsum(rng.exponential(1.0, calls)), expected, moments)
    return np.diff(arrivals, prepend=0.0)


def served(between: Floats, service: Floats) -> Floats:
    """Return the waits of a first-come-first-served server (Lindley's recursion)."""
    steps = np.concatenate([[0.0], service[:-1] - between[1:]])
    walk = np.cumsum(steps)
    return walk - np.minimum.accumulate(walk)


def demands(rng: np.random.Generator, calls: int, load: float) -> Floats:
    """Draw lognormal service times (s) that keep the server busy for the share `load`."""
    return rng.lognormal(np.log(load / RATE) - SIGMA**2 / 2, SIGMA, calls)


def latencies(
    rng: np.random.Generator, calls: int, load: float, kind: str, burn: int = 2000
) -> Floats:
    """Return wait and service of each call of a queue that has been running for a while."""
    between = gaps(rng, calls + burn, kind)
    service = demands(rng, calls + burn, load)
    return (served(between, service) + service)[burn:]


def pair(
    rng: np.random.Generator, calls: int, load: float, kind: str, faster: float = 1.0
) -> list[dict[str, Floats]]:
    """Return what two servers make of the same calls: waits, latencies and services of each.

    The second one's service takes `faster` of the first one's, and each has 10 % of noise.
    """
    burn = 500
    between = gaps(rng, calls + burn, kind)
    demand = demands(rng, calls + burn, load)
    arms = []
    for speed in (1.0, faster):
        service = demand * speed * rng.lognormal(-0.005, 0.1, calls + burn)
        wait = served(between, service)
        found = {"ttft": wait + 0.3 * service, "e2e": wait + service, "tpot": service}
        arms.append({name: values[burn:] for name, values in found.items()})
    return arms
