"""How faithful synthetic traces are: models of real traces beside what people use instead.

    python benchmarks/fidelity.py DATA --seeds 20 --jobs 2 --json fidelity.json

DATA is a folder with the real traces. Every trace is fitted and drawn with several seeds, and the
draws are compared with it by `fidelity.compare` and `served.compare`: in sample, held out (fitted
to the first half of the time, held against the rest at its rates), and at other rates. Beside it
stand Poisson arrivals and gamma gaps of the trace's CV, both with independent lengths drawn from
the trace, and ServeGen's algorithm: windows of ten minutes, gamma or Weibull gaps stretched to fill
them. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

from servescope.analysis import fidelity
from servescope.analysis.demand import Demand
from servescope.analysis.models.fitting import at_rates_of, fit
from servescope.analysis.models.model import Model
from servescope.analysis.models.renewal import Poisson, Renewal, WindowedRenewal
from servescope.analysis.models.scaling import told
from servescope.analysis.models.synthesis import on_own_clocks, synthesize
from servescope.analysis.sample import Floats
from servescope.loadgen import served
from servescope.traces import Trace, load
from servescope.traces.provenance import Provenance

TRACES = {
    "azure-code": "azure_llm_2023/AzureLLMInferenceTrace_code.csv",
    "mooncake-synthetic": "mooncake/synthetic_trace.jsonl.gz",
    "ragpulse": "ragpulse/0_trace.part1.jsonl.gz",
    "prism-arena": "prism_arena",
    "burstgpt-v1": "burstgpt/BurstGPT_1.head400.csv",
}
SESSIONS = {"weka-agentic": "weka_agentic"}  # programs with a clock each
OURS, EXACT = "servescope, 10-minute rates", "servescope, 1-minute counts"
BASELINES = ("Poisson", "gamma of the CV", "ServeGen's algorithm")
MODELS = (OURS, EXACT, *BASELINES)
LOADS = (0.3, 0.5, 0.7)
FACTORS = (0.5, 2.0, 4.0)
WINDOW_S = 600.0


def drawn(real: Trace, model: str, seeds: int, at: Trace | None = None) -> list[Trace]:
    """Return draws of a model that was fitted to `real`, at the rates of `at` if it is another."""
    if model in (OURS, EXACT):
        made = fit(real, window_s=60.0, exact=True) if model == EXACT else fit(real)
        if at is not None:
            made = at_rates_of(made, at)
        return [_held(synthesize(made, seed=seed)) for seed in range(seeds)]
    demand = Demand.of(real)
    times = demand.deticked[0] - demand.deticked[0][0]
    target = times
    if at is not None:
        other = Demand.of(at)
        target = other.deticked[0] - other.deticked[0][0]
    sample = _arrivals(model, times, target)
    lengths = [demand.placed[name].fill_null(0).to_numpy() for name in _LENGTHS]
    return [
        _calls(sample(rng), [rng.choice(each, size=3 * len(target) + 100) for each in lengths])
        for rng in map(np.random.default_rng, range(seeds))
    ]


_LENGTHS = ("input_tokens", "output_tokens")


def _arrivals(model: str, times: Floats, target: Floats) -> Callable[[np.random.Generator], Floats]:
    """Return what draws the arrivals of a baseline fitted to `times`, for as long as `target`."""
    span = float(target[-1]) * (1 + 1 / len(target))
    rate = len(target) / span
    if model == "Poisson":
        return lambda rng: Poisson().sample(rng, rate, span)
    if model == "gamma of the CV":
        shape = Renewal.of_cv(times)
        return lambda rng: shape.sample(rng, rate, span)
    fitted = WindowedRenewal.fit(times, float(times[-1]) * (1 + 1 / len(times)), WINDOW_S)
    counts = np.bincount((target / WINDOW_S).astype(np.int64))
    own = len(np.bincount((times / WINDOW_S).astype(np.int64)))

    def filled(rng: np.random.Generator) -> Floats:
        parts = [
            k * WINDOW_S
            + fitted.at(k % own).filled(rng, int(count), min(WINDOW_S, span - k * WINDOW_S))
            for k, count in enumerate(counts.tolist())
            if count
        ]
        return np.concatenate(parts)

    return filled


def _calls(arrivals: Floats, lengths: list[np.ndarray]) -> Trace:
    columns = {name: each[: len(arrivals)] for name, each in zip(_LENGTHS, lengths, strict=True)}
    frame = pl.DataFrame({"arrival_s": arrivals, **columns}).with_columns(
        pl.col(_LENGTHS).cast(pl.Int64)
    )
    return Trace.of(frame, Provenance(format="baseline", source="baseline", kind="synthetic"))


def _held(trace: Trace) -> Trace:
    return Trace.of(trace.collect(), trace.provenance, checked=True)


def compared(real: Trace, synthetic: list[Trace], **how: object) -> list[dict[str, object]]:
    """Return the rows of statistics and of serving."""
    found = fidelity.compare(real, synthetic, **how)  # type: ignore[arg-type]
    got = served.compare(real, synthetic, LOADS, tick=found.tick, **how)  # type: ignore[arg-type]
    return pl.concat([found.table, got.table]).to_dicts()


def in_sample(path: str, name: str, model: str, seeds: int) -> dict[str, object]:
    real = load(path)
    return {"kind": "in sample", "trace": name, "model": model,
            "rows": compared(real, drawn(real, model, seeds))}  # fmt: skip


def held_out(path: str, name: str, model: str, seeds: int) -> dict[str, object]:
    real = load(path)
    first, rest = fidelity.split(real, 0.5)
    rows = compared(rest, drawn(first, model, seeds, at=rest), parts=(first, rest))
    return {"kind": "held out", "trace": name, "model": model, "rows": rows}


def rescaled(path: str, name: str, factor: float, seeds: int) -> dict[str, object]:
    """Thin a trace, scale a model of it back up, and compare with the whole; or scale one down."""
    whole = load(path)
    kept = min(factor, 1 / factor)
    thinned = _held(whole.sample(kept, seed=1))
    learnt, target = (whole, thinned) if factor < 1 else (thinned, whole)
    base = fit(learnt)
    model = base.scaled(factor, "busier")
    synthetic = [_held(synthesize(model, seed=seed)) for seed in range(seeds)]
    rows = compared(target, synthetic)
    expected = told(base, model)
    realised = _dispersion(synthetic, expected["scale_s"].to_list(), model)
    off = [abs(have / want - 1) for have, want in zip(realised, expected["expected"], strict=True)]
    return {"kind": "rescaled", "trace": name, "model": f"x{factor:g}", "rows": rows,
            "dispersion_off": off}  # fmt: skip


def _dispersion(traces: list[Trace], scales: list[float], model: Model) -> list[float]:
    found = []
    for scale in scales:
        each = []
        for trace in traces:
            at = trace.frame.select("arrival_s").collect().to_series().to_numpy()
            windows = int((model.about.span_s or at[-1]) / scale)
            counts = np.bincount((at / scale).astype(np.int64), minlength=windows)[:windows]
            each.append(float(counts.var() / counts.mean()))
        found.append(float(np.mean(each)))
    return found


def of_sessions(path: str, name: str, model: str, seeds: int) -> dict[str, object]:
    """Compare programs that have a clock each: no arrivals, no serving."""
    real = load(path)
    programs = real.frame.select(pl.col("program_id").n_unique()).collect().item()
    made = fit(real)
    synthetic = [_held(on_own_clocks(made, programs, seed)) for seed in range(seeds)]
    rows = fidelity.compare(real, synthetic).table.to_dicts()
    return {"kind": "in sample", "trace": name, "model": model, "rows": rows}


# --- tables ------------------------------------------------------------------------------------

COLUMNS = {
    "IDC": ("idc_mean_curve", None),
    "IDC, one seed": ("idc", None),
    "token IDC": ("token_idc_mean_curve", None),
    "gap KS": ("ks", "gap_s"),
    "rank corr.": ("spearman", None),
    "AUC": ("auc", None),
    "p99 TTFT 0.3": ("ttft_p99", "load 0.3"),
    "0.5": ("ttft_p99", "load 0.5"),
    "0.7": ("ttft_p99", "load 0.7"),
}
PROGRAMS = {
    "turns KS": ("turns", None),
    "pause KS": ("session_ks", None),
    "successive gaps": ("successive", None),
    "hit curve, points": ("hit_curve", None),
    "reuse age KS": ("reuse_age", None),
}


def value(rows: list[dict[str, object]], measure: str, subject: str | None, key: str) -> float:
    for row in rows:
        if row["measure"] == measure and subject in (None, row["subject"]):
            found = row[key]
            return math.nan if found is None else float(found)  # type: ignore[arg-type]
    return math.nan


def lines(
    results: list[dict[str, object]], kind: str, columns: dict[str, tuple[str, str | None]]
) -> Iterator[str]:
    yield f"| trace | model | {' | '.join(columns)} | in band |"
    yield "|---|---|" + "--:|" * (len(columns) + 1)
    for each in results:
        if each["kind"] != kind:
            continue
        rows: list[dict[str, object]] = each["rows"]  # type: ignore[assignment]
        cells = [_number(value(rows, m, s, "value")) for m, s in columns.values()]
        table = pl.DataFrame(rows, infer_schema_length=None)
        inside, many = fidelity.comparison.inside(table)
        yield (
            f"| {each['trace']} | {each['model']} | {' | '.join(cells)} |"
            f" {f'{inside} of {many}' if many else '-'} |"
        )
    floors = {}
    for each in results:
        if each["kind"] == kind:
            floors.setdefault(each["trace"], each["rows"])
    for trace, rows in floors.items():
        cells = [_number(value(rows, m, s, "floor")) for m, s in columns.values()]
        yield f"| {trace} | *real against real* | {' | '.join(cells)} | - |"


def _number(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.3f}" if abs(x) < 10 else f"{x:.0f}"


def _key(
    task: Callable[..., dict[str, object]], arguments: tuple[object, ...]
) -> tuple[str, object, object]:
    """Return what a task's result is known by."""
    kind = {held_out: "held out", rescaled: "rescaled"}.get(task, "in sample")
    model = f"x{arguments[2]:g}" if task is rescaled else arguments[2]
    return kind, arguments[1], model


def _seeds(model: str, seeds: int) -> int:
    """Return how many draws to make: half as many of what is only there to be compared with."""
    return max(1, seeds // 2) if model in BASELINES else seeds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="keep every score")
    parser.add_argument("--only", default="", help="traces, with commas between")
    parser.add_argument("--kinds", default="in,out,rate,sessions")
    asked = parser.parse_args()
    kinds = asked.kinds.split(",")
    names = [n for n in asked.only.split(",") if n] or [*TRACES, *SESSIONS]
    tasks: list[tuple[Callable[..., dict[str, object]], tuple[object, ...]]] = []
    for name in names:
        path = str(asked.data / {**TRACES, **SESSIONS}[name])
        if name in SESSIONS:
            if "sessions" in kinds:
                tasks.append((of_sessions, (path, name, OURS, min(asked.seeds, 5))))
            continue
        if "in" in kinds:
            tasks += [
                (in_sample, (path, name, model, _seeds(model, asked.seeds))) for model in MODELS
            ]
        if "out" in kinds:
            tasks += [(held_out, (path, name, model, asked.seeds)) for model in (OURS, *BASELINES)]
        if "rate" in kinds:
            tasks += [(rescaled, (path, name, factor, asked.seeds)) for factor in FACTORS]
    results = []
    if asked.json and asked.json.exists():  # go on where an earlier run was stopped
        results = json.loads(asked.json.read_text())
    known = {(each["kind"], each["trace"], each["model"]) for each in results}
    tasks = [task for task in tasks if _key(*task) not in known]
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:
        pending = {pool.submit(task, *arguments): arguments[1:3] for task, arguments in tasks}
        for future in as_completed(pending):
            print(*pending[future], flush=True)
            try:
                results.append(future.result())
            except Exception as error:  # one that cannot be fitted does not stop the others
                print(f"left out: {error!r}", flush=True)
            if asked.json:
                asked.json.write_text(json.dumps(results))
    results.sort(key=lambda each: (str(each["trace"]), str(each["model"])))
    for kind in ("in sample", "held out", "rescaled"):
        print(f"\n### {kind}\n")
        print("\n".join(lines(results, kind, COLUMNS)))
        if kind != "rescaled":
            print()
            print("\n".join(lines(results, kind, PROGRAMS)))
    for each in results:
        if "dispersion_off" in each:
            print(each["trace"], each["model"], "dispersion off the printed one by at most",
                  f"{max(each['dispersion_off'], default=math.nan):.3f}")  # type: ignore[call-overload]  # fmt: skip


if __name__ == "__main__":
    main()
