"""`synthesize` as a user meets it: presets, rates, what-ifs, parts, bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from servescope.traces import load

Cli = Callable[..., Any]


def test_without_a_model_the_presets_are_listed(cli: Cli) -> None:
    ended = cli("synthesize")
    assert ended.code == 0
    assert "azure-code" in ended.out
    assert "CC-BY-4.0" in ended.out
    assert "azure-code" in json.loads(cli("synthesize", "--json").out)


def test_a_preset_is_drawn_into_a_trace_that_says_what_it_is(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "calls.parquet"
    ended = cli("synthesize", "azure-code", "--duration", "600", "-o", out)
    assert ended.code == 0
    assert "Wrote" in ended.err
    trace = load(out)
    assert trace.provenance.kind == "synthetic"
    assert trace.provenance.licence == "CC-BY-4.0"
    assert any("no real traffic" in doubt for doubt in trace.provenance.doubts)


def test_the_effect_of_another_rate_is_told_before_it_is_drawn(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "busy.parquet"
    ended = cli("synthesize", "azure-code", "--scale", "2", "--by", "busier", "--duration", "1200",
                "-o", out)  # fmt: skip
    assert "Variance over mean" in ended.out
    told = json.loads(
        cli("synthesize", "azure-code", "--scale", "2", "--by", "busier", "--duration", "1200",
            "-o", out, "--overwrite", "--json").out
    )  # fmt: skip
    for row in told["dispersion"]:  # the same clients, twice as often: what is above 1 doubles
        assert (row["expected"] - 1) / (row["before"] - 1) == pytest.approx(2, rel=0.3)


def test_what_if_answers_were_twice_as_long(cli: Cli, tmp_path: Path) -> None:
    plain, longer = tmp_path / "plain.parquet", tmp_path / "longer.parquet"
    cli("synthesize", "azure-code", "--duration", "900", "-o", plain)
    cli("synthesize", "azure-code", "--duration", "900", "-e", "outputs=2", "-o", longer)
    one, two = pl.read_parquet(plain), pl.read_parquet(longer)
    assert two["input_tokens"].to_list() == one["input_tokens"].to_list()
    ratio = two["output_tokens"].sum() / one["output_tokens"].sum()
    assert ratio == pytest.approx(2, rel=0.05)


def test_programs_on_clocks_of_their_own(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "agents.parquet"
    ended = cli("synthesize", "weka-agentic", "--programs", "5", "-o", out)
    assert ended.code == 0
    trace = load(out)
    assert trace.provenance.arrival_basis == "program"
    assert trace.collect()["program_id"].n_unique() == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("azure-cod", "-o", "x.parquet"), "azure-code"),
        (("azure-code",), "-o trace.parquet"),
        (("azure-code", "-o", "x.parquet", "--rate", "0"), "cannot be 0"),
        (("azure-code", "-o", "x.parquet", "--rate", "inf"), "cannot be inf"),
        (("azure-code", "-o", "x.parquet", "--rate", "2", "--scale", "2"), "twice"),
        (("azure-code", "-o", "x.parquet", "-e", "louder"), "louder"),
        (("weka-agentic", "-o", "x.parquet", "--duration", "60"), "--rate"),
    ],
)
def test_bad_input_ends_in_a_sentence(
    cli: Cli, words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = cli("synthesize", *words)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not list(tmp_path.iterdir())


def test_a_model_is_verified_by_draws_of_its_own(cli: Cli, tmp_path: Path) -> None:
    model = tmp_path / "model.json"
    cli("fit", "azure:sample", "--shape", "cascade", "--no-score", "-o", model)
    told = json.loads(
        cli("verify", "azure:sample", model, "--seeds", "3", "--no-serving", "--json", "-q").out
    )
    assert len(told["synthetic"]) == 3
    assert {"idc_mean_curve", "spearman"} <= {score["measure"] for score in told["scores"]}
