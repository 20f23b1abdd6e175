"""What the tests of this room share: the original trace files, where somebody has them."""

from collections.abc import Callable
from pathlib import Path

import pytest

ORIGINALS = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def original() -> Callable[[str], Path]:
    """Return the path of an original file, or skip the test where it is not at hand."""

    def find(name: str) -> Path:
        path = ORIGINALS / name
        if not path.exists():
            pytest.skip(f"needs the original trace {name} in ../shared/data")
        return path

    return find


@pytest.fixture
def a_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a file and tells where it lies."""

    def write(content: str | bytes, name: str = "trace.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
