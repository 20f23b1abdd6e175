"""The library finds runs, opens none but those, and says in a sentence what cannot be read."""

from __future__ import annotations

import threading
from pathlib import Path

import polars as pl
import pytest

from servescope.analysis.cut import Cut
from servescope.analysis.sweep import rows_of
from servescope.dashboards.library import TAGS, Kept, Library
from servescope.traces.errors import InputError, NotARun
from servescope.traces.run import Run

BOTH = {"chat/sarathi", "chat/vllm_v0"}


def test_runs_are_found_wherever_they_are_under_the_folder(runs: Path) -> None:
    (runs / "notes").mkdir()
    (runs / ".hidden").mkdir()
    (runs / ".hidden" / "run.json").write_text("{}")
    assert set(Library(runs).names()) == BOTH
    assert Library(runs / "chat" / "sarathi").names() == ["."]


def test_a_folder_that_is_none_is_refused_with_its_mend(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        Library(tmp_path / "none")


@pytest.mark.parametrize(
    "name",
    ["../secret", "chat/../../secret", "/etc", "chat", "", "chat/sarathi/../vllm_v0", "..", "a\0b"],
)
def test_no_name_leads_out_of_the_folder(runs: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="There is no run"):
        Library(runs).run(name)


def test_links_that_lead_out_of_the_folder_are_not_followed(runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (runs / "chat" / "sarathi").rename(elsewhere)
    (runs / "linked").symlink_to(elsewhere, target_is_directory=True)
    own = runs / "chat" / "vllm_v0"
    (own / "calls.parquet").unlink()
    (own / "calls.parquet").symlink_to(elsewhere / "calls.parquet")
    library = Library(runs)
    assert library.names() == ["chat/vllm_v0"]
    with pytest.raises(NotARun, match="link that leads out"):
        library.run("chat/vllm_v0")
    (row,) = library.listed()
    assert "link that leads out" in (row.wrong or "")


def test_no_trace_is_read_that_nobody_named(runs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": []}\n')
    with pytest.raises(InputError, match="There is no run"):
        Library(runs).characterized(str(secret))


def test_the_list_has_the_numbers_of_each_run(runs: Path) -> None:
    listed = {row.name: row for row in Library(runs).listed()}
    assert set(listed) == BOTH
    for name, row in listed.items():
        expected = rows_of([Run.open(runs / name)]).row(0, named=True)
        assert row.headline is not None
        assert row.headline.calls == expected["calls"]
        assert row.headline.ttft_p50_s == pytest.approx(expected["ttft_p50_s"])


@pytest.mark.parametrize("content", [b"", b"{", b'{"name": 3}', b"\xff\xfe", b"[]"])
def test_a_run_that_is_half_written_is_a_sentence_in_the_list(runs: Path, content: bytes) -> None:
    (runs / "chat" / "sarathi" / "run.json").write_bytes(content)
    wrong = {row.name: row.wrong for row in Library(runs).listed()}
    assert wrong["chat/vllm_v0"] is None
    assert "cannot be read" in (wrong["chat/sarathi"] or "")
    assert str(runs) not in (wrong["chat/sarathi"] or "").split("cannot")[1]


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_calls_that_are_torn_are_a_sentence_in_the_list(runs: Path, keep: int) -> None:
    table = runs / "chat" / "sarathi" / "calls.parquet"
    table.write_bytes(table.read_bytes()[:keep])
    wrong = {row.name: row.wrong for row in Library(runs).listed()}["chat/sarathi"]
    assert wrong is not None
    assert "cannot be read" in wrong


def test_a_run_that_changes_is_read_again(runs: Path) -> None:
    library = Library(runs)
    before = library.story(["chat/sarathi"])
    assert library.story(["chat/sarathi"]) is before
    table = runs / "chat" / "sarathi" / "calls.parquet"
    pl.read_parquet(table).head(10).write_parquet(table)
    assert library.story(["chat/sarathi"]).calls["sarathi"].height == 10


def test_a_part_of_a_run_is_that_part(runs: Path) -> None:
    library = Library(runs)
    part = library.part(["chat/sarathi"], None, Cut(5.0, 10.0)).calls["sarathi"]
    whole = library.story(["chat/sarathi"]).calls["sarathi"]
    assert part["call_id"].to_list() == (
        whole.filter(pl.col("due_s").is_between(5.0, 10.0, closed="left"))["call_id"].to_list()
    )


def test_tags_stay_with_the_folder(runs: Path) -> None:
    library = Library(runs)
    library.tag(["chat/sarathi", "no/such"], "  base   line ")
    library.tag(["chat/sarathi", "chat/vllm_v0"], "h100")
    library.tag(["chat/vllm_v0"], "h100", remove=True)
    assert Library(runs).tags == {"chat/sarathi": ("base line", "h100")}
    with pytest.raises(InputError, match="empty"):
        library.tag(["chat/sarathi"], "  ")
    (runs / TAGS).write_text("{")
    assert Library(runs).tags == {}


def test_what_is_kept_is_made_once_however_many_ask() -> None:
    kept: Kept[int] = Kept(2)
    made: list[int] = []
    begin = threading.Barrier(8)

    def make() -> int:
        made.append(1)
        return 7

    def ask() -> None:
        begin.wait()
        assert kept.of("a", make) == 7

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    kept.of("b", make)
    kept.of("c", make)
    kept.of("a", make)  # was given up for the others
    assert made == [1, 1, 1, 1]


def test_an_error_is_not_kept() -> None:
    kept: Kept[int] = Kept(1)

    def fail() -> int:
        raise InputError("No.", "Yes.")

    with pytest.raises(InputError):
        kept.of("a", fail)
    assert kept.of("a", lambda: 3) == 3
