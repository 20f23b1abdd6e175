"""Which replica a call goes to, and which priority it carries: no clock, no socket.

Another package adds a policy by an entry point of the group `servescope.dispatch` or
`servescope.priority`: something that is called with the number of replicas, or with nothing, and
the parameters by name.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from servescope.loadgen.program import Call, Program
from servescope.traces.errors import InputError
from servescope.traces.plugins import installed

# ASSUMED where nothing is given: seconds per token of a 70B model on an A100, as HexGen has them.
PREFILL_S, DECODE_S = 0.0002, 0.035
_REMEMBERED = 1 << 16  # prefix blocks


class Replica(NamedTuple):
    """What is known of a replica: calls and tokens in flight from here, and how free it says it is.

    `freeness` is larger for a freer server, and None where the server says nothing.
    """

    calls: int = 0
    tokens: int = 0
    freeness: float | None = None


class Dispatch(Protocol):
    """A dispatch policy; it may keep what it has decided before."""

    def pick(self, call: Call, replicas: Sequence[Replica]) -> int:
        """Return the number of the replica that a call goes to."""
        ...


class RoundRobin:
    """Each in turn, by the call's place in the plan: the same whatever the number of workers."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def pick(self, call: Call, replicas: Sequence[Replica]) -> int:
        """Return the number of the replica that a call goes to."""
        return call.number % self._replicas


class LeastOutstanding:
    """The replica with the fewest calls in flight; among equals, each in turn."""

    def __init__(self, replicas: int) -> None:
        self._last = replicas - 1

    def pick(self, call: Call, replicas: Sequence[Replica]) -> int:
        """Return the number of the replica that a call goes to."""
        count = len(replicas)
        turn = range(self._last + 1, self._last + 1 + count)
        self._last = min((k % count for k in turn), key=lambda k: replicas[k].calls)
        return self._last


class SessionSticky:
    """All calls of a program to one replica, chosen by a hash of the program's name."""

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def pick(self, call: Call, replicas: Sequence[Replica]) -> int:
        """Return the number of the replica that a call goes to."""
        return _hashed(call.program_id) % self._replicas


class PrefixAffinity:
    """The replica that has seen the most of a prompt's leading blocks, unless it is too busy.

    Too busy is more than `slack` calls above `overload` times the mean. A prompt of which nothing
    was seen, and one that meets a busy replica, goes where the fewest calls are in flight; a prompt
    without blocks stays with its program.
    """

    def __init__(self, replicas: int, overload: float = 1.5, slack: float = 4.0) -> None:
        self._overload, self._slack = overload, slack
        self._least = LeastOutstanding(replicas)
        self._seen: OrderedDict[int, int] = OrderedDict()  # a block's last replica

    def pick(self, call: Call, replicas: Sequence[Replica]) -> int:
        """Return the number of the replica that a call goes to."""
        blocks = call.prefix_blocks or (_hashed(call.prompt_stream or call.program_id),)
        home = self._home(blocks)
        mean = sum(replica.calls for replica in replicas) / len(replicas)
        if home is None or replicas[home].calls > self._overload * mean + self._slack:
            home = self._least.pick(call, replicas)
        for block in blocks:
            self._seen[block] = home
            self._seen.move_to_end(block)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return home

    def _home(self, blocks: Sequence[int]) -> int | None:
        """Return the replica of the longest known run of leading blocks."""
        home = None
        for block in blocks:
            seen = self._seen.get(block)
            if seen is None:
                break
            home = seen
        return home


class WorkloadBalanced:
    """HexGen's dispatch over unlike replicas (arXiv 2505.05286, as its simulator has it).

    `speeds` are relative, one a replica, separated by slashes. The work given to a replica never
    decays, as in the released code; its hardware factor k is 1 here.
    """

    def __init__(
        self,
        replicas: int,
        alpha: float = 0.0,
        speeds: str = "",
        prefill_s: float = PREFILL_S,
        decode_s: float = DECODE_S,
    ) -> None:
        self._alpha = alpha
        self._per_token = prefill_s, decode_s
        self._speeds = [float(speed) for speed in speeds.split("/")] if speeds else [1.0] * replicas
        if len(self._speeds) != replicas or min(self._speeds) <= 0:
            raise ValueError(f"speeds must be {replicas} numbers above 0, like 1/0.5")
        self._work = [0.0] * replicas

    def pick(self, call: Call, replicas: Sequence[Replica]) -> int:
        """Return the number of the replica that a call goes to."""
        cost = service_s(call, *self._per_token)
        times = [cost / speed for speed in self._speeds]
        first = self._work[0]
        chosen = 0
        if first > 0:
            scores = [
                self._alpha * times[0] / time - (1 - self._alpha) * work / first
                for time, work in zip(times, self._work, strict=True)
            ]
            chosen = scores.index(max(scores))
        self._work[chosen] += times[chosen]
        return chosen


class Freest:
    """Llumnix's dispatch: the replica that says it is the freest (OSDI 2024), by its own metrics.

    Where a replica says nothing, and among equals, the fewest calls in flight decide.
    """

    def __init__(self, replicas: int) -> None:
        self._least = LeastOutstanding(replicas)

    def pick(self, call: Call, replicas: Sequence[Replica]) -> int:
        """Return the number of the replica that a call goes to."""
        told = [replica.freeness for replica in replicas if replica.freeness is not None]
        if len(told) < len(replicas):
            return self._least.pick(call, replicas)
        best = max(told)
        among = [k for k, replica in enumerate(replicas) if replica.freeness == best]
        return min(among, key=lambda k: replicas[k].calls)


def freeness(running: float, waiting: float, kv_usage: float) -> float:
    """Return how free a server is: its free share of the KV cache over its running and waiting.

    After Llumnix's remaining steps, (free blocks - demand of those waiting) / (running + waiting);
    a client does not see how much those that wait will take, so their demand is left out.
    """
    batch = running + waiting
    return (1.0 - kv_usage) / batch if batch > 0 else float("inf")


def service_s(call: Call, prefill_s: float, decode_s: float) -> float:
    """Return about how long a call takes alone: its tokens by the seconds that each takes."""
    return call.input_tokens * prefill_s + call.output_tokens * decode_s


def _hashed(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


class Priority(Protocol):
    """A priority policy: a smaller number is served first, as vLLM has it."""

    @property
    def late(self) -> bool:
        """Whether a priority depends on the moment at which the call is sent."""
        ...

    def of(self, call: Call, program: Program | None, now_s: float) -> int | None:
        """Return the priority of a call at a moment of the run, or None for none."""
        ...


@dataclass(frozen=True, slots=True)
class NoPriority:
    """Requests carry no priority."""

    late: bool = False

    def of(self, call: Call, program: Program | None, now_s: float) -> int | None:
        """Return None."""
        return None


@dataclass(frozen=True, slots=True)
class TracePriority:
    """Requests carry the priority that the trace gives them."""

    late: bool = False

    def of(self, call: Call, program: Program | None, now_s: float) -> int | None:
        """Return the call's own priority."""
        return call.priority


@dataclass(frozen=True, slots=True)
class ProgramArrival:
    """First come, first served among programs, not calls: milliseconds of the program's start."""

    late: bool = False

    def of(self, call: Call, program: Program | None, now_s: float) -> int | None:
        """Return the planned start of the call's program in ms."""
        return None if program is None else round(program.start_s * 1000)


class StageUrgency:
    """HexGen's urgency: what is left of the program's deadline, shared among its calls to come.

    The budget of a call is (slo_s - spent) * its own time / that of all from it on; its priority is
    the moment, in ms, at which it must begin to keep within it. That order does not change with
    time, so a number in the request is enough (vLLM's priority scheduling).
    """

    late = True

    def __init__(
        self, slo_s: float = 60.0, prefill_s: float = PREFILL_S, decode_s: float = DECODE_S
    ) -> None:
        self._slo_s = slo_s
        self._per_token = prefill_s, decode_s

    def of(self, call: Call, program: Program | None, now_s: float) -> int | None:
        """Return the moment by which a call must begin, in ms of the run."""
        own = service_s(call, *self._per_token)
        start, rest = now_s, own
        if program is not None:
            start = program.start_s
            later = (other for other in program.calls if other.turn > call.turn)
            rest += sum(service_s(other, *self._per_token) for other in later)
        budget = (self._slo_s - (now_s - start)) * own / rest
        return round(1000 * (now_s + budget - own))


DISPATCH: dict[str, Callable[..., Dispatch]] = {
    "round-robin": RoundRobin,
    "least-outstanding": LeastOutstanding,
    "session-sticky": SessionSticky,
    "prefix-affinity": PrefixAffinity,
    "workload-balanced": WorkloadBalanced,
    "freeness": Freest,
}
PRIORITY: dict[str, Callable[..., Priority]] = {
    "none": NoPriority,
    "trace": TracePriority,
    "program-arrival": ProgramArrival,
    "stage-urgency": StageUrgency,
}


def dispatch(name: str, parameters: Mapping[str, str], replicas: int) -> Dispatch:
    """Return a dispatch policy; raises InputError for an unknown name or parameter."""
    known = installed("servescope.dispatch", DISPATCH)
    made: Dispatch = _made("dispatch policy", known, name, parameters, replicas)
    return made


def priority(name: str, parameters: Mapping[str, str]) -> Priority:
    """Return a priority policy; raises InputError for an unknown name or parameter."""
    known = installed("servescope.priority", PRIORITY)
    made: Priority = _made("priority policy", known, name, parameters)
    return made


def _made(
    what: str,
    known: Mapping[str, Callable[..., Any]],
    name: str,
    parameters: Mapping[str, str],
    *first: int,
) -> Any:
    if name not in known:
        raise InputError(f"There is no {what} '{name}'.", f"Known: {', '.join(known)}.")
    takes = inspect.signature(known[name]).parameters
    names = [key for key in takes if key not in ("replicas", "late")]
    for key in parameters:
        if key not in names:
            raise InputError(
                f"The {what} '{name}' has no parameter '{key}'.",
                f"It has {', '.join(names)}." if names else "It has none.",
            )
    try:
        values = {
            key: text if takes[key].annotation in ("str", str) else float(text)
            for key, text in parameters.items()
        }
        return known[name](*first, **values)
    except ValueError as error:
        raise InputError(
            f"The {what} '{name}' cannot have these parameters: {error}.", "Mend them."
        ) from None
