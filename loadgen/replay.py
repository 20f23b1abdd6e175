"""Which calls are due: bookkeeping that is told the time and what has ended, with no clock."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from servescope.loadgen.workload import Call, Program, Workload


@dataclass(frozen=True, slots=True)
class Due:
    """A call whose time has come: when it was due, and when its last parent had ended.

    Both are seconds since the replay's start; `ready_s` is the program's start for a root.
    """

    call: Call
    due_s: float
    ready_s: float


class Replay:
    """The state of a workload that is being replayed.

    Open loop: a program starts at its planned moment whatever happened to the others. Within it, a
    call is due its delay after the end of its last parent; if a parent failed it is never sent.
    """

    def __init__(self, workload: Workload) -> None:
        self._programs = {program.id: program for program in workload.programs}
        self._calls = {call.id: call for call in workload.calls()}
        self._children: dict[str, list[Call]] = {}
        self._waiting_for: dict[str, int] = {}
        self._heap: list[tuple[float, int, Due]] = []
        self._pushed = 0
        self.unended = len(self._calls)
        for program in workload.programs:
            for call in program.calls:
                if call.parents:
                    self._waiting_for[call.id] = len(call.parents)
                    for parent in call.parents:
                        self._children.setdefault(parent, []).append(call)
                else:
                    self._push(call, program.start_s)

    @property
    def done(self) -> bool:
        """Whether every call has ended or been given up."""
        return self.unended == 0

    def next_due_s(self) -> float | None:
        """Return when the next call is due, or None while all that is left waits for a parent."""
        return self._heap[0][0] if self._heap else None

    def upcoming(self, count: int) -> list[Call]:
        """Return up to `count` of the calls that are due next, so that they can be prepared."""
        return [due.call for _, _, due in heapq.nsmallest(count, self._heap)]

    def take(self, now_s: float) -> list[Due]:
        """Return the calls due at or before `now_s`, in order; each is returned once."""
        due = []
        while self._heap and self._heap[0][0] <= now_s:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def ended(self, call_id: str, now_s: float, *, ok: bool) -> list[Call]:
        """Tell that a call has ended; returns the calls that are given up because it failed."""
        self.unended -= 1
        if not ok:
            return self._give_up(call_id)
        for child in self._children.get(call_id, ()):
            if child.id in self._waiting_for:  # not given up because of another parent
                self._waiting_for[child.id] -= 1
                if self._waiting_for[child.id] == 0:
                    self._push(child, now_s)
        return []

    def _give_up(self, call_id: str) -> list[Call]:
        lost = []
        for child in self._children.get(call_id, ()):
            if self._waiting_for.pop(child.id, None) is not None:
                self.unended -= 1
                lost += [child, *self._give_up(child.id)]
        return lost

    def _push(self, call: Call, ready_s: float) -> None:
        self._waiting_for.pop(call.id, None)
        due_s = max(ready_s + call.delay_s, self._program(call).start_s + call.offset_s)
        heapq.heappush(self._heap, (due_s, self._pushed, Due(call, due_s, ready_s)))
        self._pushed += 1

    def _program(self, call: Call) -> Program:
        return self._programs[call.program_id]
