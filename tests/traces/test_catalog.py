import gzip
import hashlib
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from servescope.traces import BUNDLED, Run, RunInfo, load
from servescope.traces.errors import InputError, NotATrace
from servescope.traces.run import frame_of_rows

DATA = files("servescope.traces") / "data"


def unpacked(content: bytes) -> bytes:
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def test_every_bundled_file_is_attributed_and_none_lies_about() -> None:
    there = {entry.name for entry in DATA.iterdir()} - {"ATTRIBUTION.md"}
    attribution = (DATA / "ATTRIBUTION.md").read_text()
    named = set(re.findall(r"^\| `([^`]+)` \|", attribution, flags=re.MULTILINE))
    assert there == named == {sample.file for sample in BUNDLED.values()}


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_trace_says_its_licence_and_what_it_is_cut_from(name: str) -> None:
    provenance = load(name).provenance
    assert provenance.licence in ("CC-BY-4.0", "Apache-2.0")
    assert provenance.attribution
    assert (provenance.source, provenance.kind) == (name, "real")
    assert provenance.steps == (f"cut: {BUNDLED[name].says}",)
    row = next(
        line
        for line in (DATA / "ATTRIBUTION.md").read_text().splitlines()
        if f"`{BUNDLED[name].file}`" in line
    )
    assert f"| {provenance.licence} |" in row


@pytest.mark.parametrize("name", BUNDLED)
def test_every_bundled_row_is_read(name: str) -> None:
    trace = load(name)
    lines = unpacked((DATA / BUNDLED[name].file).read_bytes()).strip().splitlines()
    rows = len(lines) - (BUNDLED[name].format != "mooncake")  # CSV has a header
    calls = trace.collect()
    assert calls.height == trace.provenance.rows_read == rows
    assert sorted(calls["source_row"]) == list(range(1, rows + 1))
    assert calls["arrival_s"].is_sorted()
    assert calls["arrival_s"][0] == 0.0


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        (
            "burstgpt:sample",
            "7865fda5dac50938a84dfccb06c405e2f5202969ecfbd671c8399de00f4335f0",
        ),
        (
            "burstgpt:sessions",
            "240c4646c53be1d56d09d17d90530108fa6c859367bf5583862094dd8ed3163d",
        ),
        (
            "mooncake:conversation",
            "8090d6a38401d280fd88112ba22007ff4354be59c986f4f6bcc250edd45a52dc",
        ),
    ],
)
def test_samples_that_are_whole_published_cuts_have_their_digest(name: str, sha256: str) -> None:
    content = unpacked((DATA / BUNDLED[name].file).read_bytes())
    assert hashlib.sha256(content).hexdigest() == sha256 == load(name).provenance.sha256


@pytest.mark.parametrize(
    ("file", "whole"),
    [
        ("burstgpt_v1.csv", "burstgpt/BurstGPT_1.head400.csv"),
        ("burstgpt_v3.csv", "burstgpt/BurstGPT_3.head280.csv"),
        ("azure_2023_code.csv", "azure_llm_2023/AzureLLMInferenceTrace_code.csv"),
        ("mooncake_synthetic.jsonl.gz", "mooncake/synthetic_trace.jsonl.gz"),
        ("mooncake_conversation.jsonl.gz", "mooncake/conversation_trace.head400.jsonl"),
    ],
)
def test_bundled_files_are_the_rows_that_the_attribution_says_byte_for_byte(
    original: Callable[[str], Path], file: str, whole: str
) -> None:
    """Line ends are compared too, but for the one after the last row of a cut."""
    lines = unpacked(original(whole).read_bytes()).splitlines(keepends=True)
    attribution = (DATA / "ATTRIBUTION.md").read_text()
    rows = re.search(rf"^\| `{re.escape(file)}` \| (\d+)-(\d+) of", attribution, re.MULTILINE)
    assert rows is not None
    first, last = int(rows[1]), int(rows[2])
    said = next(sample.says for sample in BUNDLED.values() if sample.file == file)
    assert f"rows {first}-{last}" in said
    header = lines[:1] if file.endswith(".csv") else []
    cut = lines[len(header) :][first - 1 : last]
    assert len(cut) == last - first + 1
    content = unpacked((DATA / file).read_bytes())
    assert content.rstrip(b"\r\n") == b"".join(header + cut).rstrip(b"\r\n")


def test_a_name_that_is_near_a_bundled_one_is_told_the_right_one() -> None:
    with pytest.raises(NotATrace) as caught:
        load("burstgpt:samples")
    assert caught.value.wrong == "'burstgpt:samples' is not a trace."
    assert caught.value.mend.startswith("Near it: burstgpt:sample,")


def test_a_name_near_nothing_is_told_all() -> None:
    with pytest.raises(NotATrace) as caught:
        load("zzz:q")
    assert all(name in caught.value.mend for name in BUNDLED)


def test_a_file_that_is_not_there_is_no_bundled_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "a:b.csv")


def test_a_file_beats_a_likeness_to_a_bundled_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "azure:mine").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,2\n"
    )
    assert load("azure:mine").collect()["output_tokens"].to_list() == [2]


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    load("azure:sample").head(3).write(tmp_path / "t.parquet")
    assert load("~/t.parquet").collect().height == 3


def test_a_folder_is_a_trace_only_if_it_is_a_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder and no run directory"):
        load(tmp_path)
    info = RunInfo(name="n", system="s", clock="real", version="0", started="now", seed=1)
    plan = frame_of_rows(load("azure:sample").collect().iter_rows(named=True))
    Run.create(tmp_path, {}, plan, info)
    assert load(str(tmp_path)).provenance.format == "run"


def test_a_format_can_be_named_for_a_file(a_file: Callable[..., Path]) -> None:
    path = a_file((DATA / "azure_2023_code.csv").read_bytes())
    assert load(path, format="azure").collect().equals(load("azure:sample").collect())
    with pytest.raises(InputError, match=r"no trace format 'azur'. Known: .*azure"):
        load(path, format="azur")
