"""The whole engine against a real server: the same requests at the same times."""

import csv
import gzip
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servescope.engine.engine import Engine, emulate
from servescope.engine.request import Request
from servescope.engine.systems.sarathi import Sarathi

REQUESTS = Path(__file__).parents[2] / ".." / "shared" / "calibration" / "main.requests.csv.gz"


@pytest.mark.skipif(
    not REQUESTS.exists(), reason="the H200 calibration is not beside this checkout"
)
def test_seventeen_loads_are_served_as_vllm_on_an_h200_served_them(
    simulate: Callable[[Engine, Iterable[Request]], Any],
) -> None:
    """Mean absolute error: TPOT p50 3.3 %, p99 3.0 %; TTFT p90 4.5 %, p50 21 %.

    Chunked prefill of 512, 2048, 8192 and 16384 tokens, 4 to 28 requests/s. The median TTFT is
    that of a short prompt, which waits for a launch by the host that is not emulated.
    """
    loads = defaultdict(list)
    with gzip.open(REQUESTS, "rt") as file:
        for row in csv.DictReader(file):
            if row["stage"].startswith("poisson") and row["status"] == "200":
                loads[row["stage"], row["tag"]].append(row)
    assert len(loads) == 17

    errors = []
    for (stage, _), rows in loads.items():
        rows.sort(key=lambda row: float(row["sent_s"]))
        requests = [
            Request(str(i), int(row["n_in"]), int(row["n_out"]), float(row["sent_s"]))
            for i, row in enumerate(rows)
        ]
        chunk = re.search(r"chunk(\d+)", stage)
        system = Sarathi(chunk_tokens=int(chunk[1]) if chunk else 16_384, max_num_seqs=256)
        simulate(emulate(system, "Llama-3.1-8B", "H200", context_tokens=16_384), requests)

        ttft = [request.token_s[0] - request.arrival_s for request in requests]
        tpot = [np.mean(np.diff(request.token_s)) for request in requests]
        real_ttft = [float(row["ttft_ms"]) / 1e3 for row in rows]
        real_tpot = [
            (float(row["last_ms"]) - float(row["ttft_ms"])) / 1e3 / (int(row["n_out"]) - 1)
            for row in rows
        ]
        errors.append(
            [
                np.quantile(ours, share) / np.quantile(real, share) - 1
                for ours, real, share in (
                    (tpot, real_tpot, 0.5),
                    (tpot, real_tpot, 0.99),
                    (ttft, real_ttft, 0.9),
                    (ttft, real_ttft, 0.5),
                )
            ]
        )
    assert np.all(np.mean(np.abs(errors), axis=0) < [0.04, 0.04, 0.06, 0.25])
