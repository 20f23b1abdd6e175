"""The workloads of Sarathi-Serve (arXiv 2403.02310, OSDI 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from servescope.loadgen.experiment import ArrivalSpec
from servescope.loadgen.papers.generator import About, Generator, Published, single_calls
from servescope.loadgen.papers.lengths import Quantiles
from servescope.loadgen.program import Call

Dataset = Literal["chat", "arxiv"]

# Medians and P90 are Table 2's; the ends (ASSUMED) make the mean and the deviation come out.
_LENGTHS: Mapping[Dataset, tuple[Quantiles, Quantiles]] = {
    "chat": (
        Quantiles(((0, 168.3), (0.5, 1730), (0.9, 5696), (1, 7895.4))),
        Quantiles(((0, 88.8), (0.5, 415), (0.9, 834), (1, 1028.3))),
    ),
    "arxiv": (
        Quantiles(((0, 2500), (0.5, 7059), (0.9, 12985), (1, 15300))),
        Quantiles(((0, 80), (0.5, 208), (0.9, 371), (1, 440))),
    ),
}
_PUBLISHED: Mapping[Dataset, Published] = {
    "chat": {
        "input_tokens": {"mean": 2340, "p50": 1730, "p90": 5696, "sd": 2088.8},
        "output_tokens": {"mean": 438.7, "p50": 415, "p90": 834, "sd": 265.6},
    },
    "arxiv": {
        "input_tokens": {"p50": 7059, "p90": 12985, "sd": 3638},
        "output_tokens": {"p50": 208, "p90": 371, "sd": 101},
    },
}
_NAMES = {"chat": "openchat_sharegpt4", "arxiv": "arxiv_summarization"}
_SLOS = {
    f"{model} {kind}": f"p99(tbt)<{bound}, p50(queue)<2s"
    for model, bounds in {
        "Mistral-7B": ("100ms", "500ms"),
        "Yi-34B": ("200ms", "1s"),
        "Llama-2-70B": ("1s", "5s"),
        "Falcon-180B": ("1s", "5s"),
    }.items()
    for kind, bound in zip(("strict", "relaxed"), bounds, strict=True)
}


@dataclass(frozen=True)
class Sarathi(Generator):
    """Independent calls at Poisson times, with the lengths of one of two data sets.

    Between published percentiles the logarithm of a length is even. The deviations of the answers
    that Table 2 prints (101 for chat, 265 for arxiv) are taken as swapped: the data set that was
    released for chat has 265.6.
    """

    dataset: Dataset = "chat"

    def about(self) -> About:
        """Return what is known of the workload."""
        return About(
            says=f"Single calls with the lengths of {_NAMES[self.dataset]}, at Poisson times.",
            source="Sarathi-Serve, arXiv 2403.02310, Table 2",
            published=_PUBLISHED[self.dataset],
            slos=_SLOS,
            assumed={
                "input_tokens": "the shape between median, P90 and the ends, and the ends",
                "output_tokens": "the shape between median, P90 and the ends, and the ends;"
                " the deviations that are printed are swapped",
            },
        )

    def arrivals(self) -> ArrivalSpec:
        """Return Poisson arrivals at the rate of Table 4 (Yi-34B on two A100)."""
        return ArrivalSpec(process="poisson", rate_rps={"chat": 1.0, "arxiv": 0.5}[self.dataset])

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield single calls."""
        return single_calls(rng, *_LENGTHS[self.dataset])
