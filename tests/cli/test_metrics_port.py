"""`replay --metrics-port` as a user gives it: a taken place, a free one, a file beside it."""

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from servescope.loadgen import null_server

Cli = Callable[..., Any]
FEW = ("--isl", "8", "--osl", "2", "--num-prompts", "3", "--request-rate", "20")


def test_a_port_that_is_taken_ends_it_before_anything_is_sent(cli: Cli, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        nobody = ("--base-url", "http://127.0.0.1:9")
        ended = cli("replay", *FEW, *nobody, "--out", tmp_path / "r", "--metrics-port", port)
    assert ended.code == 2
    assert f"Port {port} of 127.0.0.1 is taken by another program." in ended.err
    assert "Give another --metrics-port, or 0 for any free one." in ended.err
    assert not (tmp_path / "r").exists()


def test_port_0_is_any_free_one_and_is_said(cli: Cli, tmp_path: Path) -> None:
    with null_server.serving(0.0, 0.001) as url:
        asked = (*FEW, "--base-url", url, "--out", tmp_path / "r")
        ended = cli("replay", *asked, "--metrics-port", "0")
    assert ended.code in (0, 1)  # what this machine makes of the clock is not asked here
    port = re.search(r"metrics at http://127\.0\.0\.1:(\d+)/metrics", ended.err)
    assert port
    assert int(port[1]) > 0


def test_it_may_stand_beside_an_experiment_file_and_a_run_to_resume(
    cli: Cli, tmp_path: Path
) -> None:
    file = tmp_path / "e.toml"
    file.write_text('name = "e"\n[workload]\ntrace = "mooncake:sample"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        beside = cli("replay", file, "--metrics-port", port)
        resumed = cli("replay", tmp_path / "gone", "--resume", "--metrics-port", port)
    for ended in (beside, resumed):
        assert ended.code == 2
        assert "is taken by another program" in ended.err
