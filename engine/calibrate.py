"""The cost model fitted to what clients measured at a real endpoint.

Requests of measured runs are served again by the emulated engine, at the moments when they were
sent. Five coefficients are moved until the emulated TTFT, TPOT and gaps between chunks are
those that were measured, quantile by quantile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from servescope.engine.assembly import assemble
from servescope.engine.catalog import Gpu, Model, Overhead
from servescope.engine.cluster import Cluster
from servescope.engine.engine import Engine, Refused
from servescope.engine.policy import System, parts_of
from servescope.engine.request import Request
from servescope.engine.virtual import run
from servescope.traces import Run
from servescope.traces.errors import InputError
from servescope.traces.status import OK

FEWEST_CALLS = 20  # of a part that is fitted or checked
QUANTILES = {"ttft": (0.1, 0.5, 0.9, 0.99), "tpot": (0.1, 0.5, 0.9), "gap": (0.5, 0.99)}
TOLD = (("ttft", 0.5), ("ttft", 0.99), ("tpot", 0.5), ("gap", 0.99))


@dataclass(frozen=True, slots=True)
class Measured:
    """One answered call of a run: when it was sent, its tokens, and when its chunks came (s)."""

    sent_s: float
    input_tokens: int
    output_tokens: int
    chunk_s: Sequence[float]


@dataclass(frozen=True)
class Part:
    """Calls of one run whose measures are compared: a run whole, or one half of it."""

    name: str
    calls: Sequence[Measured]  # of the whole run, in the order in which they were sent
    kept: slice

    def __post_init__(self) -> None:
        found = len(self.calls[self.kept])
        if found < FEWEST_CALLS:
            raise InputError(
                f"{self.name} has {found} answered calls; a fit needs {FEWEST_CALLS}.",
                "Give a longer run.",
            )


@dataclass(frozen=True)
class Setup:
    """The endpoint as it is emulated: what does not change in a fit, and where it begins."""

    model: Model
    gpu: Gpu
    overhead: Overhead
    system: System
    tp: int = 1
    pp: int = 1
    context_tokens: int | None = None

    def engine(self) -> Engine:
        """Return a fresh engine."""
        return assemble(
            parts_of(self.system), self.model, self.gpu, self.overhead, self.tp, self.pp,
            self.context_tokens,
        )  # fmt: skip

    def with_coefficients(self, values: Iterable[float]) -> Setup:
        """Return the setup with other coefficients, in the order of `COEFFICIENTS`."""
        mfu, kv_mbu, step_s, sequence_s, frontend_s = map(float, values)
        gpu = msgspec.structs.replace(self.gpu, mfu=mfu, kv_mbu=kv_mbu)
        software = msgspec.structs.replace(
            self.overhead, step_s=step_s, sequence_s=sequence_s, frontend_s=frontend_s
        )
        return replace(self, gpu=gpu, overhead=software)

    @property
    def coefficients(self) -> tuple[float, ...]:
        """What is fitted, as it is."""
        gpu, software = self.gpu, self.overhead
        return (
            gpu.mfu, gpu.kv_mbu, software.step_s, software.sequence_s, software.frontend_s
        )  # fmt: skip


COEFFICIENTS = ("mfu", "kv_mbu", "step_s", "sequence_s", "frontend_s")
LOWEST = (0.05, 0.05, 0.0, 0.0, 0.0)
HIGHEST = (1.0, 1.0, 0.1, 0.005, 0.5)
SCALE = (0.3, 0.3, 2e-3, 3e-5, 5e-3)  # of a step that matters
FRONTEND = COEFFICIENTS.index("frontend_s")
MOST_TRIES = 300
TOLERANCE = 0.1  # relative errors beyond this count less than by their square
TINY_S = 1e-6
MOST_CACHED = 0.01  # of all prompt tokens, from a prefix cache


class Error(msgspec.Struct, frozen=True):
    """How far a quantile of a part is off: seconds measured and emulated."""

    part: str
    measure: str
    quantile: float
    measured_s: float
    emulated_s: float

    @property
    def relative(self) -> float:
        """Emulated over measured, minus 1."""
        return self.emulated_s / self.measured_s - 1


class Calibration(msgspec.Struct, frozen=True):
    """The fitted coefficients, where the fit began, and the errors of what it saw and did not."""

    gpu: Gpu
    overhead: Overhead
    began: dict[str, float]
    fitted: dict[str, float]
    seen: tuple[Error, ...]
    held_out: tuple[Error, ...]


def calibrate(
    setup: Setup,
    seen: Sequence[Part],
    held_out: Sequence[Part],
    on_progress: Callable[[int, int], None] = lambda tries, most: None,
) -> Calibration:
    """Fit the coefficients to `seen`, and say how far the emulation is off for both.

    Nelder and Mead's search, which needs no gradient: a simulation moves in little jumps. It
    minimises a soft L1 loss of the logarithm of emulated over measured, over all quantiles of all
    parts. What the measures cannot tell apart stays near where it began.
    """
    from scipy.optimize import minimize

    targets = np.concatenate([_quantiles(part.calls, part.kept) for part in seen])
    begins = np.array(setup.coefficients)
    moved = [place for place in range(len(begins)) if place != FRONTEND or _has_host(setup)]
    scale = np.array(SCALE)[moved]
    tries = 0

    def at(steps: np.ndarray) -> Setup:
        values = begins.copy()
        values[moved] += steps * scale
        return setup.with_coefficients(np.clip(values, LOWEST, HIGHEST))

    def loss(steps: np.ndarray) -> float:
        nonlocal tries
        tries += 1
        on_progress(tries, MOST_TRIES)
        candidate = at(steps)
        found = np.concatenate([_emulated(candidate, part) for part in seen])
        off = np.log(np.maximum(found, TINY_S) / np.maximum(targets, TINY_S)) / TOLERANCE
        return float(np.sum(np.sqrt(1 + off**2) - 1) + 1e-4 * np.sum(steps**2))

    bounds = [
        ((LOWEST[place] - begins[place]) / SCALE[place],
         (HIGHEST[place] - begins[place]) / SCALE[place])
        for place in moved
    ]  # fmt: skip
    corners = np.vstack([np.zeros(len(moved)), np.eye(len(moved))])
    found = minimize(
        loss, corners[0], method="Nelder-Mead", bounds=bounds,
        options={"initial_simplex": corners, "maxfev": MOST_TRIES, "xatol": 0.01, "fatol": 0.01},
    )  # fmt: skip
    best = at(found.x)
    return Calibration(
        gpu=best.gpu,
        overhead=best.overhead,
        began=dict(zip(COEFFICIENTS, setup.coefficients, strict=True)),
        fitted=dict(zip(COEFFICIENTS, best.coefficients, strict=True)),
        seen=tuple(_errors(best, seen)),
        held_out=tuple(_errors(best, held_out)),
    )


def _has_host(setup: Setup) -> bool:
    """Whether the front end of the software counts: the emulation has one beside a host only."""
    return setup.overhead.asynchronous


def halves(name: str, calls: Sequence[Measured]) -> tuple[Part, Part]:
    """Return the earlier and the later half of a run's calls, by when they were sent."""
    middle = len(calls) // 2
    return (
        Part(f"{name}, first half", calls, slice(None, middle)),
        Part(f"{name}, second half", calls, slice(middle, None)),
    )


def serve_again(setup: Setup, calls: Sequence[Measured]) -> list[Measured]:
    """Return what the emulated engine makes of the same calls; raises Refused for one it cannot."""
    requests = [
        Request(str(number), call.input_tokens, call.output_tokens, call.sent_s)
        for number, call in enumerate(calls)
    ]
    run(Cluster.of(setup.engine()), Again(requests))
    return [
        Measured(call.sent_s, call.input_tokens, call.output_tokens, request.token_s)
        for call, request in zip(calls, requests, strict=True)
    ]


def measured(run: Run) -> list[Measured]:
    """Return the answered calls of a run without its warm-up; raises InputError if it has none.

    A call counts if it was sent at a known time and its chunks were stamped.
    """
    import polars as pl

    needed = ("sent_s", "input_tokens", "output_tokens", "chunk_s")
    run.measured.require(*needed)
    answered = run.measured.frame.filter(pl.col("status") == OK, pl.col("chunk_s").list.len() > 0)
    if "cached_tokens" in run.measured.columns:
        cached, asked = answered.select("cached_tokens", "input_tokens").sum().collect().row(0)
        if cached and cached > MOST_CACHED * asked:
            raise InputError(
                f"{run.path}: {cached / asked:.0%} of the prompt tokens came from a prefix cache,"
                " which hides what they take to compute.",
                "Measure with the server's prefix cache off, or with prompts that share nothing.",
            )
    rows = answered.select(needed).drop_nulls().sort("sent_s").collect()
    return [Measured(*row) for row in rows.iter_rows()]


class Again:
    """Requests that come when they came."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._left = iter(sorted(requests, key=lambda request: request.arrival_s))
        self._next = next(self._left, None)

    def next_due_s(self) -> float | None:
        """Return when the next one comes."""
        return None if self._next is None else self._next.arrival_s

    def take(self, now: float) -> Iterator[Request]:
        """Yield those that have come by `now`."""
        while self._next is not None and self._next.arrival_s <= now:
            yield self._next
            self._next = next(self._left, None)

    def refused(self, request: Request, error: Refused, now: float) -> None:
        """Raise what the engine says: it is not the endpoint that was measured."""
        raise error

    def finished(self, request: Request, now: float) -> None:
        """Its tokens stand in it."""


def _emulated(setup: Setup, part: Part) -> list[float]:
    return _quantiles(serve_again(setup, part.calls), part.kept)


def _quantiles(calls: Sequence[Measured], kept: slice) -> list[float]:
    """Return all quantiles of all measures, in the order of `QUANTILES`."""
    measures = _measures(calls[kept])
    return [
        float(np.quantile(measures[name], share)) if len(measures[name]) else 1.0
        for name, shares in QUANTILES.items()
        for share in shares
    ]


def _measures(calls: Sequence[Measured]) -> dict[str, Any]:
    several = [call for call in calls if len(call.chunk_s) > 1]
    return {
        "ttft": np.array([call.chunk_s[0] - call.sent_s for call in calls]),
        "tpot": np.array(
            [(call.chunk_s[-1] - call.chunk_s[0]) / (call.output_tokens - 1) for call in several]
        ),
        "gap": np.concatenate([np.diff(call.chunk_s) for call in several] or [np.empty(0)]),
    }


def _errors(setup: Setup, parts: Sequence[Part]) -> Iterator[Error]:
    for part in parts:
        theirs = _measures(part.calls[part.kept])
        ours = _measures(serve_again(setup, part.calls)[part.kept])
        for name, share in TOLD:
            if len(theirs[name]):
                yield Error(
                    part.name,
                    name,
                    share,
                    float(np.quantile(theirs[name], share)),
                    float(np.quantile(ours[name], share)),
                )
