from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servescope.traces import server
from servescope.traces.errors import NotARun, OutputFailed
from servescope.traces.server import Journal, Sample, labels_of, labels_text, live


def sample(t_s: float, value: float | None = 1.0, name: str = "up") -> Sample:
    return Sample(t_s, "http://a", name, "", value)


def write(run: Path, *batches: list[Sample]) -> None:
    journal = Journal(run)
    for batch in batches:
        journal.append(batch)
        journal.flush()


def test_what_was_flushed_is_read_back_before_and_after_sealing(tmp_path: Path) -> None:
    rows = [Sample(0.5, "http://a", "vllm:x", "le=+Inf", 3.0), sample(1.5, None), sample(2.5)]
    write(tmp_path, rows[:1], rows[1:])
    assert [path.name for path in (tmp_path / "server").iterdir()] == [
        "000001.arrow",
        "000002.arrow",
    ]
    before = server.read(tmp_path)
    assert before is not None
    assert before.rows() == [tuple(row) for row in rows]
    assert dict(before.schema) == server.SCHEMA
    server.seal(tmp_path)
    after = server.read(tmp_path)
    assert after is not None
    assert after.equals(before)
    assert [path.name for path in tmp_path.iterdir()] == ["server.parquet"]


def test_a_run_without_samples_has_no_table_and_sealing_it_makes_none(tmp_path: Path) -> None:
    assert server.read(tmp_path) is None
    server.seal(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_flush_of_nothing_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_half_written_is_not_read_and_goes_with_the_folder(tmp_path: Path) -> None:
    write(tmp_path, [sample(1.0)])
    (tmp_path / "server" / "000002.part").write_bytes(b"ARROW1 and no more")
    table = server.read(tmp_path)
    assert table is not None
    assert table.height == 1
    server.seal(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["server.parquet"]


def test_a_kill_in_the_middle_of_sealing_doubles_no_sample(tmp_path: Path) -> None:
    rows = [sample(1.0), sample(2.0)]
    write(tmp_path, rows)
    segment = tmp_path / "server" / "000001.arrow"
    kept = segment.read_bytes()
    server.seal(tmp_path)
    segment.parent.mkdir()
    segment.write_bytes(kept)
    table = server.read(tmp_path)
    assert table is not None
    assert table.height == 2


def test_a_resumed_run_adds_to_what_was_sealed(tmp_path: Path) -> None:
    write(tmp_path, [sample(1.0)])
    server.seal(tmp_path)
    write(tmp_path, [sample(9.0)])
    server.seal(tmp_path)
    table = server.read(tmp_path)
    assert table is not None
    assert table["t_s"].to_list() == [1.0, 9.0]


def test_a_second_journal_goes_on_after_the_segments_of_a_killed_one(tmp_path: Path) -> None:
    write(tmp_path, [sample(1.0)])
    write(tmp_path, [sample(2.0)])
    table = server.read(tmp_path)
    assert table is not None
    assert table["t_s"].to_list() == [1.0, 2.0]


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    write(tmp_path, [sample(1.0)])
    (tmp_path / "server" / "000001.arrow").write_bytes(b"rubbish")
    with pytest.raises(NotARun, match=r"000001\.arrow cannot be read"):
        server.read(tmp_path)


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "server").write_text("a file where the folder should be")
    with pytest.raises(OutputFailed, match="server cannot be written"):
        write(tmp_path, [sample(1.0)])


def test_labels_are_sorted_and_commas_in_them_survive() -> None:
    text = labels_text({"le": "0.5", "engine": "0", "model_name": "a,b=c\\d"})
    assert text == "engine=0,le=0.5,model_name=a\\,b=c\\\\d"
    assert labels_of(text) == {"le": "0.5", "engine": "0", "model_name": "a,b=c\\d"}
    assert labels_text({}) == ""
    assert labels_of("") == {}


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=12)))
def test_labels_are_read_as_they_were_written(labels: dict[str, str]) -> None:
    assert labels_of(labels_text(labels)) == labels


def test_engines_of_one_server_are_added_and_their_cache_use_is_averaged() -> None:
    said = {
        ("vllm:num_requests_running", "engine=0"): 3.0,
        ("vllm:num_requests_running", "engine=1"): 5.0,
        ("vllm:kv_cache_usage_perc", "engine=0"): 0.2,
        ("vllm:kv_cache_usage_perc", "engine=1"): 0.6,
    }
    assert live(said) == {"running": 8.0, "kv_usage": pytest.approx(0.4)}


def test_a_name_that_was_renamed_counts_once() -> None:
    """vLLM 0.10 says its cache use and its hits under the old name and the new one."""
    said = {
        ("vllm:prefix_cache_hits_total", ""): 7.0,
        ("vllm:gpu_prefix_cache_hits_total", ""): 7.0,
    }
    assert live(said) == {"prefix_hits": 7.0}


def test_a_part_that_a_server_says_beside_the_whole_is_not_added() -> None:
    """SGLang with priorities: the total under priority="", each priority under its own."""
    said = {
        ("sglang:num_queue_reqs", "priority=,tp_rank=0"): 5.0,
        ("sglang:num_queue_reqs", "priority=1,tp_rank=0"): 3.0,
        ("sglang:num_queue_reqs", "priority=2,tp_rank=0"): 2.0,
    }
    assert live(said) == {"waiting": 5.0}


def test_llama_cpp_counts_cached_tokens_beside_the_processed_ones() -> None:
    said = {
        ("llamacpp:prompt_tokens_total", ""): 17.0,
        ("llamacpp:prompt_tokens_cached_total", ""): 15.0,
    }
    assert live(said) == {"prefix_hits": 15.0, "prefix_queries": 32.0}


def test_what_is_not_said_is_not_known() -> None:
    assert live({("vllm:num_requests_running", ""): None}) == {}
    assert live({("other:thing", ""): 1.0}) == {}


def test_every_known_quantity_is_a_gauge_or_a_counter() -> None:
    assert {*server.GAUGES, *server.COUNTERS} == set(server.KNOWN)
    assert isinstance(server.SCHEMA["value"], pl.Float64)
