"""The analysis as one would write it in a notebook with polars, all of it in memory."""

import json
import sys

import polars as pl

calls = pl.read_csv(sys.argv[1])
rates = calls.group_by(pl.col("Timestamp") // 600).len()
gaps = calls["Timestamp"].diff().drop_nulls()
fits, lengths = {}, {}
for (model,), part in calls.group_by("Model"):
    apart = part["Timestamp"].diff().drop_nulls()
    logs = apart.filter(apart > 0).log()
    fits[model] = [logs.mean(), logs.std()]
    lengths[model] = [
        [part[c].quantile(q, "nearest") for q in (0.5, 0.9, 0.99)]
        for c in ("Request tokens", "Response tokens")
    ]
found = {
    "peak": rates["len"].max(),
    "cv": gaps.std() / gaps.mean(),
    "fits": fits,
    "lengths": lengths,
}
print(json.dumps(found))
