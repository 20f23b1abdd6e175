"""The result file of `vllm bench serve --save-result --save-detailed`, field for field, of a run.

The lists of calls are written some thousands of calls at a time, so that a run of a million calls
takes no more memory than its report. The texts of answers are not kept: in their place stand empty
ones, so that all lists are of one length.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec
import polars as pl
from polars import col

from servescope.analysis.measured import Measured
from servescope.analysis.profiles import Reading, Seen, Value, named
from servescope.analysis.profiles import seen as streams
from servescope.analysis.profiles.peaks import most_at_once, most_in_a_second
from servescope.analysis.profiles.vllm import first, moments
from servescope.analysis.sample import Sample
from servescope.analysis.slo import SLO
from servescope.traces.errors import InputError, OutputExists
from servescope.traces.run import Run

METRICS = ("ttft", "tpot", "itl")  # vLLM's own choice; it can also be asked for those below
KNOWN = (*METRICS, "e2el", "client_queue_time", "e2el_including_client_queue")
PERCENTILES = (99.0,)
# Ours by the names that vLLM has; all others are called alike.
_BACKENDS = {"vllm-chat": "openai-chat"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user of vLLM says of its report: whose statistics, and which percentiles."""

    metrics: tuple[str, ...] = METRICS
    percentiles: tuple[float, ...] = PERCENTILES

    @classmethod
    def parse(cls, metrics: str, percentiles: str) -> Asked:
        """Read both as vLLM does, with commas between; raises InputError."""
        chosen = tuple(name.strip() for name in metrics.split(","))
        for name in chosen:
            if name not in KNOWN:
                raise InputError(
                    f"vLLM has no metric '{name}' of which it tells percentiles.",
                    f"Known: {', '.join(KNOWN)}.",
                )
        try:
            asked = tuple(float(each) for each in percentiles.split(","))
        except ValueError:
            asked = (-1.0,)
        if not all(0 <= each <= 100 for each in asked):
            raise InputError(f"'{percentiles}' are no percentiles.", "Write them like 50,90,99.")
        return cls(chosen, asked)


def write(
    run: Run, path: Path, *, slo: SLO | None = None, asked: Asked | None = None,
    overwrite: bool = False,
) -> list[str]:  # fmt: skip
    """Write a run as vLLM's result file; returns what stands in it for what a run does not tell.

    Raises OutputExists, unless `overwrite`.
    """
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists already.", "Choose another --out or add --overwrite.")
    reading = Reading(named("vllm"), Seen(Measured.of(run), run, slo))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_ = path.with_name(f"{path.name}.part")
    with partial_.open("wb") as out:
        _write(out, reading, run, asked or Asked())
    os.replace(partial_, path)
    return _said(reading)


def _write(out: IO[bytes], reading: Reading, run: Run, asked: Asked) -> None:
    begin = b"{"
    for name, value in _fields(reading, run, asked):
        out.write(begin + msgspec.json.encode(name) + b": ")
        begin = b", "
        if isinstance(value, Iterator):
            _write_list(out, value)
        else:
            out.write(msgspec.json.encode(value))
    out.write(b"}\n")


def _write_list(out: IO[bytes], parts: Iterator[list[Any]]) -> None:
    out.write(b"[")
    between = b""
    for part in parts:
        if part:
            out.write(between + msgspec.json.encode(part)[1:-1])
            between = b","
    out.write(b"]")


def _fields(reading: Reading, run: Run, asked: Asked) -> Iterator[tuple[str, Any]]:
    """Yield every field in vLLM's order; a list is an iterator of its parts."""
    experiment = _experiment(run)
    yield from _head(reading, run, experiment)
    calls = _calls(reading)
    written: dict[str, Callable[[], Any]] = {
        "duration": lambda: reading.duration_s or 0.0,
        "completed": lambda: _whole(reading.count),
        "failed": lambda: _whole(reading.failed),
        "total_input_tokens": lambda: _whole(reading.total("input_tokens")),
        "total_output_tokens": lambda: _whole(reading.total("output_tokens")),
        "request_throughput": lambda: _field(reading, "request_throughput"),
        "request_goodput": lambda: reading.rate(reading.good).value,
        "output_throughput": lambda: _field(reading, "output_throughput"),
        "total_token_throughput": lambda: _field(reading, "total_token_throughput"),
        "input_lens": lambda: _column(calls, "input_len"),
        "output_lens": lambda: _column(calls, "output_len"),
        "ttfts": lambda: _column(calls, "ttft"),
        "itls": lambda: _gaps(reading, calls),
        "latencies": lambda: _column(calls, "latency"),
        "start_times": lambda: _column(calls, "start"),
        "queue_times": lambda: _column(calls, "queue"),
        "generated_texts": lambda: _column(calls, "text"),
        "errors": lambda: _column(calls, "error"),
        "max_output_tokens_per_s": lambda: (
            most_in_a_second(reading, moments(reading.seen)).value or 0.0
        ),
        "max_concurrent_requests": lambda: int(most_at_once(reading, "e2el").value or 0),
        "rtfx": lambda: 0.0,
    }
    for name, value in written.items():
        yield name, value()
    for metric in KNOWN:
        if metric in asked.metrics:
            yield from _spread(reading, metric, experiment, asked.percentiles)


def _head(reading: Reading, run: Run, experiment: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    info = run.info
    backend = str(info.asked.get("backend") or info.system)
    backend = _BACKENDS.get(backend, backend)
    yield "date", _date(info.started)
    yield "endpoint_type", backend
    yield "backend", backend
    yield "label", info.name
    yield "model_id", info.model
    yield "tokenizer_id", experiment.get("endpoint", {}).get("tokenizer") or info.model
    yield "num_prompts", reading.seen.calls.height
    yield "request_rate", _rate(experiment) or "inf"
    yield "burstiness", _burstiness(experiment)
    yield "max_concurrency", _slots(experiment)


def _experiment(run: Run) -> dict[str, Any]:
    """Return what was asked of the run, as its file says it; nothing where there is none."""
    path = run.path / "experiment.toml"
    return tomllib.loads(path.read_text()) if path.is_file() else {}


def _arrivals(experiment: dict[str, Any]) -> dict[str, Any]:
    return dict(experiment.get("workload", {}).get("arrivals") or {})


def _rate(experiment: dict[str, Any]) -> float | None:
    rate = _arrivals(experiment).get("rate_rps") or experiment.get("workload", {}).get("rate_rps")
    return None if rate is None else float(rate)


def _burstiness(experiment: dict[str, Any]) -> float:
    """Return the shape of gamma arrivals; 1, as of Poisson arrivals, of all others."""
    arrivals = _arrivals(experiment)
    burstiness = arrivals.get("params", {}).get("burstiness", 1.0)
    return float(burstiness) if arrivals.get("process") == "gamma" else 1.0


def _slots(experiment: dict[str, Any]) -> int | None:
    endpoint = experiment.get("endpoint", {})
    slots: int | None = endpoint.get("max_concurrency") or endpoint.get("users")
    return slots


def _date(started: str | None) -> str | None:
    if started is None:
        return None
    try:
        return datetime.fromisoformat(started).strftime("%Y%m%d-%H%M%S")
    except ValueError:
        return started


def _calls(reading: Reading) -> pl.DataFrame:
    """Return one row a call that was sent, in order, with what vLLM keeps of each.

    What a failed call did not come to is 0, as there.
    """
    seen = reading.seen
    ok = reading.answered.select("row", "e2el", completed=pl.lit(True))
    zero_s = (seen.run.info.zero_monotonic_s if seen.run else None) or 0.0
    return (
        seen.calls.join(ok, on="row", how="left", maintain_order="left")
        .with_columns(col("completed").fill_null(False))
        .select(
            "row",
            input_len=col("input_tokens").fill_null(0),
            # of a completed call whose tokens nobody counted the length is not known
            output_len=pl.when(~col("completed")).then(0).when("counted").then("output_tokens"),
            ttft=(first(seen) - col("start_s")).fill_null(0.0),
            latency=col("e2el").fill_null(0.0),
            start=(col("start_s") + zero_s).fill_null(0.0),
            queue=(col("admitted_s") - col("due_s")).fill_null(0.0),
            text=pl.lit(""),
            error=pl.when("completed")
            .then(pl.lit(""))
            .otherwise(pl.concat_str("status", "error", separator=": ", ignore_nulls=True)),
        )
    )


def _column(calls: pl.DataFrame, name: str) -> Iterator[list[Any]]:
    return (part.to_list() for part in (s[name] for s in calls.iter_slices(10_000)))


def _gaps(reading: Reading, calls: pl.DataFrame) -> Iterator[list[Any]]:
    gaps = streams.gaps(moments(reading.seen)).fill_null([])
    for batch in reading.seen.measured.chunks_in_order(calls.select("row")):
        yield batch.select(gaps.alias("itl"))["itl"].to_list()


def _whole(value: Value) -> int | None:
    return None if value.value is None else int(value.value)


def _field(reading: Reading, name: str) -> float | None:
    """Return a rate; over no time it is 0 here, and null if its amount is not known."""
    field = next(f for f in reading.profile.fields if f.name == name)
    found = reading.of(field).value
    return 0.0 if found is None and reading.duration_s is None else found


def _spread(
    reading: Reading, metric: str, experiment: dict[str, Any], percentiles: Sequence[float]
) -> Iterator[tuple[str, float | None]]:
    sample = _sample(reading, metric, experiment)
    if sample is None:
        return
    values, lost = sample

    def told(of: Callable[[Sample], float | None]) -> float | None:
        found = of(values)
        # of nothing vLLM writes 0; what it would know and a run does not is null
        return found * 1000 if found is not None else None if lost else 0.0

    yield f"mean_{metric}_ms", told(Sample.mean)
    yield f"median_{metric}_ms", told(lambda s: s.percentile(50))
    yield f"std_{metric}_ms", told(Sample.std)
    for each in percentiles:
        word = str(int(each)) if int(each) == each else str(each)
        yield f"p{word}_{metric}_ms", told(partial(Sample.percentile, percent=each))


def _sample(reading: Reading, metric: str, experiment: dict[str, Any]) -> tuple[Sample, int] | None:
    """Return the values of one of vLLM's metrics; None where it does not tell it."""
    if metric in ("ttft", "tpot", "itl", "e2el"):
        return reading.sample(metric)
    if _slots(experiment) is None:
        return None
    queue = reading.answered["queue"]
    if metric == "client_queue_time":
        return Sample.of(queue.drop_nulls().to_numpy()), 0
    if _rate(experiment) is None:
        return None
    return Sample.of((queue + reading.answered["e2el"]).drop_nulls().to_numpy()), 0


def _said(reading: Reading) -> list[str]:
    """Say what the file holds in place of what a run does not tell."""
    said = ["generated_texts are empty: a run does not keep the texts of answers."]
    total = reading.total("output_tokens")
    if total.why:
        said.append(
            "Where the server sent no usage output_lens are null, and so is what is made of them"
            " alone; vLLM would tokenize the texts."
        )
    return said
