import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_calibration_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what the user's machine was calibrated to out of the tests, and theirs out of it."""
    before = os.environ.get("XDG_CACHE_HOME")
    home = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(home)
    yield home
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
