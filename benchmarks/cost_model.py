"""How wrong the cost model is: steps, a whole endpoint, and what papers published.

    python benchmarks/cost_model.py [CALIBRATION] [--fit]

CALIBRATION is the folder of one measurement of vLLM 0.26 with Llama-3.1-8B on an H200: steps,
requests and chunks of closed ladders and of seventeen Poisson loads. The loads of 16 requests/s,
the ladders and the single prompts are fitted to; every other load is held out. `--fit` fits again
and prints what `engine/data/` holds. Without the folder only the published points are shown.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from servescope.engine import (
    Cluster,
    Load,
    Request,
    StepTime,
    emulate,
    find_gpu,
    find_model,
    find_overhead,
    make_system,
    virtual,
)
from servescope.engine.calibrate import Again

MODEL, GPU, OVERHEAD = "Llama-3.1-8B", "H200", "vllm-0.26"
FITTED_RATE = "16"


# --- Steps ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Span:
    """Steps between two ends that are exact: those whose next step decodes alone."""

    stage: str
    loads: tuple[Load, ...]
    took_s: float

    @property
    def prefill(self) -> bool:
        return any(load.pairs for load in self.loads)

    @property
    def group(self) -> str:
        """Ladder, single requests, or Poisson loads of one budget."""
        kind, *rest = self.stage.split(":")
        return f"{kind}:{rest[0]}" if kind == "poisson" else kind

    @property
    def fitted(self) -> bool:
        return self.group == self.stage.split(":")[0] or self.stage.endswith(f":{FITTED_RATE}")


def spans(folder: Path) -> list[Span]:
    """Read the steps: a single one's end may be seen late, the sum of a span is exact."""
    with gzip.open(folder / "main.steps.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] != "smoke"]
    found: list[Span] = []
    began_s: float | None = None
    loads: list[Load] = []
    for row, following in pairwise([*rows, {"stage": ""}]):
        if row["pipelined"] == "0":
            began_s = None
        decodes, pieces = int(row["decode_reqs"]), int(row["prefill_pieces"])
        loads.append(
            Load(
                decodes + int(row["prefill_tokens"]),
                decodes + pieces,
                int(row["decode_ctx_sum"]),
                float(row["prefill_qk"]),
            )
        )
        if following["stage"] != row["stage"]:
            began_s = None
        elif following["prefill_tokens"] == "0" and following["pipelined"] == "1":
            if began_s is not None:
                found.append(Span(row["stage"], tuple(loads), float(row["done_s"]) - began_s))
            began_s, loads = float(row["done_s"]), []
            continue
        if began_s is None:
            loads = []
    return found


def prompts(folder: Path) -> Iterator[tuple[Load, float]]:
    """Read the steps of one prompt alone that the GPU had no gap before."""
    with (folder / "main.prefill_step.csv").open() as file:
        for row in csv.DictReader(file):
            tokens, before = int(row["new_tokens"]), int(row["context_before"])
            if row["pipelined"] == "1":
                pairs = tokens * (before + (tokens + 1) / 2)
                yield Load(tokens, 1, 0, pairs), float(row["median_ms"]) / 1e3


def took_s(time: StepTime, span: Span) -> float:
    """Return how long a span takes, with the launches that the GPU may have to wait for."""
    overhead = find_overhead(OVERHEAD)

    def launch_s(load: Load) -> float:
        if not load.pairs:
            return 0.0
        graph = load.tokens <= overhead.graph_tokens
        return overhead.graph_launch_s if graph else overhead.eager_launch_s

    launches_s, seen_s, gpu_s = -1.0, 0.0, 0.0
    for load, following in pairwise([*span.loads, Load(1, 1, 1, 0)]):
        gpu_s = max(gpu_s + time(load), launches_s + launch_s(load))
        launches_s, seen_s = seen_s, max(gpu_s, seen_s + launch_s(following))
    return seen_s


def show_steps(folder: Path) -> None:
    """Print the error of every kind of step, fitted and held out."""
    time = StepTime(find_model(MODEL), find_gpu(GPU), overhead=find_overhead(OVERHEAD))
    groups = defaultdict(list)
    for span in spans(folder):
        kind = "with prefill" if span.prefill else "decode only"
        part = "fitted" if span.fitted else "held out"
        error = took_s(time, span) / span.took_s - 1
        for stage in (span.group, "all"):
            groups[part, kind, stage].append((error, span.took_s))
    print("\n| | steps | stage | spans | mean abs. error | bias | total time |")
    print("|---|---|---|--:|--:|--:|--:|")
    for (part, kind, stage), pairs in sorted(groups.items()):
        errors, weights = np.array(pairs).T
        print(
            f"| {part} | {kind} | {stage} | {len(errors):,} | {np.mean(np.abs(errors)):.1%}"
            f" | {np.mean(errors):+.1%} | {np.average(errors, weights=weights):+.1%} |"
        )


def fit(folder: Path) -> None:
    """Fit five coefficients to the fitted part, every stage and kind of step weighing the same."""
    from scipy.optimize import least_squares

    model, gpu, overhead = find_model(MODEL), find_gpu(GPU), find_overhead(OVERHEAD)
    known = [span for span in spans(folder) if span.fitted]
    single = list(prompts(folder))
    total: dict[tuple[str, bool], float] = defaultdict(float)
    for span in known:
        total[span.group, span.prefill] += span.took_s
    weights = [np.sqrt(span.took_s / total[span.group, span.prefill]) for span in known]

    def time_of(values: Iterable[float]) -> StepTime:
        mfu, kv_mbu, attention_mfu, step_s, sequence_s = map(float, values)
        return StepTime(
            model,
            msgspec.structs.replace(gpu, mfu=mfu, kv_mbu=kv_mbu, attention_mfu=attention_mfu),
            overhead=msgspec.structs.replace(overhead, step_s=step_s, sequence_s=sequence_s),
        )

    def residuals(values: Iterable[float]) -> list[float]:
        time = time_of(values)
        ours = [
            weight * np.log(took_s(time, span) / span.took_s)
            for span, weight in zip(known, weights, strict=True)
        ]
        return ours + [0.03 * np.log(time(load) / real) for load, real in single]

    start = [0.71, 0.91, 0.6, 4e-4, 8e-6]
    found = least_squares(
        residuals, start, bounds=([0.3, 0.5, 0.3, 0, 0], [1, 1, 0.75, 2e-3, 1e-4]), x_scale=start
    )
    names = ("mfu", "kv_mbu", "attention_mfu", "step_s", "sequence_s")
    print("\nfitted, p = 3 given:")
    for name, value in zip(names, found.x, strict=True):
        print(f"    {name} = {value:.4g}")


# --- The whole endpoint --------------------------------------------------------------------------


def show_loads(folder: Path) -> None:
    """Serve the very requests of every load, and print TTFT and gaps beside the server's."""
    loads: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(folder / "raw" / "main.requests.jsonl.gz", "rt") as file:
        for row in map(json.loads, file):
            if row["stage"].startswith("poisson") and row["status"] == 200:
                loads[row["stage"].split(":")[1], str(row["tag"])].append(row)
    print("\n| tokens a step | rate | | TTFT p50 (ms) | TTFT p99 (ms) | gap p99 (ms) |")
    print("|---|--:|---|--:|--:|--:|")
    errors: dict[str, list[list[float]]] = defaultdict(list)
    for (budget, rate), rows in loads.items():
        rows.sort(key=lambda row: float(row["t0"]))
        chunk = re.search(r"\d+", budget)
        parameters = {"chunk_tokens": chunk[0] if chunk else "16384", "max_num_seqs": "256"}
        engine = emulate(
            make_system("sarathi", parameters), MODEL, GPU,
            context_tokens=16_384, overhead=OVERHEAD,
        )  # fmt: skip
        requests = [
            Request(str(i), row["n_in"], row["n_out"], row["t0"] - rows[0]["t0"])
            for i, row in enumerate(rows)
        ]
        virtual.run(Cluster.of(engine), Again(requests))
        ours = [(each.token_s, each.arrival_s) for each in requests]
        real = [(row["times"], 0.0) for row in rows]
        quantiles = []
        for part, share in ((0, 0.5), (0, 0.99), (1, 0.99)):
            ttft = [[times[0] - sent_s for times, sent_s in each] for each in (ours, real)]
            gaps = [
                [b - a for times, _ in each for a, b in pairwise(times)] for each in (ours, real)
            ]
            quantiles.append([float(np.quantile(each, share)) for each in (ttft, gaps)[part]])
        kept = "fitted" if rate == FITTED_RATE else "held out"
        errors[kept].append([mine / theirs - 1 for mine, theirs in quantiles])
        cells = [
            f"{mine * 1e3:.1f} for {theirs * 1e3:.1f}: {mine / theirs - 1:+.1%}"
            for mine, theirs in quantiles
        ]
        print(f"| {budget} | {rate} | {kept} | {' | '.join(cells)} |")
    for kept, each in errors.items():
        mean = " | ".join(f"{value:.1%}" for value in np.mean(np.abs(each), axis=0))
        bias = " | ".join(f"{value:+.1%}" for value in np.mean(each, axis=0))
        print(f"| mean absolute error | | {kept} | {mean} |\n| bias | | {kept} | {bias} |")


# --- What papers published -----------------------------------------------------------------------


def decode(batch: int, context: int) -> Load:
    return Load(batch, batch, batch * context, 0)


def prefill(tokens: int, before: int = 0) -> Load:
    return Load(tokens, 1, 0, tokens * (before + (tokens + 1) / 2))


def timed(model: str, gpu: str, tp: int, overhead: str) -> StepTime:
    return StepTime(find_model(model), find_gpu(gpu), tp, find_overhead(overhead))


def distserve() -> Iterator[tuple[str, float, float]]:
    """Its simulator's fits to its own engine on A100s; ms, prompt tokens, context."""
    for model, tp, (a, b, c), (d, e, f) in (
        ("OPT-13B", 1, (18.1, 0.1019, 7.12e-6), (19.93, 6.27e-4, 0.0385)),
        ("OPT-66B", 4, (29.4, 0.1514, 8.3e-6), (30.8, 4.52e-4, 0.0633)),
    ):
        time = timed(model, "A100-80G", tp, "plain")
        for tokens in (128, 512, 1024, 2048):
            published = a + b * tokens + c * tokens**2
            yield f"{model} TP{tp}, prefill {tokens}", published, time(prefill(tokens)) * 1e3
        for batch, context in ((1, 512), (16, 512), (64, 512), (64, 1024)):
            published = d + e * batch * context + f * batch
            ours = time(decode(batch, context)) * 1e3
            yield f"{model} TP{tp}, decode {batch} of {context}", published, ours
    large = 7.17 + 5.80e-4 * 128 * 512 + 0.158 * 128
    ours = timed("OPT-13B", "A100-80G", 1, "plain")(decode(128, 512)) * 1e3
    yield "OPT-13B TP1, decode 128 of 512", large, ours


def sarathi_steps() -> Iterator[tuple[str, float, float]]:
    """The figure files of its artefact, Yi-34B on two A100s: table 2 and figure 2."""
    time = timed("Yi-34B", "A100-80G", 2, "vllm-2023")
    mixed = Load(1024, 4, 3 * 1024, 1021 * 1022 / 2)
    yield "table 2: 4 decodes", 68.1, time(decode(4, 1024)) * 1e3
    yield "table 2: 1021 of a prompt and 3 decodes", 217.6, time(mixed) * 1e3
    yield "table 2: a prompt of 1024", 217.2, time(prefill(1024)) * 1e3
    for batch, seconds in (
        (1, 0.0468), (2, 0.0475), (4, 0.0488), (8, 0.0697), (16, 0.0773), (32, 0.0879),
        (64, 0.1278), (128, 0.1893),
    ):  # fmt: skip
        ours = time(decode(batch, 1024)) * 1e3
        yield f"figure 2: {batch} decodes of 1024", seconds * 1e3, ours
    for tokens, seconds in (
        (128, 0.0481), (256, 0.1214), (512, 0.1056), (1024, 0.2143), (2048, 0.3660),
        (4096, 0.7576), (8192, 1.8633), (16384, 4.4075),
    ):  # fmt: skip
        yield f"figure 2: a prompt of {tokens}", seconds * 1e3, time(prefill(tokens)) * 1e3


def sarathi_chunks() -> Iterator[tuple[str, float, float]]:
    """Its figure 9: a prompt in chunks over the prompt whole, Yi-34B on two A100s."""
    time = timed("Yi-34B", "A100-80G", 2, "vllm-2023")
    for prompt, chunk, published in (
        (2047, 512, 1.152), (2047, 1024, 1.175), (4095, 512, 1.189), (4095, 1024, 1.202),
        (4095, 2048, 1.024), (8191, 512, 1.117), (8191, 1024, 1.109), (8191, 2048, 0.937),
        (16383, 512, 0.995), (16383, 1024, 0.961), (16383, 2048, 0.805),
    ):  # fmt: skip
        begins = range(0, prompt, chunk)
        chunks = sum(time(prefill(min(chunk, prompt - before), before)) for before in begins)
        yield f"prompt {prompt} by {chunk}", published, chunks / time(prefill(prompt))


def semi_pd() -> Iterator[tuple[str, float, float]]:
    """Its SLOs, which are ten times one request alone, and its figure 10 (over the whole GPU)."""
    for model, tp, tpot_ms in (("Llama-3-8B", 1, 20.0), ("Llama-3-70B", 4, 40.0)):
        ours = timed(model, "A100-80G", tp, "vllm-2023")(decode(1, 512)) * 1e3
        yield f"{model} TP{tp}: a token of one request (ms)", tpot_ms, ours
    for model, tp, context, tpot_ms in (
        ("Llama-3-8B", 1, 4096, 18.0), ("Llama-3-70B", 4, 4096, 40.0),
    ):  # fmt: skip
        ours = timed(model, "A100-80G", tp, "vllm-2023")(decode(1, context)) * 1e3
        yield f"{model} TP{tp}, LongBench: a token of one request (ms)", tpot_ms, ours
    time, load = timed("Llama-3-8B", "A100-80G", 1, "vllm-2023"), decode(64, 512)
    for share in (0.3, 0.5, 0.8):
        published = 0.6284 / share + 0.3818
        ours = time(load, share) / time(load)
        yield f"a decode on {share:.0%} of the SMs, over all", published / 1.0102, ours


def show_published() -> None:
    """Print every published point beside ours."""
    for title, points in (
        ("DistServe (ms)", distserve()),
        ("Sarathi-Serve, steps (ms)", sarathi_steps()),
        ("Sarathi-Serve, figure 9", sarathi_chunks()),
        ("semi-PD", semi_pd()),
    ):
        print(f"\n| {title} | published | ours | error |\n|---|--:|--:|--:|")
        errors = []
        for name, published, ours in points:
            errors.append(ours / published - 1)
            print(f"| {name} | {published:.4g} | {ours:.4g} | {errors[-1]:+.0%} |")
        print(f"| mean absolute error | | | {np.mean(np.abs(errors)):.0%} |")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("calibration", nargs="?", type=Path)
    parser.add_argument("--fit", action="store_true")
    asked = parser.parse_args()
    if asked.calibration is not None:
        if asked.fit:
            fit(asked.calibration)
        show_steps(asked.calibration)
        show_loads(asked.calibration)
    show_published()


if __name__ == "__main__":
    main()
