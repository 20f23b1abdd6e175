"""HexGen-Text2SQL (arXiv 2505.05286): stages of a query on unlike GPUs, by what they may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from servescope.engine.policy import Batch, Parts, View
from servescope.engine.request import Request
from servescope.engine.step_time import Load
from servescope.engine.systems.admission import Admission
from servescope.engine.systems.batching import decodes_alone

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica

# Seconds that a stage takes, measured by the authors (their simulator's t_emp).
STAGE_S: Mapping[str, Mapping[str, float]] = {
    "A100": {"IR": 0.2253, "extract_keywords": 1.1359, "generate_candidate": 18.2363,
             "revise": 3.3314, "unit_tester": 0.1735, "generate_unit_test": 2.5385,
             "evaluate": 0.8670},
    "A6000": {"IR": 0.4869, "extract_keywords": 2.1088, "generate_candidate": 34.2747,
              "revise": 8.0309, "unit_tester": 0.3907, "generate_unit_test": 4.5617,
              "evaluate": 1.7923},
    "L40": {"IR": 0.4003, "extract_keywords": 2.0330, "generate_candidate": 32.6221,
            "revise": 5.8850, "unit_tester": 0.3077, "generate_unit_test": 4.5497,
            "evaluate": 1.5440},
    "H100": {"IR": 0.1012, "extract_keywords": 0.5469, "generate_candidate": 8.7863,
             "revise": 1.4280, "unit_tester": 0.0763, "generate_unit_test": 1.2382,
             "evaluate": 0.3985},
    "A40": {"IR": 0.4932, "extract_keywords": 2.5157, "generate_candidate": 40.3525,
            "revise": 13.8657, "unit_tester": 0.3786, "generate_unit_test": 5.6343,
            "evaluate": 1.9049},
    "A800": {"IR": 0.1020, "extract_keywords": 0.7857, "generate_candidate": 10.2678,
             "revise": 2.4632, "unit_tester": 0.0970, "generate_unit_test": 1.6258,
             "evaluate": 0.8296},
}  # fmt: skip
# Tokens in and out of each stage, on average: what other GPUs are profiled with.
STAGE_TOKENS: Mapping[str, tuple[int, int]] = {
    "IR": (308, 5), "extract_keywords": (667, 45), "generate_candidate": (11_748, 678),
    "revise": (5963, 79), "unit_tester": (275, 4), "generate_unit_test": (1109, 103),
    "evaluate": (961, 22),
}  # fmt: skip
STANDARD_WORKFLOW = (
    "IR", "extract_keywords", "IR", "IR", "IR", "generate_candidate", "revise", "revise", "revise",
    "revise", "unit_tester", "generate_unit_test", "unit_tester", "evaluate", "unit_tester",
)  # fmt: skip
SLOW = ("A6000", "L40")  # whose load counts half
OTHER_OUTPUT = 128  # ASSUMED of a call that names no stage


@dataclass(frozen=True, slots=True)
class HexGenText2Sql:
    """Dispatch by the balance of work, with `alpha` for speed; serve the most urgent stage first.

    A stage's budget is its share of what is left until the query's deadline (`deadline_s` of the
    request; without one, the sum of the standard workflow). A step computes the one prompt that is
    most urgent, if it fits, or else decodes. The ablations: `balanced` false is round robin,
    `urgent` false first come, first served. Stages are known by `call_class`; their times by the
    authors' table or, on other GPUs or when `profiled`, from the step time. With
    `shared_workflow_bug` all queries use up one list of stages, as in the first release.
    """

    alpha: Annotated[float, Meta(ge=0, le=1)] = 0.0
    balanced: bool = True
    urgent: bool = True
    profiled: bool = False
    shared_workflow_bug: bool = False
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    def parts(self, replicas: int) -> Parts:
        """Return the dispatcher, the urgency queue and the stage budgets."""
        books = _Stages(self)
        return Parts(
            _Urgency(self, books),
            annotate=books,
            dispatch=_Balance(self, books) if self.balanced else None,
            deployed=books.profile,
        )


class _Stages:
    """How long each stage takes where, and what is left to do of each query."""

    def __init__(self, system: HexGenText2Sql) -> None:
        self._system = system
        self._left: dict[str, list[str]] = {}
        self._means: dict[str, float] = {}
        self._gpus: list[str] = []
        self._steps: list[Callable[[Load], float]] = []

    def profile(self, replicas: Sequence[Replica]) -> None:
        """See which GPUs there are."""
        self._gpus = [family(replica.gpu) for replica in replicas]
        self._steps = [replica.engine.step_time for replica in replicas]

    def takes_s(self, request: Request, replica: int) -> float:
        """Return the time of a request on a replica, by its stage (t_emp)."""
        return self._stage_s(request.call_class or "", request, replica)

    def _stage_s(self, stage: str, request: Request, replica: int) -> float:
        known = STAGE_S.get(self._gpus[replica], {})
        if stage in known and not self._system.profiled:
            return known[stage]
        prompt, output = STAGE_TOKENS.get(stage, (request.input_tokens, OTHER_OUTPUT))
        step = self._steps[replica]
        prefill = step(Load(prompt, 1, 0, prompt * (prompt + 1) / 2))
        return prefill + (output - 1) * step(Load(1, 1, prompt, 0.0))

    def gpu(self, replica: int) -> str:
        """Return the GPU of a replica."""
        return self._gpus[replica]

    def arrived(self, request: Request, now: float) -> None:
        """Rank a request by the moment at which its stage should be done."""
        stage, left = request.call_class or "", self._workflow(request)
        if stage in left:
            left.remove(stage)
        if stage == "unit_tester":  # revisions are over
            left[:] = [each for each in left if each != "revise"]
        request.rank = now + self.budget_s(request, left, now)

    def budget_s(self, request: Request, left: Sequence[str], now: float) -> float:
        """Return a stage's share of the time that is left, by the mean times of the stages.

        `left` are the stages that come after it.
        """
        own = self._mean_s(request.call_class or "", request)
        rest = sum(self._mean_s(each, request) for each in left)
        began_s = request.program_began_s
        total_s = (
            sum(self._mean_s(each, request) for each in STANDARD_WORKFLOW)
            if request.deadline_s is None
            else request.deadline_s - began_s
        )
        return (total_s - (now - began_s)) * own / (own + rest)

    def prompted(self, request: Request, now: float) -> None:
        """A first token changes no budget."""

    def finished(self, request: Request, now: float) -> None:
        """Forget a query that is done."""
        if request.last and request.program_id is not None:
            self._left.pop(request.program_id, None)

    def _workflow(self, request: Request) -> list[str]:
        """Return what is left of a query: a list of its own, or with the bug one for all."""
        if self._system.shared_workflow_bug:
            return self._left.setdefault("", list(STANDARD_WORKFLOW))
        if request.program_id is None:
            return []
        return self._left.setdefault(request.program_id, list(STANDARD_WORKFLOW))

    def _mean_s(self, stage: str, request: Request) -> float:
        """Return the time of a stage, on average over the replicas."""
        if stage not in self._means:
            times = [self._stage_s(stage, request, place) for place in range(len(self._gpus))]
            if stage not in STAGE_TOKENS:
                return mean(times)
            self._means[stage] = mean(times)
        return self._means[stage]


class _Balance:
    """WB(alpha): the work that was ever sent somewhere against how fast it is there."""

    def __init__(self, system: HexGenText2Sql, stages: _Stages) -> None:
        self._alpha = system.alpha
        self._stages = stages
        self._work: dict[int, float] = {}

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return the place of the best score; work is never taken off again, as in the code."""
        numbers = [replica.number for replica in replicas]
        takes = [self._stages.takes_s(request, number) for number in numbers]
        first = self._work.get(numbers[0], 0.0)
        place = 0
        if first > 0:
            scores = [
                self._alpha * takes[0] / takes[each]
                - (1 - self._alpha) * self._work.get(number, 0.0) * self._weight(number) / first
                for each, number in enumerate(numbers)
            ]
            place = scores.index(max(scores))
        self._work[numbers[place]] = self._work.get(numbers[place], 0.0) + takes[place]
        return place

    def _weight(self, number: int) -> float:
        return 0.5 if self._stages.gpu(number) in SLOW else 1.0


class _Urgency:
    """One prompt a step, the most urgent; or else all decodes."""

    def __init__(self, system: HexGenText2Sql, stages: _Stages) -> None:
        self._system = system
        self._stages = stages

    def plan(self, view: View) -> Batch:
        seats = self._system.max_num_seqs - len(view.decoding)
        step = Admission(view, min(1, seats), None, view.pool.room)
        if step.open and view.waiting:
            step.offer(self._next(view))
        if step.admit:
            return Batch(admit=step.admit, prefill=step.prefill)
        return decodes_alone(view)

    def _next(self, view: View) -> Request:
        """Return the request that has the least time left before it must begin."""
        if not self._system.urgent:
            return next(iter(view.waiting))

        def slack(request: Request) -> float:
            return request.rank - self._stages.takes_s(request, view.replica)

        return min(view.waiting, key=slack)


def family(gpu: str) -> str:
    """Return the name that the authors' table has for a GPU."""
    return {"L40S": "L40"}.get(gpu, gpu.split("-")[0])
