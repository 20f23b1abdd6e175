"""The result file of vLLM's benchmark, of streams whose numbers are known by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from recorded import BARE, CHAT, STOP, run_of, text

from servescope.analysis import SLO, measured
from servescope.reports import vllm_result
from servescope.reports.vllm_result import Asked
from servescope.traces import Run
from servescope.traces.errors import InputError, OutputExists

# In the order in which `vllm bench serve --save-result --save-detailed` of 0.33.0 writes them.
FIELDS = [
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts",
    "request_rate", "burstiness", "max_concurrency", "duration", "completed", "failed",
    "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput",
    "output_throughput", "total_token_throughput", "input_lens", "output_lens", "ttfts", "itls",
    "latencies", "start_times", "queue_times", "generated_texts", "errors",
    "max_output_tokens_per_s", "max_concurrent_requests", "rtfx",
    "mean_ttft_ms", "median_ttft_ms", "std_ttft_ms", "p99_ttft_ms",
    "mean_tpot_ms", "median_tpot_ms", "std_tpot_ms", "p99_tpot_ms",
    "mean_itl_ms", "median_itl_ms", "std_itl_ms", "p99_itl_ms",
]  # fmt: skip


def exported(run: Run, out: Path, slo: str | None = None, **asked: str) -> dict[str, Any]:
    chosen = Asked.parse(asked.get("metrics", "ttft,tpot,itl"), asked.get("percentiles", "99"))
    vllm_result.write(run, out, slo=SLO.parse(slo) if slo else None, asked=chosen, overwrite=True)
    told: dict[str, Any] = json.loads(out.read_text())
    return told


@pytest.fixture
def chat(tmp_path: Path) -> Run:
    return run_of(
        tmp_path / "chat", CHAT, "vllm-chat", client={"uncounted": 0}, model="tiny",
        zero_monotonic_s=100.0,
    )  # fmt: skip


def test_the_fields_are_vllms_in_its_order(chat: Run, tmp_path: Path) -> None:
    assert list(exported(chat, tmp_path / "r.json")) == FIELDS


def test_every_number_is_the_one_that_vllm_would_have_written(chat: Run, tmp_path: Path) -> None:
    """See tests/analysis/test_profiles.py for the arithmetic."""
    told = exported(chat, tmp_path / "r.json", "ttft<0.9s,tpot<200ms")
    scalars = {name: value for name, value in told.items() if not isinstance(value, list)}
    assert scalars == {
        "date": "", "endpoint_type": "openai-chat", "backend": "openai-chat", "label": "recorded",
        "model_id": "tiny", "tokenizer_id": "tiny", "num_prompts": 5,
        "request_rate": "inf", "burstiness": 1.0, "max_concurrency": None,
        "duration": 5.0, "completed": 4, "failed": 1,
        "total_input_tokens": 29, "total_output_tokens": 20,
        "request_throughput": 0.8, "request_goodput": 0.4,
        "output_throughput": 4.0, "total_token_throughput": 9.8,
        "max_output_tokens_per_s": 4.0, "max_concurrent_requests": 2, "rtfx": 0.0,
        **{
            name: pytest.approx(value, rel=1e-5)
            for name, value in {
                "mean_ttft_ms": 750, "median_ttft_ms": 750, "std_ttft_ms": 250,
                "p99_ttft_ms": 1000, "mean_tpot_ms": 123.232323, "median_tpot_ms": 133.333333,
                "std_tpot_ms": 67.185, "p99_tpot_ms": 198.666667, "mean_itl_ms": 171.428571,
                "median_itl_ms": 200, "std_itl_ms": 69.985421, "p99_itl_ms": 294,
            }.items()
        },
    }  # fmt: skip
    counts = ("num_prompts", "completed", "failed", "total_output_tokens")
    assert all(isinstance(told[name], int) for name in counts)


def test_lists_hold_the_calls_in_order_and_a_failed_one_is_zeros(
    chat: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "BATCH_CALLS", 2)
    told = exported(chat, tmp_path / "r.json")
    assert told["input_lens"] == [8, 10, 5, 10, 6]
    assert told["output_lens"] == [3, 12, 1, 0, 4]
    assert told["ttfts"] == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.5])
    assert [len(gaps) for gaps in told["itls"]] == [2, 2, 0, 0, 3]
    assert told["itls"][0] == pytest.approx([0.1, 0.3])
    assert told["latencies"] == pytest.approx([1.4, 1.4, 0.5, 0.0, 0.9])
    assert told["start_times"] == pytest.approx([100.0, 101.0, 102.0, 103.0, 104.0])
    assert told["queue_times"] == [0.0] * 5
    assert told["errors"] == ["", "", "", "http_503", ""]
    assert told["generated_texts"] == [""] * 5


def test_calls_that_end_in_another_order_keep_their_own_gaps(tmp_path: Path) -> None:
    """The rows of a run are in the order of ends."""
    streams = {
        f"{n}": (float(n), [(n + 1.0, text(" a")), (n + 1.0 + n / 8, text(" b", STOP))], n + 9.0)
        for n in range(6)
    }
    backwards = dict(reversed(streams.items()))
    told = exported(run_of(tmp_path / "r", backwards, "openai"), tmp_path / "r.json")
    assert told["start_times"] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert told["itls"] == [[n / 8] for n in range(6)]


def test_the_statistics_are_chosen_as_in_vllm(chat: Run, tmp_path: Path) -> None:
    told = exported(chat, tmp_path / "r.json", metrics="e2el", percentiles="50,99.9")
    chosen = [name for name in told if name.endswith("_ms")]
    assert chosen == [
        "mean_e2el_ms", "median_e2el_ms", "std_e2el_ms", "p50_e2el_ms", "p99.9_e2el_ms",
    ]  # fmt: skip
    assert told["mean_e2el_ms"] == pytest.approx(1050)


def test_the_clients_queue_is_told_where_there_were_slots(tmp_path: Path) -> None:
    everything = ",".join(vllm_result.KNOWN)
    rate = {"workload": {"arrivals": {"process": "gamma", "rate_rps": 2.0,
                                      "params": {"burstiness": 0.5}}},
            "endpoint": {"max_concurrency": 8, "tokenizer": "tokenizer.json"}}  # fmt: skip
    run = run_of(tmp_path / "r", CHAT, experiment=rate)
    told = exported(run, tmp_path / "r.json", metrics=everything)
    assert (told["request_rate"], told["burstiness"], told["max_concurrency"]) == (2.0, 0.5, 8)
    assert told["tokenizer_id"] == "tokenizer.json"
    assert told["mean_client_queue_time_ms"] == 0.0
    assert told["mean_e2el_including_client_queue_ms"] == pytest.approx(1050)
    users = run_of(tmp_path / "u", CHAT, experiment={"endpoint": {"users": 3}})
    told = exported(users, tmp_path / "r.json", metrics=everything)
    assert told["max_concurrency"] == 3
    assert "mean_client_queue_time_ms" in told
    assert "mean_e2el_including_client_queue_ms" not in told


def test_what_nobody_counted_is_null_and_said(tmp_path: Path) -> None:
    run = run_of(tmp_path / "r", BARE, "openai", client={"uncounted": 1})
    said = vllm_result.write(run, tmp_path / "r.json")
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["output_lens"] == [None]
    assert told["total_output_tokens"] is told["output_throughput"] is told["mean_tpot_ms"] is None
    assert told["itls"] == [pytest.approx([0.2, 0.1])]  # to the empty text too, as vLLM stamps it
    assert any("generated_texts are empty" in each for each in said)
    assert any("output_lens are null" in each for each in said)


def test_a_run_of_nothing_is_zeros_as_in_vllm(tmp_path: Path) -> None:
    for name, streams in (("none", {}), ("failed", {"fails": CHAT["fails"]})):
        told = exported(run_of(tmp_path / name, streams), tmp_path / "r.json")
        assert list(told) == FIELDS
        assert told["mean_ttft_ms"] == told["p99_itl_ms"] == told["request_throughput"] == 0.0


def test_nothing_is_overwritten_unasked(chat: Run, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    vllm_result.write(chat, out)
    with pytest.raises(OutputExists, match="exists already"):
        vllm_result.write(chat, out)
    assert [path.name for path in tmp_path.glob("r.json*")] == ["r.json"]


@pytest.mark.parametrize(
    ("metrics", "percentiles", "says"),
    [
        ("tbt", "99", "no metric 'tbt'"),
        ("ttft", "p99", "no percentiles"),
        ("ttft", "101", "no per"),
    ],
)
def test_what_vllm_does_not_know_is_refused(metrics: str, percentiles: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Asked.parse(metrics, percentiles)
