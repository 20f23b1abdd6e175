"""What a named workload is: a frozen value that makes programs of a seed, without end."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from scipy.special import ndtr

from servescope.loadgen.experiment import ArrivalSpec
from servescope.loadgen.papers.lengths import Counts, Lengths, Reals, tokens
from servescope.loadgen.program import Call

PIECE = 4096  # calls whose lengths are drawn at once
Published = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class About:
    """What is known of a workload: one sentence, where it is from, figures to hold it against.

    `published` are figures by quantity and statistic, as `statistics.drawn` names them; `slos` are
    objectives by whose they are, in the language of `--slo`; `assumed` says by column what no
    source gives; an id of `prefix_blocks` stands for `block_tokens`.
    """

    says: str
    source: str
    published: Published = field(default_factory=dict)
    slos: Mapping[str, str] = field(default_factory=dict)
    assumed: Mapping[str, str] = field(default_factory=dict)
    block_tokens: int | None = None


class Generator(ABC):
    """A workload by its parameters: the fields of a frozen dataclass, each with a default."""

    @abstractmethod
    def about(self) -> About:
        """Return what is known of the workload with these parameters."""

    @abstractmethod
    def arrivals(self) -> ArrivalSpec:
        """Return the process that its programs start by, with the rate that it has by itself."""

    @abstractmethod
    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield programs without end, parents before children, in an order that nothing changes.

        Ids are unique among all; `number` and `last` are set by who takes the programs.
        """


@dataclass(frozen=True)
class Turn:
    """A call of a chain: its lengths, and the pause before it, whose that is, which tool's."""

    input_tokens: int
    output_tokens: int
    delay_s: float = 0.0
    pause: str | None = None
    tool: str | None = None
    call_class: str | None = None


def names() -> Iterator[str]:
    """Yield the ids of programs without end."""
    return (f"program-{row}" for row in count())


def chain(name: str, turns: Sequence[Turn]) -> tuple[Call, ...]:
    """Return calls that follow each other, each prompt holding all that was said before.

    A prompt that is shorter than that was cut by the client, and shares nothing with those before.
    The `tool` of a turn is what its answer calls.
    """
    calls: list[Call] = []
    stream, said = name, 0
    for place, turn in enumerate(turns):
        if turn.input_tokens < said:
            stream = f"{name}#{place}"
        said = turn.input_tokens + turn.output_tokens
        calls.append(
            Call(
                id=f"{name}-{place}" if len(turns) > 1 else name,
                program_id=name,
                turn=place,
                input_tokens=turn.input_tokens,
                output_tokens=turn.output_tokens,
                parents=(f"{name}-{place - 1}",) if place else (),
                delay_s=turn.delay_s if place else 0.0,
                prompt_stream=stream,
                pause=turn.pause if place else None,
                call_class=turn.call_class,
                tool=turn.tool,
            )
        )
    return tuple(calls)


def single_calls(
    rng: np.random.Generator,
    inputs: Lengths,
    outputs: Lengths,
    *,
    correlation: float = 0.0,
    most: tuple[float, float] = (math.inf, math.inf),
    urgent: float = 0.0,
) -> Iterator[tuple[Call, ...]]:
    """Yield programs of one call each; lengths are drawn in pieces.

    `correlation` is that of the normal numbers which the lengths are the quantiles of (a Gaussian
    copula). A share `urgent` of the calls has priority -1, and then all others 0.
    """
    for first in count(step=PIECE):
        said, answered = coupled(rng, correlation, PIECE)
        prompts, answers = tokens(inputs, said, most[0]), tokens(outputs, answered, most[1])
        hurry = rng.random(PIECE) < urgent if urgent else None
        for row in range(PIECE):
            name = f"program-{first + row}"
            call = Call(
                id=name,
                program_id=name,
                turn=0,
                input_tokens=int(prompts[row]),
                output_tokens=int(answers[row]),
                prompt_stream=name,
                priority=None if hurry is None else -int(hurry[row]),
            )
            yield (call,)


def coupled(rng: np.random.Generator, correlation: float, size: int) -> tuple[Reals, Reals]:
    """Return two rows of numbers even in (0, 1), whose normal scores correlate so much."""
    one, other = rng.standard_normal(size), rng.standard_normal(size)
    other = correlation * one + math.sqrt(1 - correlation**2) * other
    return ndtr(one), ndtr(other)


def normal_counts(rng: np.random.Generator, mean: float, sd: float, size: int) -> Counts:
    """Return whole numbers of about this mean and deviation, at least 1."""
    return np.maximum(np.rint(rng.normal(mean, sd, size)), 1).astype(np.int64)
