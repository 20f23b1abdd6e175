"""The workloads of Llumnix (arXiv 2406.03243, OSDI 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from servescope.loadgen.experiment import ArrivalSpec
from servescope.loadgen.papers.generator import About, Generator, single_calls
from servescope.loadgen.papers.lengths import Lengths, Quantiles, Zipf
from servescope.loadgen.program import Call

Size = Literal["short", "medium", "long", "sharegpt", "burstgpt"]

MOST = 6144  # tokens that the power laws end at
# The authors' benchmark: ranks below twice the mean, of this exponent, scaled to the mean.
_POWERS: dict[Size, Lengths] = {"short": Zipf.of(128, 2.0, MOST), "medium": Zipf.of(256, 1.5, MOST),
           "long": Zipf.of(512, 1.15, MOST)}  # fmt: skip
# Percentiles are Table 1's; the ends (ASSUMED) make the mean come out.
_INPUTS: Mapping[Size, Lengths] = {
    **_POWERS,
    "sharegpt": Quantiles(((0, 1), (0.5, 74), (0.8, 348), (0.95, 1484), (0.99, 3388), (1, 3547))),
    "burstgpt": Quantiles(((0, 50), (0.5, 582), (0.8, 1427), (0.95, 2345), (0.99, 3549),
                           (1, 5730))),
}  # fmt: skip
_OUTPUTS: Mapping[Size, Lengths] = {
    **_POWERS,
    "sharegpt": Quantiles(((0, 100), (0.5, 487), (0.8, 781), (0.95, 988), (0.99, 1234),
                           (1, 1735))),
    "burstgpt": Quantiles(((0, 20), (0.5, 243), (0.8, 434), (0.95, 669), (0.99, 964), (1, 1900))),
}  # fmt: skip


def _table(mean: float, p50: float, p80: float, p95: float, p99: float) -> dict[str, float]:
    return {"mean": mean, "p50": p50, "p80": p80, "p95": p95, "p99": p99}


_POWER_TABLE: dict[Size, Mapping[str, float]] = {
    "short": _table(128, 38, 113, 413, 1464),
    "medium": _table(256, 32, 173, 1288, 4208),
    "long": _table(512, 55, 582, 3113, 5166),
}
_TABLE: Mapping[str, Mapping[Size, Mapping[str, float]]] = {
    "input_tokens": {
        **_POWER_TABLE,
        "sharegpt": _table(306, 74, 348, 1484, 3388),
        "burstgpt": _table(830, 582, 1427, 2345, 3549),
    },
    "output_tokens": {
        **_POWER_TABLE,
        "sharegpt": _table(500, 487, 781, 988, 1234),
        "burstgpt": _table(271, 243, 434, 669, 964),
    },
}


@dataclass(frozen=True)
class Llumnix(Generator):
    """Independent calls with lengths of Table 1, at Poisson times or gamma ones of a CV.

    A share `high_priority` of them (0.1 in the paper) has priority -1 and the others 0; without,
    none has one.
    """

    inputs: Size = "medium"
    outputs: Size = "medium"
    cv: Annotated[float, Meta(gt=0)] = 1.0
    high_priority: Annotated[float, Meta(ge=0, le=1)] = 0.0

    def about(self) -> About:
        """Return what is known of the workload."""
        real = self.inputs in ("sharegpt", "burstgpt")
        ends = {"input_tokens": "the shape between percentiles, and the ends",
                "output_tokens": "the shape between percentiles, and the ends"}  # fmt: skip
        return About(
            says=f"Single calls, {self.inputs} prompts and {self.outputs} answers.",
            source="Llumnix, arXiv 2406.03243, Table 1"
            + ("" if real else ", and its benchmark's generator"),
            published={
                "input_tokens": _TABLE["input_tokens"][self.inputs],
                "output_tokens": _TABLE["output_tokens"][self.outputs],
            },
            assumed=ends if real else {},
        )

    def arrivals(self) -> ArrivalSpec:
        """Return arrivals at the rate of one LLaMA-7B on an A10 in the paper's first figures.

        The paper tunes the rate of each trace: P50 of the queueing near 0, P99 tens of seconds.
        """
        if self.cv == 1:
            return ArrivalSpec(process="poisson", rate_rps=0.42)
        return ArrivalSpec(process="gamma", rate_rps=0.42, params={"burstiness": self.cv**-2})

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield single calls."""
        inputs, outputs = _INPUTS[self.inputs], _OUTPUTS[self.outputs]
        return single_calls(rng, inputs, outputs, urgent=self.high_priority)
