"""`servescope capacity`: the answer in words, its files, and what cannot be searched."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
MADE_UP = ("capacity", "--isl", 2000, "--osl", 50, "--system", "sarathi", "--slo", "ttft<300ms")


def test_a_search_ends_with_a_verdict_a_page_and_the_same_as_json(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "search"
    ended = cli(*MADE_UP, "--begin", 8, "--budget", 240, "--out", out)
    assert ended.code == 0, ended.err
    assert "Verdict: sarathi meets the SLO up to " in ended.out
    told = json.loads((out / "summary.json").read_text())
    found = told["capacity"]
    assert 0 < found["low"] < found["load"]
    assert f"up to {found['load']:.3g} programs/s" in told["verdict"]
    assert len(told["probes"]) == len(list(out.glob("*/study.json"))) > 5
    assert ended.err.count("times what the SLO allows") == len(told["probes"])
    page = (out / "capacity.html").read_text()
    assert "Burn rate over load" in page
    again = cli(*MADE_UP, "--begin", 8, "--budget", 240, "--out", out, "--json", "--quiet")
    assert json.loads(again.out) == told
    assert again.err == "".join(f"doubt: {doubt}\n" for doubt in told["doubts"])


def test_where_every_load_passes_or_fails_it_says_so(cli: Cli, tmp_path: Path) -> None:
    easy = cli(*MADE_UP, "--begin", 1, "--most", 1, "--budget", 600, "--out", tmp_path / "easy")
    assert easy.code == 0
    assert "meets the SLO at every load that was tried, up to 1 programs/s" in easy.out
    hard = [*MADE_UP[:-1], "ttft<1ms"]
    never = cli(*hard, "--begin", 8, "--budget", 600, "--out", tmp_path / "never")
    assert never.code in (1, 2), never.err
    assert "misses the SLO at every load" in never.out or "too few to judge" in never.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--attainment", "1"), "--attainment cannot be 1"),
        (("--begin", "-2"), "--begin cannot be -2"),
        (("--most", "0"), "--most cannot be 0"),
        (("--over", "speed-up"), "have a rate and no speed-up"),
        (("--url", "http://x"), "either an endpoint or one of the embedded engine"),
        (("--budget", "30"), "too few to judge"),
    ],
)
def test_what_cannot_be_searched_ends_with_two(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    ended = cli(*MADE_UP, *options, "--out", tmp_path / "search")
    assert ended.code == 2, ended.err
    assert said in ended.err


def test_probes_that_contradict_each_other_bound_nothing(cli: Cli, tmp_path: Path) -> None:
    """Ten minutes of this trace hold its busy ones by chance."""
    asked = ("capacity", "azure:sample", "--system", "sarathi", "--slo", "p99(ttft)<2s")
    ended = cli(*asked, "--budget", 600, "--out", tmp_path / "search", "--json")
    assert ended.code == 1
    assert "Probes contradict each other" in ended.err
    told = json.loads(ended.out)
    assert (told["capacity"]["low"], told["capacity"]["high"]) == (None, None)
    assert told["confirmed"] is False
    assert "grey band" not in (tmp_path / "search" / "capacity.html").read_text()
