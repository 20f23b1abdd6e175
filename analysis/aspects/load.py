"""Load on a server: tokens over time and how they burst, and what is in flight at once."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.clock import Audit
from servescope.analysis.counts import round_width
from servescope.analysis.demand import Demand
from servescope.analysis.dispersion import bounds, fano
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.intervals import Interval, of_sums
from servescope.analysis.sample import Floats, Ints, in_sections, sums_in
from servescope.analysis.server_shape import ServerShape

LEAST_S = 0.1
_SECTIONS = 20
_BINS = 300
_MOMENTS = 500
_FEWEST = 100
_CLASSES = ("short prompt, short answer", "short prompt, long answer",
            "long prompt, short answer", "long prompt, long answer")  # fmt: skip

STATISTICS = {
    "input_tps": Statistic("prompt tokens a second", "tokens/s", "sum over span"),
    "output_tps": Statistic("answer tokens a second", "tokens/s", "sum over span"),
    "input_output_ratio": Statistic("prompt tokens for a token of answer", "1", "ratio of sums"),
    "peak_tokens": Statistic(
        "tokens in the busiest window over the mean of all", "1", "maximum over mean"
    ),
    "mix_drift": Statistic(
        "how much the share of a class swings from window to window; 1 is by chance",
        "1",
        "Pearson's chi square of classes by windows over its degrees of freedom; classes: model and"
        " class as named, else prompts and answers above or below their median",
        "delete-one jackknife over 20 sections of time",
    ),
    "concurrency_mean": Statistic(
        "calls in flight, on average",
        "calls",
        "Little's law: sum of stays over the time from the first arrival to the last end",
    ),
    "concurrency_max": Statistic("most calls in flight", "calls", "maximum at arrivals"),
    "kv_mean_gb": Statistic("keys and values in flight, on average", "GB", "mean over moments"),
    "kv_max_gb": Statistic("most keys and values in flight", "GB", "maximum over 500 moments"),
    "kv_servers": Statistic(
        "servers whose KV memory holds the most in flight", "servers", "maximum over capacity"
    ),
}
TABLES = {
    "tokens_over_time": TableOf(
        "tokens asked for in equal stretches of time",
        {"t_s": "s", "input_tps": "tokens/s", "output_tps": "tokens/s"},
        "sum over width, by arrival",
    ),
    "token_dispersion": TableOf(
        "tokens in windows of a scale",
        {
            "scale_s": "s",
            "windows": "windows",
            "input": "1",
            "input_low": "1",
            "input_high": "1",
            "output": "1",
            "output_low": "1",
            "output_high": "1",
        },
        "Var / mean of tokens a window over E(X^2) / E(X) of a call's: 1 for Poisson arrivals whose"
        " lengths know nothing of each other",
        "delete-one jackknife over 20 sections of time, on the log scale",
    ),
    "mix_over_time": TableOf(
        "share of each class in equal stretches of time",
        {"t_s": "s", "of": "name", "share": "share"},
        "count",
    ),
    "in_flight": TableOf(
        "calls and KV tokens in flight, without any queue",
        {"t_s": "s", "calls": "calls", "kv_tokens": "tokens", "kv_gb": "GB"},
        "each call from its arrival for as long as it stays; its answer grows evenly",
    ),
}


def found(
    demand: Demand, audit: Audit, findings: Findings, server: ServerShape | None = None
) -> None:
    """Describe the load."""
    if not {"input_tokens", "output_tokens"} <= set(demand.columns):
        findings.leave_out("load in tokens", "calls have no counts of both")
        return
    calls = demand.calls
    both = calls.select(pl.col("input_tokens", "output_tokens").cast(pl.Int64).sum()).row(0)
    if both[1]:
        findings.say("input_output_ratio", both[0] / both[1], n=calls.height)
    at = demand.arrivals
    if len(at) < 2 or audit.span_s <= 0:
        findings.leave_out("load over time", "no arrivals on one clock, or all at one moment")
        return
    placed = demand.placed
    tokens = [
        placed[c].fill_null(0).to_numpy().astype(np.float64)
        for c in ("input_tokens", "output_tokens")
    ]
    findings.say("input_tps", float(tokens[0].sum()) / audit.span_s, n=len(at))
    findings.say("output_tps", float(tokens[1].sum()) / audit.span_s, n=len(at))
    width = round_width(audit.span_s, _BINS, audit.finest_s)
    place = np.floor((at - at[0]) / width + 1e-9).astype(np.int64)
    held = [np.bincount(place, x) for x in tokens]
    findings.table(
        "tokens_over_time",
        pl.DataFrame(
            {
                "t_s": at[0] + width * np.arange(len(held[0])),
                "input_tps": held[0] / width,
                "output_tps": held[1] / width,
            }
        ),
    )
    whole = held[0] + held[1]
    findings.say("peak_tokens", float(whole.max() / whole.mean()) if whole.any() else None,
                 of=f"{width:g} s")  # fmt: skip
    if len(at) >= _FEWEST:
        _dispersion(at, tokens, audit, findings)
        _mix(demand, audit, findings)
    else:
        findings.leave_out("dispersion of tokens", f"{len(at)} calls are too few")
    _in_flight(at, tokens, placed, audit, server, findings)


def _dispersion(at: Floats, tokens: list[Floats], audit: Audit, findings: Findings) -> None:
    scale = max(LEAST_S, audit.finest_s)
    place = np.floor((at - at[0]) / scale + 1e-9).astype(np.int64)
    edges = np.flatnonzero(np.diff(place, prepend=-1))
    where = place[edges]
    sums = [np.add.reduceat(x, edges) for x in tokens]
    size = [float((x**2).sum() / x.sum()) if x.any() else np.nan for x in tokens]
    windows = int(audit.span_s / scale + 1e-9)
    rows = []
    while windows >= 10:
        upto = int(np.searchsorted(where, windows))
        row: list[object] = [scale, windows]
        for x, each in zip(sums, size, strict=True):
            row += _relative(where[:upto], x[:upto], windows, each)
        rows.append(row)
        scale, windows = scale * 2, windows // 2
        where = where // 2
        edges = np.flatnonzero(np.diff(where, prepend=-1))
        where, sums = where[edges], [np.add.reduceat(x, edges) for x in sums]
    names = list(TABLES["token_dispersion"].units)
    schema = {name: pl.Int64 if name == "windows" else pl.Float64 for name in names}
    findings.table("token_dispersion", pl.DataFrame(rows, schema=schema, orient="row"))


def _relative(where: Ints, x: Floats, windows: int, size: float) -> list[float | None]:
    many = min(_SECTIONS, windows)
    section = where * many // windows
    sizes = np.diff(-(-np.arange(many + 1) * windows // many)).astype(np.float64)
    scaled = x / size
    sums = np.concatenate([sizes[:, None], sums_in(section, many, scaled, scaled**2)], axis=1)
    with np.errstate(all="ignore"):
        whole = float(fano(sums.sum(axis=0)))
    interval = of_sums(sums, fano, "log")
    return [whole if np.isfinite(whole) else None, *bounds(interval)]


def _labels(demand: Demand) -> tuple[Ints, list[str], str] | None:
    """Return the class of each call, their names, and what they are classes of."""
    placed = demand.placed
    for column in ("call_class", "model"):
        if column in placed.columns and placed[column].n_unique() > 1:
            sizes = placed[column].value_counts(sort=True)
            names = sizes[column].cast(pl.String).fill_null("unknown").head(8).to_list()
            # numbers of names instead of names, for there may be ten million of them
            known = sizes[column].to_physical().fill_null(2**32 - 1).head(8)
            codes = placed[column].to_physical().fill_null(2**32 - 1)
            label = np.full(len(codes), len(names))
            for number, code in enumerate(known):
                label[(codes == code).to_numpy()] = number
            if sizes.height > len(names):
                names.append("others")
            return label, names, column
    x, y = (placed[c].fill_null(0).to_numpy() for c in ("input_tokens", "output_tokens"))
    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return None
    return 2 * (x > np.median(x)) + (y > np.median(y)), list(_CLASSES), "lengths"


def _mix(demand: Demand, audit: Audit, findings: Findings) -> None:
    labelled = _labels(demand)
    if labelled is None:
        findings.leave_out("drift of the mix", "all calls are alike")
        return
    label, names, kind = labelled
    at = demand.arrivals
    many = len(names)
    for width in (10.0, 60.0, 300.0, 3600.0):
        if width < audit.finest_s or audit.span_s < 20 * width:
            continue
        place = np.floor((at - at[0]) / width).astype(np.int64)
        windows = int(place.max()) + 1
        if windows > 3_000_000:
            continue
        held = np.bincount(place * many + label, minlength=windows * many).reshape(windows, many)
        findings.say("mix_drift", _swing(held.astype(np.float64)), of=f"{kind}, {width:g} s",
                     n=len(at))  # fmt: skip
    width = audit.span_s / 60
    place = np.minimum((at - at[0]) / width, 59).astype(np.int64)
    held = np.bincount(place * many + label, minlength=60 * many).reshape(60, many)
    total = np.maximum(held.sum(axis=1, keepdims=True), 1)
    findings.table(
        "mix_over_time",
        pl.DataFrame(
            {
                "t_s": np.repeat(at[0] + width * np.arange(60), many),
                "of": names * 60,
                "share": (held / total).reshape(-1),
            }
        ).filter(pl.Series(np.repeat(held.sum(axis=1) > 0, many))),
    )


def _swing(held: Floats) -> Interval | float | None:
    """Return Pearson's chi square of a table of windows by classes over its degrees of freedom."""
    number = held.sum(axis=1)
    kept = number > 0
    held, number = held[kept], number[kept]
    share = held.sum(axis=0) / held.sum()
    held, share = held[:, share > 0], share[share > 0]
    if len(held) < 20 or len(share) < 2:
        return None
    expected = number[:, None] * share
    chi = ((held - expected) ** 2 / expected).sum(axis=1)
    sums = sums_in(in_sections(len(chi), _SECTIONS), _SECTIONS, chi, np.ones(len(chi)))
    free = (len(chi) - 1) / len(chi) * (len(share) - 1)
    return of_sums(sums, lambda s: s[..., 0] / s[..., 1] / free, "log")


def _in_flight(
    at: Floats,
    tokens: list[Floats],
    placed: pl.DataFrame,
    audit: Audit,
    server: ServerShape | None,
    findings: Findings,
) -> None:
    measured = "observed_e2e_s" in placed.columns and placed["observed_e2e_s"].count() > 0
    if server:
        stay, how = server.stay_s(*tokens), server.name
    elif measured:
        stay = placed["observed_e2e_s"].fill_null(0).to_numpy().astype(np.float64)
        how = "as the source measured"
    else:
        findings.leave_out(
            "calls and KV memory in flight",
            "nothing says how long calls stay: name a --model and a --gpu",
        )
        return
    end = at + stay
    until = float(end.max())
    findings.say("concurrency_mean", float(stay.sum()) / (until - at[0]), of=how, n=len(at))
    ended = np.sort(end)
    live = np.arange(1, len(at) + 1) - np.searchsorted(ended, at, side="right")
    findings.say("concurrency_max", int(max(live.max(), 1)), of=how, n=len(at))
    moments = np.linspace(at[0], until, _MOMENTS)
    order = np.argsort(end, kind="stable")
    begun = np.searchsorted(at, moments, side="right")
    over = np.searchsorted(end[order], moments, side="right")
    speed = np.divide(tokens[1], stay, out=np.zeros(len(stay)), where=stay > 0)

    def alive(values: Floats) -> Floats:
        first = np.concatenate(([0.0], np.cumsum(values)))
        last = np.concatenate(([0.0], np.cumsum(values[order])))
        return np.asarray(first[begun] - last[over])

    # what a live call holds: its prompt, and its answer as far as it has come
    kv = alive(tokens[0]) + moments * alive(speed) - alive(speed * at)
    kv = np.maximum(kv, 0)
    gb = kv * server.kv_bytes_per_token / 1e9 if server else np.full(len(kv), np.nan)
    findings.table(
        "in_flight",
        pl.DataFrame(
            {"t_s": moments, "calls": begun - over, "kv_tokens": kv, "kv_gb": gb}
        ).with_columns(pl.col("kv_gb").fill_nan(None)),
    )
    if server:
        findings.say("kv_mean_gb", float(gb.mean()), of=how)
        findings.say("kv_max_gb", float(gb.max()), of=how)
        if server.kv_capacity_tokens:
            needed = float(kv.max()) / server.kv_capacity_tokens
            findings.say("kv_servers", needed, of=how)
    else:
        findings.leave_out("KV memory in bytes", "name a --model and a --gpu")
