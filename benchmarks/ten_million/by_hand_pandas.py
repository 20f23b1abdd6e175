"""The analysis as one would write it in a notebook with pandas."""

import json
import sys

import numpy as np
import pandas as pd

calls = pd.read_csv(sys.argv[1])
rates = calls.groupby(calls["Timestamp"] // 600).size()
gaps = calls["Timestamp"].diff().dropna()
fits = {}
for model, part in calls.groupby("Model"):
    apart = part["Timestamp"].diff().dropna()
    logs = np.log(apart[apart > 0])
    fits[model] = [logs.mean(), logs.std()]
lengths = {
    model: part[["Request tokens", "Response tokens"]]
    .quantile([0.5, 0.9, 0.99], interpolation="nearest")
    .to_numpy()
    .T.tolist()
    for model, part in calls.groupby("Model")
}
found = {"peak": int(rates.max()), "cv": gaps.std() / gaps.mean(), "fits": fits, "lengths": lengths}
print(json.dumps(found))
