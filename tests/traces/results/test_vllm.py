"""Results that vLLM's own benchmark wrote, against what it printed of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from servescope.traces.errors import BadRow, NotAResult
from servescope.traces.results import read
from servescope.traces.results.vllm import FROM_SENT, RELEASED

Said = Callable[[str], Any]


def edited(data: Path, tmp_path: Path, **changes: Any) -> Path:
    """The recorded result with other fields; None takes one out."""
    told = json.loads((data / "vllm/detailed.json").read_text()) | changes
    path = tmp_path / "edited.json"
    path.write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
    return path


@pytest.mark.parametrize("name", ["detailed", "closed"])
def test_the_quantiles_are_those_that_vllm_printed(
    name: str, data: Path, said: Said, measured: Any, gaps: Any
) -> None:
    told = said(f"vllm/{name}.json")
    (result,) = read(data / f"vllm/{name}.json")
    calls = measured(result)
    ours = {
        "ttft": calls["ttft"].drop_nulls().to_numpy(),
        "tpot": calls["tpot"].drop_nulls().to_numpy(),
        "e2el": calls["e2e"].drop_nulls().to_numpy(),
        "itl": gaps(result),
    }
    for metric, values in ours.items():
        ms = values * 1000
        assert ms.mean() == pytest.approx(told[f"mean_{metric}_ms"]), metric
        for p in (50, 90, 99):
            assert np.percentile(ms, p) == pytest.approx(told[f"p{p}_{metric}_ms"]), metric


def test_failures_and_tokens_are_counted_as_vllm_counts_them(data: Path, said: Said) -> None:
    told = said("vllm/detailed.json")
    (result,) = read(data / "vllm/detailed.json")
    ok = result.calls.filter(status="ok")
    assert (result.calls.height, ok.height) == (told["num_prompts"], told["completed"])
    assert ok["input_tokens"].sum() == told["total_input_tokens"]
    assert ok["output_tokens"].sum() == told["total_output_tokens"]
    failed = result.calls.filter(pl.col("status") != "ok")
    assert sorted(failed.select("status", "error").rows()) == [
        ("error", "Service Unavailable"),
        ("error", "Service Unavailable"),
        ("error", "Service Unavailable"),
        (
            "reset",
            "aiohttp.client_exceptions.ClientPayloadError: Response payload is not completed:"
            " <TransferEncodingError: 400, message='Not enough data to satisfy transfer length"
            " header.'>",
        ),
    ]
    assert failed["output_tokens"].null_count() == failed.height
    assert failed["end_s"].null_count() == failed.height
    cut = failed.filter(status="reset")
    assert cut["chunk_s"].list.len().item() > 1  # what came before the connection broke off
    assert failed.filter(status="error")["first_token_s"].null_count() == 3


def test_due_is_when_the_client_released_a_call_and_second_0_the_first_of_them(
    data: Path, said: Said
) -> None:
    told = said("vllm/closed.json")
    (result,) = read(data / "vllm/closed.json")
    waits = (result.calls["sent_s"] - result.calls["due_s"]).to_list()
    assert waits == pytest.approx(told["queue_times"])
    assert result.calls["due_s"].min() == 0.0
    assert max(result.calls["due_s"]) < 0.001  # an endless rate releases all at once
    assert max(waits) > 0.5  # three slots
    assert RELEASED in result.doubts
    assert result.plan["due_s"].null_count() == 20  # no timetable is known


def test_what_the_file_does_not_say_is_null(data: Path) -> None:
    (result,) = read(data / "vllm/detailed.json")
    assert (result.version, result.seed, result.endpoint, result.started_ns) == (None,) * 4
    assert result.date == "20261125-223912"
    assert (result.model, result.load) == (
        "Llama-3.1-8B",
        {"request_rate": 8.0, "burstiness": 1.0},
    )
    for column in ("first_byte_s", "first_answer_s", "end_s", "dispatched_s", "admitted_s"):
        assert result.calls[column].null_count() == 30, column


def test_every_line_of_append_result_is_a_benchmark(data: Path, said: Said) -> None:
    results = read(data / "vllm/appended.json")
    assert [(result.part, result.load["request_rate"]) for result in results] == [
        ("1", 8.0),
        ("2", 16.0),
        ("3", 8.0),
    ]


def test_a_result_over_several_lines_is_one(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "pretty.json"
    path.write_text(json.dumps(json.loads((data / "vllm/closed.json").read_text()), indent=2))
    (result,) = read(path)
    assert result.part is None


def test_a_summary_has_no_calls(data: Path) -> None:
    with pytest.raises(NotAResult, match=r"holds only a summary.*--save-detailed"):
        read(data / "vllm/summary.json")


def test_without_waits_due_is_sent(data: Path, tmp_path: Path) -> None:
    (result,) = read(edited(data, tmp_path, queue_times=None, latencies=None))
    assert result.calls["due_s"].equals(result.calls["sent_s"].alias("due_s"))
    assert FROM_SENT in result.doubts
    (whole,) = read(data / "vllm/detailed.json")
    ok = pl.col("status") == "ok"
    took = [
        frame.filter(ok).select(pl.col("last_token_s") - pl.col("sent_s")).to_series().to_list()
        for frame in (result.calls, whole.calls)
    ]
    assert took[0] == pytest.approx(took[1])


def test_numbers_without_end_are_read_where_vllm_writes_them(data: Path, tmp_path: Path) -> None:
    (result,) = read(edited(data, tmp_path, burstiness=float("inf")))
    assert result.load["burstiness"] == "inf"


def test_what_the_server_said_of_its_queue_is_kept(data: Path, tmp_path: Path) -> None:
    waits = [0.25, None, *[0.5] * 28]
    (result,) = read(edited(data, tmp_path, server_queue_times=waits))
    assert result.calls["observed_queue_s"].to_list() == waits


def test_calls_that_vllm_counts_otherwise_are_a_doubt(data: Path, tmp_path: Path) -> None:
    (result,) = read(edited(data, tmp_path, completed=29))
    assert any(doubt.startswith("vLLM counted 29 completed calls") for doubt in result.doubts)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"start_times": None}, NotAResult, "does not say when its calls were sent"),
        ({"ttfts": [0.1]}, BadRow, "30 input_lens, 30 output_lens, 1 ttfts"),
        ({"ttfts": [-1.0] * 30}, BadRow, "stamps go backwards"),
        ({"ttfts": [float("nan")] * 30}, BadRow, "is no number"),
        ({"input_lens": [-1] * 30}, BadRow, r"\$\.input_lens\[0\]"),
        ({"total_input_sequences": 3}, NotAResult, "embeddings"),
        (
            {k: [] for k in ("input_lens", "output_lens", "ttfts", "itls", "errors", "start_times")}
            | {"latencies": None, "queue_times": None},
            NotAResult,
            "holds no call",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(
    changes: dict[str, Any], error: type[Exception], says: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        read(edited(data, tmp_path, **changes))
