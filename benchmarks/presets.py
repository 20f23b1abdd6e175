"""Fit the models that ship with servescope to the public traces that they are learnt from.

    python benchmarks/presets.py DATA OUT [NAME ...]

DATA is a folder with the sources laid out as in `PRESETS`, OUT is analysis/models/data. Prints how
many seconds of CPU each took to fit, without reading and scoring, and how large its file is.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from servescope.analysis.demand import Demand
from servescope.analysis.models.fitting import fit
from servescope.analysis.models.model import Model
from servescope.analysis.models.scoring import scored
from servescope.traces import load


class Source(NamedTuple):
    """Where a preset's trace lies in DATA, and what it is called by those who made it.

    Licence and attribution are given where the file's format does not settle them.
    """

    path: str
    title: str
    licence: str | None = None
    attribution: str | None = None


_LENGTHS = "Agrawal et al., etalon; project-etalon/etalon"
PRESETS = {
    "azure-code": Source(
        "azure_llm_2023/AzureLLMInferenceTrace_code.csv", "AzureLLMInferenceTrace_code.csv"
    ),
    "mooncake-synthetic": Source(
        "mooncake/synthetic_trace.jsonl.gz", "FAST25 synthetic_trace.jsonl"
    ),
    "mooncake-conversation": Source(
        "mooncake/conversation_trace.head400.jsonl",
        "FAST25 conversation_trace.jsonl, first 400 rows",
    ),
    "burstgpt-v1": Source("burstgpt/BurstGPT_1.head400.csv", "BurstGPT_1.csv, first 400 rows"),
    "burstgpt-v3": Source("burstgpt/BurstGPT_3.head280.csv", "BurstGPT_3.csv, first 280 rows"),
    "ragpulse": Source("ragpulse", "RAGPulse, first of its two weeks"),
    "weka-agentic": Source("weka_agentic", "kv-cache-tester traces, 360 sessions"),
    "prism-arena": Source(
        "prism_arena/arena_multi_lora.first750.csv", "prism-research real_trace, first 750 rows"
    ),
    "llmservingsim-mixed": Source(
        "llmservingsim/workload_me2_01_mixed.jsonl",
        "LLMServingSim workload me2_01_mixed",
        "MIT",
        "Cho et al., LLMServingSim; casys-kaist/LLMServingSim",
    ),
    "sharegpt-lengths": Source(
        "token_lengths/sharegpt_8k_filtered_stats_llama2_tokenizer.csv.gz",
        "ShareGPT lengths below 8,192 tokens, Llama-2 tokenizer",
        "Apache-2.0",
        _LENGTHS,
    ),
    "arxiv-lengths": Source(
        "token_lengths/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz",
        "arXiv summarization lengths, Llama-2 tokenizer",
        "Apache-2.0",
        _LENGTHS,
    ),
}


def made(name: str, source: Source, data: Path) -> tuple[Model, float]:
    """Return a preset, scored against its trace, and the CPU seconds that its fit took."""
    trace = load(data / source.path)
    demand = Demand.of(trace)
    begun = time.process_time()
    model = fit(demand, name=name)
    took_s = time.process_time() - begun
    about = msgspec.structs.replace(
        model.about,
        source=source.title,
        licence=source.licence or model.about.licence,
        attribution=source.attribution or model.about.attribution,
        doubts=(*trace.provenance.doubts, *model.about.doubts),
    )
    return scored(msgspec.structs.replace(model, about=about), trace), took_s


def main() -> None:
    """Write the presets that are named, or all."""
    data, out, *names = sys.argv[1:]
    for name in names or PRESETS:
        model, took_s = made(name, PRESETS[name], Path(data))
        path = Path(out) / f"{name}.json"
        model.write(path, overwrite=True)
        calls, size_kb = model.about.calls, path.stat().st_size / 1000
        print(f"{name}: {calls:,} calls fitted in {took_s:.1f} s, {size_kb:,.0f} kB", flush=True)


if __name__ == "__main__":
    main()
