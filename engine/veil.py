"""A veil between a system and what it must not know or do, for a run that is checked.

Behind it the length of an answer and the pause after it cannot be read, and a plan that is not one
is refused before it is carried out. It keeps an honest mistake from passing for a good idea; it is
no sandbox: code of the same process can reach whatever it wants to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from servescope.engine.blame import BadPlan
from servescope.engine.cluster import Cluster
from servescope.engine.decoding import Decoding
from servescope.engine.engine import Engine, Violation
from servescope.engine.policy import Batch, Parts, System, View, flaw_of, parts_of
from servescope.engine.request import Request

SECRETS = {
    "_output_tokens": "how long an answer will be",
    "_pause_s": "how long a program will pause",
    "_ends_of_requests": "when an answer will end",
}


class Veil:
    """Stands around the parts of a system: it is down as long as one of them is asked."""

    def __init__(self) -> None:
        self._down = False
        self._seen: Violation | None = None
        self._request = self._hiding(Request, "_output_tokens", "_pause_s")
        self._decoding = self._hiding(Decoding, "_ends_of_requests")

    def over(self, system: System) -> System:
        """Return a system whose parts are asked behind the veil."""
        return _Over(self, system)

    def cluster(self, cluster: Cluster) -> None:
        """Hide what the engines of a cluster know, those that are to come included."""
        for engine in cluster.engines:
            self._engine(engine)
        another = cluster.another
        if another is not None:
            cluster.another = lambda number: self._engine(another(number))

    def request(self, request: Request) -> Request:
        """Hide what a request will be, and return it."""
        request.__class__ = self._request
        return request

    def parts(self, parts: Parts) -> Parts:
        """Return parts that are asked behind the veil."""
        names = (field.name for field in fields(Parts))
        found = {name: part for name in names if (part := getattr(parts, name)) is not None}
        for name, part in found.items():
            if name in ("handover", "deployed"):
                found[name] = partial(self.ask, part)
            elif name not in ("prefix_cache", "oracle"):
                # errors name the class of a part
                found[name] = type(type(part).__name__, (_Part,), {})(self, part)
        return replace(parts, **found)

    def ask(self, method: Callable[..., Any], *given: Any) -> Any:
        """Call a method of a part with the veil down; raises Violation if it looked behind it."""
        before, self._down = self._down, True
        try:
            answer = method(*given)
            if isinstance(answer, Iterator):  # or it would be run when the veil is up
                answer = list(answer)
        finally:
            self._down = before
            if self._seen is not None:  # even if the part has caught it
                raise self._seen
        return answer

    def _engine(self, engine: Engine) -> Engine:
        engine._decoding.__class__ = self._decoding
        return engine

    def _hiding(self, kind: type[Any], *names: str) -> type[Any]:
        """Return a class like `kind`, some of whose fields cannot be read behind the veil."""
        hidden = {name: self._hidden(name, getattr(kind, name)) for name in names}
        return type(kind.__name__, (kind,), {"__slots__": (), **hidden})

    def _hidden(self, name: str, field: Any) -> property:
        def get(owner: object) -> Any:
            self._look(name)
            return field.__get__(owner)

        def set(owner: object, value: object) -> None:
            self._look(name)
            field.__set__(owner, value)

        return property(get, set)

    def _look(self, name: str) -> None:
        if self._down:
            self._seen = Violation(
                f"The policy looks up {SECRETS[name]} ({name}): no server knows that.",
                "Decide by what a request shows; a system may ask for an oracle, and says so.",
            )
            raise self._seen


@dataclass(frozen=True, slots=True)
class _Over:
    veil: Veil
    system: System

    def parts(self, replicas: int) -> Parts:
        return self.veil.parts(self.veil.ask(parts_of, self.system, replicas))


class _Part:
    """Any part, asked behind the veil."""

    def __init__(self, veil: Veil, part: Any) -> None:
        self._veil = veil
        self._part = part

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return partial(self._veil.ask, found) if callable(found) else found

    def plan(self, view: View) -> Batch:
        batch = self._veil.ask(self._part.plan, view)
        wrong = _wrong(batch, view)
        if wrong:
            raise BadPlan(
                f"{type(self._part).__name__} plans {wrong}.",
                "A plan is a Batch; it admits who waits, and preempts or computes who runs, once.",
            )
        conserves = getattr(self._part, "conserves", None)
        if conserves is not None and conserves.broken_by(batch, view):
            raise Violation(
                f"At {view.now:.6g} s this does not hold: {type(self._part).__name__} conserves"
                f" work. {len(view.waiting)} requests wait on replica {view.replica}, any of which"
                f" would fit into its {view.pool.room} blocks, and none is admitted.",
                "Admit the first of them, or promise less: see Conserving.",
            )
        return batch  # type: ignore[no-any-return]


def _wrong(batch: object, view: View) -> str | None:
    """Say what of a plan is none, before anything of it is done."""
    flaw = flaw_of(batch)
    if flaw is not None:
        return flaw
    assert isinstance(batch, Batch)
    admitted = [request for request, _ in batch.admit]
    for request in admitted:
        if request not in view.waiting:
            return f"to admit {request.id!r}, which does not wait here"
    for request, _ in batch.prefill:
        if request not in view.prefilling and request not in admitted:
            return f"to prefill {request.id!r}, which has no prompt to compute here"
    for request in batch.preempt:
        if request not in view.prefilling and request not in view.decoding:
            return f"to preempt {request.id!r}, which does not run here"
    return None
