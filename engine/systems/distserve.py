"""DistServe (Zhong et al., OSDI 2024): prompts on some replicas, decodes on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from servescope.engine.policy import Batch, Parts, View
from servescope.engine.request import Request
from servescope.engine.systems.batching import prompts_first, stall_free
from servescope.traces.errors import InputError

if TYPE_CHECKING:
    from servescope.engine.cluster import Replica


@dataclass(frozen=True, slots=True)
class DistServe:
    """Prefill replicas batch prompts first come, first served; keys and values go to a decode one.

    The first replicas prefill, half of them unless `prefill_replicas` says how many. A prompt stays
    on its replica until the decode replica with the least load has room, and that admits only while
    less than `back_pressure` of its blocks are in use.
    """

    prefill_replicas: Annotated[int, Meta(ge=0)] = 0
    max_batch_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 512
    back_pressure: Annotated[float, Meta(gt=0, le=1)] = 0.9

    def parts(self, replicas: int) -> Parts:
        """Return the roles; raises InputError when one of them has no replica."""
        prefill = self.prefill_replicas or replicas // 2
        if not 0 < prefill < replicas:
            raise InputError(
                f"DistServe needs a replica for prompts and one for decodes; of {replicas} it would"
                f" take {prefill} for prompts.",
                "Give --replicas 2 or more, and fewer prefill_replicas than that.",
            )
        roles = _Roles(self, prefill)
        return Parts(roles, dispatch=roles, handover=roles.hand_over)


class _Roles:
    def __init__(self, system: DistServe, prefill: int) -> None:
        self._system = system
        self._prefill = prefill

    def pick(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return the prefill replica with the fewest tokens to compute."""
        return min(range(self._prefill), key=lambda place: _to_compute(replicas[place].view))

    def hand_over(self, request: Request, replicas: Sequence[Replica], now: float) -> int:
        """Return the decode replica with the least load."""
        return min(range(self._prefill, len(replicas)), key=lambda place: replicas[place].load)

    def plan(self, view: View) -> Batch:
        system = self._system
        if view.replica < self._prefill:
            return prompts_first(view, system.max_batch_tokens, system.max_num_seqs)
        full = view.pool.used > system.back_pressure * view.pool.total
        seats = 0 if full and view.decoding else system.max_num_seqs
        return stall_free(view, None, seats)._replace(swap=True)


def _to_compute(view: View) -> int:
    return sum(request.remaining for request in (*view.waiting, *view.prefilling))
