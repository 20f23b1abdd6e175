"""`servescope sweep`: a row for each load, on an engine or an endpoint."""

import csv
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from background import Background
from faulty_server import Faulty, serving, well_behaved

Cli = Callable[..., Any]


def test_a_sweep_of_an_engine_has_a_row_for_each_rate(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    ended = cli(
        *("sweep", "azure:sample", "--num-prompts", 300, "--rates", "1,4,16"),
        *("--system", "sarathi", "--slo", "ttft<2s", "--out", out),
    )
    assert ended.code == 0
    assert [line.split()[0] for line in ended.out.splitlines()[1:]] == ["1", "4", "16"]
    told = json.loads((out / "sweep.json").read_text())
    rows = told["rows"]
    assert [row["rate_rps"] for row in rows] == [1.0, 4.0, 16.0]
    assert [row["offered_rps"] for row in rows] == pytest.approx([1, 4, 16])
    # more load never serves a first token sooner, and this engine cannot serve 16 a second
    ttft = [row["ttft_p99_s"] for row in rows]
    assert ttft == sorted(ttft)
    assert rows[0]["served_rps"] == pytest.approx(1, rel=0.05)
    assert rows[2]["served_rps"] < 12
    assert rows[0]["attainment"] > rows[2]["attainment"]
    with (out / "sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["ttft_p99_s"]) for row in table] == pytest.approx(ttft)
    assert [row["run"] for row in table] == [row["run"] for row in rows]
    assert (out / rows[0]["run"] / "run.json").exists()


def test_a_sweep_over_speed_ups_scales_the_trace(cli: Cli, tmp_path: Path) -> None:
    ended = cli(
        *("sweep", "azure:sample", "--num-prompts", 200, "--speed-ups", "1,2"),
        *("--system", "vllm_v0", "--out", tmp_path / "sweep", "--json"),
    )
    assert ended.code == 0
    slow, fast = json.loads(ended.out)["rows"]
    assert (slow["speed_up"], fast["speed_up"]) == (1.0, 2.0)
    assert fast["offered_rps"] == pytest.approx(2 * slow["offered_rps"])
    assert slow["attainment"] is None


def test_a_sweep_of_an_endpoint_replays_in_real_time(cli: Cli, tmp_path: Path) -> None:
    with Background(serving(Faulty(script=well_behaved))) as server:
        ended = cli(
            *("sweep", "--isl", 10, "--osl", 4, "--num-prompts", 20, "--rates", "40,80"),
            *("--url", server.url, "--name", "tiny", "--out", tmp_path / "sweep"),
        )
        bodies = [json.loads(body) for body in server.bodies]
    assert ended.code in (0, 1), ended.err  # 1: the machine was too slow for a valid run
    rows = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["rows"]
    assert [(row["system"], row["calls"], row["failed"]) for row in rows] == [("tiny", 20, 0)] * 2
    prompts = [str(body["prompt"]) for body in bodies if len(body["prompt"]) == 10]
    assert len(prompts) == len(set(prompts)) == 40  # no load finds another one's in a cache


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rates", "1"), "either an endpoint or one of the embedded engine"),
        (("--rates", "1", "--system", "sarathi", "--url", "http://x"), "either an endpoint"),
        (("--system", "sarathi"), "not said at which loads"),
        (("--rates", "1", "--speed-ups", "2", "--system", "sarathi"), "each say how fast"),
        (("--rates", "1,fast", "--system", "sarathi"), "--rates cannot be 1,fast"),
        (("--rates", "0", "--system", "sarathi"), "--rates cannot be 0"),
        (("--rates", "1", "--system", "no-such"), "no-such"),
        (("--rates", "1,nan", "--system", "sarathi"), "--rates cannot be 1,nan"),
        (("--rates", "1", "--time-scale", "2", "--system", "sarathi"), "a time scale of its own"),
        (("--speed-ups", "2", "--request-rate", "2", "--system", "sarathi"), "cannot be sped up"),
        (("--rates", "1", "--system", "sarathi", "--slo", "speed<1s"), "speed"),
        (("--rates", "1", "--system", "sarathi", "--name", "../x"), "--name cannot be that"),
    ],
)
def test_what_cannot_be_swept_ends_with_two(
    cli: Cli, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    ended = cli("sweep", "azure:sample", *options, "--out", tmp_path / "sweep")
    assert ended.code == 2, ended.err
    assert said in ended.err
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_of_a_file_of_an_experiment_is_refused(cli: Cli, tmp_path: Path) -> None:
    ended = cli("sweep", "run.toml", "--rates", "1", "--system", "sarathi")
    assert ended.code == 2
    assert "is an experiment and no trace" in ended.err


def test_replicas_and_their_cards_are_those_that_were_asked_for(cli: Cli, tmp_path: Path) -> None:
    """As simulate and serve take them: a sweep of a cluster is a sweep."""
    out = tmp_path / "sweep"
    load = ["workload:llumnix-s-s", "--num-prompts", "40", "--rates", "4"]
    engine = ["--system", "infaas", "--model", "LLaMA-7B", "--context-tokens", "13000"]
    ended = cli(
        "sweep", *load, *engine, "--gpu", "A10,A40", "--overhead", "vllm-2023", "--out", out
    )
    assert ended.code == 0, ended.err
    (run,) = out.glob("*/*/experiment.toml")
    said = tomllib.loads(run.read_text())["engine"]
    assert (said["gpu"], said["overhead"], said["context_tokens"]) == (
        ["A10", "A40"], "vllm-2023", 13_000,
    )  # fmt: skip
