"""What ships: every package and data file is in the wheel, and the wheel works away from here."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("traces", "analysis", "engine", "loadgen", "reports", "dashboards", "cli")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git tracks and what is new, so no build folder stays."""
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", out]
    subprocess.run([*pip, "wheel", *map(str, options), str(source)], check=True)
    (built,) = out.glob("*.whl")
    return built


def test_every_folder_with_code_is_a_package_of_the_distribution() -> None:
    found = {
        ".".join(("servescope", *path.parent.relative_to(ROOT).parts))
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }
    assert found == set(PROJECT["tool"]["setuptools"]["packages"])


def test_there_is_no_package_that_everybody_would_reach_for() -> None:
    banned = {"common", "utils", "core", "base", "helpers", "util"}
    names = {path.stem for room in ROOMS for path in (ROOT / room).rglob("*")}
    assert not names & banned


def test_the_wheel_holds_servescope_alone_with_its_data_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"servescope", wheel.name.replace("-py3-none-any.whl", ".dist-info")}
    shipped = set(names)
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"servescope/{path.relative_to(ROOT)}" in shipped


def test_the_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """The demo from the unpacked wheel, in another folder, out of reach of the checkout."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sys\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in type(f).__module__"
        " and 'editable' not in repr(f)]\n"
        "sys.path = [p for p in sys.path if 'editable' not in p]\n"
        "sys.path_hooks = [h for h in sys.path_hooks if 'editable' not in repr(h)]\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "import servescope.traces\n"
        f"assert servescope.traces.__file__.startswith({str(site)!r}), servescope.traces.__file__\n"
        "sys.argv = ['servescope', 'demo', '--simulate', '--out', 'demo']\n"
        "from servescope.cli.main import main\n"
        "main()\n"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV"))}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "Verdict: sarathi served it better" in ran.stdout
    assert (tmp_path / "demo" / "report.html").exists()


def test_lower_bounds_are_stated_and_upper_bounds_are_not() -> None:
    for need in PROJECT["project"]["dependencies"]:
        assert ">=" in need
        assert "<" not in need.split(";")[0]


def test_the_lock_pins_everything_that_is_needed() -> None:
    locked = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    needed = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    for need in needed:
        assert need.split(">=")[0].lower() in locked
