"""A run that grows on the disk, piece by piece, against the same rows taken at once."""

import os
import platform
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from servescope.analysis import progress as module
from servescope.analysis.progress import Progress
from servescope.traces import Run, RunInfo, live, sent_log, server
from servescope.traces.errors import NotARun
from servescope.traces.live import Live
from servescope.traces.run import frame_of_rows
from servescope.traces.server import Sample

CALLS = 400
RATE = 20.0  # calls a second, evenly
INFO = RunInfo(
    name="r", system="s", clock="real", version="0", started="2026-01-01T00:00:00Z", seed=0
)


def row(number: int) -> dict[str, Any]:
    """A call due at number / 20 s: lag 1 to 5 ms, TTFT 0.1 to 0.5 s; every 40th fails."""
    due_s = number / RATE
    sent_s = due_s + 0.001 * (1 + number % 5)
    first_s = sent_s + 0.1 * (1 + number % 5)
    chunks = [first_s, first_s + 0.02, first_s + 0.05, first_s + 0.15]
    called = {
        "call_id": f"c{number}", "program_id": f"c{number}", "parents": [], "due_s": due_s,
        "admitted_s": due_s, "dispatched_s": sent_s, "sent_s": sent_s, "end_s": chunks[-1],
    }  # fmt: skip
    if number % 40 == 7:
        return called | {"status": "http_503"}
    return called | {
        "status": "ok", "first_token_s": first_s, "last_token_s": chunks[-1], "chunk_s": chunks,
        "output_tokens": 4,
    }  # fmt: skip


ROWS = [row(number) for number in range(CALLS)]
IN_ORDER = sorted(ROWS, key=lambda each: each["end_s"])
PLAN = pl.DataFrame(
    {
        "call_id": [each["call_id"] for each in ROWS],
        "program_id": [each["call_id"] for each in ROWS],
        "turn": [0] * CALLS,
        "parents": [[]] * CALLS,
        "delay_s": [None] * CALLS,
        "input_tokens": [8] * CALLS,
        "due_s": [each["due_s"] for each in ROWS],
    },
    schema_overrides={"parents": pl.List(pl.String), "delay_s": pl.Float64},
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", {"name": "r"}, PLAN, INFO)


def log(run: Run, numbers: range, worker: int = 0) -> None:
    """Write what a worker logs of the calls that it sends."""
    with sent_log.path_of(run.path, worker).open("ab") as file:
        for number in numbers:
            file.write(sent_log.ENTRY.pack(number, ROWS[number]["dispatched_s"]))


def grown(run: Run, pieces: int, between: Callable[[], object] = lambda: None) -> None:
    for piece in range(pieces):
        log(run, range(piece * CALLS // pieces, (piece + 1) * CALLS // pieces))
        run.append(frame_of_rows(IN_ORDER[piece * CALLS // pieces : (piece + 1) * CALLS // pieces]))
        between()


def per_second(moments: list[float], seconds: int) -> list[int]:
    return np.bincount(np.floor(moments).astype(int), minlength=seconds).tolist()


def check(seconds: pl.DataFrame) -> None:
    """Compare with what the rows are, worked out from them all."""
    many = seconds.height
    assert many == 21  # the last call ends at 20.5 s
    assert seconds["t_s"].to_list() == list(range(many))
    assert seconds["planned"].to_list() == [20.0] * 20 + [0.0]
    sent = per_second([each["dispatched_s"] for each in ROWS], many)
    ended = per_second([each["end_s"] for each in ROWS], many)
    failed = per_second([each["end_s"] for each in ROWS if each["status"] != "ok"], many)
    assert seconds["sent"].to_list() == sent
    assert seconds["done"].to_list() == ended
    assert seconds["failed"].to_list() == failed
    assert sum(failed) == 10
    assert seconds["in_flight"].to_list() == (np.cumsum(sent) - np.cumsum(ended)).tolist()
    for at in (0, 5, 14, 20):
        window = [each for each in ROWS if at - 9 <= each["end_s"] < at + 1]
        answered = [each for each in window if each["status"] == "ok"]
        values = {
            "ttft": [each["first_token_s"] - each["sent_s"] for each in answered],
            "tbt": [gap for each in answered for gap in np.diff(each["chunk_s"])],
            "tpot": [0.05 for each in answered],
            "lag": [each["dispatched_s"] - each["due_s"] for each in window],
        }
        for name, known in values.items():
            for label, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
                exact = np.quantile(known, q, method="inverted_cdf")
                assert seconds[f"{name}_{label}_s"][at] == pytest.approx(exact, rel=0.0125)


def test_a_run_that_grew_is_the_same_read_in_pieces_or_at_once(run: Run) -> None:
    bit_by_bit = Progress(run.path)
    bit_by_bit.update()
    assert bit_by_bit.seconds.is_empty()
    seen: list[pl.DataFrame] = []

    def look() -> None:
        bit_by_bit.update()
        seen.append(bit_by_bit.seconds)

    grown(run, 13, look)
    check(seen[-1])
    assert [each.height for each in seen] == sorted(each.height for each in seen)
    at_once = Progress(run.path)
    at_once.update()
    assert at_once.seconds.equals(seen[-1])
    at_once.update()  # with nothing new
    assert at_once.seconds.equals(seen[-1])


def test_only_what_is_new_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = module.segment

    def segment(path: Path) -> pl.LazyFrame:
        read.append(path.name)
        return whole(path)

    monkeypatch.setattr(module, "segment", segment)
    progress = Progress(run.path)
    grown(run, 4, progress.update)
    assert read == [f"{number:06d}.arrow" for number in (1, 2, 3, 4)]


def test_a_run_that_is_sealed_meanwhile_is_read_from_its_table(run: Run) -> None:
    progress = Progress(run.path)
    grown(run, 3, progress.update)
    run.seal(INFO)
    assert not progress.sealed
    progress.update()
    assert progress.sealed
    check(progress.seconds)
    late = Progress(run.path)
    late.update()
    check(late.seconds)


def test_what_was_sent_and_has_not_ended_is_in_flight_when_a_run_is_killed(run: Run) -> None:
    log(run, range(100))
    run.append(frame_of_rows(IN_ORDER[:40]))
    with sent_log.path_of(run.path, 0).open("ab") as file:
        file.write(b"\x01\x02\x03")  # an entry that is not whole yet
    progress = Progress(run.path)
    progress.update()
    assert progress.seconds["sent"].sum() == 100
    assert progress.seconds["in_flight"][-1] == 60


def test_a_run_that_goes_on_counts_no_call_twice(run: Run) -> None:
    progress = Progress(run.path)
    log(run, range(200))
    run.append(frame_of_rows(IN_ORDER[:190]))
    progress.update()
    before = progress.seconds["sent"].sum()
    run.unseal()  # ten become lost
    run.write_info(RunInfo(**{**_fields(INFO), "resumed_s": (10.0,)}))
    log(run, range(200, 300), worker=1)
    progress.update()
    assert (before, progress.seconds["sent"].sum()) == (200, 300)
    run.append(frame_of_rows([row(number) for number in range(200, 250)]))
    progress.update()
    assert progress.seconds["sent"].sum() == 300
    assert progress.seconds["done"].sum() == 250
    assert progress.seconds["in_flight"][-1] == 50


def _fields(info: RunInfo) -> dict[str, Any]:
    return {name: getattr(info, name) for name in info.__struct_fields__}


def said(now_s: float) -> Live:
    return Live(
        written_unix_s=time.time(), host=platform.node(), pid=os.getpid(), now_s=now_s, planned=9,
        sent=0, in_flight=0, waiting=0, done=0,
    )  # fmt: skip


def test_while_a_run_goes_on_only_seconds_that_are_whole_are_shown(run: Run) -> None:
    progress = Progress(run.path)
    log(run, range(100))
    run.append(frame_of_rows(IN_ORDER[:90]))
    live.write(run.path, said(5.2))
    progress.update()
    assert progress.seconds["t_s"].to_list() == [0, 1, 2, 3]
    live.write(run.path, said(9.7))  # nothing was sent, and nothing came back
    progress.update()
    assert progress.seconds.height == 9
    assert progress.seconds["in_flight"][-1] == 10
    assert progress.seconds["ttft_p50_s"][8] is not None  # of those of the last ten seconds
    (run.path / live.FILE).write_text("{")
    progress.update()
    assert progress.live is None


def test_after_long_a_bin_holds_several_seconds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BINS", 8)
    progress = Progress(run.path)
    grown(run, 5, progress.update)
    seconds = progress.seconds
    assert seconds["t_s"].to_list() == [0.0, 4.0, 8.0, 12.0, 16.0, 20.0]
    assert (seconds["sent"] * 4.0).sum() == CALLS
    assert (seconds["planned"] * 4.0).to_list() == [80.0] * 5 + [0.0]
    assert seconds["in_flight"][-1] == 0
    once = Progress(run.path)
    once.update()
    assert once.seconds.equals(seconds)


def test_calls_that_follow_others_are_planned_when_they_are_due(run: Run, tmp_path: Path) -> None:
    plan = PLAN.head(2).with_columns(
        due_s=pl.Series([0.5, None], dtype=pl.Float64),
        parents=pl.Series([[], ["c0"]], dtype=pl.List(pl.String)),
    )
    chain = Run.create(tmp_path / "chain", {}, plan, INFO)
    chain.append(frame_of_rows([row(0) | {"due_s": 0.5}]))
    chain.append(frame_of_rows([row(30) | {"call_id": "c1", "parents": ["c0"]}]))  # due at 1.5 s
    progress = Progress(chain.path)
    progress.update()
    assert progress.seconds["planned"].to_list()[:2] == [1.0, 1.0]


def test_servers_are_read_on_and_a_scrape_that_failed_is_a_hole(run: Run) -> None:
    progress, journal = Progress(run.path), server.Journal(run.path)
    running, waiting = "vllm:num_requests_running", "vllm:num_requests_waiting"
    for t_s, told in (
        (0.0, [(running, 3.0), (waiting, 1.0), ("up", 1.0)]),
        (1.0, [(waiting, 2.0), ("up", 1.0)]),  # running as before
        (2.0, [("up", 0.0)]),
    ):
        journal.append(Sample(t_s, "http://a", name, "", value) for name, value in told)
        journal.append([Sample(t_s, "http://silent", "up", "", 0.0)])
        journal.flush()
        progress.update()
    expected = [
        (0.0, "http://a", 3.0, 1.0, None),
        (1.0, "http://a", 3.0, 2.0, None),
        (2.0, "http://a", None, None, None),
    ]
    assert progress.servers.rows() == expected
    run.seal(INFO)
    progress.update()
    assert progress.servers.rows() == expected


def test_scrapes_of_hours_are_thinned_and_keep_their_peaks(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_SCRAPES", 10)
    progress, journal = Progress(run.path), server.Journal(run.path)
    for t_s in range(35):
        name = "vllm:num_requests_waiting"
        journal.append([Sample(t_s, "http://a", name, "", 99.0 if t_s == 13 else float(t_s % 3))])
        journal.flush()
        progress.update()
    assert progress.servers.height <= 10
    assert progress.servers["waiting"].max() == 99.0
    assert progress.servers["t_s"].is_sorted()


def test_what_cannot_be_read_is_a_sentence(run: Run, tmp_path: Path) -> None:
    with pytest.raises(NotARun, match="does not exist"):
        Progress(tmp_path / "nothing")
    run.append(frame_of_rows(IN_ORDER[:5]))
    (run.path / "calls" / "000002.arrow").write_bytes(struct.pack("<Q", 1))
    progress = Progress(run.path)
    with pytest.raises(NotARun, match=r"000002\.arrow cannot be read"):
        progress.update()


def test_a_run_whose_every_call_failed_has_counts_and_no_latencies(run: Run) -> None:
    nothing = dict.fromkeys(("first_token_s", "last_token_s", "chunk_s", "output_tokens"))
    run.append(frame_of_rows([each | nothing | {"status": "refused"} for each in ROWS[:30]]))
    progress = Progress(run.path)
    progress.update()
    assert progress.seconds["failed"].sum() == 30
    assert progress.seconds["ttft_p99_s"].null_count() == progress.seconds.height
