import io
from pathlib import Path

import pytest

from servescope.traces.errors import InputError
from servescope.traces.formats import locate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two traces, one of them in a folder, and what hides."""
    for name in ("b.csv", "deep/a.csv", ".hidden.csv", ".git/c.csv", "deep/.x/d.csv"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "data"


def names(text: str) -> list[str]:
    return [Path(file.name).name for file in locate.find(text)]


def test_a_file_is_itself(folder: Path) -> None:
    (file,) = locate.find(str(folder / "b.csv"))
    assert (file.path, file.name) == (folder / "b.csv", str(folder / "b.csv"))


def test_a_hidden_file_that_is_named_is_read(folder: Path) -> None:
    assert names(str(folder / ".hidden.csv")) == [".hidden.csv"]


def test_a_folder_is_its_files_without_those_that_hide(folder: Path) -> None:
    assert names(str(folder)) == ["b.csv", "a.csv"]


def test_a_folder_may_itself_lie_in_one_that_hides(folder: Path) -> None:
    assert names(str(folder / ".git")) == ["c.csv"]


def test_a_folder_without_files_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without files"):
        locate.find(str(tmp_path))


def test_a_pattern_is_the_files_that_it_fits_in_order(folder: Path) -> None:
    (folder / "a.csv").touch()
    (folder / "x.csv").mkdir()
    assert names(str(folder / "*.csv")) == ["a.csv", "b.csv"]
    assert names(str(folder / "**" / "[ab].csv")) == ["a.csv", "b.csv", "a.csv"]


def test_a_pattern_that_fits_nothing_is_said(folder: Path) -> None:
    with pytest.raises(InputError, match=r"No file is called .*\*\.json"):
        locate.find(str(folder / "*.json"))


def test_a_file_that_is_called_like_a_pattern_is_that_file(folder: Path) -> None:
    (folder / "[b].csv").write_text("x")
    assert names(str(folder / "[b].csv")) == ["[b].csv"]


def test_a_path_may_begin_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert names("~/b.csv") == names("~/[b].csv") == ["b.csv"]


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv does not exist\. Check the path"):
        locate.find(str(tmp_path / "gone.csv"))


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "t.csv").touch()
    with pytest.raises(InputError, match=r"t\.csv is empty"):
        locate.find(str(tmp_path / "t.csv"))


def test_standard_input_can_be_read_twice() -> None:
    (file,) = locate.find("-", io.BytesIO(b"a,b\n1,2\n"))
    assert (file.name, file.head(), file.content) == ("standard input", *[b"a,b\n1,2\n"] * 2)


def test_empty_standard_input_is_said_to_be_empty() -> None:
    with pytest.raises(InputError, match="Standard input is empty"):
        locate.find("-", io.BytesIO(b""))
