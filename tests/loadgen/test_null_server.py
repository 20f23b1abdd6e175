import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

from servescope.loadgen import runner
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.null_server import Served, serving


def asked(url: str, body: dict[str, Any]) -> list[bytes]:
    request = urllib.request.Request(f"{url}/v1/completions", msgspec.json.encode(body))
    with urllib.request.urlopen(request) as answer:
        return [line for line in answer.read().split(b"\n\n") if line]


def truth(url: str) -> list[Served]:
    with urllib.request.urlopen(f"{url}/truth") as answer:
        return msgspec.json.decode(answer.read(), type=list[Served])


def test_tokens_come_at_their_moments_and_never_before() -> None:
    with serving(0.05, 0.02) as url:
        before = time.monotonic()
        events = asked(
            url, {"prompt": [1, 2, 3], "max_tokens": 4, "stream_options": {"include_usage": True}}
        )
        (served,) = truth(url)
        assert truth(url) == []
    assert len(events) == 6  # four tokens, usage, [DONE]
    assert b'"prompt_tokens":3,"completion_tokens":4' in events[4]
    assert served.arrived_s >= before
    for number, sent_s in enumerate(served.sent_s):
        assert sent_s >= served.arrived_s + 0.05 + 0.02 * number
    assert len(served.sent_s) == 4


def test_what_it_does_not_serve_is_said() -> None:
    with serving(0, 0) as url, pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{url}/metrics")


def test_it_ends_with_whoever_started_it() -> None:
    child = (
        "import os, sys\n"
        "from servescope.loadgen.null_server import serving\n"
        "with serving(0, 0) as url:\n"
        "    print(url, flush=True)\n"
        "    os._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", child], capture_output=True, text=True, check=False
    )
    url = done.stdout.strip()
    assert done.returncode == 9
    for _ in range(100):
        try:
            truth(url)
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the server outlives its maker")


def test_a_replay_against_it_is_right_to_the_token_and_pairs_with_the_truth(tmp_path: Path) -> None:
    rows = "\n".join(f"{n * 0.02:.3f},{30 + n},8" for n in range(50))
    trace = tmp_path / "t.csv"
    trace.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}\n")
    with serving(0.02, 0.005) as url:
        experiment = Experiment(
            name="null",
            workload=WorkloadSpec(trace=str(trace)),
            endpoint=EndpointSpec(base_url=url),
        )
        run = runner.replay(experiment, tmp_path / "run")
        known = {served.name: served for served in truth(url)}
    calls = run.trace.collect()
    assert (calls["status"] == "ok").all()
    zero_s = run.info.zero_monotonic_s
    assert zero_s is not None
    for row in calls.iter_rows(named=True):
        served = known[row["response_id"]]
        assert row["input_tokens"] == 30 + int(row["call_id"]) - 1
        assert row["sent_s"] + zero_s <= served.arrived_s
        assert len(row["chunk_s"]) == len(served.sent_s) == 8
        # no stamp is before the token was written
        assert all(a + zero_s >= b for a, b in zip(row["chunk_s"], served.sent_s, strict=True))
