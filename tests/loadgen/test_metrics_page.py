"""Pages of metrics, read by hand and beside a true one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import parser

from servescope.loadgen.metrics_page import MOST_SERIES, Page, changes, read_page
from servescope.traces.server import live

PAGES = Path(__file__).parents[1] / "data" / "metrics"
TRUE_VLLM = Path(__file__).parents[2].parent / "shared" / "servers" / "vllm_metrics_sample.txt"


def page(text: str) -> Page:
    return read_page(text, Page())


def named(name: str) -> Page:
    return page((PAGES / f"{name}.txt").read_text())


# --- pages ----------------------------------------------------------------------------------------


def test_vllm_s_own_series_are_kept_and_the_runtime_s_are_not() -> None:
    kept = named("vllm").series
    assert len(kept) == 12
    assert {name.partition(":")[0] for name, _ in kept} == {"vllm"}
    assert not any(name.endswith("_created") for name, _ in kept)
    labels = "engine=0,le=+Inf,model_name=tiny"
    assert kept["vllm:time_to_first_token_seconds_bucket", labels] == 7.0
    assert live(kept) == {
        "running": 7.0,
        "waiting": 2.0,
        "kv_usage": 0.5,
        "prefix_hits": 400.0,
        "prefix_queries": 1000.0,
    }


def test_sglang_with_priorities_runs_six_not_twelve() -> None:
    assert live(named("sglang").series) == {
        "running": 6.0,
        "waiting": 1.0,
        "kv_usage": 0.28,
        "prefix_hits": 2000.0,
        "prefix_queries": 8000.0,
        "preemptions": 2.0,
        "generation_tokens": 7500.0,
    }


def test_tgi_s_counters_keep_the_names_that_it_gives_them() -> None:
    kept = named("tgi").series
    assert kept["tgi_request_count", ""] == 12.0
    assert live(kept) == {"running": 8.0, "waiting": 5.0, "generation_tokens": 768.0}


@pytest.mark.skipif(not TRUE_VLLM.exists(), reason="needs ../shared/servers")
def test_every_line_of_a_true_vllm_page_is_read() -> None:
    read = page(TRUE_VLLM.read_text())
    assert read.strange == read.cut == 0
    assert live(read.series) == {
        "running": 0.0,
        "waiting": 0.0,
        "kv_usage": 0.0,
        "prefix_hits": 0.0,
        "prefix_queries": 1642.0,
        "preemptions": 0.0,
        "generation_tokens": 4687.0,
        "queue_s": pytest.approx(8.4627, abs=1e-4),
        "queued": 77.0,
    }


def test_of_an_unknown_server_everything_but_its_runtime_is_kept() -> None:
    text = "python_info 1\nprocess_open_fds 3\ngo_goroutines 9\nqueue_depth 4\n"
    assert page(text).series == {("queue_depth", ""): 4.0}


def test_only_what_changed_is_told_and_a_series_that_is_gone_is_told_once() -> None:
    first = page('vllm:a 1\nvllm:b{x="1"} 2\nvllm:c 3')
    second = read_page('vllm:a 1\nvllm:b{x="1"} 5\nvllm:d 4', first)
    assert changes(Page(), first) == [
        ("vllm:a", "", 1.0),
        ("vllm:b", "x=1", 2.0),
        ("vllm:c", "", 3.0),
    ]
    assert changes(first, second) == [
        ("vllm:b", "x=1", 5.0),
        ("vllm:d", "", 4.0),
        ("vllm:c", "", None),
    ]
    assert changes(second, read_page('vllm:a 1\nvllm:b{x="1"} 5\nvllm:d 4', second)) == []


def test_a_value_that_comes_back_is_told_again() -> None:
    first = page("vllm:a 1")
    second = read_page("vllm:a 2", first)
    third = read_page("vllm:a 1", second)
    assert changes(second, third) == [("vllm:a", "", 1.0)]


def test_what_turns_into_no_number_is_told_as_missing_and_once() -> None:
    first = page("vllm:a 1")
    second = read_page("vllm:a NaN", first)
    assert changes(first, second) == [("vllm:a", "", None)]
    assert changes(second, read_page("vllm:a NaN", second)) == []


def test_a_line_that_did_not_change_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = page("vllm:a 1\nvllm:b 2")
    parsed: list[str] = []
    true_parser = parser.text_string_to_metric_families
    monkeypatch.setattr(
        parser,
        "text_string_to_metric_families",
        lambda line: parsed.append(line) or true_parser(line),  # type: ignore[func-returns-value]
    )
    read_page("vllm:a 1\nvllm:b 3", first)
    assert parsed == ["vllm:b 3"]


def test_above_the_limit_buckets_are_left_out_first() -> None:
    buckets = [f'vllm:t_bucket{{le="{n}"}} 1' for n in range(MOST_SERIES)]
    read = page("\n".join([*buckets, "vllm:num_requests_running 3"]))
    assert read.cut == 1
    assert len(read.series) == MOST_SERIES
    assert live(read.series) == {"running": 3.0}


def test_lines_that_are_no_samples_are_counted_and_spoil_no_other() -> None:
    read = page('vllm:a 1\nvllm:b{x="1} 2\nvllm:c three\nvllm:d 4')
    assert read.strange == 2
    assert read.series == {("vllm:a", ""): 1.0, ("vllm:d", ""): 4.0}


def test_time_stamps_and_exemplars_are_passed_over() -> None:
    text = 'vllm:a 1 1795350271\nvllm:t_bucket{le="1"} 5 # {trace_id="q"} 0.5 1795350271.5'
    assert page(text).series == {("vllm:a", ""): 1.0, ("vllm:t_bucket", "le=1"): 5.0}


@given(st.text(alphabet=st.sampled_from('vllm:a{}="\\, \n#1e9.+-_Nx\u2028'), max_size=60))
def test_no_text_at_all_is_an_error(text: str) -> None:
    read = page(text)
    assert len(read.series) + read.strange <= len(text)
