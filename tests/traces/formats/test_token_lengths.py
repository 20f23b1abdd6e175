from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from servescope.traces import load
from servescope.traces.errors import NotATrace
from servescope.traces.formats.token_lengths import NO_ARRIVALS

Write = Callable[..., Path]
SAMPLE = Path(__file__).parents[2] / "data" / "formats" / "token_lengths.csv"
PUBLISHED = {
    "sharegpt_8k_filtered_stats_llama2_tokenizer": (
        30731,
        (2340, 1730, 5696, 7434, 8141),
        (439, 415, 834, 998, 1024),
    ),
    "arxiv_summarization_stats_llama2_tokenizer_filtered_v2": (
        28257,
        (2588, 2730, 3702, 3933, 4054),
        (291, 167, 372, 3270, 4056),
    ),
}


def test_arrivals_are_not_known() -> None:
    trace = load(SAMPLE)
    calls = trace.collect()
    assert calls["arrival_s"].to_list() == [None, None]
    assert calls["input_tokens"].to_list() == [2340, 1730]
    assert calls["output_tokens"].to_list() == [415, 834]
    assert trace.provenance.doubts == (NO_ARRIVALS,)
    assert trace.provenance.t0 is None


def test_a_wrong_sum_is_doubted(a_file: Write) -> None:
    rows = "num_prefill_tokens,num_decode_tokens,num_total_tokens\n3,4,8\n3,4,7\n"
    doubts = load(a_file(rows)).provenance.doubts
    assert doubts[1:] == ("In 1 rows num_total_tokens is not the sum of the other two.",)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_tables_have_the_published_statistics(
    original: Callable[[str], Path], name: str
) -> None:
    height, *published = PUBLISHED[name]
    calls = load(original(f"token_lengths/{name}.csv.gz")).collect()
    assert calls.height == height
    for column, figures in zip(("input_tokens", "output_tokens"), published, strict=True):
        values = calls[column].to_numpy()
        quantiles = np.percentile(values, [50, 90, 99, 100], method="nearest")
        assert (round(values.mean()), *quantiles.tolist()) == figures


def test_another_column_may_be_a_time(a_file: Write) -> None:
    with pytest.raises(NotATrace):
        load(a_file("num_prefill_tokens,num_decode_tokens,when\n3,4,5\n"))
