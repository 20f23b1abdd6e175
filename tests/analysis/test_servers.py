import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from servescope.analysis.servers import Gpu, gpus, over_time, summaries
from servescope.traces.server import HOST, SCHEMA, Sample

A, B = "http://a", "http://b"


def samples(*rows: tuple[float, str, str, str, float | None]) -> pl.DataFrame:
    table = pl.DataFrame([Sample(*row) for row in rows], schema=SCHEMA, orient="row")
    return table.sort("t_s", maintain_order=True)


def test_what_did_not_change_is_carried_on_and_never_across_a_hole() -> None:
    said = samples(
        (0.0, A, "vllm:num_requests_running", "", 2.0),
        (0.0, A, "up", "", 1.0),
        (1.0, A, "up", "", 1.0),  # nothing changed
        (2.0, A, "up", "", 0.0),  # no answer
        (3.0, A, "up", "", 1.0),
        (4.0, A, "vllm:num_requests_running", "", None),  # the server says it no more
        (4.0, A, "up", "", 1.0),
    )
    series = over_time(said)
    assert series["t_s"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert series["running"].to_list() == [2.0, 2.0, None, 2.0, None]
    assert series["waiting"].null_count() == 5


def test_replicas_are_told_apart_and_one_that_says_nothing_known_is_left_out() -> None:
    said = samples(
        (0.0, A, "sglang:num_running_reqs", "dp=0", 1.0),
        (0.0, A, "sglang:num_running_reqs", "dp=1", 3.0),
        (0.0, A, "up", "", 1.0),
        (0.5, B, "up", "", 0.0),
        (0.6, "http://c", "its:own_gauge", "", 7.0),
        (0.6, "http://c", "up", "", 1.0),
        (1.0, HOST, "gpu_power_watts", "gpu=0", 250.0),
    )
    assert over_time(said).select("replica", "running").rows() == [(A, 4.0)]  # over all engines


def test_means_are_over_time_and_peaks_over_scrapes() -> None:
    said = samples(
        (0.0, A, "vllm:num_requests_running", "", 10.0),
        (0.0, A, "vllm:num_requests_waiting", "", 0.0),
        (0.0, A, "vllm:kv_cache_usage_perc", "", 0.25),
        (0.0, A, "up", "", 1.0),
        (3.0, A, "vllm:num_requests_running", "", 2.0),
        (3.0, A, "vllm:kv_cache_usage_perc", "", 0.75),
        (3.0, A, "up", "", 1.0),
        (4.0, A, "up", "", 1.0),
    )
    (summary,) = summaries(over_time(said))
    assert summary.running_mean == (10 * 3 + 2 * 1) / 4
    assert summary.running_peak == 10
    assert (summary.waiting_mean, summary.waiting_peak) == (0, 0)
    assert summary.kv_usage_peak == 0.75
    assert summary.prefix_hit_share is None
    assert summary.preemptions is None
    assert (summary.scrapes, summary.unseen) == (3, 0.0)


def test_counters_count_from_the_first_scrape_and_a_server_that_began_anew_from_0() -> None:
    hits, queries = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"
    tokens = "vllm:generation_tokens_total"
    rows: list[tuple[float, str, str, str, float | None]] = []
    for t_s, hit, asked, made in ((0, 100, 1000, 500), (1, 150, 1100, 900), (2, 30, 100, 40)):
        rows += [
            (t_s, A, hits, "", hit),
            (t_s, A, queries, "", asked),
            (t_s, A, tokens, "", made),
            (t_s, A, "up", "", 1.0),
        ]
    (summary,) = summaries(over_time(samples(*rows)))
    assert summary.prefix_hit_share == (50 + 30) / (100 + 100)
    assert summary.generation_tokens == 400 + 40


TOKENS = "vllm:generation_tokens_total"


def counted(*scrapes: dict[str, float | None]) -> int | None:
    """Return the tokens that a server counted which said these values by labels, once a second."""
    rows: list[tuple[float, str, str, str, float | None]] = []
    for second, scrape in enumerate(scrapes):
        rows += [(float(second), A, TOKENS, labels, value) for labels, value in scrape.items()]
        rows.append((float(second), A, "up", "", 1.0))
    (summary,) = summaries(over_time(samples(*rows)))
    return summary.generation_tokens


def test_an_engine_that_began_anew_is_not_hidden_by_one_that_went_on() -> None:
    assert counted({"engine=0": 100, "engine=1": 100}, {"engine=0": 10, "engine=1": 400}) == 310


def test_a_counter_that_is_shown_once_it_is_used_began_at_0() -> None:
    """SGLang has no line for a counter before the first call: what is there then is new."""
    running = "sglang:num_running_reqs"
    said = samples(
        (0.0, A, running, "", 0.0),
        (0.0, A, "up", "", 1.0),
        (1.0, A, "sglang:generation_tokens_total", "", 70.0),
        (1.0, A, "up", "", 1.0),
        (2.0, A, "sglang:generation_tokens_total", "", 90.0),
        (2.0, A, "up", "", 1.0),
    )
    series = over_time(said)
    assert series["generation_tokens"].to_list() == [None, 70.0, 90.0]
    assert summaries(series)[0].generation_tokens == 90


def test_a_server_that_answers_late_is_counted_from_its_first_answer() -> None:
    said = samples(
        (0.0, A, "up", "", 0.0),
        (1.0, A, TOKENS, "", 5000.0),
        (1.0, A, "up", "", 1.0),
        (2.0, A, TOKENS, "", 5010.0),
        (2.0, A, "up", "", 1.0),
    )
    assert summaries(over_time(said))[0].generation_tokens == 10


def test_a_series_that_goes_and_comes_back_is_not_counted_twice() -> None:
    both = {"engine=0": 500.0, "engine=1": 500.0}
    assert counted(both, {"engine=1": None}, {"engine=1": 520.0}) == 20
    assert counted(both, {"engine=1": None}, {"engine=1": 30.0}) == 30  # it came back anew


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=6))
def test_what_is_counted_is_what_was_made_however_often_the_server_restarts(
    lives: list[list[int]],
) -> None:
    """Each life counts from 0; a restart shows where the new count is below the old one."""
    values, made = [0], 0
    for life in lives:
        if values[-1]:
            values.append(0)
        for step in life:
            values.append(values[-1] + step)
            made += step
    assert counted(*({"": float(value)} for value in values)) == made


def test_a_server_that_answers_with_nothing_known_yet_did_not_fail() -> None:
    said = samples(
        (0.0, A, "up", "", 1.0),
        (1.0, A, "sglang:num_queue_reqs", "", 0.0),
        (1.0, A, "up", "", 1.0),
    )
    series = over_time(said)
    assert series["up"].to_list() == [True, True]
    assert summaries(series)[0].unseen == 0


def test_a_share_of_scrapes_that_failed_is_said() -> None:
    rows: list[tuple[float, str, str, str, float | None]] = [
        (0.0, A, "vllm:num_requests_running", "", 1.0)
    ]
    rows += [(float(k), A, "up", "", float(k != 3)) for k in range(4)]
    (summary,) = summaries(over_time(samples(*rows)))
    assert (summary.scrapes, summary.unseen) == (4, 0.25)


def test_gpus_are_summed_up_each_and_what_one_does_not_say_is_missing() -> None:
    said = samples(
        (0.0, HOST, "gpu_utilisation_ratio", "gpu=0", 0.5),
        (1.0, HOST, "gpu_utilisation_ratio", "gpu=0", 1.0),
        (3.0, HOST, "gpu_utilisation_ratio", "gpu=0", 0.0),
        (0.0, HOST, "gpu_energy_joules_total", "gpu=0", 1000.0),
        (3.0, HOST, "gpu_energy_joules_total", "gpu=0", 1750.0),
        (0.0, HOST, "gpu_memory_used_bytes", "gpu=1", 5.0),
        (1.0, HOST, "gpu_memory_used_bytes", "gpu=1", 9.0),
        (2.0, HOST, "gpu_memory_used_bytes", "gpu=1", 7.0),
    )
    assert gpus(said) == [
        Gpu("gpu=0", (0.5 * 1 + 1.0 * 2) / 3, None, None, 750.0),
        Gpu("gpu=1", None, 9.0, None, None),
    ]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_writing_only_what_changed_loses_nothing(values: list[int]) -> None:
    rows: list[tuple[float, str, str, str, float | None]] = []
    for second, value in enumerate(values):
        if second == 0 or value != values[second - 1]:
            rows.append((float(second), A, "vllm:num_requests_waiting", "", float(value)))
        rows.append((float(second), A, "up", "", 1.0))
    assert over_time(samples(*rows))["waiting"].to_list() == values
