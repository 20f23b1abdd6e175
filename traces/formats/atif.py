"""ATIF: the Agent Trajectory Interchange Format of Harbor, with sub-agents."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from servescope.traces.formats import clock, jsonl, peek
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.source import File, Source
from servescope.traces.tokens import texts_of
from servescope.traces.trace import Trace

_VERSION = re.compile(rb'"schema_version"\s*:\s*"ATIF-v')
_COLUMNS = (
    "program_id",
    "turn",
    "parents",
    "delay_s",
    "delay_kind",
    "model",
    "call_class",
    "input_tokens",
    "output_tokens",
    "observed_cached_tokens",
    "image_count",
    "input_messages",
    "output_text",
)
_PROMPTS = (
    "Prompts are the steps up to each answer; what the agent left out of them before sending is not"
    " recorded."
)
_PARENTS = "the order of steps; sub-agents of one step are taken to run side by side"
_ARRIVALS = "the step's timestamp, which may be that of its end"
_PAUSES = "the gap between two timestamps, the time of a call included"

_Parts = list[dict[str, Any]]
_Key = tuple[str, ...]


class _Reference(msgspec.Struct):
    trajectory_path: str | None = None
    trajectory_id: str | None = None
    session_id: str | None = None


class _Result(msgspec.Struct):
    source_call_id: str | None = None
    content: str | _Parts | None = None
    subagent_trajectory_ref: list[_Reference] | None = None


class _Observation(msgspec.Struct):
    results: list[_Result] | None = None


class _Metrics(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


class _Step(msgspec.Struct):
    source: Literal["system", "user", "agent"]
    message: str | _Parts | None = None
    timestamp: str | None = None
    model_name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    observation: _Observation | None = None
    metrics: _Metrics | None = None
    is_copied_context: bool | None = None
    llm_call_count: int | None = None


class _Agent(msgspec.Struct):
    name: str
    model_name: str | None = None


class _Trajectory(msgspec.Struct):
    schema_version: str
    agent: _Agent
    steps: list[_Step]
    session_id: str | None = None
    trajectory_id: str | None = None
    continued_trajectory_ref: str | None = None
    subagent_trajectories: list[_Trajectory] | None = None


def sniff(head: bytes) -> bool:
    """Recognise the version that a trajectory says it has."""
    return head.lstrip().startswith((b"{", b"[")) and _VERSION.search(head) is not None


def read(source: Source) -> Trace:
    """Read trajectories: a call is a step of the agent that is not copied from another trajectory.

    Files are read twice: first for what waits for what, since a sub-agent does not say who called
    it, and then for the rest.
    """
    family, good = _Family(), []
    for file, trajectories in _documents(source):
        source.begin(file, family.rows + 1, unit="step")
        good.append(file)
        for place, trajectory in enumerate(trajectories):
            family.add(source, file, place, trajectory)
    links = family.links()
    stamped = any(link["stamp_ns"] is not None for link in links.values())

    def rows() -> Iterator[dict[str, Any]]:
        again = _documents(replace(source, files=tuple(good)))
        steps = (call for _, found in again for trajectory in found for call in _calls(trajectory))
        for row, call in enumerate(steps, start=1):
            if row in links:
                yield {"source_row": row, **links[row], **call}

    facts: dict[str, Any] = {"inferred": {"parents": _PARENTS}}
    if stamped:
        facts["inferred"] |= {"arrival_s": _ARRIVALS, "delay_s": _PAUSES}
        facts |= {"clock": "local" if family.local else "utc", "units": "dates and times"}
    trace = gather(
        source,
        tabulate(source, rows(), *_COLUMNS, *(["stamp_ns"] if stamped else [])),
        t0=lambda ns: f"{clock.text_of(ns)}{'' if family.local else '+00:00'}",
        check_links=True,
        format="atif",
        **facts,
    )
    return trace.doubting(_PROMPTS, *family.doubts())


def _documents(source: Source) -> Iterator[tuple[File, list[_Trajectory]]]:
    """Yield every file and its trajectories: one, a list, or an object of named ones."""
    for file in source.files:
        head = file.head().lstrip()
        kind: Any = _Trajectory
        if head.startswith(b"["):
            kind = list[_Trajectory]
        elif not {"schema_version", "steps"} & peek.paths(head):
            kind = dict[str, _Trajectory]
        for _, found in jsonl.documents(replace(source, files=(file,)), kind):
            several = found.values() if isinstance(found, dict) else found
            yield file, list(_each([found] if kind is _Trajectory else several))


def _each(trajectories: Iterable[_Trajectory]) -> Iterator[_Trajectory]:
    """Yield trajectories and those that are embedded in them."""
    waiting = [*trajectories][::-1]
    while waiting:
        trajectory = waiting.pop()
        yield trajectory
        waiting += (trajectory.subagent_trajectories or [])[::-1]


# --- what waits for what ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Call:
    row: int
    stamp_ns: int | None
    after_user: bool


@dataclass(frozen=True, slots=True)
class _Outline:
    """The calls of a trajectory, and the trajectories that it names, each after so many calls."""

    name: str
    calls: list[_Call]
    references: list[tuple[int, list[_Key]]]


class _Family:
    """All trajectories of a source, and who called whom."""

    def __init__(self) -> None:
        self.rows = 0
        self.local = False
        self._outlines: list[_Outline] = []
        self._places: dict[_Key, int] = {}
        self._found = Counter[str]()

    def add(self, source: Source, file: File, place: int, trajectory: _Trajectory) -> None:
        """Note a trajectory, the one at `place` in its file; its rows follow those before."""
        steps = trajectory.steps
        stamps = [self._stamp(source, self.rows + n, step) for n, step in enumerate(steps, 1)]
        stamped = None not in stamps
        calls, references, after_user = list[_Call](), list[tuple[int, list[_Key]]](), False
        for number, step in enumerate(steps):
            after_user |= step.source == "user"
            readable = step.timestamp is None or stamps[number] is not None
            if step.source == "agent" and _is_asked(step) and readable:
                stamp = stamps[number] if stamped else None
                calls.append(_Call(self.rows + number + 1, stamp, after_user))
                after_user = False
                self._found["sums"] += (step.llm_call_count or 1) > 1
            for result in _results(step):
                for reference in result.subagent_trajectory_ref or ():
                    references.append((len(calls), _keys_of(file, reference)))
        if trajectory.continued_trajectory_ref:
            later = _Reference(trajectory_path=trajectory.continued_trajectory_ref)
            references.append((len(calls), _keys_of(file, later)))
        name = trajectory.session_id or trajectory.trajectory_id or file.path.stem
        me = _Reference(file.path.name if not place else None, trajectory.trajectory_id, name)
        for key in _keys_of(file, me):
            self._places.setdefault(key, len(self._outlines))
        self._outlines.append(_Outline(name, calls, references))
        self.rows += len(steps)

    def links(self) -> dict[int, dict[str, Any]]:
        """Return what every call waits for, by row.

        A trajectory that a step names begins after the call of that step, and the next call waits
        for its end: what the step observed is its result.
        """
        callers, joined = self._calling()
        turns = Counter[str]()
        found = {}
        for me, outline in enumerate(self._outlines):
            program = self._outlines[_root(me, callers)].name
            for at, call in enumerate(outline.calls):
                waits = outline.calls[at - 1 : at] if at else self._before(me, callers)
                ends = (self._outlines[child].calls[-1:] for child in joined[me, at])
                waits = [*waits, *(last for end in ends for last in end)]
                kind = "unknown" if not at else "user" if call.after_user else "tool"
                found[call.row] = {
                    "program_id": program,
                    "turn": turns[program],
                    "parents": [str(other.row) for other in waits],
                    "delay_s": self._pause_s(call, waits),
                    "delay_kind": kind if waits else None,
                    "stamp_ns": call.stamp_ns,
                }
                turns[program] += 1
        return found

    def doubts(self) -> Iterator[str]:
        """Say what could not be known."""
        for what, problem in (
            ("sums", "steps stand for several calls to the model each; their tokens are sums."),
            (
                "lost",
                "references to trajectories are not followed: not in the source, or named before.",
            ),
            ("early", "calls are stamped before one that they wait for; their pause is 0."),
        ):
            if self._found[what]:
                yield f"{self._found[what]} {problem}"

    def _stamp(self, source: Source, row: int, step: _Step) -> int | None:
        if step.timestamp is None:
            return None
        stamp = clock.from_iso(step.timestamp)
        if stamp is None:
            source.reject(
                row,
                f"'timestamp' is {step.timestamp!r}, not a date and time.",
                "ATIF writes ISO 8601, 2025-01-15T14:00:03Z; mend the step.",
                reason="timestamp is no time",
            )
            return None
        self.local |= not stamp[1]
        return stamp[0]

    def _calling(self) -> tuple[dict[int, tuple[int, int]], dict[tuple[int, int], list[int]]]:
        """Return who called a trajectory after how many calls, and the reverse."""
        callers: dict[int, tuple[int, int]] = {}
        joined = defaultdict[tuple[int, int], list[int]](list)
        for me, outline in enumerate(self._outlines):
            for after, keys in outline.references:
                named = [self._places[key] for key in keys if key in self._places]
                child = next((c for c in named if c != me and c not in callers), None)
                if child is None:
                    self._found["lost"] += 1
                    continue
                callers[child] = me, after
                joined[me, after].append(child)
        return callers, joined

    def _before(self, me: int, callers: dict[int, tuple[int, int]]) -> list[_Call]:
        if me not in callers:
            return []
        caller, after = callers[me]
        return self._outlines[caller].calls[max(0, after - 1) : after]

    def _pause_s(self, call: _Call, waits: list[_Call]) -> float | None:
        stamps = [other.stamp_ns for other in waits if other.stamp_ns is not None]
        if call.stamp_ns is None or not stamps or len(stamps) < len(waits):
            return None
        pause_s = (call.stamp_ns - max(stamps)) / clock.NS_PER["s"]
        self._found["early"] += pause_s < -1
        return max(0.0, pause_s)


def _root(me: int, callers: dict[int, tuple[int, int]]) -> int:
    seen = {me}
    while me in callers and callers[me][0] not in seen:
        me = callers[me][0]
        seen.add(me)
    return me


def _keys_of(file: File, reference: _Reference) -> list[_Key]:
    """Return what a trajectory goes by: a path seen from its file, an id inside it, a session."""
    keys: list[_Key] = []
    if reference.trajectory_path:
        keys.append(("path", str(file.path.parent / reference.trajectory_path)))
    if reference.trajectory_id:
        keys.append(("id", str(file.path), reference.trajectory_id))
    if reference.session_id:
        keys.append(("session", reference.session_id))
    return keys


def _is_asked(step: _Step) -> bool:
    return not step.is_copied_context and step.llm_call_count != 0


# --- what was said ---------------------------------------------------------------------------


def _calls(trajectory: _Trajectory) -> Iterator[dict[str, Any]]:
    """Yield every step as the call that it is if it is one."""
    prompt: list[msgspec.Raw] = []
    images = 0
    for step in trajectory.steps:
        metrics = step.metrics or _Metrics()
        message, *results = _messages(step)
        said = [step.reasoning_content or "", *texts_of([message])]
        call = {
            "model": step.model_name or trajectory.agent.model_name,
            "call_class": trajectory.agent.name,
            "input_tokens": metrics.prompt_tokens,
            "output_tokens": metrics.completion_tokens,
            "observed_cached_tokens": metrics.cached_tokens,
            "image_count": images,
        }
        if step.source == "agent" and _is_asked(step):
            call["input_messages"] = msgspec.json.encode(prompt).decode() if prompt else None
            call["output_text"] = "\n".join(filter(None, said)) or None
        yield call
        for told in (message, *results):
            prompt.append(msgspec.Raw(msgspec.json.encode(told)))
            images += _images(told["content"])


def _messages(step: _Step) -> list[dict[str, Any]]:
    """Return a step as chat messages: its own, and one for each result that it observed."""
    role = "assistant" if step.source == "agent" else step.source
    own = {"role": role, "content": step.message}
    if step.tool_calls:
        own["tool_calls"] = step.tool_calls
    results = [
        {"role": "tool", "tool_call_id": result.source_call_id, "content": result.content}
        for result in _results(step)
        if result.content is not None
    ]
    return [own, *results]


def _results(step: _Step) -> list[_Result]:
    return (step.observation.results if step.observation else None) or []


def _images(content: str | _Parts | None) -> int:
    return sum(part.get("type") == "image" for part in content) if isinstance(content, list) else 0


FORMAT = Format(
    sniff,
    read,
    "ATIF agent trajectories (Harbor), with text",
    'a schema_version that begins with "ATIF-v"',
)
