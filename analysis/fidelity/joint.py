"""How lengths hang together: prompt with answer, with the calls around, and with the load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import polars as pl

from servescope.analysis import copulas
from servescope.analysis.counts import Counts
from servescope.analysis.fidelity.scores import Found, LeftOut, Measure, Score, difference
from servescope.analysis.fidelity.sides import Side
from servescope.analysis.fidelity.temporal import dispersion_curve, log_error, refused
from servescope.analysis.sample import Floats

# A token of an answer keeps a server about as busy as so many of a prompt.
ANSWER_WEIGHT: Final = 4.0
_FEWEST = 100
_CELLS = 20  # of the grid on which copulas are compared
_DRAWN_CELLS = 10
_TENTH = 20  # calls of a tenth of the prompts of which a P90 is worth saying
_AROUND = 10  # mean gaps of a window of which a call's local rate is the count

MEASURES = {
    "spearman": Measure(
        "difference of the rank correlation of prompt and answer", "1", "|difference|", bar=0.01
    ),
    "copula": Measure(
        "largest difference of the two copulas of prompt and answer",
        "1",
        "largest |difference| of the empirical copulas of mid-ranks on a 20 by 20 grid",
        "Remillard and Scaillet (2009), of the largest instead of the mean square",
    ),
    "conditional_p90": Measure(
        "error of the 90th percentile of answers, given the tenth of the prompt",
        "1",
        "mean |ratio - 1| over tenths of the real prompts with 20 calls on both sides",
        bar=0.1,
    ),
    "serial": Measure(
        "difference of the rank correlation of one call's length with the next's",
        "1",
        "|difference|, calls in order of arrival",
    ),
    "length_and_rate": Measure(
        "difference of the rank correlation of a length with the rate around it",
        "1",
        "|difference|; the rate is the count of a window of ten mean real gaps",
    ),
    "token_idc": Measure(
        "error of the index-of-dispersion curve of token load of one synthetic trace",
        "1",
        f"as idc, of the sum of prompt tokens + {ANSWER_WEIGHT:g} x answer tokens",
    ),
    "token_idc_mean_curve": Measure(
        "error of the mean such curve of token load of all synthetic traces",
        "1",
        "as idc_mean_curve",
        bar=0.08,
    ),
}


def scores(real: Side, other: Side) -> Found:
    """Compare what lengths have to do with each other and with the load."""
    if min(real.lengths.height, other.lengths.height) < _FEWEST:
        yield LeftOut("lengths together", f"fewer than {_FEWEST} calls have both lengths")
        return
    a, b = (_Lengths(side.lengths) for side in (real, other))
    together = [_correlation(each.u, each.v) for each in (a, b)]
    if None in together:
        yield LeftOut("rank correlation", "all prompts or all answers of a trace are alike")
    yield from _differing("spearman", together)
    yield Score("copula", float(np.abs(_copula(a) - _copula(b)).max()))
    yield from _conditional(a, b)
    for name in ("u", "v"):
        subject = "input_tokens" if name == "u" else "output_tokens"
        ranks = [getattr(each, name) for each in (a, b)]
        yield from _differing("serial", [_correlation(r[:-1], r[1:]) for r in ranks], subject)
    why = refused(real, other)
    if why:
        yield LeftOut("lengths against the rate", why)
        return
    width = max(_AROUND / real.rate_rps, real.finest_s)
    rates = [_around(each.arrivals, width) for each in (a, b)]
    for name, subject in (("u", "input_tokens"), ("v", "output_tokens")):
        found = [_correlation(getattr(e, name), r) for e, r in zip((a, b), rates, strict=True)]
        yield from _differing("length_and_rate", found, subject)
    error = log_error(_token_curve(real, real), _token_curve(real, other))
    if error is not None:
        yield Score("token_idc", error)


class _Lengths:
    """Prompts and answers with their mid-ranks, in order of arrival."""

    def __init__(self, calls: pl.DataFrame) -> None:
        self.x, self.y = (calls[c].to_numpy() for c in ("input_tokens", "output_tokens"))
        self.u, self.v = (copulas.mid_ranks(each.astype(np.int64)) for each in (self.x, self.y))
        self.arrivals = calls["arrival_s"].to_numpy() if "arrival_s" in calls.columns else self.x


def _correlation(u: Floats, v: Floats) -> float | None:
    """Return the rank correlation; None where one side is constant."""
    if len(u) < 2 or not (np.ptp(u) > 0 and np.ptp(v) > 0):
        return None
    return float(np.corrcoef(u, v)[0, 1])


def _differing(measure: str, found: Sequence[float | None], subject: str = "") -> Iterator[Score]:
    """Yield the difference of the real number and the other one, where both are known."""
    real, other = found
    if real is not None and other is not None:
        yield difference(measure, real, other, subject)


def _copula(lengths: _Lengths) -> Floats:
    """Return the share of calls up to every node of the grid of ranks: shape (cells, cells)."""
    return np.cumsum(np.cumsum(_grid(lengths, _CELLS), axis=0), axis=1)


def _grid(lengths: _Lengths, cells: int) -> Floats:
    """Return the share of calls in every cell of ranks: prompt by answer."""
    place = [np.minimum((r * cells).astype(np.int64), cells - 1) for r in (lengths.u, lengths.v)]
    held = np.bincount(place[0] * cells + place[1], minlength=cells**2)
    return held.reshape(cells, cells) / len(lengths.u)


def _conditional(a: _Lengths, b: _Lengths) -> Iterator[Score]:
    edges = np.unique(np.quantile(a.x, np.linspace(0, 1, 11)[1:-1], method="inverted_cdf"))
    tenths = [np.searchsorted(edges, each.x, side="left") for each in (a, b)]
    errors = []
    for tenth in range(len(edges) + 1):
        x, y = (e.y[t == tenth] for e, t in zip((a, b), tenths, strict=True))
        if min(len(x), len(y)) >= _TENTH:
            high = [float(np.quantile(each, 0.9, method="inverted_cdf")) for each in (x, y)]
            if high[0] > 0:
                errors.append(abs(high[1] / high[0] - 1))
    if errors:
        yield Score("conditional_p90", float(np.mean(errors)))


def _around(arrivals: Floats, width_s: float) -> Floats:
    """Return how many other calls arrive within half a width of each."""
    first = np.searchsorted(arrivals, arrivals - width_s / 2, side="left")
    end = np.searchsorted(arrivals, arrivals + width_s / 2, side="right")
    return (end - first - 1).astype(np.float64)


def _token_curve(real: Side, side: Side) -> pl.DataFrame:
    """Return the index of dispersion of token load at the real trace's scales."""
    least, longest = real.scales
    calls = side.lengths
    weights = (calls["input_tokens"] + ANSWER_WEIGHT * calls["output_tokens"]).to_numpy()
    return dispersion_curve(
        Counts.of(calls["arrival_s"].to_numpy(), least, weights=weights), longest
    )


def curves(real: Side, side: Side) -> dict[str, pl.DataFrame]:
    """Return the density of the copula on a grid, and the dispersion of token load."""
    if min(real.lengths.height, side.lengths.height) < _FEWEST:
        return {}
    density = _grid(_Lengths(side.lengths), _DRAWN_CELLS) * _DRAWN_CELLS**2
    middle = (np.arange(_DRAWN_CELLS) + 0.5) / _DRAWN_CELLS
    drawn = {
        "copula": pl.DataFrame(
            {
                "input_rank": np.repeat(middle, _DRAWN_CELLS),
                "output_rank": np.tile(middle, _DRAWN_CELLS),
                "y": density.ravel(),
            }
        )
    }
    if refused(real, side) is None:
        drawn["token_idc"] = _token_curve(real, side)
    return drawn
