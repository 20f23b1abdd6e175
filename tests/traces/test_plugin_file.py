"""A class is taken from a plain Python file, and what is wrong with it is said with its line."""

import sys
from pathlib import Path

import pytest

from servescope.traces.errors import InputError
from servescope.traces.plugin_file import PluginFile

TWO = """
from dataclasses import dataclass
from pathlib import Path

class One:
    def go(self): pass

class Two:
    def go(self): pass

class _Helper:
    def go(self): pass

class Idle:
    pass
"""


def written(folder: Path, text: str, name: str = "plug.py") -> PluginFile:
    path = folder / name
    path.write_text(text)
    return PluginFile(path)


@pytest.mark.parametrize(
    ("text", "path", "name", "label"),
    [
        ("policy.py", "policy.py", None, "policy"),
        ("a b/policy.py:Mine", "a b/policy.py", "Mine", "Mine"),
        ("./x.py.py", "x.py.py", None, "x.py"),
    ],
)
def test_a_file_is_named_with_or_without_a_class(
    text: str, path: str, name: str | None, label: str
) -> None:
    file = PluginFile.of(text)
    assert file == PluginFile(Path(path), name)
    assert file.label == label


@pytest.mark.parametrize("text", ["sarathi", "policy", "policy.pyc", "policy.py:", "policy.py:a.b"])
def test_any_other_name_is_no_file(text: str) -> None:
    assert PluginFile.of(text) is None


def test_only_classes_that_the_file_itself_defines_and_shows_are_found(tmp_path: Path) -> None:
    file = written(tmp_path, TWO)
    assert list(file.classes(file.load(), "go", "run")) == ["One", "Two"]


def test_a_file_is_loaded_as_it_is_now_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = written(tmp_path, "a = 1")
    first = file.load()
    file.path.write_text("a = 2")  # within the second, and as long as before
    second = file.load()
    assert (first.a, second.a) == (1, 2)
    assert [each.name for each in tmp_path.iterdir()] == ["plug.py"]
    assert "plug" not in sys.modules
    assert first.__name__ != second.__name__


def test_a_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    digests = {written(tmp_path, "a = 1", name).sha256 for name in ("a.py", "b.py")}
    assert len(digests) == 1
    assert digests != {written(tmp_path, "a = 2").sha256}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\ndef b(:\n", r"plug\.py, line 2: invalid syntax"),
        ("a = 1\n\nb = a / 0\n", r"plug\.py, line 3: ZeroDivisionError: division by zero"),
        ("import no_such_module", r"plug\.py, line 1: ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", r"plug\.py, line 1: SystemExit: 3"),
        ("a = '\0'", "plug.py"),
    ],
)
def test_a_file_that_cannot_be_run_is_refused_with_the_line(
    tmp_path: Path, text: str, said: str
) -> None:
    before = set(sys.modules)
    with pytest.raises(InputError, match=said):
        written(tmp_path, text).load()
    assert set(sys.modules) == before


def test_a_file_that_is_not_there_or_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        PluginFile(tmp_path / "none.py").load()
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        PluginFile(tmp_path / "folder.py").load()


def test_it_is_looked_for_in_a_folder_first(tmp_path: Path) -> None:
    written(tmp_path, "")
    assert PluginFile(Path("plug.py"), "A").beside(tmp_path) == PluginFile(
        tmp_path / "plug.py", "A"
    )
    assert PluginFile(Path("other.py")).beside(tmp_path) == PluginFile(Path("other.py"))


def test_an_error_of_somebody_else_is_no_fault_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int") as caught:
        int("x")
    assert written(tmp_path, "").fault(caught.value) is None
