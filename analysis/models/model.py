"""A synthetic workload: streams of programs, what it was learnt from, and its file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from servescope.analysis.models.agents import Agents
from servescope.analysis.models.cascade import Cascade
from servescope.analysis.models.clients import Clients
from servescope.analysis.models.failures import Failures
from servescope.analysis.models.marks import Marks
from servescope.analysis.models.prefixes import Prefixes
from servescope.analysis.models.quantiles import rounded
from servescope.analysis.models.schedule import Schedule
from servescope.analysis.models.shapes import AnyShape
from servescope.traces import atomic
from servescope.traces.errors import InputError, OutputExists, OutputFailed

FORMAT: Final = "servescope-model"
VERSION = 1
ScaleBy = Literal["users", "busier", "faster"]


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model was learnt from and how, and how faithful it was found to be.

    `fidelity` holds scores of the model's own draws against the trace, by name.
    """

    source: str
    calls: int
    span_s: float | None = None
    sha256: str | None = None
    licence: str | None = None
    attribution: str | None = None
    min_count: int
    made_by: str
    inferred: dict[str, str] = {}
    doubts: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    fidelity: dict[str, float] = {}


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A family of arrivals that was looked at, and how it did on arrivals it was not fitted to.

    `score` is in nats an arrival; `p_value` that of its goodness of fit, by parametric bootstrap.
    """

    family: str
    score: float | None = None
    p_value: float | None = None
    verdict: str


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When programs start: how many in each window, and how these lie within it."""

    schedule: Schedule
    shape: AnyShape
    candidates: tuple[Candidate, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.shape, Cascade) and not math.isclose(
            self.shape.width_s, self.schedule.window_s, rel_tol=1e-5
        ):
            raise InputError(
                f"A cascade in windows of {self.shape.width_s:g} s cannot fill those of"
                f" {self.schedule.window_s:g} s.",
                "Give width_s and window_s the same value.",
            )


class Blocks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an id of a prefix block stands for, as the provenance of a trace says it."""

    tokens: int | None = None
    rule: Literal["ceil", "floor", "component"] | None = None
    scope: Literal["global", "program"] | None = None


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One population: single calls (`marks`), or sessions and agents (`programs`).

    Without `arrivals` nothing is known of when programs start, so a rate has to be given.
    `calls_each` is how many calls a program has on average. All calls are of one `client`, or of
    many by their shares, or it is not known whose they are.
    """

    name: str
    arrivals: Arrivals | None
    marks: Marks | None = None
    programs: Agents | None = None
    calls_each: float = 1.0
    prefixes: Prefixes | None = None
    blocks: Blocks | None = None
    failures: Failures | None = None
    client: str | None = None
    clients: Clients | None = None

    def __post_init__(self) -> None:
        if (self.marks is None) == (self.programs is None):
            raise InputError(
                f"The stream '{self.name}' makes no calls, or calls of two sorts.",
                "Give it either marks or programs.",
            )

    @property
    def rate_rps(self) -> float | None:
        """Mean rate of its calls (1/s); None where it is not known."""
        return self.arrivals.schedule.mean_rps * self.calls_each if self.arrivals else None

    def scaled(self, factor: float, by: ScaleBy) -> Stream:
        """Return the stream with `factor` times its rate; see `Model.scaled`."""
        if self.arrivals is None:
            raise InputError(
                f"The stream '{self.name}' has no rate to scale.", "Give a rate for it first."
            )
        schedule, shape = self.arrivals.schedule, self.arrivals.shape
        schedule = schedule.faster(factor) if by == "faster" else schedule.scaled(factor)
        change: Callable[[float], AnyShape] | None = getattr(
            shape, {"users": "crowded", "busier": "busier", "faster": "faster"}[by], None
        )
        arrivals = msgspec.structs.replace(
            self.arrivals, schedule=schedule, shape=change(factor) if change else shape
        )
        return msgspec.structs.replace(self, arrivals=arrivals)


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A workload that can be drawn from: its streams together, and what is known of it."""

    format: Literal["servescope-model"] = FORMAT
    version: int = VERSION
    name: str
    about: About
    streams: tuple[Stream, ...]

    def __post_init__(self) -> None:
        if not self.streams:
            raise InputError(f"The model '{self.name}' has no stream.", "Fit it again.")

    @property
    def rate_rps(self) -> float | None:
        """Mean rate of calls (1/s); None where one stream has none."""
        rates = [stream.rate_rps for stream in self.streams]
        return None if None in rates else sum(rate for rate in rates if rate is not None)

    @property
    def span_s(self) -> float | None:
        """After how long its rates begin again; None where it has none."""
        spans = [s.arrivals.schedule.span_s for s in self.streams if s.arrivals]
        return max(spans) if spans else None

    # --- another rate ----------------------------------------------------------------------------

    def scaled(self, factor: float, by: ScaleBy = "users") -> Model:
        """Return the workload with `factor` times the rate.

        `users`: so many times as many independent clients, whose bursts even out; `busier`: the
        same clients, each asking so many times as often; `faster`: the same calls on a clock that
        runs so many times as fast. Pauses within programs stay what they are.
        """
        _check(factor, "The rate cannot be scaled by {:g}.")
        streams = tuple(stream.scaled(factor, by) for stream in self.streams)
        return self.edited(f"rate x {factor:.6g} by {by}", streams=streams)

    def at_rate(self, rate_rps: float, by: ScaleBy = "users") -> Model:
        """Return the workload with so many calls a second on average.

        A stream of which it is not known when its programs start gets Poisson starts.
        """
        from servescope.analysis.models.renewal import Poisson

        _check(rate_rps, "The rate cannot be {:g} calls a second.")
        if self.rate_rps is not None:
            return self.scaled(rate_rps / self.rate_rps, by)
        each = rate_rps / len(self.streams)
        streams = tuple(
            msgspec.structs.replace(
                stream,
                arrivals=Arrivals(
                    schedule=Schedule(
                        window_s=600.0, rates_rps=(rounded(each / stream.calls_each),)
                    ),
                    shape=Poisson(),
                ),
            )
            for stream in self.streams
        )
        return self.edited(f"Poisson starts, {rate_rps:.6g} calls/s", streams=streams)

    # --- the file --------------------------------------------------------------------------------

    def edited(self, step: str, **changes: Any) -> Model:
        """Return the model with changes, and with what was done to it written down.

        Its scores are left out, for they are of what it was.
        """
        about = msgspec.structs.replace(self.about, edits=(*self.about.edits, step), fidelity={})
        return msgspec.structs.replace(self, **{"about": about, **changes})

    def to_json(self) -> bytes:
        """Return the file's content: readable JSON, the same bytes for the same model."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the file; raises OutputExists and OutputFailed for a place that is not free."""
        if path.exists() and not overwrite:
            raise OutputExists(f"{path} exists already.", "Choose another name or add --overwrite.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, self.to_json())
        except OSError as error:
            raise OutputFailed.of(path, error) from None

    @classmethod
    def from_json(cls, content: bytes, name: str = "the model") -> Model:
        """Read a model file; raises InputError naming what is wrong and where.

        A newer version of the format is refused.
        """
        try:
            head = msgspec.json.decode(content, type=_Head)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f"{name} is no model file: {error}.", "Write one with `servescope fit`."
            ) from None
        if head.format != FORMAT:
            raise InputError(
                f"{name} is no model file: its format is {head.format!r}.",
                "Write one with `servescope fit`.",
            )
        if head.version > VERSION:
            raise InputError(
                f"{name} is of version {head.version} of the format; this servescope reads"
                f" {VERSION}.",
                "Install a newer servescope.",
            )
        try:
            return msgspec.json.decode(content, type=cls)
        except (msgspec.ValidationError, InputError) as error:
            raise InputError(
                f"{name} was changed in a way that makes no sense: {error}.",
                "Undo the change, or fit the trace again.",
            ) from None

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read a model file; raises InputError for what is none."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path} cannot be read: {error.strerror}.", "Check the path."
            ) from None
        return cls.from_json(content, str(path))

    def summary(self) -> list[str]:
        """Say in plain sentences what it makes."""
        said = []
        for stream in self.streams:
            if stream.arrivals is not None:
                said.append(
                    f"{stream.name}: {stream.rate_rps:.3g} calls/s."
                    f" {stream.arrivals.shape.summary()}"
                )
            parts = (
                stream.marks,
                stream.programs,
                stream.failures,
                stream.prefixes,
                stream.clients,
            )
            for part in parts:
                if part is not None:
                    said += part.summary()
        return said


class _Head(msgspec.Struct):
    """What says of a file whether it is a model, and whether it can be read."""

    format: str | None = None
    version: int = 0


def _check(value: float, says: str) -> None:
    if not 0 < value < math.inf:
        raise InputError(says.format(value), "Give a number above 0.")
