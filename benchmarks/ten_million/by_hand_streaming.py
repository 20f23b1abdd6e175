"""The analysis as one would write it with polars' lazy frames and streaming engine."""

import json
import sys

import polars as pl

calls = pl.scan_csv(sys.argv[1])
pl.Config.set_engine_affinity("streaming")
rates = calls.group_by(pl.col("Timestamp") // 600).len().select(pl.col("len").max()).collect()
gap = pl.col("Timestamp").diff()
cv = calls.select(gap.std() / gap.mean()).collect().item()
models = calls.select(pl.col("Model").unique()).collect()["Model"].to_list()
fits, lengths = {}, {}
for model in models:
    part = calls.filter(pl.col("Model") == model)
    logs = part.select(gap.alias("gap")).filter(pl.col("gap") > 0).select(pl.col("gap").log())
    fits[model] = list(
        logs.select(mean=pl.col("gap").mean(), std=pl.col("gap").std()).collect().row(0)
    )
    lengths[model] = [
        list(
            part.select(pl.col(c).quantile(q, "nearest").alias(str(q)) for q in (0.5, 0.9, 0.99))
            .collect()
            .row(0)
        )
        for c in ("Request tokens", "Response tokens")
    ]
print(json.dumps({"peak": rates.item(), "cv": cv, "fits": fits, "lengths": lengths}))
