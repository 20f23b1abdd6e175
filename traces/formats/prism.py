"""The Chatbot Arena trace with many adapters that S-LoRA made and Prism replays."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from servescope.traces.formats import csv
from servescope.traces.formats.format import Format
from servescope.traces.formats.gather import gather
from servescope.traces.formats.source import Source
from servescope.traces.formats.vidur import stamped, timing
from servescope.traces.trace import Trace

RESAMPLED = (
    "Its makers drew the arrivals anew, at a rate of their choice: lengths and the skew between"
    " adapters are real, the rate is not."
)
_NEEDED = {
    "req_id": pl.String,
    "adapter_dir": pl.String,
    "prompt_len": pl.Int64,
    "output_len": pl.Int64,
    "req_time": pl.String,
}


def sniff(head: bytes) -> bool:
    """Recognise the columns, among others and in any order."""
    return set(csv.header(head)) >= _NEEDED.keys()


def read(source: Source) -> Trace:
    """Read requests; an adapter stands for a model of the Arena, and for those who asked it."""

    def calls() -> Iterator[pl.DataFrame]:
        for batch in csv.batches(source, _NEEDED):
            yield stamped(batch, source, "req_time").select(
                "source_row",
                "stamp_ns",
                call_id="req_id",
                client_id="adapter_dir",
                model="adapter_dir",
                input_tokens="prompt_len",
                output_tokens="output_len",
            )

    return gather(
        source,
        calls(),
        format="prism",
        kind="derived",
        licence="Apache-2.0",
        attribution="Prism, Multi-LLM/prism-research; after S-LoRA and LMSYS Chatbot Arena",
        doubts=[RESAMPLED],
        **timing(source),
    )


FORMAT = Format(
    sniff,
    read,
    "Prism's Chatbot Arena CSV with many adapters",
    "the columns req_id, adapter_dir, prompt_len, output_len and req_time",
)
