"""`analyze` as a user meets it: the terminal, the page, JSON, pictures, bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

Cli = Callable[..., Any]


def test_the_terminal_says_what_matters_and_the_lengths(cli: Cli) -> None:
    ended = cli("analyze", "burstgpt:sample")
    assert ended.code == 0
    assert "Counts are burstier than Poisson" in ended.out
    assert "4.2 % of the calls failed" in ended.out
    assert "input tokens" in ended.out
    assert "1958" in ended.out
    assert "-o trace.html" in ended.err


def test_json_holds_statistics_tables_and_what_is_left_out(cli: Cli) -> None:
    told = json.loads(cli("analyze", "burstgpt:sample", "--json").out)
    (trace,) = told["traces"]
    assert trace["calls"] == 400
    by_name = {(s["statistic"], s["subject"]): s for s in trace["statistics"]}
    cv = by_name["gap_cv", ""]
    assert cv["value"] == pytest.approx(4.567, abs=1e-3)
    assert cv["low"] < cv["value"] < cv["high"]
    assert cv["unit"] == "1"
    assert trace["tables"]["dispersion"]["rows"][0]["scale_s"] == 2
    assert {"aspect", "what", "why"} == set(trace["left_out"][0])
    assert trace["clock"]["tick"]["step_s"] == 1.0


def test_a_page_is_written_with_json_beside_it_and_never_over_another(
    cli: Cli, tmp_path: Path
) -> None:
    page = tmp_path / "trace.html"
    assert cli("analyze", "azure:sample", "-o", page, "--as", "azure").code == 0
    text = page.read_text()
    for shown in ("In short", "As Azure LLM inference 2023 shows it", "Definitions and sources"):
        assert shown in text
    beside = json.loads(page.with_suffix(".json").read_text())
    assert "azure" in beside["layouts"]
    refused = cli("analyze", "azure:sample", "-o", page)
    assert refused.code == 2
    assert "exists already" in refused.err
    assert cli("analyze", "azure:sample", "-o", page, "--overwrite").code == 0


def test_two_traces_are_compared(cli: Cli, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    ended = cli("analyze", "azure:sample", "mooncake:sample", "--csv", tables)
    assert ended.code == 0
    assert "What differs" in ended.out
    found = pl.read_csv(tables / "differences.csv")
    assert found.filter(pl.col("subject") == "input_tokens")["p_adjusted"].min() < 0.05  # type: ignore[operator]
    assert (tables / "1" / "statistics.csv").exists()
    assert (tables / "2" / "hit_curve.csv").exists()


def test_a_model_lets_memory_be_said(cli: Cli) -> None:
    told = json.loads(cli("analyze", "mooncake:sample", "--model", "llama-3.1-8b", "--json").out)
    said = " ".join(told["traces"][0]["summary"])
    assert "GB of keys and values are in flight" in said
    assert "llama-3.1-8b on H100" in said
    wrong = cli("analyze", "mooncake:sample", "--model", "llama-9")
    assert wrong.code == 2
    assert "llama-9" in wrong.err


@pytest.mark.slow
def test_figures_are_drawn_for_print(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("kaleido", reason="needs the kaleido package of the dev group")
    ended = cli("analyze", "mooncake:sample", "-t", "head=60", "--figures", tmp_path / "f")
    if ended.code == 2 and "Chromium" in ended.err:
        pytest.skip("no Chromium to draw with")
    assert ended.code == 0
    drawn = sorted(p.name for p in (tmp_path / "f").glob("*.svg"))
    assert "lengths-1.svg" in drawn
    assert "prefixes-1.svg" in drawn


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as", "splitwise"), "no layout 'splitwise'"),
        (("mooncake:sample", "--as", "azure"), "layout is of one trace"),
        (("-o", "trace.pdf"), "no name for a page"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_mend(
    cli: Cli, words: tuple[str, ...], said: str
) -> None:
    ended = cli("analyze", "azure:sample", *words)
    assert ended.code == 2
    assert said in ended.err
