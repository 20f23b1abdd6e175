"""In which order the runs of a study are made: interleaved, and balanced against what drifts.

What changes slowly (a machine that warms up, its neighbours, a cache) must not fall on one system.
So all systems run one after the other at each load, and their order changes from block to block as
in the squares of E. J. Williams, "Experimental designs balanced for the estimation of residual
effects of treatments", 1949: each comes at each place, and directly after each other one, equally
often.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from servescope.loadgen.study import Load, Study


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a study: which system, which workload, how fast, and which repeat from 1.

    The cells of a block, which differ in the system alone, share their seed.
    """

    system: str
    workload: str
    load: Load
    repeat: int
    seed: int

    @property
    def condition(self) -> str:
        """What all systems are asked alike: the workload and its load, as a name of a file."""
        return "-".join(part for part in (self.workload, self.load.label) if part)

    @property
    def path(self) -> str:
        """Its run directory, below that of the study."""
        return f"{self.system}/{self.condition}-{self.repeat}"


def schedule(study: Study) -> tuple[Cell, ...]:
    """Return all runs in their order; a function of the study alone.

    A block is one repeat of a workload at a load, on all systems. Every second repeat goes through
    workloads and loads backwards. Each block has a seed of its own: a server that is not restarted
    must not find in its cache what it was sent before. A `grouped` order has all runs of a system
    together.
    """
    conditions = [(workload.name, load) for workload in study.workloads for load in study.loads]
    orders = squares(len(study.systems))
    cells = []
    for repeat in range(study.repeats):
        numbered = list(enumerate(conditions))
        for number, (workload, load) in reversed(numbered) if repeat % 2 else numbered:
            order = orders[(number + repeat) % len(orders)]
            cells += [
                Cell(
                    system=study.systems[place].name,
                    workload=workload,
                    load=load,
                    repeat=repeat + 1,
                    seed=study.seed + repeat * len(conditions) + number,
                )
                for place in order
            ]
    if study.order == "grouped":
        names = [system.name for system in study.systems]
        cells.sort(key=lambda cell: names.index(cell.system))
    return tuple(cells)


def squares(count: int) -> list[Sequence[int]]:
    """Return the orders of 0 .. count - 1 that are balanced together: `count`, or twice if odd.

    Of an even number the first is 0, n - 1, 1, n - 2, ... and each next one adds 1 modulo n, half
    of them and then those that mirror these; an odd number needs all and their mirrors.
    """
    zigzag = [(place // 2 if place % 2 == 0 else count - 1 - place // 2) for place in range(count)]
    rows = [[(first + shift) % count for first in zigzag] for shift in range(count)]
    if count % 2 == 0:
        rows = rows[: count // 2]
    # next to its mirror, so that few repeats are balanced too
    return [order for row in rows for order in (row, row[::-1])] if count > 1 else [[0]]


def repeats_alike(study: Study, workload: str) -> bool:
    """Tell whether each repeat of a workload says the same on some system.

    In virtual time nothing differs from repeat to repeat but what is drawn with the seed.
    """
    drawn = study.workload(workload).drawn
    return not drawn and any(system.virtual for system in study.systems)


def doubts_of(study: Study) -> tuple[str, ...]:
    """Say what of a study tells less than it seems to."""
    doubts = []
    if study.repeats > 1 and any(repeats_alike(study, each.name) for each in study.workloads):
        doubts.append(
            "In virtual time every repeat of a trace's own starts is the same: repeats add nothing"
            " but time there, unless starts are drawn, and only the first one is compared."
        )
    if study.order == "grouped" and len(study.systems) > 1:
        doubts.append(
            "All runs of a system stand together, so what drifts on the machine looks like a"
            " difference between systems."
        )
    clocks = {system.virtual for system in study.systems}
    if len(clocks) > 1:
        doubts.append("Some systems run in virtual time and others in real time.")
    return tuple(doubts)
