"""What matters about a trace, in sentences a reader who knows no statistics can use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl

from servescope.analysis.characterization import Characterization

_ON_OFF = 0.3  # share of time in silences from which arrivals are on and off
_LONG_MEMORY = 0.6


@dataclass(frozen=True, slots=True)
class Sentence:
    """One thing that matters, and the aspect that says more."""

    aspect: str
    text: str


def sentences(found: Characterization) -> list[Sentence]:
    """Return the summary of a trace; what could not be found out is not in it."""
    return [Sentence(aspect, text) for aspect, tell in _TOLD.items() for text in tell(found)]


def seconds(value: float) -> str:
    """Write a time as a person says it."""
    for size, name in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if value >= 2 * size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} s" if value >= 0.1 else f"{value * 1000:.3g} ms"


def _number(value: float) -> str:
    if value >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _share(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


def _count(value: float) -> str:
    """Write a large count to three digits: 15.7 million."""
    for size, name in ((1e9, " billion"), (1e6, " million")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return _number(value)


def _size(c: Characterization) -> Iterator[str]:
    rate, span = c.value("arrivals", "rate_rps"), c.value("clock", "span_s")
    if rate is not None and span is not None:
        yield f"{c.calls:,} calls in {seconds(span)}, {_number(rate)} a second."
    elif c.calls:
        yield f"{c.calls:,} calls."


def _clock(c: Characterization) -> Iterator[str]:
    yield from _size(c)
    tick = c.audit.tick
    if tick is None or tick.step_s < 0.002:
        return
    every = seconds(tick.step_s)
    how = {
        "grid": f"Stamps are whole multiples of {every}",
        "batches": f"The clock ticks every {every}: calls are stamped in batches",
        "phase": f"Stamps favour one phase of every {every} (R = {tick.strength:.2f})",
        "declared": f"The clock ticks every {every}",
    }[tick.kind]
    said = f"{how}, so nothing is said of times below {seconds(c.audit.finest_s)}"
    raw, cleaned = c.value("arrivals", "gap_cv"), c.value("arrivals", "gap_cv_deticked")
    if raw is not None and cleaned is not None and abs(raw / cleaned - 1) > 0.1:
        said += (
            f"; the CV of the gaps, {raw:.2f} as stamped, is {cleaned:.2f} once calls are spread"
            " over the tick"
        )
    yield said + "."


def _arrivals(c: Characterization) -> Iterator[str]:
    cv = c.value("arrivals", "gap_cv_deticked")
    cv = c.value("arrivals", "gap_cv") if cv is None else cv
    table = c.tables.get("dispersion", pl.DataFrame())
    share, many = c.value("arrivals", "silence_share"), c.value("arrivals", "silences")
    silent = c.value("arrivals", "silence_s")
    if share is not None and many and silent and share >= _ON_OFF:
        said = f"Arrivals are on and off: {many:.0f} silences over {seconds(silent)} hold"
        said += f" {_share(share)} of the time"
        yield said + (f" (CV of the gaps {cv:.0f}; Poisson is 1)." if cv else ".")
    if not table.height:
        return
    start = c.value("burstiness", "bursty_from_s")
    first, last = table.row(0, named=True), table.row(-1, named=True)
    if start is None:
        yield (
            f"Counts are no burstier than Poisson at any scale from {seconds(first['scale_s'])} to"
            f" {seconds(last['scale_s'])}."
        )
        return
    at = table.filter(pl.col("scale_s") == start).row(0, named=True)
    most = table.sort("idc").row(-1, named=True)
    where = "at every scale" if start == first["scale_s"] else f"from {seconds(start)} on"
    said = (
        f"Counts are burstier than Poisson {where}: their variance is {_number(at['idc'])} times"
        f" the mean in windows of {seconds(start)}"
    )
    if most["scale_s"] > start:
        said += f" and {_number(most['idc'])} times in windows of {seconds(most['scale_s'])}"
    yield said + "."


def _rhythm(c: Characterization) -> Iterator[str]:
    ratio = c.value("rhythm", "peak_to_trough")
    peak, trough = c.value("rhythm", "busiest_hour"), c.value("rhythm", "quietest_hour")
    if ratio is not None and ratio >= 1.2 and peak is not None and trough is not None:
        if c.about.clock in ("utc", "local"):
            zone = " UTC" if c.about.clock == "utc" else ""
            busiest, quietest = f" ({peak:02.0f}:00{zone})", f" ({trough:02.0f}:00{zone})"
        else:  # what time of day the source's zero was is not known
            busiest = quietest = ""
        yield (
            f"The busiest hour of the day{busiest} has {_number(ratio)} times the calls of the"
            f" quietest{quietest}."
        )
    h, p = c.value("rhythm", "hurst", "local Whittle"), c.value("rhythm", "hurst_shuffled_p")
    if h is not None and p is not None and p < 0.05 and h > _LONG_MEMORY:
        yield f"The rate remembers its past for long (Hurst exponent {h:.2f} without trend)."


def _lengths(c: Characterization) -> Iterator[str]:
    table = c.tables.get("length_quantiles")
    if table is not None:
        said = []
        for column, word in (("input_tokens", "prompts"), ("output_tokens", "answers")):
            whole = table.filter((pl.col("column") == column) & (pl.col("of") == ""))
            values = dict(whole.select("quantile", "tokens").iter_rows())
            middle, far = values.get(0.5), values.get(0.99) or values.get(0.9)
            if middle is not None and far is not None:
                which = "p99" if values.get(0.99) else "p90"
                said.append(f"{word} have {_number(middle)} tokens at the median and"
                            f" {_number(far)} at the {which}")  # fmt: skip
        if said:
            text = ", ".join(said)
            yield f"{text[0].upper()}{text[1:]}."
    parts = c.tables.get("length_parts")
    if parts is not None:
        humps = parts.filter((pl.col("column") == "output_tokens") & (pl.col("of") == ""))
        if humps.height == 2 and humps["median"][1] > 3 * humps["median"][0]:
            low, high = humps["median"]
            yield f"Answers have two humps, around {_number(low)} and {_number(high)} tokens."


def _dependence(c: Characterization) -> Iterator[str]:
    rows = c.rows("dependence", "spearman").filter(pl.col("subject").is_in(["", "answered"]))
    if not rows.height:
        return
    r = float(rows["value"][0])
    how = "hardly depends" if abs(r) < 0.15 else "depends" if abs(r) < 0.6 else "depends strongly"
    yield f"The length of an answer {how} on that of its prompt (rank correlation {r:.2f})."


def _sessions(c: Characterization) -> Iterator[str]:
    programs, turns = c.value("sessions", "programs"), c.value("sessions", "turns_mean")
    if not programs or turns is None:
        return
    single = c.value("sessions", "single_share") or 0.0
    if single == 1.0:
        yield f"All of the {programs:,.0f} programs are single calls."
        return
    yield (
        f"{programs:,.0f} programs have {_number(turns)} calls on average; {_share(single)} are"
        " single calls."
    )
    top = c.value("sessions", "top_programs_80")
    if top is not None and programs >= 20:
        yield f"{_share(top)} of the programs hold 80 % of the tokens."
    wide = c.value("sessions", "parallelism")
    if wide is not None and wide > 1.05:
        yield f"Programs branch: {wide:.2f} calls for each on their longest path."


def _prefixes(c: Characterization) -> Iterator[str]:
    rows = c.rows("prefixes", "hit_rate")
    if not rows.height:
        return
    rate, scope = float(rows["value"][0]), rows["subject"][0]
    said = f"{_share(rate)} of the prefix blocks were seen before {scope}"
    size, tokens = c.value("prefixes", "most_hits_blocks"), c.value("prefixes", "block_tokens")
    if size and tokens and rate > 0.05:
        said += f"; an LRU cache of {_count(size * tokens)} tokens finds nearly all of them"
    yield said + "."


def _clients(c: Characterization) -> Iterator[str]:
    for subject, few in c.rows("clients", "clients_for_90").select("subject", "value").iter_rows():
        many = c.value("clients", "clients", subject)
        if many is None or many < 2:
            continue
        where = f"{subject}: " if subject else ""
        said = f"{where}{few:.0f} of {many:.0f} clients make 90 % of the calls"
        # the subject of a decomposition of calls is the width of its windows
        bring = c.value("clients", "variance_of_top", subject or None)
        if bring is not None:
            said += f" and {_share(min(bring, 1.0))} of the swings of the rate"
        yield said + "."


def _failures(c: Characterization) -> Iterator[str]:
    share, bad = c.value("failures", "failure_share"), c.value("failures", "failed")
    if share is None or bad is None:
        return
    if not bad:
        yield "No call failed."
        return
    said = f"{_share(share, 1)} of the calls failed"
    rows = c.rows("failures", "clustering")
    if rows.height and rows["value"][0] > 1.5 and rows["p_value"][0] < 0.05:
        said += (
            f", and a call is {rows['value'][0]:.1f} times as likely to fail right after another"
        )
    yield said + "."


def _load(c: Characterization) -> Iterator[str]:
    ratio = c.value("load", "input_output_ratio")
    if ratio is not None:
        yield f"{_number(ratio)} prompt tokens are asked for each token of answer."
    live = c.rows("load", "concurrency_mean")
    if live.height:
        most = c.value("load", "concurrency_max")
        yield (
            f"{_number(live['value'][0])} calls are in flight on average and {_number(most or 0)}"
            f" at most ({live['subject'][0]}, without any queue)."
        )
    servers = c.value("load", "kv_servers")
    if servers is not None and c.server:
        yield (
            f"At most {_number(c.value('load', 'kv_max_gb') or 0)} GB of keys and values are in"
            f" flight, {_share(servers)} of the memory for them on {c.server.name}."
        )


_TOLD: dict[str, Callable[[Characterization], Iterator[str]]] = {
    "clock": _clock,
    "burstiness": _arrivals,
    "rhythm": _rhythm,
    "lengths": _lengths,
    "dependence": _dependence,
    "sessions": _sessions,
    "prefixes": _prefixes,
    "clients": _clients,
    "failures": _failures,
    "load": _load,
}
