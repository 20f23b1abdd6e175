import gzip
import hashlib
import json
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from servescope.traces import BUNDLED, Run, RunInfo, load
from servescope.traces.errors import BadRow, InputError, NotATrace, OutputExists
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


def test_a_folder_with_a_run_in_it_is_that_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without files"):
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


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Log Type\n1,GPT-4,2,3,API log\n"
BAD = AZURE + (
    "2023-11-16 18:17:03,1,2\nyesterday,3,4\n2023-11-16 18:17:04,5,six\n"
    "2023-11-16 18:17:05,7,-8\n2023-11-16 18:17:06,9,10\n"
)


def an_azure_file(path: Path, *seconds: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"2023-11-16 18:17:{second:02},{second},2\n" for second in seconds]
    path.write_text(AZURE + "".join(rows))


def test_a_folder_of_one_format_is_one_trace(tmp_path: Path) -> None:
    """Files come in the order of their names, rows in order of arrival; strange files are said."""
    an_azure_file(tmp_path / "day1.csv", 10, 30)
    an_azure_file(tmp_path / "deep" / "day2.csv", 20, 40)
    (tmp_path / "README").write_text("about these files")
    (tmp_path / ".notes").write_text("hidden")
    for folder in (tmp_path, str(tmp_path)):
        trace = load(folder)
        calls = trace.collect()
        assert calls["source_row"].to_list() == [1, 3, 2, 4]
        assert calls["input_tokens"].to_list() == [10, 20, 30, 40]
        known = trace.provenance
        assert (known.source, known.files, known.format) == (str(tmp_path), 2, "azure")
        assert (known.recognised_by or "").startswith("its content: the columns TIMESTAMP,")
        assert known.doubts[-1] == "1 files are in no known format and left out: README."


def test_many_strange_files_are_not_all_listed(tmp_path: Path) -> None:
    an_azure_file(tmp_path / "a.csv", 1)
    for number in range(7):
        (tmp_path / f"z{number}").write_text("?")
    assert load(tmp_path).provenance.doubts == (
        "7 files are in no known format and left out: z0, z1, z2, z3, z4 and 2 more.",
    )


def test_a_pattern_names_the_files_of_a_trace(tmp_path: Path) -> None:
    for day in (1, 2, 3):
        an_azure_file(tmp_path / f"day{day}.csv", day)
    trace = load(tmp_path / "day[13].csv")
    assert trace.collect()["input_tokens"].to_list() == [1, 3]
    assert trace.provenance.files == 2


def test_the_digest_of_a_folder_is_that_of_its_list_of_digests(tmp_path: Path) -> None:
    for day in (1, 2):
        an_azure_file(tmp_path / f"day{day}.csv", day)
    listed = "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}\n"
        for path in sorted(tmp_path.iterdir())
    )
    assert load(tmp_path).provenance.sha256 == hashlib.sha256(listed.encode()).hexdigest()


def test_a_folder_of_several_formats_needs_the_name_of_one(tmp_path: Path) -> None:
    an_azure_file(tmp_path / "a.csv", 1)
    (tmp_path / "b.csv").write_text(BURSTGPT)
    (tmp_path / "c.csv").write_text(BURSTGPT)
    with pytest.raises(
        InputError, match=r"holds files of several formats: azure \(1\), burstgpt \(2\)\."
    ):
        load(tmp_path)
    trace = load(tmp_path, format="burstgpt")
    assert (trace.collect().height, trace.provenance.files) == (2, 2)
    assert trace.provenance.recognised_by == "the user"
    assert load(tmp_path, format="azure").provenance.files is None


def test_a_folder_without_any_trace_is_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("?")
    (tmp_path / "b").write_text("!")
    with pytest.raises(NotATrace, match=r"in no trace format that servescope knows\. It holds 2"):
        load(tmp_path)


def test_the_first_bad_row_ends_the_reading(a_file: Callable[..., Path]) -> None:
    with pytest.raises(BadRow, match=r"trace\.csv, line 4: 'GeneratedTokens' is 'six'"):
        load(a_file(BAD))


def test_bad_rows_can_be_put_aside(a_file: Callable[..., Path], tmp_path: Path) -> None:
    path = a_file(BAD)
    trace = load(path, on_error="skip", rejected=tmp_path / "aside.jsonl")
    assert trace.collect()["source_row"].to_list() == [1, 5]
    known = trace.provenance
    assert (known.rows_read, known.rows_kept) == (5, 2)
    assert known.rows_dropped == {
        "GeneratedTokens is no number": 1,
        "TIMESTAMP is no time": 1,
        "output_tokens is negative": 1,
    }
    lines = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert [line["where"] for line in lines] == [f"{path}, line {n}" for n in (4, 3, 5)]
    assert lines[0]["reason"] == "GeneratedTokens is no number"
    assert lines[0]["problem"] == "'GeneratedTokens' is 'six', not a whole number."
    assert lines[0]["row"] == "2023-11-16 18:17:04,5,six"
    with pytest.raises(OutputExists, match=r"aside\.jsonl exists already"):
        load(path, on_error="skip", rejected=tmp_path / "aside.jsonl")


def test_the_file_of_bad_rows_is_named_after_the_source(
    a_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    load(a_file(BAD), on_error="skip")
    assert [path.name for path in Path().iterdir()] == ["trace.csv.rejected.jsonl"]


def test_good_rows_leave_no_file_behind(a_file: Callable[..., Path], tmp_path: Path) -> None:
    path = a_file(AZURE + "2023-11-16 18:17:03,1,2\n")
    trace = load(path, on_error="skip", rejected=tmp_path / "aside.jsonl")
    assert trace.provenance.rows_dropped == {}
    assert not (tmp_path / "aside.jsonl").exists()


def test_a_file_of_bad_rows_alone_is_no_trace(a_file: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(BadRow, match=r"no row that can be read\. See .*aside\.jsonl for why"):
        load(a_file(AZURE + "yesterday,1,2\n"), on_error="skip", rejected=tmp_path / "aside.jsonl")


def test_an_option_that_is_none_is_refused(a_file: Callable[..., Path]) -> None:
    path = a_file(AZURE + "2023-11-16 18:17:03,1,2\n")
    assert load(path, unit=None, tokenizer=None).collect().height == 1
    with pytest.raises(
        InputError, match=r"unknown field `units`.* The options are unit, block_tok"
    ):
        load(path, units="s")
    with pytest.raises(InputError, match=r"Invalid enum value 'min' - at `\$\.unit`"):
        load(path, unit="min")


def test_files_that_are_not_in_the_named_format_are_said_to_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(AZURE + "2023-11-16 18:17:03,1,2\n")
    (tmp_path / "notes").write_text("nothing of the kind\n")
    trace = load(tmp_path, format="azure")
    assert trace.collect().height == 1
    said = "1 files are not in the format that is named and left out: notes."
    assert trace.provenance.doubts[-1] == said
