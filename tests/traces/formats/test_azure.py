import datetime
from collections.abc import Callable
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from servescope.traces import inspect, load
from servescope.traces.errors import BadRow
from servescope.traces.formats.gather import MOVED

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
Write = Callable[..., Path]


def ticks(stamp: str) -> int:
    """Count the 100 ns ticks of a stamp in whole numbers."""
    whole, _, fraction = stamp.partition(".")
    moment = datetime.datetime.strptime(whole, "%Y-%m-%d %H:%M:%S")
    seconds = (moment - datetime.datetime(2023, 1, 1)) // datetime.timedelta(seconds=1)
    return seconds * 10_000_000 + int(fraction.ljust(7, "0"))


def assert_every_tick_is_kept(content: bytes, arrivals: pl.Series) -> None:
    stamps = [line.split(",")[0] for line in content.decode().splitlines()[1:]]
    since = [ticks(stamp) - ticks(stamps[0]) for stamp in stamps]
    assert [round(Fraction(second) * 10_000_000) for second in arrivals] == since
    assert arrivals.to_list() == [tick / 10_000_000 for tick in since]


def test_every_tick_of_the_sample_is_kept() -> None:
    content = (files("servescope.traces") / "data" / "azure_2023_code.csv").read_bytes()
    assert_every_tick_is_kept(content, load("azure:sample").collect()["arrival_s"])


def test_every_tick_of_the_whole_file_is_kept(original: Callable[[str], Path]) -> None:
    path = original("azure_llm_2023/AzureLLMInferenceTrace_code.csv")
    assert_every_tick_is_kept(path.read_bytes(), load(path).collect()["arrival_s"])


def test_the_whole_file_has_the_published_statistics(original: Callable[[str], Path]) -> None:
    trace = load(original("azure_llm_2023/AzureLLMInferenceTrace_code.csv"))
    quality = inspect(trace)
    assert (quality.calls, quality.tied_share, quality.out_of_order) == (8819, 0.0, 0)
    assert (quality.no_input, quality.no_output, quality.doubts) == (0, 0, ())
    assert quality.span_s == pytest.approx(3435.9, abs=0.05)
    assert trace.provenance.sha256 == (
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6"
    )
    calls = trace.collect()
    gaps = np.diff(calls["arrival_s"].to_numpy())
    assert gaps.std(ddof=1) / gaps.mean() == pytest.approx(13.15, abs=0.006)
    assert gaps.max() == pytest.approx(217, abs=0.5)
    for column, expected in (
        ("input_tokens", [2047.8, 1469, 5186, 7436, 7437]),
        ("output_tokens", [27.9, 13, 55, 252, 1899]),
    ):
        values = calls[column].to_numpy()
        ranks = np.percentile(values, [50, 90, 99, 100], method="nearest")
        assert [round(float(values.mean()), 1), *map(float, ranks)] == expected


def test_the_sample_has_bursts() -> None:
    trace = load("azure:sample")
    calls = trace.collect()
    gaps = np.diff(calls["arrival_s"].to_numpy())
    assert gaps.std() / gaps.mean() > 10
    assert trace.provenance.t0 == "2023-11-16 18:17:03.9799600, no zone given"
    assert trace.provenance.tick_s == 1e-7
    assert "status" not in calls.columns


def test_a_second_may_have_no_fraction(a_file: Write) -> None:
    rows = "2023-11-16 18:17:03,1,2\r\n2023-11-16 18:17:03.0000001,1,2\r\n2023-11-16 18:17:04.5,1,2"
    calls = load(a_file(HEADER + rows)).collect()
    assert calls["arrival_s"].to_list() == [0.0, 1e-7, 1.5]


def test_a_stamp_in_utc_is_of_2024(a_file: Write) -> None:
    rows = "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,7,1\n"
    trace = load(a_file(HEADER + rows))
    assert trace.collect()["arrival_s"].to_list() == [0.0, 0.99007]
    assert trace.provenance.t0 == "2024-05-10 00:00:00.009930+00:00"
    assert trace.provenance.tick_s == 1e-6
    assert "DynamoLLM" in (trace.provenance.attribution or "")


IMAGES = "NumImages,TIMESTAMP,ContextTokens,GeneratedTokens\n"


def test_the_images_of_2025_are_counted_wherever_their_column_stands(a_file: Write) -> None:
    trace = load(a_file(IMAGES + "2,2024-10-15 00:00:00.1,5,1\n,2024-10-15 00:00:00.2,6,1\n"))
    assert trace.collect()["image_count"].to_list() == [2, None]
    assert trace.provenance.attribution == "multimodal trace, 2025; Azure/AzurePublicDataset"
    assert "image_count" not in load("azure:sample").columns


def test_files_with_and_without_images_can_lie_in_one_folder(a_file: Write, tmp_path: Path) -> None:
    a_file(HEADER + "2024-10-15 00:00:00,5,1\n", "a.csv")
    a_file(IMAGES + "2,2024-10-15 00:00:01,6,1\n", "b.csv")
    assert load(tmp_path).collect()["image_count"].to_list() == [None, 2]


def test_a_file_without_a_good_row_is_no_trace(a_file: Write, tmp_path: Path) -> None:
    path = a_file(HEADER + "2024-10-15 00:00:00,five,1\n")
    with pytest.raises(BadRow, match=r"has no row that can be read\. See .*r\.jsonl for why"):
        load(path, on_error="skip", rejected=tmp_path / "r.jsonl")


def test_rows_are_sorted_by_time_and_that_is_said(a_file: Write) -> None:
    rows = "2023-11-16 18:17:04.0,1,2\r\n2023-11-16 18:17:03.5,3,4\r\n"
    trace = load(a_file(HEADER + rows))
    assert trace.collect()["source_row"].to_list() == [2, 1]
    assert trace.provenance.doubts == (MOVED,)
    assert trace.provenance.t0 == "2023-11-16 18:17:03.5000000, no zone given"


@pytest.mark.parametrize(
    "stamp", ["", "yesterday", "2023-13-01 00:00:00", "9999-01-01 00:00:00", "1700000000"]
)
def test_a_stamp_that_is_no_date_is_named(a_file: Write, stamp: str) -> None:
    rows = f"2023-11-16 18:17:03,1,2\r\n\r\n{stamp},3,4"
    with pytest.raises(
        BadRow, match=f"trace.csv, line 4: 'TIMESTAMP' is '{stamp}', not a date and time"
    ):
        load(a_file(HEADER + rows))


def test_an_empty_count_is_unknown(a_file: Write) -> None:
    calls = load(a_file(HEADER + "2023-11-16 18:17:03,,2\r\n2023-11-16 18:17:03,1,")).collect()
    assert calls["input_tokens"].to_list() == [None, 1]
    assert calls["output_tokens"].to_list() == [2, None]


def test_a_stamp_of_another_clock_is_refused(a_file: Write) -> None:
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    rows = "2023-11-16 18:15:46.6805900,5,1\n2024-05-10 00:00:00.009930+00:00,5,1\n"
    with pytest.raises(BadRow, match=r"line 3: 'TIMESTAMP' is .* and the first one has no zone"):
        load(a_file(head + rows))
