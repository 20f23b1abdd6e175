"""The workloads of Autellix (arXiv 2502.13965): programs of few, more and very many calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from servescope.loadgen.experiment import ArrivalSpec
from servescope.loadgen.papers.generator import About, Generator, Turn, chain, names
from servescope.loadgen.papers.lengths import Lognormal, tokens
from servescope.loadgen.program import Call

Kind = Literal["sharegpt", "bfcl", "lats"]

# Calls of a program, tokens in and out of a call, on average.
_MEANS: Mapping[Kind, tuple[float, float, float]] = {
    "sharegpt": (6.66, 256, 277),
    "bfcl": (10.75, 735, 34),
    "lats": (159.7, 467, 73),
}
_SAYS: Mapping[Kind, str] = {
    "sharegpt": "Conversations of ShareGPT: turn after turn, pauses of people.",
    "bfcl": "Agents of BFCL v3 that call functions: many short answers, pauses of tools.",
    "lats": "Tree searches (LATS): rounds of five branches side by side, generated and judged.",
}
_ASSUMED: Mapping[Kind, Mapping[str, str]] = {
    "sharegpt": {
        "input_tokens": "the mean is that of what is new in a prompt; a lognormal, CV 1",
        "output_tokens": "a lognormal, CV 1",
        "parents": "the turns are geometric",
        "delay_s": "a lognormal, mean 30 s and CV 1",
    },
    "bfcl": {
        "input_tokens": "the mean is that of whole prompts, which grow by an answer and 20 tokens",
        "output_tokens": "a lognormal, CV 0.5",
        "parents": "the turns are Poisson",
        "delay_s": "a lognormal, mean 1 s and CV 1",
    },
    "lats": {
        "input_tokens": "the mean is that of whole prompts; a lognormal, CV 0.5",
        "output_tokens": "a lognormal, CV 0.5",
        "parents": "five branches a round, each generated and then judged; the rounds are Poisson",
    },
}
BRANCHES = 5
RESULT_TOKENS = 20  # of a function, ASSUMED


@dataclass(frozen=True)
class Autellix(Generator):
    """Programs at Poisson times with the calls and the mean lengths of one of three kinds."""

    kind: Kind = "sharegpt"

    def about(self) -> About:
        """Return what is known of the workload."""
        calls, said, answered = _MEANS[self.kind]
        prompts = "new_tokens" if self.kind == "sharegpt" else "input_tokens"
        return About(
            says=_SAYS[self.kind],
            source="Autellix, arXiv 2502.13965",
            published={
                "calls": {"mean": calls},
                prompts: {"mean": said},
                "output_tokens": {"mean": answered},
            },
            assumed={**_ASSUMED[self.kind], "arrival_s": "a rate of one program a second"},
        )

    def arrivals(self) -> ArrivalSpec:
        """Return Poisson arrivals at one program a second (ASSUMED)."""
        return ArrivalSpec(process="poisson", rate_rps=1.0)

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield programs."""
        make = {"sharegpt": _conversation, "bfcl": _agent, "lats": _search}[self.kind]
        return (make(rng, name) for name in names())


def _conversation(rng: np.random.Generator, name: str) -> tuple[Call, ...]:
    calls, said, answered = _MEANS["sharegpt"]
    turns = int(rng.geometric(1 / calls))
    new = tokens(Lognormal.of(said, said), rng.random(turns)).tolist()
    answers = tokens(Lognormal.of(answered, answered), rng.random(turns)).tolist()
    return _grown(rng, name, new, answers, "user", 30.0, None)


def _agent(rng: np.random.Generator, name: str) -> tuple[Call, ...]:
    calls, said, answered = _MEANS["bfcl"]
    turns = 1 + int(rng.poisson(calls - 1))
    # n turns have (n - 1) / 2 before them on average, and programs of many turns weigh more
    before = (calls - 1 + (calls - 1) / calls) / 2
    first = round(said - before * (answered + RESULT_TOKENS))
    answers = tokens(Lognormal.of(answered, answered / 2), rng.random(turns)).tolist()
    new = [first, *[RESULT_TOKENS] * (turns - 1)]
    return _grown(rng, name, new, answers, "tool", 1.0, "function")


def _grown(
    rng: np.random.Generator,
    name: str,
    new: list[int],
    answers: list[int],
    pause: str,
    pause_s: float,
    tool: str | None,
) -> tuple[Call, ...]:
    """Return a chain whose prompts hold what is new and all that was said before."""
    waits = Lognormal.of(pause_s, pause_s).quantile(rng.random(len(new))).tolist()
    turns, said = [], 0
    for place, answer in enumerate(answers):
        prompt = said + new[place]
        called = tool if place < len(new) - 1 else None
        turns.append(Turn(prompt, answer, waits[place], pause, called))
        said = prompt + answer
    return chain(name, turns)


def _search(rng: np.random.Generator, name: str) -> tuple[Call, ...]:
    calls, said, answered = _MEANS["lats"]
    rounds = 1 + int(rng.poisson(calls / (2 * BRANCHES) - 1))
    size = 2 * BRANCHES * rounds
    prompts = tokens(Lognormal.of(said, said / 2), rng.random(size)).tolist()
    answers = tokens(Lognormal.of(answered, answered / 2), rng.random(size)).tolist()
    made = []
    for place in range(size):
        this, step = divmod(place, 2 * BRANCHES)
        judged = step >= BRANCHES
        if judged:
            parents: tuple[str, ...] = (f"{name}-{place - BRANCHES}",)
        else:
            before = 2 * BRANCHES * this
            parents = tuple(f"{name}-{each}" for each in range(max(0, before - BRANCHES), before))
        made.append(
            Call(
                id=f"{name}-{place}",
                program_id=name,
                turn=place,
                input_tokens=prompts[place],
                output_tokens=answers[place],
                parents=parents,
                prompt_stream=f"{name}-{place}",
                call_class="judge" if judged else "generate",
            )
        )
    return tuple(made)
