"""Which calls are due: bookkeeping that is told the time and what has ended, with no clock."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from itertools import islice

from servescope.loadgen.program import Call
from servescope.loadgen.workload import Workload


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
        self._starts = {program.id: program.start_s for program in workload.programs}
        self._children: dict[str, list[Call]] = {}
        self._waiting_for: dict[str, int] = {}
        roots: list[Due] = []
        for program in workload.programs:
            for call in program.calls:
                for parent in call.parents:
                    self._children.setdefault(parent, []).append(call)
                if call.parents:
                    self._waiting_for[call.id] = len(call.parents)
                else:
                    roots.append(self._due(call, program.start_s))
        # Roots are known from the start and stay sorted; only what waits for an end needs a heap.
        self._roots = deque(sorted(roots, key=lambda due: due.due_s))
        self._heap: list[tuple[float, int, Due]] = []
        self._pushed = 0
        self.unended = len(roots) + len(self._waiting_for)

    @property
    def done(self) -> bool:
        """Whether every call has ended or been given up."""
        return self.unended == 0

    def next_due_s(self) -> float | None:
        """Return when the next call is due, or None while all that is left waits for a parent."""
        heads = [self._roots[0].due_s] if self._roots else []
        if self._heap:
            heads.append(self._heap[0][0])
        return min(heads, default=None)

    def upcoming(self, count: int) -> list[Call]:
        """Return up to `count` of the calls that are due next, so that they can be prepared."""
        followers = (due for _, _, due in heapq.nsmallest(count, self._heap))
        known = sorted([*islice(self._roots, count), *followers], key=lambda due: due.due_s)
        return [due.call for due in known[:count]]

    def take(self, now_s: float) -> list[Due]:
        """Return the calls due at or before `now_s`, in order; each is returned once."""
        due = []
        while self._roots and self._roots[0].due_s <= now_s:
            due.append(self._roots.popleft())
        while self._heap and self._heap[0][0] <= now_s:
            due.append(heapq.heappop(self._heap)[2])
        return sorted(due, key=lambda due: due.due_s)

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
        lost: list[Call] = []
        failed = deque([call_id])
        while failed:
            for child in self._children.get(failed.popleft(), ()):
                if self._waiting_for.pop(child.id, None) is not None:
                    lost.append(child)
                    failed.append(child.id)
        self.unended -= len(lost)
        return lost

    def _push(self, call: Call, ready_s: float) -> None:
        del self._waiting_for[call.id]
        due = self._due(call, ready_s)
        heapq.heappush(self._heap, (due.due_s, self._pushed, due))
        self._pushed += 1

    def _due(self, call: Call, ready_s: float) -> Due:
        earliest_s = self._starts[call.program_id] + call.offset_s
        return Due(call, max(ready_s + call.delay_s, earliest_s), ready_s)
