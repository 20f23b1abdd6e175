"""Whether traces differ, and in what: side by side, with tests that know neighbours are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from servescope.analysis.aspects.lengths import between
from servescope.analysis.characterization import Characterization
from servescope.analysis.intervals import NORMAL_95
from servescope.analysis.sample import Floats, Sample

SEED = 13
_CELLS = 256
_FREE = 19  # degrees of freedom behind most intervals
# Shares and correlations differ by subtraction, all else by ratio.
_ADDITIVE = {"share"}
# Not compared: an exponent holds from where its tail begins, which is another place in every trace;
# the intervals of the others take calls or windows for independent.
_NOT_COMPARED = {"tail_exponent", "alpha", "length_effect", "load_effect"}
_CORRELATIONS = {
    "spearman",
    "pearson",
    "serial_output",
    "gap_r1",
    "count_r1",
    "successive_pauses",
    "hurst",
}
_SAMPLES = {
    "gap_s": "gaps (de-ticked)",
    "input_tokens": "prompts",
    "output_tokens": "answers",
    "turns": "turns",
}

DIFFERENCES = {
    "trace": pl.String,
    "quantity": pl.String,
    "subject": pl.String,
    "unit": pl.String,
    "baseline": pl.Float64,
    "value": pl.Float64,
    "change": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p_value": pl.Float64,
    "p_adjusted": pl.Float64,
    "how": pl.String,
}


def differences(traces: Sequence[Characterization]) -> pl.DataFrame:
    """Compare every trace with the first: a row a quantity that both have with an interval.

    Numbers: Welch's t from the intervals of both, on the log scale (`change` is a ratio), or by
    subtraction for shares and correlations. Distributions: the Kolmogorov-Smirnov distance, with p
    by permuting the sections of time of both. `p_adjusted` is Holm's over all rows.
    """
    first, rest = traces[0], traces[1:]
    rng = np.random.default_rng(SEED)
    rows: list[dict[str, object]] = []
    for other in rest:
        rows += _distributions(first, other, rng)
        rows += _numbers(first, other)
        rows += _at_scales(first, other)
    for row, adjusted in zip(rows, _holm([row["p_value"] for row in rows]), strict=True):
        row["p_adjusted"] = adjusted
    return pl.DataFrame(rows, schema=DIFFERENCES)


def side_by_side(traces: Sequence[Characterization]) -> pl.DataFrame:
    """Return every statistic of any trace: aspect, statistic, subject, unit, and a column each.

    A trace's column has its name; of two traces of one name the second gets a number.
    """
    keys = ["aspect", "statistic", "subject", "unit"]
    # what a subject is of may be the trace's own (a width, a model): those do not meet
    tables = [
        each.statistics.select(*keys, pl.col("value").alias(name)).unique(
            keys, keep="first", maintain_order=True
        )
        for each, name in zip(traces, names_of(traces), strict=True)
    ]
    order = pl.concat([t.select(keys) for t in tables]).unique(maintain_order=True)
    for table in tables:
        order = order.join(table, on=keys, how="left", maintain_order="left")
    return order


def names_of(traces: Sequence[Characterization]) -> list[str]:
    """Return names that tell traces apart."""
    seen: dict[str, int] = {}
    names = []
    for each in traces:
        seen[each.name] = seen.get(each.name, 0) + 1
        names.append(each.name if seen[each.name] == 1 else f"{each.name} ({seen[each.name]})")
    return names


def _row(other: Characterization, quantity: str, **values: object) -> dict[str, object]:
    return dict.fromkeys(DIFFERENCES) | {"trace": other.name, "quantity": quantity} | values


def _distributions(
    first: Characterization, other: Characterization, rng: np.random.Generator
) -> list[dict[str, object]]:
    rows = []
    for name, said in _SAMPLES.items():
        a, b = first.samples.get(name), other.samples.get(name)
        if a is None or b is None or not (len(a) and len(b)):
            continue
        edges = np.unique(
            np.quantile(np.concatenate([a.values, b.values]), np.linspace(0, 1, _CELLS + 1)[1:-1])
        )
        held = np.concatenate([_held(a, edges), _held(b, edges)])
        if a.blocks < 5 or (held.sum(axis=1) == 0).any():
            continue
        # each trace counts as one, however many calls it has
        whole_a, whole_b = held[: a.blocks].sum(), held[a.blocks :].sum()
        held[: a.blocks] /= whole_a
        held[a.blocks :] /= whole_b
        apart, p = between(held, a.blocks, rng)
        rows.append(
            _row(
                other,
                f"distribution of {said}",
                subject=name,
                unit="1",
                change=apart,
                p_value=p,
                how="KS distance, sections permuted",
            )
        )
    return rows


def _held(sample: Sample, edges: Floats) -> Floats:
    cell = np.searchsorted(edges, sample.values, side="left")
    width = len(edges) + 1
    held = np.bincount(sample.block * width + cell, sample.weights, sample.blocks * width)
    return held.reshape(sample.blocks, width).astype(np.float64)


def _numbers(first: Characterization, other: Characterization) -> list[dict[str, object]]:
    keys = ["aspect", "statistic", "subject", "unit"]
    columns = [*keys, "value", "low", "high"]
    a = (
        first.statistics.drop_nulls(["low", "high"])
        .select(columns)
        .unique(keys, keep="first", maintain_order=True)
    )
    b = (
        other.statistics.drop_nulls(["low", "high"])
        .select(columns)
        .unique(keys, keep="first", maintain_order=True)
    )
    a = a.filter(~pl.col("statistic").is_in(_NOT_COMPARED))
    both = a.join(b, on=keys, how="inner", suffix="_b", maintain_order="left")
    rows = []
    for row in both.iter_rows(named=True):
        additive = row["unit"] in _ADDITIVE or row["statistic"] in _CORRELATIONS
        found = _welch(
            (row["value"], row["low"], row["high"]),
            (row["value_b"], row["low_b"], row["high_b"]),
            additive=additive,
        )
        if found:
            change, low, high, p = found
            rows.append(
                _row(
                    other,
                    row["statistic"],
                    subject=row["subject"],
                    unit=row["unit"],
                    baseline=row["value"],
                    value=row["value_b"],
                    change=change,
                    low=low,
                    high=high,
                    p_value=p,
                    how="difference" if additive else "ratio",
                )
            )
    return rows


def _at_scales(first: Characterization, other: Characterization) -> list[dict[str, object]]:
    """Compare the dispersion of counts at the scales nearest to 1, 10 and 60 s, and beyond."""
    a, b = (each.tables.get("dispersion") for each in (first, other))
    if a is None or b is None:
        return []
    rows: list[dict[str, object]] = []
    for scale in (1.0, 10.0, 60.0, 600.0, 3600.0):
        near = []
        for table in (a, b):
            known = table.drop_nulls(["idc_low", "idc_high"])
            if not known.height:
                return rows
            off = np.abs(np.log(known["scale_s"].to_numpy() / scale))
            if off.min() > math.log(1.5):
                break
            near.append(known.row(int(off.argmin()), named=True))
        if len(near) < 2:
            continue
        found = _welch(
            *((row["idc"], row["idc_low"], row["idc_high"]) for row in near), additive=False
        )
        if found:
            change, low, high, p = found
            rows.append(
                _row(
                    other,
                    "index of dispersion",
                    subject=f"about {scale:g} s",
                    unit="1",
                    baseline=near[0]["idc"],
                    value=near[1]["idc"],
                    change=change,
                    low=low,
                    high=high,
                    p_value=p,
                    how="ratio",
                )
            )
    return rows


def _welch(
    a: tuple[float, float, float], b: tuple[float, float, float], *, additive: bool
) -> tuple[float, float, float, float] | None:
    """Return change, its interval and p from two estimates with 95 % intervals.

    Their errors are taken to be as if the intervals were those of a normal law, which is too large
    for those of Student's t: rather no difference than a false one.
    """
    from scipy import stats

    if not additive and min(*a, *b) <= 0:
        return None
    forth = (lambda x: x) if additive else math.log
    errors = [(forth(high) - forth(low)) / 2 / NORMAL_95 for _, low, high in (a, b)]
    together = math.hypot(*errors)
    if together == 0:
        return None
    off = forth(b[0]) - forth(a[0])
    free = together**4 / sum(error**4 / _FREE for error in errors)
    p = float(2 * stats.t.sf(abs(off) / together, free))
    around = float(stats.t.ppf(0.975, free)) * together
    ends = (off, off - around, off + around)
    change, low, high = ends if additive else tuple(math.exp(x) for x in ends)
    return change, low, high, p


def _holm(p_values: Sequence[object]) -> list[float]:
    """Return Holm's adjusted p-values."""
    p = np.array(p_values, np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(x) for x in adjusted]
