"""The workload of InferCept (arXiv 2402.01869): answers that tools interrupt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from servescope.loadgen.experiment import ArrivalSpec
from servescope.loadgen.papers.generator import (
    About,
    Generator,
    Turn,
    chain,
    names,
    normal_counts,
)
from servescope.loadgen.papers.lengths import Lognormal, tokens
from servescope.loadgen.program import Call

Kind = Literal["mixed", "math", "qa", "ve", "chatbot", "image", "tts"]


@dataclass(frozen=True)
class _Tool:
    """A tool: how long it takes (s), how often it interrupts, how long the context is then.

    Each is a mean and a deviation, from memory of the paper's Table 1.
    """

    takes_s: tuple[float, float]
    interruptions: tuple[float, float]
    context_tokens: tuple[float, float]


TOOLS: Mapping[str, _Tool] = {
    "math": _Tool((9e-5, 6e-5), (3.75, 1.3), (1422, 738)),
    "qa": _Tool((0.69, 0.17), (2.52, 1.73), (1846, 428)),
    "ve": _Tool((0.09, 0.014), (28.18, 15.2), (2185, 115)),
    "chatbot": _Tool((28.6, 15.6), (4.45, 1.96), (753, 703)),
    "image": _Tool((20.03, 7.8), (6.91, 3.93), (1247, 792)),
    "tts": _Tool((17.24, 7.6), (6.91, 3.93), (1251, 792)),
}
RESULT_TOKENS = 30  # that a tool returns, ASSUMED
OUTPUT_TOKENS = 40.0  # mean of what is generated up to a call of a tool, ASSUMED


@dataclass(frozen=True)
class InferCept(Generator):
    """Answers at Poisson times that stop for a tool and go on with what it returned.

    `kind` is one tool's requests, or as many of each (ASSUMED). The one who chats is a tool here as
    there.
    """

    kind: Kind = "mixed"

    def about(self) -> About:
        """Return what is known of the workload."""
        kinds = TOOLS if self.kind == "mixed" else {self.kind: TOOLS[self.kind]}
        return About(
            says="Answers that stop for tools, from arithmetic to images and people who chat.",
            source="InferCept, arXiv 2402.01869, Table 1 (from memory)",
            published={
                f"pause_s of {name}": {"mean": tool.takes_s[0], "sd": tool.takes_s[1]}
                for name, tool in kinds.items()
            },
            assumed={
                "input_tokens": "the context's mean and deviation are those of the first prompt;"
                f" a tool returns {RESULT_TOKENS} tokens",
                "output_tokens": f"a lognormal, mean {OUTPUT_TOKENS:g} and CV 0.5, between tools",
                "delay_s": "lognormals; the figures are from memory",
                "parents": "interruptions are normal, at least 1; the figures are from memory",
            },
        )

    def arrivals(self) -> ArrivalSpec:
        """Return Poisson arrivals at the lowest rate of the paper."""
        return ArrivalSpec(process="poisson", rate_rps=1.0)

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield answers."""
        kinds = list(TOOLS) if self.kind == "mixed" else [self.kind]
        for name in names():
            kind = kinds[int(rng.integers(len(kinds)))]
            tool = TOOLS[kind]
            stops = int(normal_counts(rng, *tool.interruptions, 1)[0])
            said = int(tokens(Lognormal.of(*tool.context_tokens), rng.random(1))[0])
            answers = Lognormal.of(OUTPUT_TOKENS, OUTPUT_TOKENS / 2)
            parts = tokens(answers, rng.random(stops + 1)).tolist()
            waits = Lognormal.of(*tool.takes_s).quantile(rng.random(stops + 1)).tolist()
            turns = []
            for place, answer in enumerate(parts):
                called = kind if place < stops else None
                turns.append(Turn(said, answer, waits[place], "tool", called, kind))
                said += answer + RESULT_TOKENS
            yield chain(name, turns)
