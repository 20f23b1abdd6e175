"""The workloads of Continuum (arXiv 2511.02230): agents that call tools between their turns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from servescope.loadgen.experiment import ArrivalSpec
from servescope.loadgen.papers.generator import About, Generator, Turn, chain, names
from servescope.loadgen.papers.lengths import Lengths, Lognormal, Quantiles, Reals
from servescope.loadgen.program import Call

Agent = Literal["swebench", "bfcl"]


@dataclass(frozen=True)
class Tool:
    """A tool of an agent: which share of its calls goes there, and how long they take (s)."""

    name: str
    share: float
    takes_s: Lengths


@dataclass(frozen=True, kw_only=True)
class _Agent:
    """An agent: its turns and all the tokens of a program, mean and deviation, and its tools.

    ASSUMED: the first prompt is as long as `first` turns' growth, `answer` is the share of a turn's
    growth that the model writes, the rest is the tool's.
    """

    turns: tuple[float, float]
    program_tokens: tuple[float, float]
    pause_s: tuple[float, float]
    first: float
    answer: float
    tools: tuple[Tool, ...]
    slowest: Mapping[str, float]


# The paper gives mean and deviation over all tools, and what the slowest tenth of `cd` and of
# `fetch_url` has of their delay. The other figures of tools are ASSUMED, so that these come out.
AGENTS: Mapping[Agent, _Agent] = {
    "swebench": _Agent(
        turns=(10.9, 2.1),
        program_tokens=(70_126, 19_732),
        pause_s=(0.925, 3.550),
        first=8.0,
        answer=0.2,
        tools=(
            Tool("cd", 0.30, Quantiles(((0, 0.01), (0.9, 0.2585), (1, 60.0)))),
            Tool("grep", 0.20, Lognormal.of(0.25, 0.5)),
            Tool("sed", 0.20, Lognormal.of(0.15, 0.3)),
            Tool("cat", 0.05, Lognormal.of(0.1, 0.2)),
            Tool("python", 0.25, Lognormal.of(1.961, 3.158)),
        ),
        slowest={"cd": 0.941},
    ),
    "bfcl": _Agent(
        turns=(6.3, 2.3),
        program_tokens=(93_256, 68_687),
        pause_s=(1.923, 2.133),
        first=0.4,
        answer=0.04,
        tools=(
            Tool("fetch_url", 0.4, Lognormal(math.log(1.4) - 1.344**2 / 2, 1.344)),
            Tool("search", 0.6, Lognormal.of(2.272, 0.79)),
        ),
        slowest={"fetch_url": 0.525},
    ),
}


@dataclass(frozen=True)
class Continuum(Generator):
    """Agents at Poisson times: turns whose contexts grow, and a tool between any two.

    `turns_scale` multiplies the turns of a program (the paper goes from 1 to 5), and leaves alone
    how much a context grows in one; `tools_scale` multiplies all pauses. The tokens of a program
    are those that all its calls send and get: a replayed agent has 51,000 that way in 8.5 turns,
    and 9,000 in its last context.
    """

    agent: Agent = "swebench"
    turns_scale: Annotated[float, Meta(gt=0)] = 1.0
    tools_scale: Annotated[float, Meta(ge=0)] = 1.0

    def about(self) -> About:
        """Return what is known of the workload."""
        known, what = AGENTS[self.agent], {"swebench": "SWE-Bench (mini-swe-agent, GPT-5)",
                                            "bfcl": "BFCL v4 web search"}[self.agent]  # fmt: skip
        pauses: dict[str, Mapping[str, float]] = {
            f"pause_s of {tool}": {"slowest tenth": share} for tool, share in known.slowest.items()
        }
        if self.tools_scale == 1:
            pauses["pause_s"] = dict(zip(("mean", "sd"), known.pause_s, strict=True))
        turns: dict[str, Mapping[str, float]] = {}
        if self.turns_scale == 1:
            turns["calls"] = dict(zip(("mean", "sd"), known.turns, strict=True))
            turns["program_tokens"] = dict(zip(("mean", "sd"), known.program_tokens, strict=True))
        return About(
            says=f"Agents of {what}: growing contexts, heavy-tailed tools, Poisson starts.",
            source="Continuum, arXiv 2511.02230v6, Table 2",
            published={**turns, **pauses},
            assumed={
                "input_tokens": "tokens per program are all that its calls send and get; the first"
                f" prompt is {known.first:g} turns' growth, steps are uneven (lognormal, sigma 1)",
                "output_tokens": f"{known.answer:.0%} of a turn's growth",
                "delay_s": "how often which tool is called, and the pauses of each, so that mean"
                " and deviation of all and the slowest tenth of "
                + " and ".join(known.slowest)
                + " come out",
            },
        )

    def arrivals(self) -> ArrivalSpec:
        """Return Poisson arrivals at the rate of the paper's turn scaling."""
        return ArrivalSpec(process="poisson", rate_rps=0.13)

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield agents."""
        agent = AGENTS[self.agent]
        step = _growth(agent)
        shares = np.cumsum([tool.share for tool in agent.tools])
        for name in names():
            turns = max(1, round(rng.normal(*agent.turns) * self.turns_scale))
            scale, uneven = step.quantile(rng.random(1))[0], rng.lognormal(0.0, 1.0, turns)
            prompts, answers = _contexts(agent, scale, uneven)
            chosen = np.searchsorted(shares, rng.random(turns) * shares[-1], side="right")
            slow = rng.random(turns)
            calls: list[Turn] = []
            said, pause_s = 0, 0.0
            for place in range(turns):
                tool = agent.tools[chosen[place]]
                called = tool.name if place < turns - 1 else None
                prompt = max(prompts[place], said + 1)  # that it holds all before is not rounded
                calls.append(Turn(prompt, answers[place], pause_s, "tool", called))
                said = prompt + answers[place]
                pause_s = float(tool.takes_s.quantile(slow[place])) * self.tools_scale
            yield chain(name, calls)


def _weight(agent: _Agent, turns: float) -> float:
    """Return the tokens that a program of so many turns sends and gets, in turns' growth."""
    return turns * (agent.first + agent.answer) + turns * (turns - 1) / 2


def _growth(agent: _Agent) -> Lognormal:
    """Return the law of a turn's growth (tokens) that makes a program's mean and deviation.

    Turns are more or fewer, and the rest of the deviation is the law's.
    """
    mean, sd = agent.turns
    chances = {
        turns: _below(turns + 0.5, mean, sd) - (_below(turns - 0.5, mean, sd) if turns > 1 else 0)
        for turns in range(1, 100)
    }
    first = sum(chance * _weight(agent, turns) for turns, chance in chances.items())
    second = sum(chance * _weight(agent, turns) ** 2 for turns, chance in chances.items())
    tokens, deviation = agent.program_tokens
    rest = (1 + (deviation / tokens) ** 2) / (second / first**2) - 1
    return Lognormal.of(tokens / first, tokens / first * math.sqrt(max(rest, 1e-12)))


def _below(value: float, mean: float, sd: float) -> float:
    return 0.5 * (1 + math.erf((value - mean) / sd / math.sqrt(2)))


def _contexts(agent: _Agent, scale: float, uneven: Reals) -> tuple[list[int], list[int]]:
    """Return prompts and answers of a program whose turns grow unevenly by `scale` on average.

    The unevenness is evened out within the program, so that it sends and gets as much as without.
    """
    turns = len(uneven)
    contexts = np.concatenate([[0.0], np.cumsum(uneven[:-1])])
    grown, wanted = contexts.sum() + agent.answer * uneven.sum(), _weight(agent, turns)
    factor = (wanted - turns * agent.first) / grown
    prompts = np.rint(scale * (agent.first + factor * contexts))
    answers = np.rint(scale * factor * agent.answer * uneven)
    return (
        np.maximum(prompts, 1).astype(np.int64).tolist(),
        np.maximum(answers, 1).astype(np.int64).tolist(),
    )
