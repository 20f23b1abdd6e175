"""The workloads of BurstGPT (arXiv 2401.17644): one university's months of ChatGPT and GPT-4."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta
from scipy.special import ndtr

from servescope.loadgen.experiment import ArrivalSpec
from servescope.loadgen.papers.generator import (
    About,
    Generator,
    Published,
    Turn,
    chain,
    names,
    single_calls,
)
from servescope.loadgen.papers.lengths import Lengths, Lognormal, Quantiles, Zipf, tokens
from servescope.loadgen.program import Call

SOURCE = "BurstGPT, arXiv 2401.17644, file BurstGPT_3 of release 2.0"
SPAN_S = 28_943_983 - 19_440_110
API_CALLS, SESSIONS = 5_110_404, 55_920

# Percentiles are the file's; the ends but API's 125,591 (ASSUMED) make the means come out.
_API_INPUT = Quantiles(((0, 3), (0.5, 326), (0.9, 794), (0.99, 3141), (0.9995, 5391),
                        (1, 125_591)))  # fmt: skip
_API_OUTPUT = Quantiles(((0, 1), (0.5, 14), (0.9, 111), (0.99, 804), (1, 2859)))
_CONV_OUTPUT = Quantiles(((0, 10), (0.5, 187), (0.9, 669), (0.99, 1067), (1, 1748)))
_GAP_S = Quantiles(((0, 2), (0.1, 20), (0.25, 42), (0.5, 131), (0.75, 533), (0.9, 2340),
                    (0.99, 78_903), (1, 938_146)))  # fmt: skip
# Shares of sessions of 1 to 10 turns; beyond, points (ASSUMED but P99 and the longest).
_TURNS = (0.355, 0.204, 0.119, 0.076, 0.051, 0.037, 0.028, 0.021, 0.018, 0.013)
_MORE_TURNS = Quantiles(((0, 1), (sum(_TURNS), 10.5), (0.96, 12.5), (0.98, 17), (0.99, 31),
                         (0.9993, 80), (1, 436)))  # fmt: skip
API_COPULA = 0.46  # correlation of normal scores, so that token counts correlate as in the trace
CONV_COPULA = 0.55
CONV_LOG = 6.1, 1.35  # mean and deviation of the logarithm of a conversation's prompts
# ASSUMED, so that contexts grow and shrink as in the trace: the first prompt's deviation, how often
# a context is cut, the length beyond which it always is, and the growth elsewhere.
_FIRST = Lognormal.of(170, 200)
_CUT = 0.15
_LONGEST = 6000
_GROWTH = Lognormal(math.log(162), 1.161)
# Fits of the trace: a lognormal's sigma for prompts and answers; mu is that of the median.
_FITS = 0.888, 1.468
# The authors' own generator: numbers of a Zipf law, clipped.
_ZIPF = Zipf(1.1, 1024, tail=True)

Law = Literal["trace", "lognormal", "zipf"]
Share = Annotated[float, Meta(gt=0)]


@dataclass(frozen=True)
class BurstGPTApi(Generator):
    """Single calls at gamma times of shape `alpha`: the CV of their gaps is 1 / sqrt(alpha).

    `lengths` are the trace's percentiles, lognormals fitted to it, or the Zipf law of exponent 1.1
    clipped at 1024 tokens that the authors' generator draws from. The shape is that of the median
    5-minute window, whose CV is 1.50; the authors' demonstration has 0.5.
    """

    alpha: Share = 1.5**-2
    lengths: Law = "trace"

    def about(self) -> About:
        """Return what is known of the workload."""
        known: Published = {
            "input_tokens": {"mean": 457, "p50": 326, "p90": 794, "p99": 3141},
            "output_tokens": {"mean": 68.9, "p50": 14, "p90": 111, "p99": 804, "corr": 0.183},
        }
        return About(
            says="Single calls of programs at bursty times: long prompts, short answers.",
            source=SOURCE,
            published=known if self.lengths == "trace" else {},
            assumed={
                "input_tokens": "the shape between percentiles; failed calls are left out",
                "output_tokens": "the shape between percentiles; failed calls are left out",
                "arrival_s": "a stationary rate: the day's rhythm is left out",
            },
        )

    def arrivals(self) -> ArrivalSpec:
        """Return gamma arrivals at the trace's mean rate."""
        return _gamma(API_CALLS / SPAN_S, self.alpha)

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield single calls."""
        inputs, outputs = _law(self.lengths, _API_INPUT, _API_OUTPUT)
        return single_calls(rng, inputs, outputs, correlation=API_COPULA * (self.lengths != "zipf"))


@dataclass(frozen=True)
class BurstGPTConv(Generator):
    """Sessions of people at gamma times of shape `alpha`, each a chain of turns.

    `lengths` are as for the API's calls. `gaps` between an answer and the next prompt are the
    trace's percentiles, or the lognormal fitted to them. A context grows by lognormal steps, and
    now and then the client cuts it to an even share of what it was, as often as in the trace.
    """

    alpha: Share = 0.92**-2
    lengths: Law = "trace"
    gaps: Literal["trace", "lognormal"] = "trace"

    def about(self) -> About:
        """Return what is known of the workload."""
        known: Published = {
            "calls": {"mean": 4.18, "p50": 2, "p75": 4, "p90": 9, "p99": 31, "=1": 0.355,
                      "=2": 0.204, "=3": 0.119},
            "input_tokens": {"mean": 953, "p50": 517, "p90": 2354, "p99": 5630},
            "output_tokens": {"mean": 272, "p50": 187, "p90": 669, "p99": 1067, "corr": 0.438},
            "first_input_tokens": {"mean": 170},
            "later_input_tokens": {"mean": 1199},
            "growth_tokens": {"mean": 187, "p10": -124, "p50": 125, "p90": 642},
            "pause_s": {"mean": 5709, "p10": 20, "p25": 42, "p50": 131, "p75": 533, "p90": 2340,
                        "p99": 78_903},
        }  # fmt: skip
        whole = self.lengths == "trace" and self.gaps == "trace"
        return About(
            says="Sessions of people with a chat: turns, long pauses, contexts that grow.",
            source=SOURCE,
            published=known if whole else {},
            assumed={
                "input_tokens": "the first prompt's deviation (200); that a context is cut at 15 %"
                " of turns and beyond 6,000 tokens, to an even share",
                "output_tokens": "the shape between percentiles",
                "delay_s": "the gaps between rows, which hold the answer's own seconds too, are"
                " taken as pauses",
                "arrival_s": "a stationary rate: the day's rhythm, 34.8 times between peak and"
                " trough, is left out",
            },
        )

    def arrivals(self) -> ArrivalSpec:
        """Return gamma arrivals of sessions at the trace's mean rate."""
        return _gamma(SESSIONS / SPAN_S, self.alpha)

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield sessions."""
        gaps: Lengths = _GAP_S if self.gaps == "trace" else Lognormal(5.18, 1.96)
        _, outputs = _law(self.lengths, _API_INPUT, _CONV_OUTPUT)
        for name in names():
            turns = _turns(float(rng.random()))
            prompts = _contexts(rng, turns)
            if self.lengths == "zipf":
                prompts = tokens(_ZIPF, rng.random(turns)).tolist()
            pauses = gaps.quantile(rng.random(turns)).tolist()
            score = (np.log(prompts) - CONV_LOG[0]) / CONV_LOG[1]
            free = rng.standard_normal(turns)
            mixed = CONV_COPULA * score + math.sqrt(1 - CONV_COPULA**2) * free
            answers = tokens(outputs, ndtr(mixed)).tolist()
            yield chain(
                name,
                [
                    Turn(prompt, answer, pause, "user", call_class="Conversation log")
                    for prompt, answer, pause in zip(prompts, answers, pauses, strict=True)
                ],
            )


def _contexts(rng: np.random.Generator, turns: int) -> list[int]:
    """Return the prompts of a session: each what was said before and more, or cut."""
    context = int(tokens(_FIRST, rng.random(1))[0])
    cut, kept = rng.random(turns) < _CUT, rng.random(turns)
    grown = tokens(_GROWTH, rng.random(turns)).tolist()
    prompts = [context]
    for place in range(1, turns):
        more = context + grown[place]
        context = max(1, round(context * kept[place])) if cut[place] or more > _LONGEST else more
        prompts.append(context)
    return prompts


def _turns(share: float) -> int:
    """Return how many turns a session has below which this share of sessions lies."""
    below = 0.0
    for turns, part in enumerate(_TURNS, 1):
        below += part
        if share < below:
            return turns
    return max(11, round(float(_MORE_TURNS.quantile(np.array(share)))))


def _law(law: Law, inputs: Lengths, outputs: Quantiles) -> tuple[Lengths, Lengths]:
    """Return the distributions of prompts and answers that a law stands for."""
    if law == "zipf":
        return _ZIPF, _ZIPF
    if law == "lognormal":
        medians = [float(each.quantile(np.array(0.5))) for each in (inputs, outputs)]
        return Lognormal(math.log(medians[0]), _FITS[0]), Lognormal(math.log(medians[1]), _FITS[1])
    return inputs, outputs


def _gamma(rate_rps: float, alpha: float) -> ArrivalSpec:
    return ArrivalSpec(process="gamma", rate_rps=rate_rps, params={"burstiness": alpha})
