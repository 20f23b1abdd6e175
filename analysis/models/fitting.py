"""A model learnt from a trace: every part that the trace supports, and why others are left out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import msgspec
import numpy as np
import polars as pl

from servescope.analysis.demand import Demand
from servescope.analysis.models.agents import Agents
from servescope.analysis.models.cascade import Cascade
from servescope.analysis.models.clients import Clients
from servescope.analysis.models.drawing import Drawing
from servescope.analysis.models.draws import Draws
from servescope.analysis.models.failures import Failures
from servescope.analysis.models.marks import Marks
from servescope.analysis.models.model import About, Arrivals, Blocks, Candidate, Model, Stream
from servescope.analysis.models.prefixes import Prefixes
from servescope.analysis.models.quantiles import MIN_COUNT, rounded
from servescope.analysis.models.renewal import Poisson
from servescope.analysis.models.schedule import Schedule
from servescope.analysis.models.selection import choose
from servescope.analysis.models.shapes import SHAPES, AnyShape
from servescope.analysis.sample import Floats, Ints
from servescope.traces.errors import InputError
from servescope.traces.schema import SCHEMA
from servescope.traces.status import OK
from servescope.traces.trace import Trace

AUTO = "auto"
_RESAMPLES = 39  # of a test of goodness of fit, so that 5 % can be told
_CALIBRATED = 25_000  # calls that prefixes are drawn for again and again
_CALIBRATING = 1_000_003  # stream that no draw of a model has
_CALLS = pl.Schema(
    {name: SCHEMA[name] for name in ("call_id", "arrival_s", "input_tokens", "output_tokens")}
)
_FEWEST = 30  # programs that a model may be learnt from
_OWN_STREAM = 500  # calls of a client that has a stream of its own
_MOST_CLIENTS = 32  # with streams of their own
NO_TIMES = "When programs start is not recorded: to draw from the model, a rate has to be given."


@dataclass(frozen=True)
class _Settings:
    """What the user asked for."""

    min_count: int
    window_s: float | None
    exact: bool
    shape: str


@dataclass(frozen=True)
class _Population:
    """Calls that one stream is learnt from: those of a client, or of many."""

    name: str
    demand: Demand
    client: str | None = None
    clients: Clients | None = None


def fit(
    source: Trace | Demand,
    *,
    name: str | None = None,
    min_count: int = MIN_COUNT,
    window_s: float | None = None,
    exact: bool = False,
    shape: str = AUTO,
) -> Model:
    """Learn a model of a trace.

    `window_s` is the width of the windows whose rates are kept, by default about ten minutes, or
    so wide that they hold twenty programs; with `exact`, windows later hold just as many programs
    as in the trace, as only the cascade can. `shape` names the family of arrivals within a window;
    "auto" chooses by held-out log score. Nothing rests on fewer than `min_count` calls. Raises
    InputError for a trace with fewer than 30 programs, and for one that does not say how long
    prompts and answers are.
    """
    if min_count < 2:
        raise InputError(f"min_count cannot be {min_count}.", "Give 2 or more.")
    if shape != AUTO and shape not in SHAPES:
        raise InputError(
            f"There is no arrival shape '{shape}'.", f"Known: {', '.join((AUTO, *SHAPES))}."
        )
    if exact and shape not in (AUTO, "cascade"):
        raise InputError(
            f"The shape '{shape}' draws a number of programs of its own.",
            "Leave out exact, or let the shape be cascade.",
        )
    demand = source if isinstance(source, Demand) else Demand.of(source)
    _enough(len(demand))
    if not {"input_tokens", "output_tokens"} <= set(demand.columns):
        raise InputError(
            "The trace does not say how long prompts and answers are.",
            "Give one that does; texts are counted with --tokenizer.",
        )
    settings = _Settings(min_count, window_s, exact, "cascade" if exact else shape)
    doubts: list[str] = []
    streams = tuple(
        _stream(part, demand, settings, doubts) for part in _populations(demand, min_count, doubts)
    )
    about = demand.about
    return Model(
        name=name or about.source,
        about=About(
            source=about.source,
            calls=len(demand),
            span_s=rounded(demand.span_s) if demand.timed else None,
            sha256=about.sha256,
            licence=about.licence,
            attribution=about.attribution,
            min_count=min_count,
            made_by=f"servescope {version('servescope')}",
            inferred=about.inferred,
            doubts=tuple(dict.fromkeys(doubts)),
        ),
        streams=streams,
    )


def at_rates_of(model: Model, source: Trace | Demand) -> Model:
    """Return a model of one stream with the course of rates of another trace, all else its own.

    That is how a model of the first part of a trace is held against the rest: its rates are given.
    Raises InputError for several streams, and for a trace whose calls are not on one clock.
    """
    demand = source if isinstance(source, Demand) else Demand.of(source)
    if len(model.streams) != 1 or not demand.timed:
        raise InputError(
            "The rates of a trace can be given to a model of one stream, on one clock.",
            "Compare with a trace that was drawn from it.",
        )
    stream = model.streams[0]
    at, span_s = _starts_of(demand)
    own = stream.arrivals
    schedule = Schedule.fit(
        at, span_s, own.schedule.window_s if own else None, model.about.min_count
    )
    shape: AnyShape = own.shape if own else Poisson()
    if isinstance(shape, Cascade):  # it splits windows of its own width
        factor = schedule.window_s / shape.width_s
        if abs(factor - 1) > 1e-9:
            shape = shape.widened(factor)
    stream = msgspec.structs.replace(stream, arrivals=Arrivals(schedule=schedule, shape=shape))
    about = msgspec.structs.replace(model.about, span_s=rounded(demand.span_s))
    return msgspec.structs.replace(model, about=about, streams=(stream,)).edited(
        f"at the rates of {demand.about.source}"
    )


def _populations(demand: Demand, min_count: int, doubts: list[str]) -> list[_Population]:
    """Return all calls as one, or those of each client that has enough, and the rest."""
    if "client_id" not in demand.columns or _has_turns(demand) or not demand.timed:
        return [_Population("calls", demand)]
    client = demand.calls["client_id"].cast(pl.String)
    sizes = client.drop_nulls().value_counts(sort=True, name="calls")
    heavy = sizes.filter(pl.col("calls") >= _OWN_STREAM)["client_id"].head(_MOST_CLIENTS)
    found = [
        _Population(f"client {rank}", _only(demand, client == name), f"client-{rank}")
        for rank, name in enumerate(heavy, 1)
    ]
    rest = sizes.filter(~pl.col("client_id").is_in(heavy.implode()))["calls"].to_numpy()
    left = _only(demand, ~client.is_in(heavy.implode()).fill_null(False))
    if len(left) >= _FEWEST or not found:
        name = "other clients" if found else "calls"
        clients = Clients.fit(rest, min_count) if len(rest) else None
        found.append(_Population(name, left, clients=clients))
    elif len(left):
        doubts.append(f"{len(left)} calls of other clients are left out: too few to learn from.")
    return found


def _only(demand: Demand, kept: pl.Series) -> Demand:
    calls = demand.calls.filter(kept)
    return replace(demand, calls=calls, count=calls.height)


def _has_turns(demand: Demand) -> bool:
    """Say whether programs of several calls are known."""
    known = {"program_id", "turn"} <= set(demand.columns)
    return known and bool((demand.calls["turn"] > 0).any())


def _stream(part: _Population, demand: Demand, settings: _Settings, doubts: list[str]) -> Stream:
    """Learn one population of a trace; its windows begin where all of the trace does."""
    if _has_turns(part.demand):
        return _of_programs(part, settings, doubts)
    calls = part.demand.placed if part.demand.timed else part.demand.calls
    arrivals = window = None
    if part.demand.timed:
        at, span_s = _moments(part.demand, demand)
        arrivals = _arrivals(at, span_s, settings, part.name, doubts)
        schedule = arrivals.schedule
        last = len(schedule.rates_rps) - 1
        window = np.minimum((at / schedule.window_s).astype(np.int64), last)
    else:
        _enough(calls.height)
        doubts.append(NO_TIMES)
    kind, names = _kinds(calls)
    stream = Stream(
        name=part.name,
        arrivals=arrivals,
        marks=Marks.fit(
            kind,
            names,
            _tokens(calls, "input_tokens"),
            _tokens(calls, "output_tokens"),
            window if window is not None else np.zeros(calls.height, np.int64),
            settings.min_count,
        ),
        client=part.client,
        clients=part.clients,
    )
    sharing = _sharing(part.demand, demand, settings, doubts, stream if arrivals else None)
    return msgspec.structs.replace(stream, **sharing)


def _of_programs(part: _Population, settings: _Settings, doubts: list[str]) -> Stream:
    demand = part.demand
    arrivals = None
    if demand.timed:
        arrivals = _arrivals(*_starts_of(demand), settings, part.name, doubts)
    else:
        doubts.append(NO_TIMES)
    many = demand.calls["program_id"].n_unique()
    if not demand.timed:
        _enough(many)
    failures = None
    served = demand.trace
    if "status" in demand.columns:
        failures = Failures.fit(demand.calls, settings.min_count)
        ok = pl.col("status").is_null() | pl.col("status").is_in([OK, "unknown"])
        served = replace(served, frame=served.frame.filter(ok))
    return Stream(
        name=part.name,
        arrivals=arrivals,
        programs=Agents.fit(served, settings.min_count),
        calls_each=rounded(len(demand) / max(1, many)),
        failures=failures,
        **_sharing(demand, demand, settings, doubts),
    )


def _moments(part: Demand, whole: Demand) -> tuple[Floats, float]:
    """Return when calls came after the trace's begin, spread over their tick, and how long it is.

    A trace lasts from its first arrival to its last, and as long as a gap on average beyond.
    """
    begin, end = whole.deticked[0][[0, -1]]
    lasts = max(whole.span_s, float(end - begin))  # the last tick may end after the last stamp
    gap_s = whole.span_s / max(1, len(whole.arrivals) - 1)
    return np.clip(part.deticked[0] - begin, 0.0, lasts), lasts + (gap_s or 1.0)


def _starts_of(demand: Demand) -> tuple[Floats, float]:
    """Return when the programs of a trace start, and how long it is."""
    at, span_s = _moments(demand, demand)
    if not _has_turns(demand):
        return at, span_s
    programs = demand.placed["program_id"]
    return at[(programs.is_first_distinct() | programs.is_null()).to_numpy()], span_s


def _arrivals(
    at: Floats, span_s: float, settings: _Settings, name: str, doubts: list[str]
) -> Arrivals:
    """Learn when programs start: sorted moments (s) in [0, span_s)."""
    _enough(len(at))
    if at[0] == at[-1]:
        raise InputError(
            "All programs start at one instant, which tells no rate.",
            "Give a trace of a longer time, or one without arrivals and later a rate.",
        )
    schedule = Schedule.fit(at, span_s, settings.window_s, settings.min_count, exact=settings.exact)
    if settings.shape != AUTO:
        return Arrivals(schedule=schedule, shape=_shape(settings.shape, at, span_s, schedule))
    choice = choose(at, span_s, window_s=schedule.window_s, resamples=_RESAMPLES)
    if choice.doubt:
        doubts.append(f"{name}: {choice.doubt}")
    return Arrivals(
        schedule=schedule,
        shape=_shape(choice.family, at, span_s, schedule) if choice.tried else choice.shape,
        candidates=tuple(
            Candidate(
                family=row["family"],
                score=None if row["score"] is None else rounded(row["score"]),
                p_value=row["p_value"],
                verdict=row["verdict"] or "",
            )
            for row in choice.table.iter_rows(named=True)
        ),
    )


def _shape(family: str, at: Floats, span_s: float, schedule: Schedule) -> AnyShape:
    """Return a shape that was fitted to the windows of the schedule."""
    if family == "cascade":
        return Cascade.fit(at, span_s, schedule.window_s)
    return SHAPES[family](at, span_s, schedule.window_s)


def _enough(programs: int) -> None:
    if programs < _FEWEST:
        raise InputError(
            f"{programs} programs are too few to learn a model from.",
            f"Give a trace with {_FEWEST} or more.",
        )


def _kinds(calls: pl.DataFrame) -> tuple[Ints, list[tuple[str | None, str | None, str | None]]]:
    """Return the kind of every call, and model, class and status of each kind."""
    wanted = ("model", "call_class", "status")
    said = calls.select(
        (pl.col(name).cast(pl.String) if name in calls.columns else pl.lit(None, pl.String)).alias(
            name
        )
        for name in wanted
    )
    if said.width and said.height == 1 < calls.height:
        return np.zeros(calls.height, np.int64), [(None, None, None)]
    number = said.select(pl.struct(wanted).rank("dense").cast(pl.Int64) - 1).to_series()
    names = said.with_columns(number=number).unique("number").sort("number")
    return number.to_numpy(), [(row[0], row[1], row[2]) for row in names.iter_rows()]


def _tokens(calls: pl.DataFrame, name: str) -> Floats:
    return calls[name].fill_null(0).cast(pl.Float64).to_numpy()


def _sharing(
    part: Demand,
    whole: Demand,
    settings: _Settings,
    doubts: list[str],
    stream: Stream | None = None,
) -> dict[str, Any]:
    """Return the fields of a stream that say what its prompts share.

    It is calibrated on calls of the stream, if that is given: those will be what shares.
    """
    if "prefix_blocks" not in whole.trace.columns:
        return {}
    if part is not whole:
        doubts.append("What prompts share is not learnt where clients have streams of their own.")
        return {}
    drawn = None
    if stream is not None:
        lasts = min(whole.span_s, _CALIBRATED * whole.span_s / len(whole))

        def drawn(turn: int) -> tuple[Floats, Ints]:
            calls = Drawing(stream, Draws(turn, _CALIBRATING), _CALLS).until(lasts)
            return calls["arrival_s"].to_numpy(), calls["input_tokens"].to_numpy()

    about = whole.about
    return {
        "prefixes": Prefixes.fit(whole, settings.min_count, drawn),
        "blocks": Blocks(tokens=about.block_tokens, rule=about.block_rule, scope=about.block_scope),
    }
