"""What the recipes of this folder share: serve a workload, state claims, draw a figure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from servescope.engine import Cluster, deploy, make_system, virtual
from servescope.engine.catalog import PLAIN
from servescope.engine.policy import System
from servescope.engine.request import Request
from servescope.loadgen.experiment import ArrivalSpec, WorkloadSpec
from servescope.loadgen.records import Record
from servescope.loadgen.simulate import Simulation
from servescope.loadgen.workload import Workload, workload_of

Reals = npt.NDArray[np.float64]


def drawn(
    generator: str,
    rate_rps: float,
    calls: int,
    seed: int = 0,
    arrivals: ArrivalSpec | None = None,
    **params: float | str,
) -> Workload:
    """Return a named workload at a rate of programs, Poisson unless said otherwise."""
    process = arrivals or ArrivalSpec(process="poisson", rate_rps=rate_rps)
    spec = WorkloadSpec(generator=generator, params=params, calls=calls, arrivals=process)
    return workload_of(spec, seed)


@dataclass(frozen=True)
class Served:
    """What became of a workload, in seconds a call; `gaps_s` are of tokens, `jct_s` of programs."""

    workload: Workload
    records: Sequence[Record]
    requests: Sequence[Request]
    cluster: Cluster

    @property
    def ttft_s(self) -> Reals:
        """From arrival to first token."""
        return self._each(lambda r: (r.first_token_s or 0.0) - r.due_s)

    @property
    def queue_s(self) -> Reals:
        """From arrival to the first step."""
        return self._each(lambda r: r.observed_queue_s or 0.0)

    @property
    def tpot_s(self) -> Reals:
        """Mean time between tokens of a call that has several."""
        several = [r for r in self.records if r.chunk_s and len(r.chunk_s) > 1]
        return np.array([(r.chunk_s[-1] - r.chunk_s[0]) / (len(r.chunk_s) - 1) for r in several])

    @property
    def pace_s(self) -> Reals:
        """The same for every call, 0 where there is one token."""
        return self._each(lambda r: (r.chunk_s[-1] - r.chunk_s[0]) / max(1, len(r.chunk_s) - 1))

    @property
    def e2e_s(self) -> Reals:
        """From arrival to last token."""
        return self._each(lambda r: (r.end_s or 0.0) - r.due_s)

    @property
    def gaps_s(self) -> Reals:
        """Between tokens, of all calls together."""
        return np.concatenate([np.diff(record.chunk_s or ()) for record in self.records])

    @property
    def lost_s(self) -> Reals:
        """To preemptions: from each to where the request was."""
        return np.array([request.lost_s for request in self.requests])

    @property
    def jct_s(self) -> Reals:
        """From a program's start to its last token."""
        began = {
            call.number: program for program in self.workload.programs for call in program.calls
        }
        ends: dict[str, float] = {}
        for record in self.records:
            program = began[record.number]
            ends[program.id] = max(
                ends.get(program.id, 0.0), (record.end_s or 0.0) - program.start_s
            )
        return np.array(list(ends.values()))

    def _each(self, value: object) -> Reals:
        return np.array([value(record) for record in self.records])  # type: ignore[operator]


class _Kept(Simulation):
    """A simulation that keeps the engine's requests too."""

    def __init__(self, workload: Workload, *, shares: bool) -> None:
        super().__init__(workload, shares=shares)
        self.requests: list[Request] = []

    def finished(self, request: Request, now: float) -> None:
        self.requests.append(request)
        super().finished(request, now)


def serve(
    workload: Workload,
    system: str | System,
    params: Mapping[str, object] | None = None,
    *,
    model: str,
    gpus: Sequence[str],
    tp: int = 1,
    prefix_cache: bool | None = None,
    context_tokens: int | None = None,
    overhead: str = PLAIN,
) -> Served:
    """Serve a workload in virtual time; raises ValueError unless all of it was served."""
    made = (
        system
        if not isinstance(system, str)
        else make_system(system, {key: str(value) for key, value in (params or {}).items()})
    )
    cluster = deploy(made, model, gpus, tp, context_tokens, prefix_cache, overhead=overhead)
    shares = any(engine.pool.prefixes is not None for engine in cluster.engines)
    simulation = _Kept(workload, shares=shares)
    virtual.run(cluster, simulation)
    if refused := sum(record.status != "ok" for record in simulation.records):
        raise ValueError(f"{refused} calls were not served")
    return Served(workload, simulation.records, simulation.requests, cluster)


class Recipe:
    """A table of what was measured, and claims that hold or do not.

    A claim that the paper makes and the emulation does not bear out is stated as a disagreement: it
    is printed, and is no failure. A claim that is asserted and does not hold is.
    """

    def __init__(self, title: str) -> None:
        parser = argparse.ArgumentParser(description=title)
        parser.add_argument("--long", action="store_true", help="more calls and more settings")
        parser.add_argument("--figure", type=Path, help="write the figure here (needs kaleido)")
        self.asked = parser.parse_args()
        self._broken = 0
        print(title)

    @property
    def long(self) -> bool:
        """Whether more is asked for."""
        return bool(self.asked.long)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print rows below their headings."""
        cells = [list(heads), *([_written(cell) for cell in row] for row in rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(heads))]
        print()
        for row in cells:
            padded = [
                cell.ljust(width) if not place else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            print("  ".join(padded).rstrip())
        print()

    def claim(self, says: str, holds: bool) -> None:
        """State what the paper shows, and whether it shows here."""
        self._broken += not holds
        print(f"{'holds' if holds else 'BROKEN'}: {says}")

    def disagreement(self, says: str) -> None:
        """State where the emulation and the paper part."""
        print(f"disagrees: {says}")

    def bars(
        self, groups: Sequence[str], series: Mapping[str, Sequence[float | None]], label: str
    ) -> None:
        """Draw bars of each series by group, if a figure is asked for."""
        if self.asked.figure is None:
            return
        import plotly.graph_objects as go

        figure = go.Figure(
            [go.Bar(name=name, x=list(groups), y=list(values)) for name, values in series.items()]
        )
        self._write(figure, label)

    def lines(
        self, x: Sequence[float], series: Mapping[str, Sequence[float]], x_label: str, label: str
    ) -> None:
        """Draw a line of each series, if a figure is asked for."""
        if self.asked.figure is None:
            return
        import plotly.graph_objects as go

        figure = go.Figure(
            [go.Scatter(name=name, x=list(x), y=list(values)) for name, values in series.items()]
        )
        figure.update_xaxes(title=x_label)
        self._write(figure, label)

    def _write(self, figure: object, label: str) -> None:
        figure.update_yaxes(title=label, rangemode="tozero")  # type: ignore[attr-defined]
        figure.update_layout(template="plotly_white", margin={"t": 20, "r": 20})  # type: ignore[attr-defined]
        figure.write_image(self.asked.figure, width=760, height=380)  # type: ignore[attr-defined]

    def end(self) -> None:
        """End with 1 if an asserted claim is broken."""
        sys.exit(1 if self._broken else 0)


def _written(cell: object) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
