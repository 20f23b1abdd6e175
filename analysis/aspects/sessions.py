"""Sessions and programs: turns, pauses, growth of the context, duration, shape, concentration."""

from __future__ import annotations

import numpy as np
import polars as pl

from servescope.analysis import copulas, mixtures, tails, turns
from servescope.analysis.concentration import Concentration
from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf, written
from servescope.analysis.intervals import believed, of_mean
from servescope.analysis.sample import Floats, Sample, in_sections

SECTIONS = 10
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
_FEWEST = 20
_LIVE = 200
_BY_PROGRAM = "means of 10 sections of programs in order of their start, Student's t"

STATISTICS = {
    "programs": Statistic("programs that calls name", "programs", "count"),
    "outside": Statistic("calls that name no program", "calls", "count"),
    "turns_mean": Statistic("calls of a program", "calls", "mean", _BY_PROGRAM),
    "single_share": Statistic("programs of one call", "share", "count", _BY_PROGRAM),
    "multi_turn_share": Statistic("calls in programs of several, of all calls", "share", "count"),
    "continuation_share": Statistic(
        "calls that are not the first of their program, of those in programs", "share", "count"
    ),
    "shrink_share": Statistic("steps at which the prompt becomes shorter", "share", "count"),
    "successive_pauses": Statistic(
        "rank correlation of a pause with the next in the same program",
        "1",
        "Spearman's",
        "delete-one jackknife over 20 sections, Fisher's z",
    ),
    "live_mean": Statistic(
        "programs between their first and last call at once", "programs", "integral over time"
    ),
    "live_max": Statistic("most such programs at once", "programs", "maximum"),
    "top_programs_80": Statistic(
        "smallest share of programs that holds 80 % of the tokens", "share", "sorted sums"
    ),
    "gini_tokens": Statistic("Gini coefficient of tokens over programs", "1", "sorted sums"),
    "joins": Statistic("calls that wait for several", "calls", "count"),
    "forks": Statistic("calls that several wait for", "calls", "count"),
    "fan_out_max": Statistic("most calls that wait for one", "calls", "maximum"),
    "depth_mean": Statistic("calls on the longest path of a program", "calls", "mean", _BY_PROGRAM),
    "depth_max": Statistic("longest path of any program", "calls", "maximum"),
    "parallelism": Statistic("calls over calls on the longest path", "1", "ratio of sums"),
    "critical_path_s": Statistic(
        "median time of the longest path: what the source measured of calls, and pauses",
        "s",
        "median over programs whose calls all have a measured time",
    ),
}
TABLES = {
    "turns": TableOf(
        "programs by their number of calls",
        {"turns": "calls", "programs": "programs", "share": "share"},
        "count",
    ),
    "turn_fits": TableOf(
        "models of the number of calls, best first",
        {"family": "name", "parameters": "by name", "distance": "1", "aic_above_best": "1"},
        "maximum likelihood from 1 on",
    ),
    "session_quantiles": TableOf(
        "quantiles of what programs show; null where a sample is too small to bound one, and"
        " of times below twice the tick",
        {
            "of": "name",
            "n": "values",
            "mean": "unit",
            "p10": "unit",
            "p25": "unit",
            "p50": "unit",
            "p75": "unit",
            "p90": "unit",
            "p99": "unit",
            "max": "unit",
        },
        "order statistics; gap: from one arrival to the next; pause: from the end of what is waited"
        " for; growth: tokens by which a prompt is longer than the one before; duration: from first"
        " arrival to last",
    ),
    "pause_parts": TableOf(
        "parts of the best mixture of log-normals, of pauses and gaps above 0",
        {"of": "name", "share": "share", "median_s": "s", "sigma": "1", "distance": "1"},
        "EM, number by BIC; KS distance of the whole",
    ),
    "pause_tails": TableOf(
        "tails of pauses and gaps: the share above x falls like x^-exponent",
        {"of": "name", "from_s": "s", "share": "share", "exponent": "1", "lognormal_z": "1"},
        "Hill's, from where the KS distance of a power law is least; lognormal_z below -1.96 says"
        " that a log-normal tail fits better (Vuong)",
        source="Clauset, Shalizi and Newman, SIAM Review 51 (2009)",
    ),
    "growth": TableOf(
        "prompts by their place in the program",
        {"turn": "place", "calls": "calls", "input_p50": "tokens", "output_p50": "tokens"},
        "medians",
    ),
    "live_programs": TableOf(
        "programs that have begun and not yet had their last call",
        {"t_s": "s", "programs": "programs"},
        "count at moments",
    ),
    "concentration": TableOf(
        "tokens held by the largest programs",
        {"programs_share": "share", "tokens_share": "share"},
        "sorted sums (Lorenz curve from the top)",
    ),
}


def found(demand: Demand, findings: Findings) -> None:
    """Describe programs."""
    if "program_id" not in demand.columns:
        findings.leave_out("sessions and programs", "no call names one")
        return
    calls = demand.calls.with_row_index("row").filter(pl.col("program_id").is_not_null())
    findings.say("outside", len(demand) - calls.height)
    timed = "arrival_s" in calls.columns
    order = ["arrival_s", "row"] if timed else ["row"]
    programs = (
        calls.group_by("program_id")
        .agg(
            first=pl.col("row").min(),
            turns=pl.len(),
            tokens=pl.col("input_tokens").fill_null(0).cast(pl.Int64).sum()
            + pl.col("output_tokens").fill_null(0).cast(pl.Int64).sum()
            if {"input_tokens", "output_tokens"} <= set(calls.columns)
            else pl.lit(0),
            **(
                {"begin_s": pl.col("arrival_s").min(), "end_s": pl.col("arrival_s").max()}
                if timed
                else {}
            ),
        )
        .sort("first")
    )
    _turns(programs, demand, calls.height, findings)
    _concentration(programs, findings)
    if demand.timed:
        _live(programs, demand, findings)
    if not (programs["turns"] > 1).any():
        findings.leave_out("pauses, growth and shape", "every program has one call")
        return
    calls = calls.sort(order, maintain_order=True)
    _steps(calls, programs, demand.finest_s, findings)
    _shape(demand, programs, findings)


def _turns(programs: pl.DataFrame, demand: Demand, inside: int, findings: Findings) -> None:
    count = programs.height
    turn = programs["turns"].to_numpy()
    section = in_sections(count, SECTIONS)
    findings.say("programs", count)
    sample = Sample.of(turn, section, SECTIONS)
    findings.keep("turns", sample)
    findings.say("turns_mean", of_mean(sample) or sample.mean(), n=count)
    single = Sample.of(turn == 1, section, SECTIONS)
    findings.say("single_share", of_mean(single) or single.mean(), n=count)
    several = int(turn[turn > 1].sum())
    findings.say("multi_turn_share", several / len(demand), n=len(demand))
    findings.say("continuation_share", (inside - count) / inside, n=inside)
    table = programs["turns"].value_counts().sort("turns").rename({"count": "programs"})
    findings.table(
        "turns",
        table.with_columns(pl.col("turns").cast(pl.Int64), share=pl.col("programs") / count),
    )
    if count < _FEWEST:
        findings.leave_out("models of turns", f"{count} programs are too few")
        return
    values, weights = (table[c].to_numpy().astype(np.float64) for c in ("turns", "programs"))
    made = turns.fit(values, weights)
    if made:
        findings.table(
            "turn_fits",
            pl.DataFrame(
                {
                    "family": [f.family for f in made],
                    "parameters": [written(f.parameters) for f in made],
                    "distance": [f.distance for f in made],
                    "aic_above_best": [f.aic - made[0].aic for f in made],
                }
            ),
        )


def _concentration(programs: pl.DataFrame, findings: Findings) -> None:
    held = Concentration.of(programs["tokens"].to_numpy())
    if held is None or programs.height < 2:
        return
    findings.say("top_programs_80", held.share_holding(0.8), n=programs.height)
    findings.say("gini_tokens", held.gini, n=programs.height)
    items, shares = held.curve()
    findings.table("concentration", pl.DataFrame({"programs_share": items, "tokens_share": shares}))


def _live(programs: pl.DataFrame, demand: Demand, findings: Findings) -> None:
    known = programs.drop_nulls(["begin_s", "end_s"])
    begin = known["begin_s"].sort().to_numpy()
    end = known["end_s"].sort().to_numpy()
    if not len(begin) or demand.span_s <= 0:
        return
    first = demand.arrivals[0]
    moments = np.linspace(first, first + demand.span_s, demand.stretches(_LIVE) + 1)
    begun = np.searchsorted(begin, moments, side="right")
    live = begun - np.searchsorted(end, moments, side="left")
    findings.table("live_programs", pl.DataFrame({"t_s": moments, "programs": live}))
    findings.say("live_mean", float((end - begin).sum()) / demand.span_s, n=len(begin))
    at_starts = np.arange(1, len(begin) + 1) - np.searchsorted(end, begin, side="left")
    findings.say("live_max", int(at_starts.max()), n=len(begin))


def _steps(
    calls: pl.DataFrame, programs: pl.DataFrame, finest_s: float, findings: Findings
) -> None:
    """Describe what lies between one call of a program and the next."""
    timed = "arrival_s" in calls.columns
    same = pl.col("program_id") == pl.col("program_id").shift(1)
    columns = [
        c for c in ("arrival_s", "input_tokens", "delay_s", "delay_kind") if c in calls.columns
    ]
    # a stable sort by program keeps the order in time
    steps = calls.sort("program_id", maintain_order=True).select(
        "program_id",
        "row",
        *columns,
        *([(pl.col("arrival_s").diff()).alias("gap")] if timed else []),
        *([(pl.col("input_tokens").diff()).alias("step")] if "input_tokens" in columns else []),
        follows=same.fill_null(False),
    )
    follows = steps.filter("follows")
    times: dict[str, pl.Series] = {}
    if timed:
        times["gap_s"] = follows["gap"]
    if "delay_s" in columns:
        times["pause_s"] = follows["delay_s"]
        kinds: list[str] = []
        if "delay_kind" in columns:
            kinds = follows["delay_kind"].drop_nulls().cast(pl.String).unique().sort().to_list()
        for kind in kinds if len(kinds) > 1 else ():
            of_kind = follows.filter(pl.col("delay_kind").cast(pl.String) == kind)["delay_s"]
            times[f"pause_s, {kind}"] = of_kind
        pairs = (
            steps.select(
                a=pl.when(pl.col("follows").shift(1) & pl.col("follows")).then(
                    pl.col("delay_s").shift(1)
                ),
                b="delay_s",
                row="row",
            )
            .drop_nulls()
            .sort("row")
        )
        if pairs.height >= 50:
            u, v = (copulas.mid_ranks(pairs[c].to_numpy()) for c in ("a", "b"))
            findings.say("successive_pauses", copulas.correlation(u, v), n=pairs.height)
    else:
        findings.leave_out("pauses", "the source does not say when a call ended")
    rows = [row for name, values in times.items() for row in _quantiles(name, values, finest_s)]
    if timed:
        spans = programs.filter(pl.col("turns") > 1)
        rows += _quantiles("duration_s", spans["end_s"] - spans["begin_s"], finest_s)
    if "step" in follows.columns:
        rows += _quantiles("growth_tokens", follows["step"])
        known = follows["step"].drop_nulls()
        if len(known):
            findings.say("shrink_share", int((known < 0).sum()) / len(known), n=len(known))
    findings.table("session_quantiles", pl.DataFrame(rows, infer_schema_length=None))
    _shapes(times, findings)
    _growth(calls, findings)


def _growth(calls: pl.DataFrame, findings: Findings) -> None:
    place = pl.int_range(pl.len()).over("program_id")
    lengths = [c for c in ("input_tokens", "output_tokens") if c in calls.columns]
    if len(lengths) == 2:
        findings.table(
            "growth",
            calls.select("program_id", *lengths, turn=place)
            .group_by("turn")
            .agg(
                calls=pl.len(),
                input_p50=pl.col("input_tokens").median(),
                output_p50=pl.col("output_tokens").median(),
            )
            .filter(pl.col("calls") >= 10)
            .sort("turn")
            .head(200),
        )


def _quantiles(name: str, values: pl.Series, finest: float = -np.inf) -> list[dict[str, object]]:
    """Return the row of a distribution, none if it is empty; null below what a clock can tell."""
    sample = Sample.of(values.drop_nulls().cast(pl.Float64).to_numpy())
    if not len(sample):
        return []
    shown = {f"p{q * 100:g}": believed(sample, q, finest) for q in QUANTILES}
    return [{"of": name, "n": len(sample), "mean": sample.mean(), **shown, "max": sample.max()}]


def _shapes(times: dict[str, pl.Series], findings: Findings) -> None:
    """Describe the humps and the tails of times above 0."""
    parts: list[dict[str, object]] = []
    ends: list[dict[str, object]] = []
    for name, values in times.items():
        counts = values.drop_nulls().cast(pl.Float64).rename("s").value_counts().sort("s")
        counts = counts.filter(pl.col("s") > 0)
        distinct = counts["s"].to_numpy()
        weights = counts["count"].to_numpy().astype(np.float64)
        tail = tails.power_law(distinct, weights) if len(distinct) else None
        if tail:
            ends.append(
                {
                    "of": name,
                    "from_s": tail.least,
                    "share": tail.share,
                    "exponent": tail.exponent.estimate,
                    "lognormal_z": tail.lognormal_z,
                }
            )
        for best in mixtures.fit(distinct, weights)[:1]:
            parts += [
                {"of": name, "share": share, "median_s": median, "sigma": sigma,
                 "distance": best.distance}
                for share, median, sigma in zip(best.shares, best.medians, best.sigmas, strict=True)
            ]  # fmt: skip
    if parts:
        findings.table("pause_parts", pl.DataFrame(parts))
    if ends:
        findings.table("pause_tails", pl.DataFrame(ends))


def _shape(demand: Demand, programs: pl.DataFrame, findings: Findings) -> None:
    """Describe the graphs of programs: fan-out, depth, longest path."""
    trace = demand.trace
    if "parents" not in trace.columns:
        findings.leave_out("shape of programs", "calls do not say what they wait for")
        return
    wanted = ["call_id", "parents", "program_id"]
    measured = [c for c in ("delay_s", "observed_e2e_s") if c in trace.columns]
    links = (
        trace.frame.select(*wanted, *measured)
        .filter(pl.col("program_id").is_not_null())
        .with_columns(
            pl.col("call_id").hash(),
            pl.col("program_id").hash(),
            pl.col("parents").list.eval(pl.element().hash()),
        )
        .collect()
    )
    if not links["parents"].count():
        findings.leave_out("shape of programs", "calls do not say what they wait for")
        return
    counts = links["parents"].list.len()
    children = links["parents"].explode().drop_nulls().value_counts()["count"]
    findings.say("joins", int((counts > 1).sum()), n=links.height)
    findings.say("forks", int((children > 1).sum()), n=links.height)
    findings.say("fan_out_max", int(children.to_numpy().max(initial=0)), n=links.height)
    _depths(links, programs.height, findings)


def _depths(links: pl.DataFrame, programs: int, findings: Findings) -> None:
    depths, seconds = _chains(links) or _paths(links)
    sample = Sample.of(depths, in_sections(len(depths), SECTIONS), SECTIONS)
    findings.say("depth_mean", of_mean(sample) or sample.mean(), n=programs)
    findings.say("depth_max", int(depths.max()), n=programs)
    findings.say("parallelism", links.height / float(depths.sum()), n=programs)
    if len(seconds):
        findings.say("critical_path_s", float(np.median(seconds)), n=len(seconds))


def _chains(links: pl.DataFrame) -> tuple[Floats, Floats] | None:
    """Return depth (calls) and, where all is measured, time (s) of programs that are chains.

    None unless every program is one: a root, and each other call after one that no other waits for.
    """
    parents = links["parents"].explode().drop_nulls()
    alone = links["parents"].list.len().fill_null(0)
    if alone.max() > 1 or parents.n_unique() < len(parents):  # type: ignore[operator]
        return None
    if not parents.is_in(links["call_id"].implode()).all():
        return None
    absent = pl.lit(None, pl.Float64)
    took = pl.col("observed_e2e_s") if "observed_e2e_s" in links.columns else absent
    waits = pl.col("delay_s") if "delay_s" in links.columns else absent
    found = (
        links.with_columns(root=alone == 0)
        .group_by("program_id", maintain_order=True)
        .agg(
            calls=pl.len(),
            roots=pl.col("root").sum(),
            unmeasured=took.is_null().sum(),
            seconds=took.sum() + waits.filter(~pl.col("root")).sum(),
        )
    )
    if (found["roots"] != 1).any():
        return None
    whole = found.filter(pl.col("unmeasured") == 0)["seconds"]
    return found["calls"].to_numpy().astype(np.float64), whole.to_numpy()


def _paths(links: pl.DataFrame) -> tuple[Floats, Floats]:
    """Return the same of programs of any shape, call by call in the order of the source."""
    deep: dict[int, int] = {}
    long: dict[int, float] = {}
    home: dict[int, list[float]] = {}  # of a program: depth, longest path (s), calls without time
    blank = [None] * links.height
    took = links["observed_e2e_s"].to_list() if "observed_e2e_s" in links.columns else blank
    waits = links["delay_s"].to_list() if "delay_s" in links.columns else blank
    rows = zip(
        links["call_id"].to_list(),
        links["parents"].to_list(),
        links["program_id"].to_list(),
        took,
        waits,
        strict=True,
    )
    for call, parents, program, seconds, pause in rows:
        known = [p for p in parents or () if p in deep]  # one that comes later is not counted
        depth = 1 + max((deep[p] for p in known), default=0)
        end = max((long[p] for p in known), default=0.0) + (seconds or 0.0)
        end += (pause or 0.0) if known else 0.0
        deep[call], long[call] = depth, end
        state = home.setdefault(program, [0, 0.0, 0])
        state[0], state[1] = max(state[0], depth), max(state[1], end)
        state[2] += seconds is None
    depths = np.array([state[0] for state in home.values()], np.float64)
    return depths, np.array([state[1] for state in home.values() if not state[2]])
