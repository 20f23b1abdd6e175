"""The exit code of a report says whether what it tells of is a result."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from servescope.loadgen.experiment import EngineSpec, Experiment, WorkloadSpec
from servescope.loadgen.simulate import simulate
from servescope.traces import Run
from servescope.traces.run import RunInfo

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workload = WorkloadSpec(trace="azure:sample", calls=40)
    experiment = Experiment(name="a", workload=workload, engine=EngineSpec())
    return simulate(experiment, tmp_path_factory.mktemp("run") / "a").path


def with_info(run: Path, out: Path, **fields: Any) -> Path:
    """Copy a run, of which run.json says something else."""
    shutil.copytree(run, out)
    info = msgspec.json.decode((out / "run.json").read_bytes(), type=RunInfo)
    changed = msgspec.structs.replace(info, **fields)
    (out / "run.json").write_bytes(msgspec.json.encode(changed))
    return out


def row_with(page: Path, column: str, value: str | None = None) -> dict[str, Any]:
    """Return the first row of a page's tables that has a column, and the value in it if given."""
    told = msgspec.json.decode(page.with_suffix(".json").read_bytes())
    tables = (block for blocks in told["sections"].values() for block in blocks)
    rows = (row for table in tables for row in table.get("rows") or ())
    return next(row for row in rows if column in row and value in (None, row[column]))


def test_a_sound_run_is_a_result(cli: Cli, run: Path, tmp_path: Path) -> None:
    assert cli("report", run, "-o", tmp_path / "page.html").code == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ended": None, "validity": "unfinished"}, "still being written, or was killed"),
        ({"validity": "invalid"}, "say more of the client than of the server"),
    ],
)
def test_what_is_no_result_has_its_page_and_an_error(
    cli: Cli, run: Path, tmp_path: Path, fields: dict[str, Any], says: str
) -> None:
    path = with_info(run, tmp_path / "run", **fields)
    ended = cli("report", path, "-o", tmp_path / "page.html")
    assert ended.code == 1
    assert says in ended.err
    assert (tmp_path / "page.html").exists()


def test_a_single_call_says_nothing_of_others(cli: Cli, run: Path, tmp_path: Path) -> None:
    path = shutil.copytree(run, tmp_path / "run")
    calls = pl.read_parquet(path / "calls.parquet").head(1)
    calls.write_parquet(path / "calls.parquet")
    ended = cli("report", path, "-o", tmp_path / "page.html")
    assert ended.code == 1
    assert "holds a single call" in ended.err
    assert Run.open(path).trace.collect().height == 1


def test_token_deadlines_have_a_distribution_and_no_scale(
    cli: Cli, run: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert cli("report", run, "--slo", "fluidity(500ms,50ms)>=0.9", "-o", page).code == 0
    share, fluidity = row_with(page, "scale_90"), row_with(page, "deadlines")
    assert share["scale_90"] is None
    assert fluidity["n"] == 40
    assert 0 < fluidity["mean"] <= 1
    assert fluidity["p50"] is not None


def test_a_slowdown_has_its_value_in_both_systems(cli: Cli, run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "b")
    page = tmp_path / "page.html"
    assert cli("report", run, other, "-o", page).code == 0
    slowdown = row_with(page, "statistic", "Slowdown mean")
    assert slowdown["a_ratio"] == slowdown["b_ratio"] >= 1
    assert slowdown["a"] is None
