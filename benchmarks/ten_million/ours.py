"""The same analysis, and a whole audit before it, on a trace that servescope loads."""

import json
import sys

import numpy as np
import polars as pl

from servescope.traces import inspect, load

trace = load(sys.argv[1])
quality = inspect(trace)
calls = trace.frame
rates = calls.group_by(pl.col("arrival_s") // 600).len().select(pl.col("len").max())
arrivals = calls.select("arrival_s").collect().to_series().to_numpy()
gaps = np.diff(arrivals)
cv = float(gaps.std(ddof=1) / gaps.mean())
del arrivals, gaps
fits, lengths = {}, {}
for model in calls.select(pl.col("model").unique()).collect()["model"]:
    part = calls.filter(pl.col("model") == model)
    apart = np.diff(part.select("arrival_s").collect().to_series().to_numpy())
    logs = np.log(apart[apart > 0])
    fits[model] = [float(logs.mean()), float(logs.std(ddof=1))]
    lengths[model] = []
    for column in ("input_tokens", "output_tokens"):
        counts = part.group_by(column).len().sort(column).collect()
        below = counts["len"].cum_sum().to_numpy()
        ranks = [np.rint(q * (below[-1] - 1)) for q in (0.5, 0.9, 0.99)]
        places = np.searchsorted(below, ranks, side="right")
        lengths[model].append(counts[column].gather(places).to_list())
found = {"peak": rates.collect().item(), "cv": cv, "fits": fits, "lengths": lengths}
print(json.dumps({**found, "calls": quality.calls, "doubts": len(quality.doubts)}))
