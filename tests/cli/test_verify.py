"""`verify` as a user meets it: the terminal, the page, JSON, bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
FAST = ("--loads", "0.5")


def test_the_terminal_says_what_a_server_would_notice_first(cli: Cli) -> None:
    ended = cli("verify", "azure:sample", "azure:sample", *FAST)
    assert ended.code == 0
    first, *_ = ended.out.splitlines()
    assert first.startswith("The 99th percentile of the time to first token is off by 0.0 %")
    assert "What a good model is held to" in ended.out
    assert "-o fidelity.html" in ended.err


def test_a_page_is_written_with_json_beside_it_and_never_over_another(
    cli: Cli, tmp_path: Path
) -> None:
    page = tmp_path / "fidelity.html"
    ended = cli("verify", "mooncake:sample", "mooncake:sample", *FAST, "--html", page)
    assert ended.code == 0
    for shown in ("In short", "What a server would notice", "Prefix reuse"):
        assert shown in page.read_text()
    told = json.loads(page.with_suffix(".json").read_text())
    assert told["scores"][0]["value"] == 0.0
    refused = cli("verify", "mooncake:sample", "mooncake:sample", "-o", page)
    assert refused.code == 2
    assert "exists already" in refused.err


def test_without_serving_nothing_is_served(cli: Cli) -> None:
    told = json.loads(
        cli("verify", "azure:sample", "azure:sample", "--no-serving", "--json", "--quiet").out
    )
    assert "serving" not in {score["aspect"] for score in told["scores"]}
    assert told["summary"]


def test_what_is_held_out_is_compared_with_what_follows(cli: Cli) -> None:
    ended = cli("verify", "azure:sample", "azure:sample", "--split", "0.5", "--no-serving",
                "--json")  # fmt: skip
    told = json.loads(ended.out)
    assert told["real"] == "azure:sample after 0.5 of its span"
    assert told["calls"][0] < told["calls"][1]
    ks = next(s for s in told["scores"] if s["measure"] == "ks" and s["subject"] == "input_tokens")
    assert ks["value"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("azure:sample", "nowhere.csv"), "nowhere.csv"),
        (("azure:sample", "azure:sample", "--loads", "half"), "no list of loads"),
        (("azure:sample", "azure:sample", "--loads", "0"), "above 0"),
        (("azure:sample", "azure:sample", "--split", "2", "--no-serving"), "cannot be cut"),
        (("azure:sample", "azure:sample", "-o", "page.pdf"), ".html"),
    ],
)
def test_what_cannot_be_done_is_said_in_two_sentences(
    cli: Cli, words: tuple[str, ...], said: str
) -> None:
    ended = cli("verify", *words)
    assert ended.code == 2
    assert said in ended.err
