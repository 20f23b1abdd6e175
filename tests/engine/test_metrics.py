import re
from pathlib import Path

import pytest

from servescope.engine.engine import Engine
from servescope.engine.kvcache import BlockPool
from servescope.engine.metrics import BEHIND_S, Histogram, Latencies, exposition
from servescope.engine.request import Request
from servescope.engine.systems.sarathi import Sarathi

LINE = re.compile(r'([a-z0-9:_]+)\{((?:[a-z_]+="[^"]*",?)+)\} ([0-9.e+-]+)')


def parse(text: str) -> dict[str, float]:
    """Read the text format strictly: every line is a type or a sample."""
    samples = {}
    for line in text.splitlines():
        if re.fullmatch(r"# TYPE [a-z0-9:_]+ (gauge|counter|histogram)", line):
            continue
        match = LINE.fullmatch(line)
        assert match, line
        name, labels, value = match.groups()
        extra = re.sub(r'engine="0",model_name="[^"]*",?', "", labels)
        samples[f"{name}{{{extra}}}" if extra else name] = float(value)
    return samples


def served() -> tuple[Engine, Latencies]:
    """Two requests of 10 + 3 and 20 + 2 tokens, in steps of one second."""
    engine, latencies = (
        Engine(Sarathi(), lambda load: 1.0, BlockPool(100), 1000),
        Latencies(),
    )
    engine.submit(Request("a", 10, 3, 0.0), 0.0)
    engine.submit(Request("b", 20, 2, 0.0), 0.0)
    now = 0.5
    while step := engine.begin(now, until=now):
        decoded = engine.decoding(step)
        latencies.observe([*engine.finish(step).prompted, *decoded])
        now = step.ends_s
    return engine, latencies


NAMES = Path(__file__).parents[2] / ".." / "shared" / "calibration" / "metrics_names.txt"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve-the-embedded-engine.md"


@pytest.mark.skipif(not NAMES.exists(), reason="needs the measurements in ../shared/calibration")
def test_the_page_lists_which_of_vllms_names_are_missing() -> None:
    text = exposition([served()[0]], 0, Latencies(), Histogram(BEHIND_S), "llama")
    ours, vllms = (
        set(re.findall(r"^# TYPE (vllm:\S+)", page, re.MULTILINE))
        for page in (text, NAMES.read_text())
    )
    assert ours <= vllms
    assert set(re.findall(r"`(vllm:\w+)`", PAGE.read_text())) == vllms - ours


def test_the_samples_say_what_the_engine_did() -> None:
    engine, latencies = served()
    samples = parse(exposition([engine], 7, latencies, Histogram(BEHIND_S), "llama"))
    assert samples["vllm:num_requests_running"] == 0
    assert samples["vllm:num_requests_waiting"] == 7
    assert samples["vllm:kv_cache_usage_perc"] == 0
    assert samples["vllm:prompt_tokens_total"] == 30
    assert samples["vllm:generation_tokens_total"] == 5
    assert samples['vllm:request_success_total{finished_reason="length"}'] == 2
    assert samples["vllm:time_to_first_token_seconds_count"] == 2
    assert samples["vllm:time_to_first_token_seconds_sum"] == pytest.approx(3.0)
    assert samples["vllm:inter_token_latency_seconds_sum"] == pytest.approx(3.0)
    assert samples["vllm:e2e_request_latency_seconds_sum"] == pytest.approx(3.5 + 2.5)
    assert samples["vllm:request_queue_time_seconds_sum"] == pytest.approx(1.0)
    assert samples["vllm:request_time_per_output_token_seconds_count"] == 2
    assert samples["vllm:request_prompt_tokens_sum"] == 30
    assert samples['vllm:request_prompt_tokens_bucket{le="10.0"}'] == 1
    assert samples["vllm:request_generation_tokens_sum"] == 5


def test_buckets_are_cumulative_and_end_with_everything() -> None:
    engine, latencies = served()
    samples = parse(exposition([engine], 0, latencies, Histogram(BEHIND_S), "llama"))
    name = "vllm:time_to_first_token_seconds_bucket"
    assert samples[f'{name}{{le="1.0"}}'] == 0
    assert samples[f'{name}{{le="2.5"}}'] == 2
    assert samples[f'{name}{{le="+Inf"}}'] == 2


def test_a_value_on_a_bound_is_under_it() -> None:
    histogram = Histogram((1, 2))
    for value in (1.0, 1.5, 9.0):
        histogram.observe(value)
    assert histogram.counts == [1, 1, 1]
    assert (histogram.count, histogram.sum, histogram.max) == (3, 11.5, 9.0)


def test_a_quantile_is_its_buckets_bound_and_never_over_the_largest() -> None:
    histogram = Histogram((1, 2, 5))
    assert histogram.quantile(0.99) == 0
    for value in (0.5, 1.5, 3.0):
        histogram.observe(value)
    assert histogram.quantile(0.5) == 2
    assert histogram.quantile(0.99) == 3.0
