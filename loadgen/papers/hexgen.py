"""The workload of HexGen-Text2SQL (arXiv 2505.05286): questions that become SQL, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from servescope.loadgen.experiment import ArrivalSpec
from servescope.loadgen.papers.generator import About, Generator, names
from servescope.loadgen.papers.lengths import Lognormal, tokens
from servescope.loadgen.program import Call

Name = Literal["trace1", "trace2", "trace3", "financial", "formula1"]

RETRIEVE, KEYWORDS, CANDIDATE = "IR", "extract_keywords", "generate_candidate"
REVISE, TESTER, TEST, EVALUATE = "revise", "unit_tester", "generate_unit_test", "evaluate"

# Seconds that a stage takes on a GPU by measurement of the authors (A40 and A800 are left out).
STAGE_S: Mapping[str, Mapping[str, float]] = {
    RETRIEVE: {"A100": 0.2253, "A6000": 0.4869, "L40": 0.4003, "H100": 0.1012},
    KEYWORDS: {"A100": 1.1359, "A6000": 2.1088, "L40": 2.0330, "H100": 0.5469},
    CANDIDATE: {"A100": 18.2363, "A6000": 34.2747, "L40": 32.6221, "H100": 8.7863},
    REVISE: {"A100": 3.3314, "A6000": 8.0309, "L40": 5.8850, "H100": 1.4280},
    TESTER: {"A100": 0.1735, "A6000": 0.3907, "L40": 0.3077, "H100": 0.0763},
    TEST: {"A100": 2.5385, "A6000": 4.5617, "L40": 4.5497, "H100": 1.2382},
    EVALUATE: {"A100": 0.8670, "A6000": 1.7923, "L40": 1.5440, "H100": 0.3985},
}
STANDARD_WORKFLOW = (
    RETRIEVE, KEYWORDS, *(RETRIEVE,) * 3, CANDIDATE, *(REVISE,) * 4, TESTER, TEST, TESTER, EVALUATE,
    TESTER,
)  # fmt: skip
# Tokens that all prompts of a stage begin with; candidates are asked for in two ways.
TEMPLATES: Mapping[str, int] = {RETRIEVE: 213, KEYWORDS: 630, f"{CANDIDATE} 0": 9158,
                                f"{CANDIDATE} 1": 5292, REVISE: 3059, TESTER: 213, TEST: 436,
                                EVALUATE: 261}  # fmt: skip
BLOCK_TOKENS = 16  # the block of the authors' simulator
_FIRST = {name: row << 20 for row, name in enumerate(TEMPLATES)}
_SHARED = {
    name: tuple(range(_FIRST[name], _FIRST[name] + size // BLOCK_TOKENS))
    for name, size in TEMPLATES.items()
}


@dataclass(frozen=True, kw_only=True)
class _Trace:
    """What a trace is like: mean tokens in and out of stages, how often which stage comes.

    `revised` is the mean number of revisions where there are any, and the most; `whole` the
    published figures of a query. All stages that are not named are as in trace1.
    """

    lengths: Mapping[str, tuple[float, float]]
    keywords: float
    revises: float
    revised: tuple[float, int]
    evaluates: float
    whole: Mapping[str, float]


_LENGTHS = {RETRIEVE: (306, 7), KEYWORDS: (669, 44), CANDIDATE: (10_000, 680), REVISE: (5954, 82),
            TESTER: (275, 5), TEST: (1110, 102), EVALUATE: (960, 29)}  # fmt: skip
_EVALUATED = 5.12, 6  # mean where there are any, and the most
# Of trace1 all stages are known but how many queries are evaluated; of trace2 and trace3 the shares
# of queries with keywords and revisions, and trace3's revisions, follow from the calls and tokens
# of a query; financial and formula1 have only those, so that their stages are ASSUMED.
_TRACES: Mapping[Name, _Trace] = {
    "trace1": _Trace(
        lengths={}, keywords=60 / 90, revises=80 / 90, revised=(4.20, 9), evaluates=0.945,
        whole={"calls": 19.24, "input": 50_500, "output": 1981},
    ),
    "trace2": _Trace(
        lengths={CANDIDATE: (11_947, 741), REVISE: (7993, 122)}, keywords=0.905, revises=0.929,
        revised=(5.0, 10), evaluates=1.0, whole={"calls": 20.67, "input": 69_700, "output": 2386},
    ),
    "trace3": _Trace(
        lengths={CANDIDATE: (10_768, 696), REVISE: (7163, 157)}, keywords=0.80, revises=0.90,
        revised=(5.5, 10), evaluates=1.0, whole={"calls": 20.87, "input": 65_600, "output": 2505},
    ),
    "financial": _Trace(
        lengths={CANDIDATE: (10_663, 631)}, keywords=60 / 90, revises=0.10, revised=(3.9, 9),
        evaluates=0.945, whole={"calls": 15.89, "input": 31_900, "output": 1600},
    ),
    "formula1": _Trace(
        lengths={CANDIDATE: (10_663, 631)}, keywords=60 / 90, revises=0.48, revised=(3.9, 9),
        evaluates=0.945, whole={"calls": 17.38},
    ),
}  # fmt: skip
_PUBLISHED_STAGES: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "trace1": {
        f"calls of {KEYWORDS}": {"present": 60 / 90},
        f"calls of {REVISE}": {"present": 80 / 90, "mean": 4.20},
        f"calls of {EVALUATE}": {"mean": 5.12},
        f"input_tokens of {RETRIEVE}": {"mean": 306},
        f"input_tokens of {KEYWORDS}": {"mean": 669},
        f"input_tokens of {CANDIDATE}": {"mean": 10_000, "p90": 12_088},
        f"output_tokens of {CANDIDATE}": {"mean": 680, "p90": 984},
        f"input_tokens of {REVISE}": {"mean": 5954},
        f"output_tokens of {REVISE}": {"mean": 82},
        f"input_tokens of {TEST}": {"mean": 1110},
        f"input_tokens of {EVALUATE}": {"mean": 960},
    },
    "trace2": {
        f"calls of {REVISE}": {"mean": 5.0},
        f"input_tokens of {CANDIDATE}": {"mean": 11_947},
        f"output_tokens of {CANDIDATE}": {"mean": 741},
        f"input_tokens of {REVISE}": {"mean": 7993},
        f"output_tokens of {REVISE}": {"mean": 122},
    },
    "trace3": {
        f"calls of {REVISE}": {"mean": 5.5},
        f"input_tokens of {CANDIDATE}": {"mean": 10_768},
        f"output_tokens of {CANDIDATE}": {"mean": 696},
    },
}
_WHOLE = {"calls": "calls", "input": "program_input_tokens", "output": "program_output_tokens"}


def stage_s(stage: str) -> float:
    """Return the seconds of a stage, on average over the GPUs that are known."""
    return math.fsum(STAGE_S[stage].values()) / len(STAGE_S[stage])


def slo_s() -> float:
    """Return the authors' deadline at a scale of 1: the standard workflow, stage after stage."""
    return math.fsum(stage_s(stage) for stage in STANDARD_WORKFLOW)


@dataclass(frozen=True)
class HexGen(Generator):
    """Questions at Poisson times, each a graph of stages and one deadline for all of it.

    Candidates are generated side by side and evaluated side by side; all else follows one another.
    The deadline is `slo_scale` times `slo_s()` after the start (the authors go from 3.0 to 14.8).
    """

    trace: Name = "trace1"
    slo_scale: Annotated[float, Meta(gt=0)] = 5.0

    def about(self) -> About:
        """Return what is known of the workload."""
        whole = {_WHOLE[key]: {"mean": value} for key, value in _TRACES[self.trace].whole.items()}
        rest = self.trace in ("financial", "formula1")
        return About(
            says="Text-to-SQL questions: a graph of stages with one deadline and shared templates.",
            source=f"HexGen-Text2SQL, arXiv 2505.05286, {self.trace} of its simulator",
            published={**whole, **_PUBLISHED_STAGES.get(self.trace, {})},
            assumed={
                "input_tokens": "how far a prompt strays from its stage's mean; that candidates are"
                " asked for once with each template" + ("; the stages' lengths" if rest else ""),
                "output_tokens": "how far an answer strays from its stage's mean, but candidates'",
                "parents": "how often a stage comes, where only the whole is published"
                + ("" if rest else f"; evaluation in {_TRACES[self.trace].evaluates:.1%}"),
                "deadline_s": "the scale; the times on A40 and A800 are not in the mean",
            },
            block_tokens=BLOCK_TOKENS,
        )

    def arrivals(self) -> ArrivalSpec:
        """Return Poisson arrivals at the lower of the two rates that the authors sweep."""
        return ArrivalSpec(process="poisson", rate_rps=0.5)

    def programs(self, rng: np.random.Generator) -> Iterator[tuple[Call, ...]]:
        """Yield questions."""
        trace = _TRACES[self.trace]
        deadline_s = self.slo_scale * slo_s()
        draw = {
            stage: _Stage.of(stage, *(trace.lengths.get(stage) or mean))
            for stage, mean in _LENGTHS.items()
        }
        for name in names():
            calls: list[Call] = []
            for row in _graph(rng, trace):
                _add(calls, rng, name, row, draw, deadline_s)
            yield tuple(calls)


def _graph(rng: np.random.Generator, trace: _Trace) -> list[tuple[str, int]]:
    """Return the stages of a question in their order, and how many calls of each go together."""
    has_keywords, has_revises, has_evaluate = rng.random(3) < (
        trace.keywords, trace.revises, trace.evaluates,
    )  # fmt: skip
    revises, evaluates = _some(rng, *trace.revised), _some(rng, *_EVALUATED)
    return [
        (RETRIEVE, 1),
        *([(KEYWORDS, 1)] if has_keywords else []),
        *[(RETRIEVE, 1)] * 3,
        (CANDIDATE, 2),
        *[(REVISE, 1)] * (revises if has_revises else 0),
        (TESTER, 1),
        (TEST, 1),
        (TESTER, 1),
        *([(EVALUATE, evaluates)] if has_evaluate else []),
        (TESTER, 1),
    ]


def _some(rng: np.random.Generator, mean: float, most: int) -> int:
    """Return a whole number from 1 to `most` of this mean: ASSUMED binomial."""
    return 1 + int(rng.binomial(most - 1, (mean - 1) / (most - 1)))


@dataclass(frozen=True)
class _Stage:
    """What the prompts of a stage have beside their template, and its answers."""

    own: Lognormal
    answer: Lognormal

    @classmethod
    def of(cls, stage: str, input_tokens: float, output_tokens: float) -> _Stage:
        """Return a stage of these means.

        ASSUMED deviations: of what is not template 30 %, of an answer 20 %; for candidates what
        makes trace1's P90 come out.
        """
        if stage == CANDIDATE:
            own = input_tokens - (TEMPLATES[f"{CANDIDATE} 0"] + TEMPLATES[f"{CANDIDATE} 1"]) / 2
            return cls(
                Lognormal.of(own, 0.067 * own), Lognormal.of(output_tokens, 0.34 * output_tokens)
            )
        own = input_tokens - TEMPLATES[stage]
        return cls(Lognormal.of(own, 0.3 * own), Lognormal.of(output_tokens, 0.2 * output_tokens))


def _add(
    calls: list[Call],
    rng: np.random.Generator,
    program: str,
    row: tuple[str, int],
    draw: Mapping[str, _Stage],
    deadline_s: float,
) -> None:
    """Add calls of one stage that go together, after all of the one before."""
    stage, beside = row
    before = calls[-1].parents if calls else ()
    parents = tuple(call.id for call in calls if call.parents == before) if calls else ()
    made = draw[stage]
    own, answers = tokens(made.own, rng.random(beside)), tokens(made.answer, rng.random(beside))
    first = len(calls)
    for place in range(beside):
        template = f"{stage} {place % 2}" if stage == CANDIDATE else stage
        calls.append(
            Call(
                id=f"{program}-{first + place}",
                program_id=program,
                turn=first + place,
                input_tokens=TEMPLATES[template] + int(own[place]),
                output_tokens=int(answers[place]),
                parents=parents,
                prompt_stream=f"{program}-{first + place}",
                prefix_blocks=_SHARED[template],
                call_class=stage,
                deadline_s=deadline_s,
            )
        )
