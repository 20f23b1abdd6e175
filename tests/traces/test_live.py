import os
import platform
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from servescope.traces import live
from servescope.traces.errors import NotARun
from servescope.traces.live import DEAD_S, DEAD_SEALING_S, Live, Server

NOW_S = 1_800_000_000.0
SAID = Live(
    written_unix_s=NOW_S,
    host=platform.node(),
    pid=os.getpid(),
    now_s=12.5,
    planned=100,
    sent=40,
    in_flight=3,
    waiting=1,
    done=37,
    failures={"http_503": 2, "timeout": 1},
    ttft_p50_s=0.25,
    servers=(Server(replica="http://a", running=3.0, kv_usage=0.5),),
    validity="suspect",
    doubts=("The client was late.",),
)


def test_what_is_written_is_read_and_can_be_removed(tmp_path: Path) -> None:
    assert live.read(tmp_path) is None
    live.write(tmp_path, SAID)
    assert live.read(tmp_path) == SAID
    assert SAID.failed == 3
    assert [path.name for path in tmp_path.iterdir()] == ["live.json"]
    live.remove(tmp_path)
    live.remove(tmp_path)  # that it is gone already is no fault
    assert live.read(tmp_path) is None


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"pid": "many"}', b"\xff\xfe", b'{"host": "\xff"}']
)
def test_a_damaged_one_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "live.json").write_bytes(content)
    with pytest.raises(NotARun, match=r"live\.json cannot be read: .*\. It was damaged"):
        live.read(tmp_path)


def test_a_folder_in_its_place_is_a_sentence_too(tmp_path: Path) -> None:
    (tmp_path / "live.json").mkdir()
    with pytest.raises(NotARun, match="Is a directory"):
        live.read(tmp_path)


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    later = msgspec.to_builtins(SAID) | {"mood": "fine"}
    (tmp_path / "live.json").write_bytes(msgspec.json.encode(later))
    assert live.read(tmp_path) == SAID


def test_a_run_is_dead_when_it_has_said_nothing_for_long_or_its_process_is_gone() -> None:
    assert SAID.alive(NOW_S)
    assert SAID.alive(NOW_S - 5)  # a clock that was set back
    assert SAID.age_s(NOW_S + 2) == 2.0
    assert SAID.alive(NOW_S + DEAD_S)
    assert not SAID.alive(NOW_S + DEAD_S + 1)
    sealing = msgspec.structs.replace(SAID, sealing=True)
    assert sealing.alive(NOW_S + DEAD_S + 1)
    assert not sealing.alive(NOW_S + DEAD_SEALING_S + 1)


def test_a_process_is_looked_for_on_its_own_host_alone() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = msgspec.structs.replace(SAID, pid=gone.pid)
    assert not dead.alive(NOW_S)
    assert msgspec.structs.replace(dead, host="elsewhere").alive(NOW_S)
    assert not msgspec.structs.replace(SAID, pid=0).alive(NOW_S)
    assert not msgspec.structs.replace(SAID, pid=1 << 70).alive(NOW_S)
