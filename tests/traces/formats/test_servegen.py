import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.traces import load
from servescope.traces.errors import BadRow
from servescope.traces.formats import BUILT_IN
from servescope.traces.formats.servegen import NO_CALLS, NO_RATES

SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "servegen"
Write = Callable[..., Path]
EVIL = "__import__('os').system('touch {}')"


def test_a_pool_is_two_tables_and_no_calls(tmp_path: Path) -> None:
    trace = load(SAMPLE)
    facts = trace.provenance
    assert (facts.format, facts.kind, facts.licence) == ("servegen", "derived", "Apache-2.0")
    assert (facts.rows_read, facts.rows_kept, facts.files) == (5, 5, 3)
    assert facts.doubts == (
        NO_CALLS,
        "1 of 2 clients have no dataset file: how long their prompts and answers were is not"
        " known.",
    )
    assert trace.collect().height == 0
    assert "arrival_s" in trace.columns
    a, b = "language/m-tiny/chunk-0", "language/m-tiny/chunk-1"
    assert trace.tables["client_windows"].collect().rows() == [
        (a, 0.0, 600.0, 0.0, None, None, None, None),
        (a, 600.0, 600.0, 0.5, 2.0, "Gamma", 0.25, 8.0),
        (a, 1200.0, 600.0, 1.5, 0.8, "Weibull", 1.2, 0.7),
        (b, 0.0, 600.0, 0.25, 1.0, "Gamma", 1.0, 4.0),
        (b, 600.0, 600.0, 0.0, None, None, None, None),
    ]
    assert trace.tables["client_lengths"].collect().rows() == [
        (a, 0.0, 21600.0, "input_tokens", 143.0, 0.25),
        (a, 0.0, 21600.0, "input_tokens", 150.0, 0.75),
        (a, 0.0, 21600.0, "output_tokens", 1.0, 1.0),
    ]
    trace.write(tmp_path / "pool.parquet")
    again = load(tmp_path / "pool.parquet")
    assert again.tables["client_windows"].collect().height == 5


def test_the_pools_have_the_published_statistics(original: Callable[[str], Path]) -> None:
    trace = load(original("servegen"))
    windows = trace.tables["client_windows"].collect()
    pool = pl.col("client_id").str.extract(r"^(.*)/")
    windows = windows.with_columns(pool=pool)
    assert trace.provenance.files == 161
    assert dict(windows.group_by("pool").agg(pl.col("client_id").n_unique()).iter_rows()) == {
        "language/m-small": 43,
        "reason/deepseek-r1": 37,
        "multimodal/mm-image": 18,
    }
    # 95,276 rows in the README are these windows and 668 windows of histograms.
    assert windows.height == trace.provenance.rows_read == 94_608
    total = windows.filter(pl.col("pool") == "language/m-small")
    rates = total.group_by("window_start_s").agg(pl.col("rate_rps").sum())["rate_rps"]
    assert len(rates) == 336 * 6
    assert (round(rates.mean()), round(rates.max())) == (1174, 3880)
    gamma = windows.filter(pl.col("pattern") == "Gamma")
    assert (gamma["shape"] * gamma["cv"] ** 2).to_numpy() == pytest.approx(1, abs=1e-6)
    for (_,), active in windows.filter(pl.col("rate_rps") > 0).group_by("pool"):
        assert 1.0 <= np.percentile(active["cv"], 50, method="nearest") <= 1.4
        assert 8.5 <= np.percentile(active["cv"], 99, method="nearest") <= 31
    assert windows.filter(pl.col("rate_rps") == 0)["pattern"].null_count() == 51_941


def test_every_histogram_of_the_pools_sums_to_one(original: Callable[[str], Path]) -> None:
    trace = load(original("servegen"))
    assert trace.provenance.doubts[1].startswith("35 of 98 clients have no dataset file")
    sums = (
        trace.tables["client_lengths"]
        .group_by("client_id", "window_start_s", "field")
        .agg(pl.col("probability").sum())
        .collect()
    )
    assert sums["probability"].to_numpy() == pytest.approx(1, abs=1e-9)
    by_client = sums.group_by("client_id").agg(pl.col("field").unique())
    fields = {client: set(found) for client, found in by_client.iter_rows()}
    assert fields["reason/deepseek-r1/chunk-7"] == {"input_tokens", "output_tokens", "reason_ratio"}
    assert {"text_tokens", "image_tokens", "image_count"} <= fields["multimodal/mm-image/chunk-12"]


@pytest.mark.parametrize(
    "text",
    [
        EVIL,
        "{%s: 1}",
        "{1: %s}",
        "{1: 0.5, %s: 0.5}",
        "{1: 0.5",
        "1: 0.5",
        "{1}",
        "{1: nan}",
        "{1: -1}",
        "{1: 2: 3}",
        "{1: 0.5,}",
        "{(1): 0.5}",
        "[1]",
        "{" * 50_000,
    ],
)
def test_a_histogram_is_numbers_and_never_run(a_file: Write, tmp_path: Path, text: str) -> None:
    trap = tmp_path / "trap"
    text = text.replace("%s", EVIL).replace("touch {}", f"touch {trap}")
    document = {"0": {"input_tokens": "{1: 1.0}", "output_tokens": text}}
    path = a_file(json.dumps(document), "chunk-0-dataset.json")
    with pytest.raises(BadRow, match=r"chunk-0-dataset.json, window 0, output_tokens: .*histogram"):
        load(path)
    assert not trap.exists()
    kept = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    assert kept.tables["client_lengths"].collect()["field"].to_list() == ["input_tokens"]
    assert kept.provenance.rows_dropped == {"no histogram": 1}
    assert kept.provenance.doubts == (NO_CALLS, NO_RATES)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("600,1,1,Gamma,1", "it has 5 cells and not 6"),
        ("600,many,1,Gamma,1,1", "could not convert string to float"),
        ("600,-1,1,Gamma,1,1", "a number is below 0 or endless"),
        ("600,inf,1,Gamma,1,1", "a number is below 0 or endless"),
        ("600,1,1,Pareto,1,1", "the pattern is 'Pareto', not Gamma or Weibull"),
        ("650,1,1,Gamma,1,1", "the window starts at 650 s, which is no multiple of 600"),
    ],
)
def test_a_bad_window_is_named(a_file: Write, tmp_path: Path, line: str, said: str) -> None:
    path = a_file(f"0,0,0,,0,0\n{line}\n1200,1,1,Gamma,1,1\n", "chunk-7-trace.csv")
    with pytest.raises(BadRow, match=f"chunk-7-trace.csv, line 2: {said}"):
        load(path)
    kept = load(path, on_error="skip", rejected=tmp_path / "r.jsonl")
    windows = kept.tables["client_windows"].collect()
    assert windows["window_start_s"].to_list() == [0.0, 1200.0]
    assert windows["client_id"][0].endswith("/chunk-7")
    assert kept.provenance.rows_read == 3


@pytest.mark.parametrize(
    "head",
    [b"1,2,3,4,5,6\n", b"0,0.5,1,,0,0\n", b"time,rate,cv,pattern,a,b\n", b'{"0": {"a": "b"}}', b""],
)
def test_other_files_of_six_columns_are_not_taken(head: bytes) -> None:
    assert not BUILT_IN["servegen"].sniff(head)


@pytest.mark.parametrize("name", ["chunk-0-trace.csv", "chunk-1-trace.csv", "chunk-0-dataset.json"])
def test_nothing_else_recognises_it(name: str) -> None:
    head = (SAMPLE / "language" / "m-tiny" / name).read_bytes()
    assert [name for name, form in BUILT_IN.items() if form.sniff(head)] == ["servegen"]
