"""Arrival shapes: how calls lie within a window whose rate is given, and the families of them.

A shape knows nothing of the rate. Windows begin in its stationary law, so that each can be drawn
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from servescope.analysis.models.cascade import Cascade
from servescope.analysis.models.clusters import Clusters
from servescope.analysis.models.intensity import Seasonal
from servescope.analysis.models.modulated import Modulated
from servescope.analysis.models.renewal import Poisson, Renewal, WindowedRenewal
from servescope.analysis.models.self_exciting import SelfExciting
from servescope.analysis.sample import Floats

AnyShape: TypeAlias = (
    Poisson | Renewal | WindowedRenewal | Seasonal | Modulated | SelfExciting | Clusters | Cascade
)
"""A frozen value that a file tells from the others by its `type`. Each has

- `fit(arrivals, span_s, window_s)`: of arrivals (s, ascending in [0, span_s)) and the width of the
  windows whose rates are given,
- `sample(rng, rate_rps, width_s)`: the times of a window, ascending in [0, width_s),
  rate_rps * width_s of them on average,
- `log_score(arrivals, span_s, rate_rps)`: the log-likelihood (nats) of arrivals in [0, span_s),
- `parameters`: how many numbers were fitted, and `summary()`: a sentence or two.
"""

Fit: TypeAlias = Callable[[Floats, float, float], AnyShape]
"""Takes arrivals (s, ascending in [0, span_s)), span_s and the width of a window."""

SHAPES: Final[dict[str, Fit]] = {
    "poisson": Poisson.fit,
    "gamma renewal": partial(Renewal.fit, gaps="gamma"),
    "weibull renewal": partial(Renewal.fit, gaps="weibull"),
    "windowed renewal": WindowedRenewal.fit,
    "seasonal": Seasonal.fit,
    "modulated": Modulated.fit,
    "self-exciting": SelfExciting.fit,
    "clusters": Clusters.fit,
    "cascade": partial(Cascade.fit, calibrated=False),
}
