"""Families of distributions of what is above 0: fitted by maximum likelihood, drawn, compared.

Everything works along the last axis, so that a thousand resamples are fitted at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
from scipy import special

from servescope.analysis.sample import Floats

_STEPS = 60  # of Newton's method and of bisection


class Family(ABC):
    """A distribution on (0, inf) with `names` of its parameters.

    Parameters come and go as one array, shape (..., parameters); values have shape (..., n), and
    `weights` say how often each of them was seen.
    """

    names: tuple[str, ...]

    @abstractmethod
    def fit(self, x: Floats, weights: Floats | None = None) -> Floats:
        """Return the parameters of greatest likelihood: shape (..., parameters)."""

    @abstractmethod
    def log_density(self, x: Floats, p: Floats) -> Floats:
        """Return log f(x): shape (..., n)."""

    @abstractmethod
    def cdf(self, x: Floats, p: Floats) -> Floats:
        """Return the share at or below x: shape (..., n)."""

    @abstractmethod
    def quantile(self, u: Floats, p: Floats) -> Floats:
        """Return the value with the share u below it: shape (..., n)."""

    def sample(self, rng: np.random.Generator, p: Floats, count: int) -> Floats:
        """Draw `count` values for every row of parameters: shape (..., count)."""
        return self.quantile(rng.random((*p.shape[:-1], count)), p)

    def log_likelihood(self, x: Floats, p: Floats, weights: Floats | None = None) -> Floats:
        """Return the sum of log f over the last axis."""
        return _sum(self.log_density(x, p), weights)

    def aic(self, x: Floats, p: Floats, weights: Floats | None = None) -> float:
        """Return Akaike's criterion of one sample: smaller is better."""
        return float(2 * len(self.names) - 2 * self.log_likelihood(x, p, weights))


def _sum(x: Floats, weights: Floats | None) -> Floats:
    return np.asarray(x.sum(axis=-1) if weights is None else (x * weights).sum(axis=-1))


def _mean(x: Floats, weights: Floats | None) -> Floats:
    count = x.shape[-1] if weights is None else weights.sum(axis=-1)
    return np.asarray(_sum(x, weights) / count)


def _of(p: Floats, index: int) -> Floats:
    return p[..., index, None]


class Exponential(Family):
    """Gaps of a Poisson process."""

    names = ("mean",)

    def fit(self, x: Floats, weights: Floats | None = None) -> Floats:
        return _mean(x, weights)[..., None]

    def log_density(self, x: Floats, p: Floats) -> Floats:
        return -np.log(_of(p, 0)) - x / _of(p, 0)

    def cdf(self, x: Floats, p: Floats) -> Floats:
        return -np.expm1(-x / _of(p, 0))

    def quantile(self, u: Floats, p: Floats) -> Floats:
        return -np.log1p(-u) * _of(p, 0)


class Gamma(Family):
    """BurstGPT's model of gaps: CV is 1 / sqrt(shape), mean shape times scale."""

    names = ("shape", "scale")

    def fit(self, x: Floats, weights: Floats | None = None) -> Floats:
        mean = _mean(x, weights)
        # how far the log of the mean is above the mean of the logs says the shape alone
        s = np.maximum(np.log(mean) - _mean(np.log(x), weights), 1e-12)
        shape = (3 - s + np.sqrt((s - 3) ** 2 + 24 * s)) / (12 * s)  # Minka 2002
        for _ in range(8):
            inverse = 1 / shape + (np.log(shape) - special.digamma(shape) - s) / (
                shape**2 * (1 / shape - special.polygamma(1, shape))
            )
            shape = 1 / np.maximum(inverse, 1e-12)
        return np.stack([shape, mean / shape], axis=-1)

    def log_density(self, x: Floats, p: Floats) -> Floats:
        shape, scale = _of(p, 0), _of(p, 1)
        return (shape - 1) * np.log(x) - x / scale - special.gammaln(shape) - shape * np.log(scale)

    def cdf(self, x: Floats, p: Floats) -> Floats:
        return np.asarray(special.gammainc(_of(p, 0), x / _of(p, 1)))

    def quantile(self, u: Floats, p: Floats) -> Floats:
        return np.asarray(special.gammaincinv(_of(p, 0), u)) * _of(p, 1)

    def sample(self, rng: np.random.Generator, p: Floats, count: int) -> Floats:
        return rng.standard_gamma(_of(p, 0), (*p.shape[:-1], count)) * _of(p, 1)


class Weibull(Family):
    """Gaps whose hazard is a power of the time since the last arrival."""

    names = ("shape", "scale")

    def fit(self, x: Floats, weights: Floats | None = None) -> Floats:
        logs = np.log(x)
        centre = _mean(logs, weights)
        z = logs - centre[..., None]
        spread = np.sqrt(_mean(z * z, weights))
        shape = 1.2 / np.maximum(spread, 1e-9)
        for _ in range(30):
            power = np.exp(np.minimum(shape[..., None] * z, 600.0))
            s0, s1 = _sum(power, weights), _sum(power * z, weights)
            s2 = _sum(power * z * z, weights)
            # the score and its slope in log(shape), which is nearly linear
            off = 1 / shape - s1 / s0
            slope = -1 / shape - shape * (s2 / s0 - (s1 / s0) ** 2)
            shape = shape * np.exp(np.clip(-off / slope, -1, 1))
        power = np.exp(np.minimum(shape[..., None] * z, 600.0))
        scale = np.exp(centre + np.log(_mean(power, weights)) / shape)
        return np.stack([shape, scale], axis=-1)

    def log_density(self, x: Floats, p: Floats) -> Floats:
        shape, scale = _of(p, 0), _of(p, 1)
        z = x / scale
        return np.log(shape / scale) + (shape - 1) * np.log(z) - z**shape

    def cdf(self, x: Floats, p: Floats) -> Floats:
        return -np.expm1(-((x / _of(p, 1)) ** _of(p, 0)))

    def quantile(self, u: Floats, p: Floats) -> Floats:
        return _of(p, 1) * (-np.log1p(-u)) ** (1 / _of(p, 0))


class Lognormal(Family):
    """Values whose logs are normal."""

    names = ("mu", "sigma")

    def fit(self, x: Floats, weights: Floats | None = None) -> Floats:
        logs = np.log(x)
        mu = _mean(logs, weights)
        sigma = np.sqrt(_mean((logs - mu[..., None]) ** 2, weights))
        return np.stack([mu, np.maximum(sigma, 1e-12)], axis=-1)

    def log_density(self, x: Floats, p: Floats) -> Floats:
        logs = np.log(x)
        z = (logs - _of(p, 0)) / _of(p, 1)
        return np.asarray(-0.5 * z * z - logs - np.log(_of(p, 1)) - 0.5 * np.log(2 * np.pi))

    def cdf(self, x: Floats, p: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            return np.asarray(special.ndtr((np.log(x) - _of(p, 0)) / _of(p, 1)))

    def quantile(self, u: Floats, p: Floats) -> Floats:
        return np.exp(_of(p, 0) + _of(p, 1) * special.ndtri(u))


class Pareto(Family):
    """Lomax's distribution, a Pareto that begins at 0: the share above x is (1 + x/scale)^-shape.

    Fitted by its one-dimensional profile; a sample with a lighter tail than the exponential ends at
    the largest shape tried.
    """

    names = ("shape", "scale")

    def fit(self, x: Floats, weights: Floats | None = None) -> Floats:
        mean = _mean(x, weights)
        low, high = np.log(mean) - 12, np.log(mean) + 12
        for _ in range(_STEPS):  # bisection of the slope of the profile in log(scale)
            middle = (low + high) / 2
            rising = self._slope(x, np.exp(middle), weights) > 0
            low, high = np.where(rising, middle, low), np.where(rising, high, middle)
        scale = np.exp((low + high) / 2)
        return np.stack([1 / _mean(np.log1p(x / scale[..., None]), weights), scale], axis=-1)

    @staticmethod
    def _slope(x: Floats, scale: Floats, weights: Floats | None) -> Floats:
        z = x / scale[..., None]
        logs = _mean(np.log1p(z), weights)
        part = _mean(z / (1 + z), weights)
        # of -log(logs) - log(scale) - logs, by log(scale)
        return np.asarray(part / logs - 1 + part)

    def log_density(self, x: Floats, p: Floats) -> Floats:
        shape, scale = _of(p, 0), _of(p, 1)
        return np.log(shape / scale) - (shape + 1) * np.log1p(x / scale)

    def cdf(self, x: Floats, p: Floats) -> Floats:
        return -np.expm1(-_of(p, 0) * np.log1p(x / _of(p, 1)))

    def quantile(self, u: Floats, p: Floats) -> Floats:
        return _of(p, 1) * np.expm1(-np.log1p(-u) / _of(p, 0))


class Loglogistic(Family):
    """Values whose logs are logistic: a body like the log-normal's and a power-law tail."""

    names = ("scale", "shape")

    def fit(self, x: Floats, weights: Floats | None = None) -> Floats:
        logs = np.log(x)
        mu = _mean(logs, weights)
        s = np.maximum(
            np.sqrt(_mean((logs - mu[..., None]) ** 2, weights)) * np.sqrt(3) / np.pi, 1e-9
        )
        for _ in range(25):  # Newton's method with the expected information of (mu, log s)
            z = (logs - mu[..., None]) / s[..., None]
            t = np.tanh(z / 2)
            mu = mu + 3 * s * _mean(t, weights)
            push = (_mean(z * t, weights) - 1) / ((3 + np.pi**2) / 9)
            s = s * np.exp(np.clip(push, -0.5, 0.5))
        return np.stack([np.exp(mu), 1 / s], axis=-1)

    def log_density(self, x: Floats, p: Floats) -> Floats:
        scale, shape = _of(p, 0), _of(p, 1)
        z = shape * np.log(x / scale)
        return np.asarray(np.log(shape) - np.log(x) + z - 2 * np.logaddexp(0, z))

    def cdf(self, x: Floats, p: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            return np.asarray(special.expit(_of(p, 1) * np.log(x / _of(p, 0))))

    def quantile(self, u: Floats, p: Floats) -> Floats:
        return _of(p, 0) * np.exp(special.logit(u) / _of(p, 1))


class InverseGaussian(Family):
    """First passages of a Brownian motion with drift."""

    names = ("mean", "shape")

    def fit(self, x: Floats, weights: Floats | None = None) -> Floats:
        mean = _mean(x, weights)
        return np.stack([mean, 1 / np.maximum(_mean(1 / x, weights) - 1 / mean, 1e-12)], axis=-1)

    def log_density(self, x: Floats, p: Floats) -> Floats:
        mean, shape = _of(p, 0), _of(p, 1)
        return 0.5 * np.log(shape / (2 * np.pi * x**3)) - shape * (x - mean) ** 2 / (
            2 * mean**2 * x
        )

    def cdf(self, x: Floats, p: Floats) -> Floats:
        mean, shape = _of(p, 0), _of(p, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(shape / x)
            second = np.exp(2 * shape / mean + special.log_ndtr(-root * (x / mean + 1)))
            return np.where(x > 0, special.ndtr(root * (x / mean - 1)) + second, 0.0)

    def quantile(self, u: Floats, p: Floats) -> Floats:
        from scipy import stats

        mean, shape = _of(p, 0), _of(p, 1)
        return np.asarray(stats.invgauss.ppf(u, mean / shape, scale=shape))

    def sample(self, rng: np.random.Generator, p: Floats, count: int) -> Floats:
        return rng.wald(_of(p, 0), _of(p, 1), (*p.shape[:-1], count))


class PowerLaw(Family):
    """A Pareto from its smallest value on: the share above x is (least / x)^shape."""

    names = ("shape", "least")

    def fit(self, x: Floats, weights: Floats | None = None) -> Floats:
        least = x.min(axis=-1)
        logs = _mean(np.log(x / least[..., None]), weights)
        return np.stack([1 / np.maximum(logs, 1e-12), least], axis=-1)

    def log_density(self, x: Floats, p: Floats) -> Floats:
        shape, least = _of(p, 0), _of(p, 1)
        inside = np.log(shape) + shape * np.log(least) - (shape + 1) * np.log(x)
        return np.where(x >= least, inside, -np.inf)

    def cdf(self, x: Floats, p: Floats) -> Floats:
        shape, least = _of(p, 0), _of(p, 1)
        return -np.expm1(-shape * np.log(np.maximum(x, least) / least))

    def quantile(self, u: Floats, p: Floats) -> Floats:
        return _of(p, 1) * np.exp(-np.log1p(-u) / _of(p, 0))


FAMILIES: Final[dict[str, Family]] = {
    "exponential": Exponential(),
    "gamma": Gamma(),
    "weibull": Weibull(),
    "lognormal": Lognormal(),
    "pareto": Pareto(),
    "loglogistic": Loglogistic(),
    "inverse_gaussian": InverseGaussian(),
    "power_law": PowerLaw(),
}
GAPS: Final = ("exponential", "gamma", "weibull", "lognormal", "pareto")
