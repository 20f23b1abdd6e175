"""BurstGPT (KDD 2025): at one mean rate, tails grow as arrivals get burstier."""

from __future__ import annotations

import numpy as np
from recipe import Recipe, drawn, serve

from servescope.loadgen.experiment import ArrivalSpec, WorkloadSpec
from servescope.loadgen.workload import workload_of
from servescope.traces import load

recipe = Recipe("BurstGPT on an emulated A100: the same mean rate, smaller alpha, longer tails")

# A8. Gamma arrivals of shape alpha: the CV of the gaps is 1 / sqrt(alpha).
ALPHAS = (4.0, 1.0, 0.5, 0.25, 0.1)
CALLS, SEEDS = (6000, 10) if recipe.long else (2000, 4)
WHERE = {"model": "Llama-3.1-8B", "gpus": ["A100-80G"]}
RATE = 16.0
rows, p99 = [], {}
for system in ("vllm_v0", "shortest_first", "longest_first"):
    for alpha in ALPHAS:
        found = []
        for seed in range(SEEDS):
            gamma = ArrivalSpec(process="gamma", rate_rps=RATE, params={"burstiness": alpha})
            calls = drawn("burstgpt-api", RATE, CALLS, seed, gamma, lengths="zipf")
            served = serve(calls, system, **WHERE)
            found.append(np.quantile(served.ttft_s, (0.5, 0.99)))
        p50, p99[system, alpha] = np.mean(found, axis=0).tolist()
        rows.append((f"{system}, alpha {alpha:g}", alpha**-0.5, p50, p99[system, alpha]))
recipe.table(("system, arrivals", "CV", "TTFT p50 s", "TTFT p99 s"), rows)
for system in ("vllm_v0", "shortest_first", "longest_first"):
    tails = [p99[system, alpha] for alpha in ALPHAS]
    recipe.claim(f"{system}: TTFT p99 grows with every step to burstier arrivals",
                 tails == sorted(tails))  # fmt: skip

# A replayed trace keeps its arrivals: the error of the authors' own runner, which sends all at once.
trace = load("burstgpt:sample").collect()
scale = 0.5
replayed = workload_of(WorkloadSpec(trace="burstgpt:sample", time_scale=scale, sessions="none"), 0)
starts = np.array(sorted(program.start_s for program in replayed.programs))
sent = trace.filter(trace["output_tokens"] > 0)["arrival_s"].sort().to_numpy()
error = float(np.abs(starts - sent * scale).max())
recipe.claim(f"replayed at half the time, arrivals are off by {error:g} s at most", error < 1e-9)
recipe.lines(
    [alpha**-0.5 for alpha in ALPHAS],
    {system: [p99[system, alpha] for alpha in ALPHAS]
     for system in ("vllm_v0", "shortest_first", "longest_first")},
    "CV of the gaps between arrivals",
    "TTFT p99 (s)",
)  # fmt: skip
recipe.end()
