"""Prefix reuse: what a cache of any size would find, how soon, and how prompts share a tree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from servescope.analysis import tails
from servescope.analysis.concentration import Concentration
from servescope.analysis.demand import Demand
from servescope.analysis.findings import Findings, Statistic, TableOf
from servescope.analysis.intervals import believed, of_sums
from servescope.analysis.reuse import Reuse, numbered
from servescope.analysis.sample import Ints, Sample, in_sections, sums_in
from servescope.analysis.server_shape import ServerShape
from servescope.traces.provenance import Provenance

_SECTIONS = 20
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)

STATISTICS = {
    "hit_rate": Statistic(
        "prefix blocks that an endless cache has: the leading run of blocks seen before",
        "share",
        "exact, calls in order of arrival, or of the source",
        "delete-one jackknife over 20 sections of calls, each with what came before it",
        "Mooncake (FAST 2025); ideal hit rate of KVCache in the wild (ATC 2025)",
    ),
    "blocks": Statistic("prefix blocks asked for", "blocks", "count"),
    "distinct_blocks": Statistic(
        "different blocks: what an endless cache holds", "blocks", "count"
    ),
    "block_tokens": Statistic("tokens of a block", "tokens", "as the format says"),
    "calls_hitting": Statistic("calls that find anything", "share", "count"),
    "half_the_hits_blocks": Statistic(
        "smallest LRU cache with half the hits of an endless one", "blocks", "stack distances"
    ),
    "most_hits_blocks": Statistic(
        "smallest LRU cache with 95 % of the hits of an endless one", "blocks", "stack distances"
    ),
    "top_blocks_reuse": Statistic(
        "reuses that the most asked tenth of blocks holds",
        "share",
        "sorted sums",
        source="KVCache in the wild (ATC 2025)",
    ),
    "block_zipf": Statistic("Zipf exponent of the requests of blocks", "1", "maximum likelihood"),
    "roots": Statistic("first blocks that differ", "blocks", "count"),
    "forks": Statistic("blocks with several different next ones", "blocks", "count"),
    "branching": Statistic("next blocks of a fork", "blocks", "mean"),
    "shared_blocks": Statistic("blocks asked for more than once", "share", "count"),
    "kv_distinct_gb": Statistic(
        "keys and values of all different blocks", "GB", "blocks times bytes of the model"
    ),
    "hit_rate_in_memory": Statistic(
        "hit rate of an LRU cache as large as the KV memory of the server",
        "share",
        "stack distances",
    ),
}
TABLES = {
    "hit_curve": TableOf(
        "hit rate of an LRU cache of a size",
        {"cache_blocks": "blocks", "cache_tokens": "tokens", "cache_gb": "GB", "hit_rate": "share"},
        "exact, by the stack distance of every block in one pass; a prompt touches its blocks from"
        " the last to the first. GB where a model is given",
        source="Mattson et al., IBM Systems Journal 9 (1970)",
    ),
    "reuse_quantiles": TableOf(
        "how long after its last use a prefix is used again",
        {
            "of": "name",
            "n": "calls",
            "p10": "s or calls",
            "p25": "s or calls",
            "p50": "s or calls",
            "p75": "s or calls",
            "p90": "s or calls",
            "p99": "s or calls",
        },
        "order statistics over the calls that hit, of the first block of each prompt; null below"
        " twice the tick, and where a sample is too small to bound one",
    ),
    "hits_over_time": TableOf(
        "hit rate in equal parts of the calls",
        {"part": "share of the calls", "hit_rate": "share"},
        "exact, with all that came before",
    ),
}


def found(demand: Demand, findings: Findings, server: ServerShape | None = None) -> None:
    """Describe prefix reuse."""
    trace, about = demand.trace, demand.about
    if "prefix_blocks" not in trace.columns:
        findings.leave_out("prefix reuse", "nothing says which prompts share a prefix")
        return
    prompts, when, most = prompts_of(demand)
    if not most:
        findings.leave_out("prefix reuse", "no prompt has a block")
        return
    reuse = Reuse(most).add_all(prompts)
    hits, blocks = (np.array(x, np.float64) for x in (reuse.hit_blocks, reuse.blocks))
    sums = sums_in(in_sections(len(blocks), _SECTIONS), _SECTIONS, hits, blocks)
    rate = of_sums(sums, lambda s: s[..., 0] / s[..., 1])
    findings.say("hit_rate", rate or reuse.hit_rate, of=_scope(demand), n=len(blocks))
    findings.say("blocks", int(blocks.sum()))
    findings.say("distinct_blocks", reuse.distinct)
    findings.say("block_tokens", about.block_tokens)
    asked = blocks > 0
    findings.say("calls_hitting", float((hits[asked] > 0).mean()), n=int(asked.sum()))
    if about.block_rule == "component":
        findings.leave_out("hits in tokens", "blocks are components of different lengths")
    _curve(reuse, about.block_tokens, server, findings)
    _popularity(reuse, about, findings)
    _times(reuse, when, demand, findings)
    findings.table(
        "hits_over_time",
        pl.DataFrame(
            {
                "part": (np.arange(_SECTIONS) + 1) / _SECTIONS,
                "hit_rate": sums[:, 0] / np.maximum(sums[:, 1], 1),
            }
        ),
    )


def _scope(demand: Demand) -> str:
    return "within programs" if demand.about.block_scope == "program" else "across all calls"


def prompts_of(demand: Demand) -> tuple[Iterator[Ints], pl.Series, int]:
    """Return the prompts as numbers of blocks, in order, their arrivals, and how many blocks.

    Where ids are of one program only, those of another are other blocks. A block that a prompt
    names twice counts once.
    """
    trace, about = demand.trace, demand.about
    local = about.block_scope == "program" and "program_id" in trace.columns
    columns = ["prefix_blocks", *(["arrival_s"] if "arrival_s" in trace.columns else [])]
    ids: list[Ints] = []
    sizes: list[Ints] = []
    homes: list[Ints] = []
    when: list[pl.Series] = []
    for batch in trace.batches(*columns, *(["program_id"] if local else [])):
        batch = batch.filter(pl.col("prefix_blocks").is_not_null())
        if not batch.height:
            continue
        lists = batch["prefix_blocks"]
        if (lists.list.n_unique() != lists.list.len()).any():
            lists = lists.list.unique(maintain_order=True)
        lengths = lists.list.len()
        ids.append(lists.filter(lengths > 0).explode().to_numpy())
        sizes.append(lengths.to_numpy().astype(np.int64))
        homes.append(batch["program_id"].hash().to_numpy() if local else np.empty(0, np.uint64))
        when.append(
            batch["arrival_s"]
            if "arrival_s" in batch.columns
            else pl.Series([None] * batch.height, dtype=pl.Float64)
        )
    if not ids:
        return iter(()), pl.Series([], dtype=pl.Float64), 0
    flat = np.concatenate(ids)
    ids.clear()
    size = np.concatenate(sizes)
    ends = np.cumsum(size)
    if local:
        _, home = np.unique(np.concatenate(homes), return_inverse=True)
        flat = np.repeat(home, size) + numbered(flat)[0] * (home.max() + 1)
    place, most = numbered(flat)
    at = pl.concat(when)
    order = np.arange(len(size))
    if demand.timed and at.null_count() == 0 and not at.is_sorted():
        order = np.argsort(at.to_numpy(), kind="stable")
    begins = ends - size
    prompts = (place[begins[k] : ends[k]] for k in order.tolist())
    return prompts, at.gather(pl.Series(order)), most


def _curve(
    reuse: Reuse, block_tokens: int | None, server: ServerShape | None, findings: Findings
) -> None:
    curve = reuse.curve()
    tokens = float(block_tokens) if block_tokens else None
    gb = server.kv_bytes_per_token * tokens / 1e9 if server and tokens else None
    findings.table(
        "hit_curve",
        curve.select(
            "cache_blocks",
            (pl.col("cache_blocks") * (tokens or np.nan)).fill_nan(None).alias("cache_tokens"),
            (pl.col("cache_blocks") * (gb or np.nan)).fill_nan(None).alias("cache_gb"),
            "hit_rate",
        ),
    )
    findings.say("half_the_hits_blocks", reuse.size_for(0.5))
    findings.say("most_hits_blocks", reuse.size_for(0.95))
    if gb is None:
        why = "name a --model" if tokens else "blocks are components of different lengths"
        findings.leave_out("bytes of keys and values", why)
        return
    findings.say("kv_distinct_gb", reuse.distinct * gb)
    if server and server.kv_capacity_tokens and tokens:
        fit = np.array([int(server.kv_capacity_tokens / tokens)])
        rate = int(reuse.hits(fit)[0]) / sum(reuse.blocks)
        findings.say("hit_rate_in_memory", rate, of=server.name)


def _popularity(reuse: Reuse, about: Provenance, findings: Findings) -> None:
    counts = reuse.popularity()
    held = Concentration.of(counts - 1)
    if held:
        top = max(1, len(counts) // 10)
        findings.say("top_blocks_reuse", float(held.upto[top - 1]), n=len(counts))
    zipf = tails.zipf(counts.astype(np.float64))
    if zipf:
        findings.say("block_zipf", zipf[0], n=len(counts))
    if about.block_rule == "component":
        findings.leave_out("tree of prefixes", "a component may follow many others")
        return
    tree = reuse.tree()
    findings.say("roots", int(tree["roots"]))
    findings.say("forks", int(tree["forks"]))
    findings.say("branching", tree["branching"])
    findings.say("shared_blocks", tree["shared"])


def _times(reuse: Reuse, when: pl.Series, demand: Demand, findings: Findings) -> None:
    age = np.array(reuse.age)
    hit = np.flatnonzero(age > 0)
    if not len(hit):
        findings.leave_out("time to reuse", "no prefix is used again")
        return
    measures = [("calls", age[hit].astype(np.float64))]
    own_clock = demand.timed or demand.about.block_scope == "program"
    if own_clock and when.null_count() == 0:
        at = when.to_numpy()
        measures.insert(0, ("seconds", at[hit] - at[hit - age[hit]]))
    rows = []
    for name, values in measures:
        sample = Sample.of(values)
        finest = demand.finest_s if name == "seconds" else 0.0
        shown = {f"p{q * 100:g}": believed(sample, q, finest) for q in QUANTILES}
        rows.append({"of": name, "n": len(sample), **shown})
    findings.table("reuse_quantiles", pl.DataFrame(rows, infer_schema_length=None))
