"""The workloads of semi-PD (arXiv 2504.19867)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from servescope.loadgen.experiment import ArrivalSpec
from servescope.loadgen.papers.generator import About, Generator, Published, single_calls
from servescope.loadgen.papers.lengths import Lognormal
from servescope.loadgen.program import Call

Dataset = Literal["sharegpt", "longbench"]

# Mean and deviation of prompts and answers. Of these the paper gives only the mean ShareGPT prompt.
_LENGTHS: Mapping[Dataset, tuple[tuple[float, float], tuple[float, float]]] = {
    "sharegpt": ((251, 330), (196, 190)),
    "longbench": ((3200, 2400), (91, 90)),
}
_PUBLISHED: Mapping[Dataset, Published] = {
    "sharegpt": {"input_tokens": {"mean": 251}},
    "longbench": {},
}
_ASSUMED: Mapping[Dataset, Mapping[str, str]] = {
    "sharegpt": {
        "input_tokens": "a lognormal, and its deviation; the mean is that of the mixed workload's"
        " ShareGPT part",
        "output_tokens": "a lognormal of mean 196, as SGLang's benchmark draws from ShareGPT (from"
        " memory), and its deviation",
    },
    "longbench": {
        "input_tokens": "a lognormal of mean 3200: a tight TTFT of 2.25 s is 7.5 times a request"
        " alone, 0.3 s of prefill for Llama-3-8B on an A100; and its deviation",
        "output_tokens": "a lognormal of mean 91, as DistServe has LongBench (from memory), and its"
        " deviation",
    },
}
_SLOS: Mapping[Dataset, Mapping[str, str]] = {
    "sharegpt": {
        "Llama-3-8B tight": "ttft<300ms, tpot<150ms",
        "Llama-3-8B loose": "ttft<400ms, tpot<200ms",
        "Llama-3-70B tight": "ttft<850ms, tpot<300ms",
        "Llama-3-70B loose": "ttft<1100ms, tpot<400ms",
    },
    "longbench": {
        "Llama-3-8B tight": "ttft<2250ms, tpot<130ms",
        "Llama-3-8B loose": "ttft<3s, tpot<180ms",
        "Llama-3-70B tight": "ttft<6s, tpot<300ms",
        "Llama-3-70B loose": "ttft<8s, tpot<400ms",
    },
}


@dataclass(frozen=True)
class SemiPD(Generator):
    """Independent calls at Poisson times; a prompt has at most `context_tokens`, less its answer.

    10,240 is the context length that the authors launch with.
    """

    dataset: Dataset = "sharegpt"
    context_tokens: int = 10_240

    def about(self) -> About:
        """Return what is known of the workload."""
        return About(
            says=f"Single calls like those of {self.dataset}, at Poisson times.",
            source="semi-PD, arXiv 2504.19867",
            published=_PUBLISHED[self.dataset],
            slos=_SLOS[self.dataset],
            assumed=_ASSUMED[self.dataset],
        )

    def arrivals(self) -> ArrivalSpec:
        """Return Poisson arrivals at a rate of the paper's figures: 8B ShareGPT, 70B LongBench."""
        rate_rps = {"sharegpt": 10.5, "longbench": 1.0}[self.dataset]
        return ArrivalSpec(process="poisson", rate_rps=rate_rps)

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield single calls."""
        inputs, outputs = (Lognormal.of(*each) for each in _LENGTHS[self.dataset])
        answer = self.context_tokens // 5
        return single_calls(rng, inputs, outputs, most=(self.context_tokens - answer, answer))
