"""Which tool wrote a file, and that nothing but our errors comes of a broken one."""

import gzip
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servescope.traces.errors import InputError, NotAResult, ServescopeError
from servescope.traces.formats.source import File
from servescope.traces.results import TOOLS, named, read, recognise

DATA = Path(__file__).parents[2] / "data" / "results"
RECORDED = {
    "vllm/detailed.json": "vllm",
    "vllm/appended.json": "vllm",
    "aiperf/faults/profile_export.jsonl.gz": "aiperf",
    "guidellm/benchmarks.json.gz": "guidellm",
}
each_recorded = pytest.mark.parametrize("name", sorted(RECORDED))


@each_recorded
def test_a_file_is_recognised_by_what_it_holds(name: str, tmp_path: Path) -> None:
    path = tmp_path / "anything.txt"
    path.write_bytes((DATA / name).read_bytes())
    assert recognise(File(path, path.name)) == RECORDED[name]
    assert [tool for tool in TOOLS if TOOLS[tool].sniff(File(path, "").head())] == [RECORDED[name]]
    assert read(path)[0].file == "anything.txt"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "It is empty"),
        ("{}", "It begins with '{}'"),
        ("metadata:\n  guidellm_version: 0.8.1\n", "benchmarks.json"),
        ('{"dataset_name": "random", "backend": "sglang"}', "is no result that servescope knows"),
    ],
)
def test_others_are_not(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    with pytest.raises(NotAResult, match=says):
        read(path)


def test_what_is_named_is_read_as_that(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tool 'sglang'.*vllm, aiperf, guidellm"):
        named("sglang")
    for tool in TOOLS:
        (tmp_path / "file").write_text("{}")
        with pytest.raises(InputError):
            read(tmp_path / "file", tool)


def test_a_folder_or_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder.*profile_export\.jsonl"):
        read(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "none")


# --- broken files -------------------------------------------------------------------------------

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]),
    st.just({}), st.sampled_from([-1, 0, 2**63, 2**70, 1e308, "inf", "\ud800", 1e17, [[]], [None]]),
)  # fmt: skip


def contents(name: str) -> bytes:
    content = (DATA / name).read_bytes()
    return gzip.decompress(content) if name.endswith(".gz") else content


def survives(content: bytes, tool: str) -> None:
    """Read and write a file: it becomes runs, or one of our errors says what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile_export.jsonl"
        path.write_bytes(content)
        with suppress(ServescopeError):
            for number, result in enumerate(read(path, tool)):
                result.write(Path(folder) / str(number), "n").rows.collect()


fuzzed = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@each_recorded
@fuzzed
@given(share=st.floats(0, 1))
def test_a_file_that_was_cut_off_is_refused_or_read(name: str, share: float) -> None:
    whole = contents(name)
    survives(whole[: int(share * len(whole))], RECORDED[name])


@each_recorded
@fuzzed
@given(where=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))))
def test_a_file_with_other_bytes_is_refused_or_read(
    name: str, where: list[tuple[float, int]]
) -> None:
    content = bytearray(contents(name))
    for share, byte in where:
        content[int(share * len(content))] = byte
    survives(bytes(content), RECORDED[name])


@each_recorded
@fuzzed
@given(data=st.data())
def test_a_file_with_another_value_somewhere_is_refused_or_read(name: str, data: Any) -> None:
    lines = contents(name).splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    document = json.loads(lines[place])
    change(document, data.draw)
    lines[place] = json.dumps(document).encode()
    survives(b"\n".join(lines), RECORDED[name])


def change(document: Any, draw: Callable[[Any], Any]) -> None:
    """Walk down a document at random, and put another value where the walk ends."""
    while True:
        keys = list(document) if isinstance(document, dict) else range(len(document))
        key = draw(st.sampled_from(list(keys)))
        below = document[key]
        if not isinstance(below, dict | list) or not below or draw(st.integers(0, 5)) == 0:
            document[key] = draw(VALUES)
            return
        document = below
