"""What servescope itself has for a field of another tool, to stand beside it."""

from __future__ import annotations

from servescope.analysis.attainment import attained
from servescope.analysis.intervals import bounded
from servescope.analysis.metrics import METRICS
from servescope.analysis.profiles.profile import Field
from servescope.analysis.slo import SLO
from servescope.analysis.totals import TOTALS, Whole

_OF_SLO = {"goodput": "Goodput", "attainment": "Within SLO"}


def label_of(field: Field) -> str | None:
    """Return what we call the same number; None where we have none of that kind."""
    name, statistic = field.ours, field.statistic
    if name is None:
        return None
    if name in METRICS:
        said = statistic.ours if statistic else None
        return f"{METRICS[name].label} {said}" if said else None
    return _OF_SLO.get(name) or TOTALS[name].label


def value_of(field: Field, whole: Whole, slo: SLO | None) -> float | None:
    """Return our own number by our own definition, in the unit of the field."""
    if label_of(field) is None:
        return None
    name = field.ours or ""
    if name in _OF_SLO:
        found = _of_slo(name, whole, slo)
    elif name in TOTALS:
        found = TOTALS[name].of(whole)
    else:
        found = _of_metric(name, field, whole)
    return None if found is None else found * field.scale


def _of_slo(name: str, whole: Whole, slo: SLO | None) -> float | None:
    if slo is None or not slo.of_each:
        return None
    met = attained(whole.measured, slo)
    return met.goodput_rps if name == "goodput" else met.share


def _of_metric(name: str, field: Field, whole: Whole) -> float | None:
    sample = whole.measured.distributions[name]
    match field.statistic.ours if field.statistic else None:
        case "mean":
            return sample.mean()
        case "min":
            return sample.min()
        case "max":
            return sample.max()
        case str(percent):
            q = float(percent[1:]) / 100
            return bounded(sample, q)
        case None:
            return None
