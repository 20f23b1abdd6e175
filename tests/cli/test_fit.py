"""`fit` as a user meets it: the terminal, the file, bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit") / "model.json"


def test_a_model_is_told_of_and_written(cli: Cli, model: Path) -> None:
    ended = cli("fit", "azure:sample", "-o", model)
    assert ended.code == 0
    assert "calls/s" in ended.out
    assert "chosen" in ended.out  # of the families of arrivals
    assert "idc" in ended.out  # a score of its own draw
    told = json.loads(model.read_text())
    assert told["format"] == "servescope-model"
    assert told["about"]["licence"] == "CC-BY-4.0"
    assert told["about"]["calls"] == 1500
    refused = cli("fit", "azure:sample", "-o", model)
    assert refused.code == 2
    assert "exists already" in refused.err


def test_json_is_the_model_itself(cli: Cli) -> None:
    ended = cli("fit", "azure:sample", "--shape", "poisson", "--no-score", "--json", "--quiet")
    told = json.loads(ended.out)
    assert told["streams"][0]["arrivals"]["shape"]["type"] == "poisson"
    assert not told["about"].get("fidelity")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("azure:sample", "--shape", "round"), "no arrival shape 'round'"),
        (("azure:sample", "--exact", "--shape", "poisson"), "Leave out exact"),
        (("azure:sample", "-t", "head=10"), "too few"),
        (("nowhere.csv",), "nowhere.csv"),
    ],
)
def test_bad_input_ends_in_a_sentence(cli: Cli, words: tuple[str, ...], said: str) -> None:
    ended = cli("fit", *words)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err
