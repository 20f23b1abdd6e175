"""Programs of calls as the sessions of AIPerf's dag_jsonl, which fork and spawn each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from servescope.traces.formats import clock
from servescope.traces.formats.export import losses, new_file
from servescope.traces.trace import Trace

_HELD = ("program_id", "parents", "delay_s", "model", "output_tokens", "content_ref")
_TEXTS = ("input_messages", "input_text")
_WHOLE = "message_array_with_responses"
Call = dict[str, Any]


def write(trace: Trace, path: Path) -> list[str]:
    """Write every program as a session, and calls that run beside its own as forks and spawns.

    Prompts without text are made of words, one a token, that repeat where prefix blocks do.
    """
    made = unsaid = 0
    taken: set[str] = set()
    with new_file(path) as file:
        for name, calls in _programs(trace):
            sessions = sessions_of(calls)
            unsaid += sum(session.unsaid for session in sessions)
            names = _names(name, len(sessions), taken)
            for session in sessions:
                turns = []
                for turn, call in enumerate(session.calls):
                    messages = _messages(call)
                    made += messages is None
                    turns.append(
                        _turn(call, turn, messages or _made_up(trace, call), session, names)
                    )
                line: dict[str, Any] = {
                    "session_id": names[session.number],
                    "context_mode": _WHOLE,
                }
                if session.beside:
                    line["pre_session_spawns"] = [names[number] for number in session.beside]
                file.write(msgspec.json.encode({**line, "turns": turns}) + b"\n")
    doubts = []
    if made:
        doubts.append(
            f"{made} prompts have no text: theirs is made up, one word a token, which a tokenizer"
            " may count differently."
        )
    if unsaid:
        doubts.append(
            f"{unsaid} waits of calls for others have no place in sessions, and are lost."
        )
    held = [*_HELD, *(("prefix_blocks",) if made else ()), "input_tokens"]
    return doubts + losses(trace, *held)


@dataclass
class Session:
    """Calls that follow each other, and the sessions that they start.

    `forks` and `spawns` name, by the turn that starts them, the numbers of other sessions; a spawn
    is joined before a later turn. `beside` begin when the session does. `unsaid` counts waits that
    have no place.
    """

    number: int
    calls: list[Call] = field(default_factory=list)
    forks: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    spawns: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    beside: list[int] = field(default_factory=list)
    unsaid: int = 0


def sessions_of(calls: list[Call]) -> list[Session]:
    """Part the calls of a program, parents before children, into sessions.

    A call goes on with the session of its first parent if no later call does; else it begins one
    that this parent starts. The other parents are joined where they end a session that the call's
    own session started.
    """
    there = {call["call_id"] for call in calls}
    parents = {c["call_id"]: [p for p in c["parents"] or [] if p in there] for c in calls}
    goes_on = {waits[0]: name for name, waits in parents.items() if waits}
    sessions: list[Session] = []
    places: dict[str, tuple[Session, int]] = {}
    started: dict[int, tuple[Session, int]] = {}
    for call in calls:
        name = call["call_id"]
        waits = [parent for parent in parents[name] if parent in places]
        if waits and goes_on[waits[0]] == name:
            session = places[waits[0]][0]
        else:
            session = Session(len(sessions))
            if waits:
                started[session.number] = places[waits[0]]
            elif sessions:
                sessions[0].beside.append(session.number)
            sessions.append(session)
        places[name] = (session, len(session.calls))
        session.calls.append(call)
    joined = dict[int, tuple[Session, int]]()
    for call in calls:
        session, turn = places[call["call_id"]]
        for parent in parents[call["call_id"]][1:]:
            child, last = places.get(parent, (session, -1))
            starter, at = started.get(child.number, (None, -1))
            ends = last == len(child.calls) - 1 and child.number not in joined
            if ends and starter is session and at < turn:
                joined[child.number] = (session, turn)
                session.spawns[at].append((child.number, turn))
            else:
                session.unsaid += 1
    for number, (starter, at) in started.items():
        if number not in joined:
            starter.forks[at].append(number)
    return sessions


def _programs(trace: Trace) -> Iterator[tuple[str, list[Call]]]:
    """Yield the calls of each program, in the order in which programs first appear."""
    frame = trace.frame
    there = set(trace.columns)
    name = pl.col("program_id") if "program_id" in there else pl.lit(None, pl.String)
    frame = frame.with_columns(
        _program=pl.coalesce(name, "call_id"),
        **{c: pl.lit(None) for c in (*_HELD, "prefix_blocks") if c not in there},
    ).with_columns(_first=pl.int_range(pl.len()).min().over("_program"))
    if "contents" in trace.tables and "content_ref" in there:
        texts = trace.tables["contents"].select("content_ref", *_TEXTS)
        frame = frame.join(texts, on="content_ref", how="left", maintain_order="left")
    else:
        frame = frame.with_columns(pl.lit(None, pl.String).alias(c) for c in _TEXTS)
    wanted = ("_program", "call_id", "input_tokens", "prefix_blocks", *_HELD, *_TEXTS)
    held: list[Call] = []
    query = frame.sort("_first", maintain_order=True).select(*dict.fromkeys(wanted))
    for batch in query.collect_batches(maintain_order=True):
        for call in batch.iter_rows(named=True):
            if held and held[0]["_program"] != call["_program"]:
                yield held[0]["_program"], held
                held = []
            held.append(call)
    if held:
        yield held[0]["_program"], held


def _names(program: str, count: int, taken: set[str]) -> list[str]:
    """Return a name for each session of a program that no other session has."""
    names = [program, *(f"{program}.{number}" for number in range(1, count))]
    while not taken.isdisjoint(names):
        names = [f"{name}_" for name in names]
    taken.update(names)
    return names


def _turn(
    call: Call, turn: int, messages: list[Any], session: Session, names: list[str]
) -> dict[str, Any]:
    written = {
        "messages": messages,
        "model": call["model"],
        "max_tokens": call["output_tokens"] or None,
        "delay": None
        if not call["delay_s"]
        else call["delay_s"] * clock.NS_PER["s"] / clock.NS_PER["ms"],
        "forks": [names[number] for number in session.forks.get(turn, ())] or None,
        "spawns": [
            {"children": [names[number]], "join_at": join_at}
            for number, join_at in session.spawns.get(turn, ())
        ]
        or None,
    }
    return {name: value for name, value in written.items() if value is not None}


def _messages(call: Call) -> list[Any] | None:
    if call["input_messages"] is not None:
        return msgspec.json.decode(call["input_messages"], type=list[msgspec.Raw])
    if call["input_text"] is not None:
        return [{"role": "user", "content": call["input_text"]}]
    return None


def _made_up(trace: Trace, call: Call) -> list[Any]:
    """Return a prompt of as many words as tokens: of a block, its id; else the call's own name."""
    tokens = call["input_tokens"] or 1
    size = trace.provenance.block_tokens or tokens
    scope = "" if trace.provenance.block_scope == "global" else f"{call['_program']}-"
    words = [f"{scope}{block}" for block in call["prefix_blocks"] or () for _ in range(size)]
    words += [call["call_id"]] * (tokens - len(words))
    return [{"role": "user", "content": " ".join(words[:tokens])}]
