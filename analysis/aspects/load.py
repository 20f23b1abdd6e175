"""Load on a server: tokens over time and how they burst, and what is in flight at once."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis.counts import Counts, round_width
from servescope.analysis.demand import Demand
from servescope.analysis.dispersion import index_of
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.intervals import Interval, of_sums
from servescope.analysis.sample import Floats, Ints, in_sections, sums_in
from servescope.analysis.server_shape import ServerShape

LEAST_S = 0.1
_SECTIONS = 20
_BINS = 300
_MOMENTS = 500
_TOKENS = ("input_tokens", "output_tokens")
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


def found(demand: Demand, findings: Findings, server: ServerShape | None = None) -> None:
    """Describe the load."""
    if not set(_TOKENS) <= set(demand.columns):
        findings.leave_out("load in tokens", "calls have no counts of both")
        return
    calls = demand.calls
    both = calls.select(pl.col(*_TOKENS).cast(pl.Int64).sum()).row(0)
    if both[1]:
        findings.say("input_output_ratio", both[0] / both[1], n=calls.height)
    at = demand.arrivals
    if demand.span_s <= 0:
        findings.leave_out("load over time", "no arrivals on one clock, or all at one moment")
        return
    placed = demand.placed
    tokens = [placed[c].fill_null(0).to_numpy().astype(np.float64) for c in _TOKENS]
    unknown = placed.filter(pl.any_horizontal(pl.col(*_TOKENS).is_null())).height
    if unknown:
        findings.leave_out(f"tokens of {unknown} calls", "their counts are not known")
    findings.say("input_tps", float(tokens[0].sum()) / demand.span_s, n=len(at))
    findings.say("output_tps", float(tokens[1].sum()) / demand.span_s, n=len(at))
    width = round_width(demand.span_s, _BINS, demand.finest_s)
    held = [Counts.of(at, width, weights=x).dense() for x in tokens]
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
        _dispersion(demand, tokens, findings)
        _mix(demand, findings)
    else:
        findings.leave_out("dispersion of tokens", f"{len(at)} calls are too few")
    _in_flight(demand, tokens, server, findings)


def _dispersion(demand: Demand, tokens: list[Floats], findings: Findings) -> None:
    """Say how much more tokens a window vary than those of Poisson arrivals."""
    finest = max(LEAST_S, demand.finest_s)
    # of Poisson arrivals Var / mean is E(X^2) / E(X); tokens are counted in that
    sizes = [float((x**2).sum() / x.sum()) if x.any() else 1.0 for x in tokens]
    both = [
        Counts.of(demand.arrivals, finest, weights=x / size).octaves()
        for x, size in zip(tokens, sizes, strict=True)
    ]
    rows = [
        (asked.width_s, asked.windows, *index_of(asked), *index_of(given))
        for asked, given in zip(*both, strict=True)
    ]
    names = list(TABLES["token_dispersion"].units)
    schema = {name: pl.Int64 if name == "windows" else pl.Float64 for name in names}
    findings.table("token_dispersion", pl.DataFrame(rows, schema=schema, orient="row"))


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
    x, y = (placed[c].fill_null(0).to_numpy() for c in _TOKENS)
    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return None
    return 2 * (x > np.median(x)) + (y > np.median(y)), list(_CLASSES), "lengths"


def _mix(demand: Demand, findings: Findings) -> None:
    labelled = _labels(demand)
    if labelled is None:
        findings.leave_out("drift of the mix", "all calls are alike")
        return
    label, names, kind = labelled
    at = demand.arrivals
    many = len(names)
    for width in (10.0, 60.0, 300.0, 3600.0):
        if width < demand.finest_s or demand.span_s < 20 * width:
            continue
        place = np.floor((at - at[0]) / width).astype(np.int64)
        windows = int(place.max()) + 1
        if windows > 3_000_000:
            continue
        held = np.bincount(place * many + label, minlength=windows * many).reshape(windows, many)
        findings.say("mix_drift", _swing(held.astype(np.float64)), of=f"{kind}, {width:g} s",
                     n=len(at))  # fmt: skip
    stretches = demand.stretches(60)
    width = demand.span_s / stretches
    place = np.minimum((at - at[0]) / width, stretches - 1).astype(np.int64)
    held = np.bincount(place * many + label, minlength=stretches * many).reshape(-1, many)
    total = held.sum(axis=1, keepdims=True)
    findings.table(
        "mix_over_time",
        pl.DataFrame(
            {
                "t_s": np.repeat(at[0] + width * np.arange(stretches), many),
                "of": names * stretches,
                "share": (held / np.maximum(total, 1)).reshape(-1),
            }
        ).filter(pl.Series(np.repeat(total[:, 0] > 0, many))),
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
    demand: Demand, tokens: list[Floats], server: ServerShape | None, findings: Findings
) -> None:
    at, placed = demand.arrivals, demand.placed
    if server:
        stay, how = server.stay_s(*tokens), server.name
    elif "observed_e2e_s" in placed.columns and placed["observed_e2e_s"].count():
        known = placed["observed_e2e_s"].is_not_null().to_numpy()
        at, tokens = at[known], [x[known] for x in tokens]
        stay = placed["observed_e2e_s"].drop_nulls().to_numpy().astype(np.float64)
        how = "as the source measured"
        if not known.all():  # those it did not measure are not taken to be none
            how += f" of {100 * known.mean():.0f} % of the calls"
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
    moments = np.linspace(at[0], until, demand.stretches(_MOMENTS) + 1)
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
