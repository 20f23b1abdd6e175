"""Every way in which a call can go wrong, planted in a run in which the other calls go well."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import polars as pl
import pytest
from background import Background
from fault_proxy import FaultProxy, fault_proxy
from faulty_server import Faulty, serving, well_behaved

from servescope.loadgen import runner
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.traces import Run
from servescope.traces.errors import EndpointError

CALLS = 24
PLANTED = range(5, CALLS, 6)  # every sixth call
LENGTH = 100  # of the first call's prompt; each next is one longer, so a body names its call


@pytest.fixture
def server() -> Iterator[Faulty]:
    with Background(serving(Faulty(script=well_behaved))) as found:
        yield found


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rows = "\n".join(f"{n * 0.03:.2f},{LENGTH + n},4" for n in range(CALLS))
    path = tmp_path / "trace.csv"
    path.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}\n")
    return path


def number_of(body: bytes) -> int:
    """Return which call of the trace a body is; negative for the probe's."""
    return len(msgspec.json.decode(body)["prompt"]) - LENGTH


def replayed(url: str, trace: Path, out: Path, **options: object) -> Run:
    fields: dict[str, object] = {"timeout_s": 1.5, "idle_s": 0.6, "workers": 2, **options}
    experiment = Experiment(
        name="faults",
        workload=WorkloadSpec(trace=str(trace), sessions="none"),
        endpoint=EndpointSpec(base_url=url, **fields),  # type: ignore[arg-type]
    )
    return runner.replay(experiment, out)


def with_fault(
    server: Faulty, fault: str, trace: Path, out: Path, **options: object
) -> tuple[pl.DataFrame, FaultProxy]:
    """Replay with one fault planted in every sixth call."""
    context = fault_proxy(server.url, lambda body: fault if number_of(body) in PLANTED else None)
    with Background(context) as proxy:
        run = replayed(proxy.url, trace, out, **options)
    assert run.info.ended is not None
    return run.trace.collect().sort("due_s"), proxy


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        ("reset before", "reset", "reset by peer|disconnected"),
        ("reset in the stream", "reset", "not completed|reset by peer|Connection"),
        ("http_400", "http_400", "planted"),
        ("http_429", "http_429", r"slow down \(Retry-After: 0\)"),
        ("http_503", "http_503", "planted"),
        ("stalled", "stalled", "no byte for 0.6 s"),
        ("silent", "stalled", "no byte for 0.6 s"),
        ("trickle", "timeout", "no end after 1.5 s"),
        ("truncated", "truncated", "neither a finish_reason nor"),
        ("no [DONE]", "truncated", "without the .DONE. that this server sends"),
        ("malformed", "malformed", "JSON is malformed|truncated"),
        ("server", "server", "engine died"),
        ("unstreamed", "unstreamed", "status 200 without a stream"),
        ("usage too small", "miscounted", "counts 1 tokens in 4 chunks"),
        ("usage negative", "malformed", ">= 0"),
        ("usage no number", "malformed", "Expected `int"),
    ],
)
def test_a_planted_fault_is_a_typed_row_and_harms_no_other_call(
    server: Faulty, trace: Path, tmp_path: Path, fault: str, status: str, says: str
) -> None:
    calls, proxy = with_fault(server, fault, trace, tmp_path / "run")
    assert calls.height == CALLS  # nothing is dropped
    planted = calls[list(PLANTED)]
    assert planted["status"].to_list() == [status] * len(PLANTED)
    assert planted["error"].str.contains(says).all(), planted["error"].to_list()
    others = calls.filter(~pl.int_range(pl.len()).is_in(list(PLANTED)))
    assert others["status"].to_list() == ["ok"] * (CALLS - len(PLANTED))
    if fault != "reset before":  # on a connection that was used before, that is no answer at all
        assert proxy.met[fault] == len(PLANTED)  # and no retry that nobody asked for
    assert planted["retries"].to_list() == [0] * len(PLANTED)


@pytest.mark.parametrize("fault", ["comments", "close after"])
def test_what_is_no_fault_of_the_call_is_none(
    server: Faulty, trace: Path, tmp_path: Path, fault: str
) -> None:
    """Comments keep a stream alive; a kept connection that was closed is opened again."""
    calls, _ = with_fault(server, fault, trace, tmp_path / "run")
    assert calls["status"].to_list() == ["ok"] * CALLS


def test_what_came_before_a_break_is_kept(server: Faulty, trace: Path, tmp_path: Path) -> None:
    calls, _ = with_fault(server, "reset in the stream", trace, tmp_path / "run")
    broken = calls[list(PLANTED)]
    assert broken["chunk_s"].list.len().to_list() == [2] * len(PLANTED)
    assert broken["first_token_s"].null_count() == 0


@pytest.mark.parametrize("fault", ["http_429", "http_503", "reset before"])
def test_retries_are_made_only_if_asked_and_are_counted(
    server: Faulty, trace: Path, tmp_path: Path, fault: str
) -> None:
    calls, proxy = with_fault(server, fault, trace, tmp_path / "run", retries=2, timeout_s=10.0)
    assert calls[list(PLANTED)]["retries"].to_list() == [2] * len(PLANTED)
    assert proxy.met[fault] >= 3 * len(PLANTED)
    assert calls.filter(pl.col("status") != "ok").height == len(PLANTED)


def test_a_server_that_goes_away_leaves_calls_that_were_refused(
    server: Faulty, trace: Path, tmp_path: Path
) -> None:
    """Two replicas, one of which only answers the probe."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
    run = replayed((server.url, gone), trace, tmp_path / "run")  # type: ignore[arg-type]
    calls = run.trace.collect()
    assert set(calls.filter(pl.col("replica") == gone)["status"]) == {"refused"}
    assert set(calls.filter(pl.col("replica") == server.url)["status"]) == {"ok"}


def test_a_name_without_an_address_and_a_port_without_tls_are_told_apart(
    server: Faulty, trace: Path, tmp_path: Path
) -> None:
    plain = server.url.replace("http:", "https:")
    for url, status in (("http://nowhere.invalid", "dns"), (plain, "tls")):
        run = replayed((server.url, url), trace, tmp_path / status)  # type: ignore[arg-type]
        calls = run.trace.collect()
        assert set(calls.filter(pl.col("replica") == url)["status"]) == {status}


@pytest.mark.parametrize(
    "fault",
    ["reset before", "http_400", "http_503", "stalled", "silent", "truncated", "malformed",
     "server", "unstreamed"],
)  # fmt: skip
def test_a_probe_that_meets_a_fault_is_a_clear_error_and_writes_nothing(
    server: Faulty, trace: Path, tmp_path: Path, fault: str
) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(Background(fault_proxy(server.url, lambda _: fault)))
        with pytest.raises(EndpointError, match=r"\. (Look|Start|Check)"):
            replayed(proxy.url, trace, tmp_path / "run")
    assert not (tmp_path / "run").exists()
