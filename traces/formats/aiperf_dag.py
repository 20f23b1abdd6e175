"""AIPerf's dag_jsonl and multi_turn: conversations that start each other, one a line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from servescope.traces.errors import BadRow
from servescope.traces.formats import clock, jsonl, links, peek
from servescope.traces.formats.aiperf_write import write
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather, tabulate
from servescope.traces.formats.mooncake import on_its_clock, stamp_of, t0_of, units_of
from servescope.traces.formats.source import Source
from servescope.traces.trace import Trace

_CAP = "max_tokens, the most that the answer may have: it may be shorter"
_LIVE = (
    "Answers of earlier turns are not in the file, since AIPerf takes them from the server: prompts"
    " lack them."
)
_MOST_CALLS = 1_000_000  # of one root
_WHOLE = "message_array_with_responses"
_Count = Annotated[int, msgspec.Meta(ge=1)]


class _Fork(msgspec.Struct):
    child: str
    background: bool = False


class _Spawn(msgspec.Struct):
    children: Annotated[list[str], msgspec.Meta(min_length=1)]
    join_at: int | None = None


class _Turn(msgspec.Struct):
    """A turn of dag_jsonl has messages, one of multi_turn a text and maybe a time."""

    messages: list[msgspec.Raw] | None = None
    text: str | None = None
    texts: list[str] | None = None
    role: str = "user"
    model: str | None = None
    max_tokens: _Count | None = None
    output_length: int | None = None
    timestamp: int | float | None = None
    delay: float | None = None
    forks: list[str | _Fork] = []
    spawns: list[str | _Spawn] = []


class _Session(msgspec.Struct):
    session_id: str
    turns: list[_Turn] = []
    pre_session_spawns: list[str] = []
    context_mode: str | None = None
    orchestrator: bool = False

    def children(self) -> Iterator[str]:
        """Every session that this one starts, as often as it does."""
        yield from self.pre_session_spawns
        for turn in self.turns:
            yield from (fork if isinstance(fork, str) else fork.child for fork in turn.forks)
            for spawn in turn.spawns:
                yield from [spawn] if isinstance(spawn, str) else spawn.children


def sniff(head: bytes) -> bool:
    """Recognise a session with turns of messages, or of texts."""
    found = peek.paths(head)
    of_text = {"turns[].text", "turns[].texts"}
    return "session_id" in found and bool(found & {"turns[].messages[]", "orchestrator", *of_text})


def read(source: Source) -> Trace:
    """Read sessions and expand them from the roots, those that no other session starts.

    The file is one graph whose lines name each other in any order, so it is held whole, the
    messages as bytes. A call waits for the turn before it, or for the turn that started its
    session, and for the last turns of the children that are joined before it.
    """
    unit = source.options.unit or "ms"
    graph = _Graph(source, unit)
    graph.read()
    trace = gather(
        source,
        tabulate(source, graph.calls(), *graph.columns()),
        check_links=True,
        format="aiperf_dag",
        t0=lambda ns: t0_of(ns, unit),
        clock="source" if graph.timed else None,
        units=units_of(unit),
        inferred={"output_tokens": _CAP} if graph.capped else {},
    )
    return on_its_clock(trace).doubting(*graph.doubts())


@dataclass
class _Visit:
    """A session being expanded: how it is called, what its first turn waits for, what was said."""

    session: _Session
    name: str
    parents: list[str]
    said: list[msgspec.Raw] = field(default_factory=list)
    turn: int = 0
    joins: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class _Graph:
    """All sessions of a source by name, and the calls that they become."""

    source: Source
    unit: str
    sessions: dict[str, _Session] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    started: Counter[str] = field(default_factory=Counter)
    timed: bool = False
    capped: bool = False

    def read(self) -> None:
        """Take in all sessions that make sense, and count how often each is started."""
        for row, session in jsonl.records(self.source, _Session):
            problem = self._problem(session)
            if problem is None:
                self.sessions[session.session_id] = session
                self.rows[session.session_id] = row
            else:
                self.source.reject(row, *problem, reason="not a session of AIPerf")
        while bad := self._astray():
            for name, said in bad.items():
                self.source.reject(
                    self.rows[name],
                    said,
                    "Mend its forks and spawns; each names another session of the file.",
                    reason="sessions astray",
                )
                del self.sessions[name]
        for session in self.sessions.values():
            self.started.update(session.children())
            self.timed |= any(turn.timestamp is not None for turn in session.turns)
            self.capped |= any(turn.max_tokens is not None for turn in session.turns)

    def _astray(self) -> dict[str, str]:
        """Return the sessions that start what is not there, or themselves, and what is wrong."""
        starts = {name: list(session.children()) for name, session in self.sessions.items()}
        lost = {
            name: f"session {name} starts {child}, which is not in the file."
            for name, children in starts.items()
            for child in children
            if child not in self.sessions
        }
        return lost or {
            name: f"session {name} starts itself, directly or through others."
            for name in links.cycles(starts.items())
        }

    def columns(self) -> tuple[str, ...]:
        """Return the columns that calls have; without any time there is none of arrivals."""
        return (
            *("call_id", "program_id", "turn", "model", "parents", "delay_s", "delay_kind"),
            *("output_tokens", "input_messages"),
            *(("stamp_ns",) if self.timed else ()),
        )

    def calls(self) -> Iterator[dict[str, Any]]:
        """Expand every root, and what it starts, parents before children."""
        names: Counter[str] = Counter()
        for root in self.sessions:
            if self.started[root]:
                continue
            place = 0
            visits = [self._visit(root, names, [])]
            while visits:
                visit = visits[-1]
                if visit.turn == len(visit.session.turns):
                    visits.pop()
                    continue
                call = self._call(visit, root, place)
                if call is not None:
                    yield call
                visits += reversed(self._started_by(visit, names))
                visit.turn += 1
                place += 1
                if place > _MOST_CALLS:
                    raise BadRow(
                        f"{self.source.where(self.rows[root])}: session {root} becomes more than"
                        f" {_MOST_CALLS:,} calls.",
                        "Sessions that are spawned more than once multiply; spawn fewer.",
                    )

    def doubts(self) -> list[str]:
        """Say what is odd about the sessions that were read."""
        adding = (s for s in self.sessions.values() if s.context_mode != _WHOLE)
        lacks = any(len(session.turns) > 1 or session.turns[0].forks for session in adding)
        return [_LIVE] if lacks else []

    def _visit(self, session: str, names: Counter[str], parents: list[str]) -> _Visit:
        """Begin a session; one that is started again gets a name of its own."""
        names[session] += 1
        count = names[session]
        name = session if count == 1 else f"{session}~{count}"
        return _Visit(self.sessions[session], name, parents)

    def _started_by(self, visit: _Visit, names: Counter[str]) -> list[_Visit]:
        """Begin what the present turn starts, and note before which turn it is joined."""
        session, turn = visit.session, visit.session.turns[visit.turn]
        here = [f"{visit.name}/{visit.turn}"]
        early = [] if visit.turn else session.pre_session_spawns
        fresh = [self._visit(child, names, visit.parents) for child in early]
        for fork in turn.forks:
            child = self._visit(fork if isinstance(fork, str) else fork.child, names, here)
            child.said = list(visit.said)
            fresh.append(child)
        for spawn in turn.spawns:
            children = [spawn] if isinstance(spawn, str) else spawn.children
            join_at = None if isinstance(spawn, str) else spawn.join_at
            for name in children:
                child = self._visit(name, names, here)
                last = f"{child.name}/{len(child.session.turns) - 1}"
                visit.joins[join_at or visit.turn + 1].append(last)
                fresh.append(child)
        return fresh

    def _call(self, visit: _Visit, root: str, place: int) -> dict[str, Any] | None:
        turn, row = visit.session.turns[visit.turn], self.rows[visit.session.session_id]
        before = [f"{visit.name}/{visit.turn - 1}"] if visit.turn else visit.parents
        parents = [*before, *visit.joins[visit.turn]]
        said = turn.messages or [
            msgspec.Raw(msgspec.json.encode({"role": turn.role, "content": text}))
            for text in (turn.texts or [turn.text or ""])
        ]
        visit.said = said if visit.session.context_mode == _WHOLE else [*visit.said, *said]
        call: dict[str, Any] = {
            "source_row": row,
            "call_id": f"{visit.name}/{visit.turn}",
            "program_id": root,
            "turn": place,
            "model": turn.model,
            "parents": parents,
            "output_tokens": turn.output_length
            if turn.output_length is not None
            else turn.max_tokens,
            "input_messages": msgspec.json.encode(visit.said).decode(),
        }
        if parents and turn.timestamp is None:
            call["delay_s"] = (turn.delay or 0.0) * clock.NS_PER[self.unit] / clock.NS_PER["s"]
        if parents:
            call["delay_kind"] = "unknown"
        if turn.timestamp is not None:
            call["stamp_ns"] = stamp_of(self.source, row, turn.timestamp, self.unit)
            if call["stamp_ns"] is None:
                return None
        return call

    def _problem(self, session: _Session) -> tuple[str, str] | None:
        if session.session_id in self.sessions:
            return (
                f"a session {session.session_id} came before.",
                "Give every session an id of its own.",
            )
        if session.orchestrator:
            return (
                f"session {session.session_id} is an orchestrator, which is not read.",
                "Write the calls that it makes as sessions that are spawned.",
            )
        if not session.turns:
            return f"session {session.session_id} has no turns.", "Give it one or more."
        for number, turn in enumerate(session.turns):
            if not turn.messages and turn.text is None and not turn.texts:
                return f"turn {number} has no messages.", "Say what is asked."
            if not all(map(_is_message, turn.messages or ())):
                return f"turn {number} has a message that is no JSON object.", "Mend the line."
            for spawn in turn.spawns:
                join_at = None if isinstance(spawn, str) else spawn.join_at
                if join_at is not None and not number < join_at < len(session.turns):
                    return (
                        f"turn {number} spawns sessions to be joined at turn {join_at}.",
                        "Name a later turn of the session, counted from 0.",
                    )
        return None


def _is_message(message: msgspec.Raw) -> bool:
    """Say whether bytes that were not looked into are a JSON object."""
    try:
        msgspec.json.decode(message, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


FORMAT = Format(
    sniff,
    read,
    "AIPerf's dag_jsonl and multi_turn: sessions that fork and spawn sessions",
    "the fields session_id and turns, with messages or a text in each turn",
    write,
)
