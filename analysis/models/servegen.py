"""ServeGen client pools as models: one stream a client, with the rates and laws that are published.

A pool (Xiang et al. 2025) tells of every client how often it asked and by which law, in windows of
ten minutes, and histograms of its token counts; no calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby

import numpy as np
import polars as pl

from servescope.analysis.models.lengths import Lengths
from servescope.analysis.models.marks import Kind, Marks
from servescope.analysis.models.model import About, Arrivals, Model, Stream
from servescope.analysis.models.quantiles import MIN_COUNT, Quantiles, all_rounded, rounded
from servescope.analysis.models.renewal import Gaps, Law, WindowedRenewal
from servescope.analysis.models.schedule import Schedule
from servescope.analysis.sample import Floats
from servescope.traces.errors import InputError
from servescope.traces.formats.servegen import NO_CALLS, WINDOW_S
from servescope.traces.trace import Trace

INDEPENDENT = (
    "Only how long prompts are and how long answers are is published, not which go together: they"
    " are drawn as if they were independent."
)
STEADY = "How a client's lengths change over time is left out: all of its calls share one law."
ONLY_TEXT = "Of prompts only the text is counted; images, sound and video are left out."
_LEAST, _MOST = 0.02, 100.0  # shapes of laws: a few windows of few calls have wilder ones
_VALUES = 20_000  # that stand for a histogram
_KNOTS = 64
_FIELDS = {"input_tokens": "inputs", "text_tokens": "inputs", "output_tokens": "outputs"}


def of_pool(
    trace: Trace, span: tuple[float, float] | None = None, clients: int | None = None
) -> Model:
    """Take a pool as a model: of all its time, or of the windows that begin in `span` (s).

    Only the heaviest `clients` are kept if that is given. Raises InputError for a trace that is no
    pool, and where nothing is left.
    """
    if not {"client_windows", "client_lengths"} <= set(trace.tables):
        raise InputError(
            f"{trace.provenance.source} is no pool of clients.",
            "Give ServeGen's files; `servescope fit` learns a model of a trace.",
        )
    if clients is not None and clients < 1:
        raise InputError(f"{clients} clients cannot be kept.", "Give 1 or more.")
    rates = _Rates.of(trace, span)
    lengths = _Histograms.of(trace, rates)
    names = rates.names if rates.known else lengths.names
    kept = names[:clients]
    pooled = lengths.pooled()
    streams, strange = [], 0
    for name in kept:
        law = lengths.law(name)
        strange += law is None
        streams.append(
            Stream(
                name=name,
                client=name,
                arrivals=rates.arrivals(name) if rates.known else None,
                marks=Marks(kinds=(Kind(share=1.0, lengths=law or pooled),)),
            )
        )
    doubts = [doubt for doubt in trace.provenance.doubts if doubt != NO_CALLS]
    doubts += [INDEPENDENT, STEADY]
    if lengths.only_text:
        doubts.append(ONLY_TEXT)
    if strange:
        doubts.append(
            f"{strange} of {len(kept)} clients, whose lengths are not known, are given those of the"
            " others together."
        )
    if len(kept) < len(names):
        doubts.append(
            f"The {len(kept)} heaviest of {len(names)} clients are kept, with"
            f" {100 * rates.share(kept):.3g} % of the calls; the others are left out."
            if rates.known
            else f"{len(kept)} of {len(names)} clients are kept; the others are left out."
        )
    about = trace.provenance
    pools = sorted({name.rpartition("/")[0] for name in kept})
    return Model(
        name=pools[0] if len(pools) == 1 and pools[0] else "servegen",
        about=About(
            source=about.source,
            calls=round(sum(rates.calls[name] for name in kept)) if rates.known else 0,
            span_s=rounded(rates.windows * WINDOW_S) if rates.known else None,
            sha256=about.sha256,
            licence=about.licence,
            attribution=about.attribution,
            min_count=MIN_COUNT,
            made_by=f"servescope {version('servescope')}",
            doubts=tuple(doubts),
        ),
        streams=tuple(streams),
    )


@dataclass(frozen=True, slots=True)
class _Rates:
    """What clients asked in a span of `windows`, the heaviest client first: `calls` by client.

    `asked` has window (from 0), rate_rps, pattern and shape of the windows in which a client asked.
    """

    windows: int
    calls: dict[str, float]
    asked: dict[str, pl.DataFrame]
    known: bool
    begin_s: float

    @classmethod
    def of(cls, trace: Trace, span: tuple[float, float] | None) -> _Rates:
        table = trace.tables["client_windows"]
        start = pl.col("window_start_s")
        first, last = table.select(first=start.min(), last=start.max()).collect().row(0)
        if first is None:
            return cls(0, {}, {}, False, 0.0)
        begin, end = (first, last + WINDOW_S) if span is None else span
        inside = table.filter(start >= begin, start < end, pl.col("rate_rps") > 0).collect()
        if not inside.height:
            raise InputError(
                f"No client asks anything in the windows that begin from {begin:g} s to {end:g} s.",
                f"The pool has those from {first:g} s to {last:g} s.",
            )
        # windows without a call at the ends of the span are a part of it
        begin = max(first, np.ceil(begin / WINDOW_S) * WINDOW_S)
        end = min(last + WINDOW_S, np.ceil(end / WINDOW_S) * WINDOW_S)
        placed = inside.select(
            "client_id",
            "rate_rps",
            "pattern",
            "shape",
            window=((start - begin) / WINDOW_S).round().cast(pl.Int64),
        ).sort("client_id", "window")
        asked = {
            str(name): part
            for (name,), part in placed.partition_by(
                "client_id", as_dict=True, maintain_order=True
            ).items()
        }
        calls = {name: float(part["rate_rps"].sum()) * WINDOW_S for name, part in asked.items()}
        heaviest = sorted(calls, key=lambda name: (-calls[name], name))
        return cls(
            round((end - begin) / WINDOW_S),
            {name: calls[name] for name in heaviest},
            asked,
            True,
            begin,
        )

    @property
    def names(self) -> list[str]:
        """The clients that ask anything, the heaviest first."""
        return list(self.calls)

    def share(self, names: list[str]) -> float:
        """Return the share of all calls that clients have."""
        return sum(self.calls[name] for name in names) / sum(self.calls.values())

    def arrivals(self, name: str) -> Arrivals:
        """Return when a client asks: its rates, 0 where it did not, and its law in each window."""
        asked = self.asked[name]
        at = asked["window"].to_numpy()
        rates = np.zeros(self.windows)
        rates[at] = asked["rate_rps"].to_numpy()
        laws = [
            (_GAPS[pattern], rounded(min(max(shape, _LEAST), _MOST)))
            for pattern, shape in zip(asked["pattern"], asked["shape"], strict=True)
        ]
        # a window without calls counts as one of those before it, for it has no law
        place = np.searchsorted(at, np.arange(self.windows), side="right") - 1
        each = (laws[k] for k in np.maximum(place, 0).tolist())
        runs = ((law, len(list(run))) for law, run in groupby(each))
        return Arrivals(
            schedule=Schedule(window_s=float(WINDOW_S), rates_rps=all_rounded(rates)),
            shape=WindowedRenewal(
                window_s=float(WINDOW_S),
                laws=tuple(Law(gaps=law[0], shape=law[1], windows=many) for law, many in runs),
            ),
        )


_GAPS: dict[str, Gaps] = {"Gamma": "gamma", "Weibull": "weibull"}


@dataclass(frozen=True, slots=True)
class _Histograms:
    """Token counts of clients, weighed by calls: client_id, field, value and weight.

    `calls` says how many calls the weights of a client stand for, at least one.
    """

    table: pl.DataFrame
    calls: dict[str, float]
    names: list[str]
    only_text: bool

    @classmethod
    def of(cls, trace: Trace, rates: _Rates) -> _Histograms:
        """Weigh each histogram by the calls of its client in its window, if there are any."""
        found = trace.tables["client_lengths"].collect()
        held = set(found["field"].unique())
        found = found.filter(pl.col("field").is_in(list(_FIELDS))).with_columns(
            pl.col("field").replace_strict(_FIELDS)
        )
        both = found.group_by("client_id").agg(pl.col("field").n_unique())
        names = sorted(both.filter(pl.col("field") == 2)["client_id"])
        found = found.filter(pl.col("client_id").is_in(names))
        if not names:
            raise InputError(
                f"{trace.provenance.source} does not say of any client how long its prompts and"
                " answers are.",
                "Give its dataset files too.",
            )
        weighed = found.join(
            _calls(rates, float(found["window_s"][0])),
            on=["client_id", "window_start_s"],
            how="left",
        ).with_columns(pl.col("calls").fill_null(0.0))
        # of clients whose histograms are of other times, all count alike
        none = pl.col("calls").sum().over("client_id") == 0
        table = weighed.select(
            "client_id",
            "field",
            "value",
            weight=pl.col("probability") * pl.when(none).then(1.0).otherwise("calls"),
        )
        calls = {name: max(rates.calls.get(name, _VALUES), 1.0) for name in names}
        return cls(table, calls, names, "text_tokens" in held and "input_tokens" not in held)

    def law(self, name: str) -> Lengths | None:
        """Return how long the prompts and answers of a client are; None where it is not known."""
        if name not in self.calls:
            return None
        return _lengths(self.table.filter(pl.col("client_id") == name), self.calls[name])

    def pooled(self) -> Lengths:
        """Return how long prompts and answers are, of all clients of whom it is known."""
        return _lengths(self.table, sum(self.calls.values()))


def _calls(rates: _Rates, width_s: float) -> pl.DataFrame:
    """Return how many calls each client has in windows of `width_s`."""
    parts = [part.select("client_id", "window", "rate_rps") for part in rates.asked.values()]
    if not parts:
        kinds = {"client_id": pl.String, "window_start_s": pl.Float64, "calls": pl.Float64}
        return pl.DataFrame(schema=kinds)
    start = rates.begin_s + pl.col("window") * WINDOW_S
    return (
        pl.concat(parts)
        .group_by("client_id", window_start_s=(start / width_s).floor() * width_s)
        .agg(calls=pl.col("rate_rps").sum() * WINDOW_S)
    )


def _lengths(table: pl.DataFrame, calls: float) -> Lengths:
    """Return the laws of weighed values, as if so many calls had them."""
    laws = {}
    for field in ("inputs", "outputs"):
        mine = table.filter(pl.col("field") == field).group_by("value").agg(pl.col("weight").sum())
        mine = mine.sort("value")
        laws[field] = _law(mine["value"].to_numpy(), mine["weight"].to_numpy(), calls)
    return Lengths(inputs=laws["inputs"], edges=(), outputs=(laws["outputs"],))


def _law(values: Floats, weights: Floats, calls: float) -> Quantiles:
    """Return the quantile function of values, ascending, that come as often as `weights` say."""
    count = int(min(max(calls, 1.0), _VALUES))
    upto = np.cumsum(weights)
    at = np.searchsorted(upto, (np.arange(count) + 0.5) / count * upto[-1])
    return Quantiles.fit(values[np.minimum(at, len(values) - 1)], MIN_COUNT, _KNOTS, whole=True)
