"""The one way in for models: a file, a preset, a paper's workload, a pool of clients."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Final

import msgspec

from servescope.analysis.models.edits import flattened
from servescope.analysis.models.fitting import AUTO, fit
from servescope.analysis.models.model import FORMAT, Model, Stream
from servescope.analysis.models.presets import PRESETS, load_preset
from servescope.analysis.models.servegen import of_pool
from servescope.analysis.models.synthesis import tried
from servescope.loadgen import generated
from servescope.loadgen.experiment import ArrivalSpec, WorkloadSpec
from servescope.traces import load
from servescope.traces.errors import InputError

WORKLOAD: Final = "workload:"
SUFFIX: Final = ".json"
_PATTERN = frozenset("*?[")
_HEAD = 256  # bytes of a file that say whether it is a model
_CALLS = 20_000  # of a workload, that its model is fitted to
_SEED = 0
_FAMILIES = {"poisson": "poisson", "gamma": "gamma renewal", "weibull": "weibull renewal"}
_IS_FIT = (
    "This is a fit of the generator {name}, of {calls:,} of its calls: what they have in common"
    " beyond that is not in it."
)


def is_model(source: str) -> bool:
    """Say whether a source is a preset, a workload or a model file; a pool is a trace too."""
    if source in PRESETS or source.startswith(WORKLOAD):
        return True
    path = Path(source).expanduser()
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return FORMAT.encode() in file.read(_HEAD)


def open_model(source: str, *, clients: int | None = None) -> Model:
    """Return the model that a source names.

    That is the name of a preset; `workload:NAME`, a paper's workload; a model file; or a folder,
    files or a pattern of a ServeGen pool, of which only the heaviest `clients` are kept if that is
    given. Raises InputError for everything else.
    """
    path = Path(source).expanduser()
    if clients is not None and (is_model(source) or path.suffix == SUFFIX):
        raise InputError(f"{source} is no pool of clients.", "Leave the number of clients out.")
    if source in PRESETS:
        return load_preset(source)
    if source.startswith(WORKLOAD):
        return of_workload(source.removeprefix(WORKLOAD))
    if path.is_file() and (path.suffix == SUFFIX or is_model(source)):
        return tried(Model.load(path))
    if path.exists() or _PATTERN & set(source):
        return of_pool(load(source), clients=clients)
    near = get_close_matches(source, PRESETS, n=3, cutoff=0.3) or list(PRESETS)
    raise InputError(
        f"'{source}' is no model: no preset, workload, file or pool of clients.",
        f"Near it: {', '.join(near)}." if near else f"Try {WORKLOAD}sarathi-chat, or a model file.",
    )


def of_workload(name: str) -> Model:
    """Fit a model to calls of a paper's workload, whose starts and rate are those that it names.

    Pauses between the calls of a program are kept as pauses: it waits for its answers. Raises
    InputError for an unknown name.
    """
    spec = WorkloadSpec(generator=name, calls=_CALLS)
    made = generated.generator_of(spec)
    programs = generated.programs_of(spec, _SEED)
    trace = generated.trace_of(programs, generated.provenance_of(name, made))
    known = made.arrivals()
    fitted = fit(trace, name=name, shape=_FAMILIES.get(known.process, AUTO))
    model = flattened(fitted) if known.process in _FAMILIES else fitted
    calls = sum(len(program.calls) for program in programs)
    about = msgspec.structs.replace(
        fitted.about, doubts=(*fitted.about.doubts, _IS_FIT.format(name=name, calls=calls))
    )
    streams = tuple(_at_rate(stream, known) for stream in model.streams)
    return msgspec.structs.replace(model, about=about, streams=streams)


def _at_rate(stream: Stream, known: ArrivalSpec) -> Stream:
    """Return the only stream of a workload, flat, with just its rate of programs."""
    arrivals = stream.arrivals
    if arrivals is None or known.rate_rps is None or len(arrivals.schedule.rates_rps) > 1:
        return stream
    schedule = msgspec.structs.replace(arrivals.schedule, rates_rps=(known.rate_rps,))
    return msgspec.structs.replace(
        stream, arrivals=msgspec.structs.replace(arrivals, schedule=schedule)
    )
