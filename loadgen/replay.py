"""Which calls are due: bookkeeping that is told the time and what has ended, with no clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from servescope.loadgen.program import Call, Program

AHEAD = 512


@dataclass(frozen=True, slots=True)
class Due:
    """A call whose time has come: when it was due, and when its last parent had ended.

    Both are seconds since the replay's start; `ready_s` is the program's start for a root.
    """

    call: Call
    due_s: float
    ready_s: float


class Replay:
    """The state of a workload that is being replayed; programs are taken in as they are needed.

    Open loop: a program starts at its planned moment whatever happened to the others; `programs`
    come in order of their start. Closed loop: each of `users` runs one program after the other, and
    planned starts do not count; users begin `apart_s` after each other. Within a program, a call is
    due its delay after the end of its last parent; if a parent failed it is never sent. `from_s` is
    when a replay that had been stopped goes on: nothing is due before.
    """

    def __init__(
        self,
        programs: Iterable[Program],
        *,
        users: int | None = None,
        apart_s: float = 0.0,
        until_s: float | None = None,
        from_s: float = 0.0,
    ) -> None:
        self._source: Iterator[Program] | None = iter(programs)
        self._users = users
        self._until_s = until_s
        self._from_s = from_s
        # since when users are idle
        self._free = deque(from_s + k * apart_s for k in range(users or 0))
        self._programs: dict[str, tuple[Program, float]] = {}  # with the moment they began
        self._left: dict[str, int] = {}  # calls of a program that have not ended
        self._children: dict[str, list[Call]] = {}
        self._waiting_for: dict[str, int] = {}
        self._ready: dict[str, float] = {}  # the latest end of a parent so far
        self._roots: deque[Due] = deque()
        self._heap: list[tuple[float, int, Due]] = []
        self._pushed = 0
        self._unended = 0
        self._refill()

    @property
    def done(self) -> bool:
        """Whether every call has ended or been given up."""
        return self._unended == 0 and self._source is None

    def next_due_s(self) -> float | None:
        """Return when the next call is due, or None while all that is left waits for an end."""
        heads = [self._roots[0].due_s] if self._roots else []
        if self._heap:
            heads.append(self._heap[0][0])
        return min(heads, default=None)

    def upcoming(self, count: int) -> list[Call]:
        """Return up to `count` of the calls that are due next, so that they can be prepared."""
        followers = (due for _, _, due in heapq.nsmallest(count, self._heap))
        known = sorted([*islice(self._roots, count), *followers], key=lambda due: due.due_s)
        return [due.call for due in known[:count]]

    def program_of(self, call: Call) -> Program | None:
        """Return the program of a call, or None once all of its calls have ended."""
        begun = self._programs.get(call.program_id)
        return begun[0] if begun else None

    def began_s(self, call: Call) -> float:
        """Return when the program of a call that has not ended began."""
        return self._programs[call.program_id][1]

    def pause_s(self, call: Call) -> float | None:
        """Return the shortest pause after a call, if it alone holds up another one."""
        return min((each.delay_s for each in self._children.get(call.id, ())), default=None)

    def take(self, now_s: float) -> list[Due]:
        """Return the calls due at or before `now_s`, in order; each is returned once."""
        due = []
        while self._roots and self._roots[0].due_s <= now_s:
            due.append(self._roots.popleft())
            if not self._roots:
                self._refill()
        while self._heap and self._heap[0][0] <= now_s:
            due.append(heapq.heappop(self._heap)[2])
        return sorted(due, key=lambda due: due.due_s) if len(due) > 1 else due

    def ended(self, call: Call, now_s: float, *, ok: bool) -> list[Call]:
        """Tell that a call has ended; returns the calls that are given up because it failed."""
        lost: list[Call] = []
        if ok:
            for child in self._children.pop(call.id, ()):
                if child.id in self._waiting_for:  # not given up because of another parent
                    self._parent_ended(child, now_s)
        else:
            lost = self._give_up(call.id)
        self._count_off(call.program_id, 1 + len(lost), now_s)
        return lost

    def _refill(self) -> None:
        """Take in programs: enough to know what comes next, or one for each free user."""
        while self._source is not None:
            if self._users is None:
                if len(self._roots) >= AHEAD:
                    return
            elif not self._free:
                return
            program = next(self._source, None)
            if program is None or self._over(program):
                self._source = None
            else:
                self._begin(program)

    def _over(self, program: Program) -> bool:
        """Whether a program would begin after the replay's last second."""
        start_s = program.start_s if self._users is None else self._free[0]
        return self._until_s is not None and start_s >= self._until_s

    def _begin(self, program: Program) -> None:
        start_s = program.start_s if self._users is None else self._free.popleft()
        left = [call for call in program.calls if call.id not in program.ended]
        if not left:
            if self._users is not None:
                self._free.append(start_s)
            return
        self._programs[program.id] = program, start_s
        self._left[program.id] = len(left)
        self._unended += len(left)
        for call in left:
            waits = [parent for parent in call.parents if parent not in program.ended]
            before_s = max(
                (program.ended[p] for p in call.parents if p in program.ended), default=0
            )
            for parent in waits:
                self._children.setdefault(parent, []).append(call)
            if waits:
                self._waiting_for[call.id] = len(waits)
                self._ready[call.id] = before_s
            else:
                due = self._due(call, max(start_s, before_s))
                if self._users is None and not program.ended and call.offset_s == 0:
                    self._roots.append(due)
                else:
                    self._push(due)

    def _parent_ended(self, child: Call, now_s: float) -> None:
        self._waiting_for[child.id] -= 1
        self._ready[child.id] = max(now_s, self._ready[child.id])
        if self._waiting_for[child.id] == 0:
            del self._waiting_for[child.id]
            self._push(self._due(child, self._ready.pop(child.id)))

    def _give_up(self, call_id: str) -> list[Call]:
        lost: list[Call] = []
        failed = deque([call_id])
        while failed:
            for child in self._children.pop(failed.popleft(), ()):
                if self._waiting_for.pop(child.id, None) is not None:
                    self._ready.pop(child.id, None)
                    lost.append(child)
                    failed.append(child.id)
        return lost

    def _count_off(self, program_id: str, calls: int, now_s: float) -> None:
        self._unended -= calls
        self._left[program_id] -= calls
        if self._left[program_id] == 0:
            del self._left[program_id], self._programs[program_id]
            if self._users is not None:
                self._free.append(now_s)
                self._refill()

    def _push(self, due: Due) -> None:
        heapq.heappush(self._heap, (due.due_s, self._pushed, due))
        self._pushed += 1

    def _due(self, call: Call, ready_s: float) -> Due:
        due_s = self._programs[call.program_id][1] + call.offset_s
        if call.parents:
            due_s = max(ready_s + call.delay_s, due_s)
        return Due(call, max(due_s, self._from_s), ready_s)
