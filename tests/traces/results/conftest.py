"""The recorded results of other tools, and what is measured of them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from servescope.analysis.measured import Measured
from servescope.traces.results import Result

DATA = Path(__file__).parents[2] / "data" / "results"


@pytest.fixture
def data() -> Path:
    """The folder of the recorded results."""
    return DATA


@pytest.fixture
def said() -> Callable[[str], Any]:
    """What a tool wrote, packed or not, as JSON."""

    def read(name: str) -> Any:
        content = (DATA / name).read_bytes()
        return json.loads(gzip.decompress(content) if name.endswith(".gz") else content)

    return read


@pytest.fixture
def measured() -> Callable[[Result], pl.DataFrame]:
    """The metrics of the calls of a result."""
    return lambda result: Measured(result.calls.lazy()).calls


@pytest.fixture
def gaps() -> Callable[[Result], Any]:
    """All gaps between chunks of a result's answered calls, in seconds."""

    def of(result: Result) -> Any:
        chunks = result.calls.filter(status="ok")["chunk_s"]
        return np.concatenate([np.diff(each.to_numpy()) for each in chunks])

    return of
