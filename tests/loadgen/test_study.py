"""A study says what is wrong with it, where, and how to mend it, before anything is launched."""

import re
from pathlib import Path

import msgspec
import pytest
import tomli_w

from servescope.loadgen import study as studying
from servescope.loadgen.study import LaunchSpec, Load, StopSpec, Study, SystemSpec, digest
from servescope.traces.errors import InputError

ENGINE = '[[systems]]\nname = "a"\nengine = { system = "sarathi" }\n'
TRACE = '[[workloads]]\nname = "w"\ntrace = "azure:sample"\n'
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "study.md"


def read(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return studying.read(path)


def test_the_smallest_study_is_one_system_and_one_workload_as_it_is(tmp_path: Path) -> None:
    study = read(tmp_path, ENGINE + TRACE)
    assert study.loads == (Load(),)
    assert (study.repeats, study.order) == (1, "balanced")
    assert study.loads[0].of(study.workloads[0]) == study.workloads[0].spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ENGINE + TRACE + "calls = 0", r"\$\.workloads\[0\]\.calls"),
        (ENGINE + "colour = 1\n" + TRACE, r"unknown field `colour` - at `\$\.systems\[0\]`"),
        ("speed = 1\n" + ENGINE + TRACE, "unknown field `speed`"),
        (TRACE, "missing required field `systems`"),
        ("systems = []\n" + TRACE, r"has no system. Describe one: \[\[systems\]\]"),
        ("workloads = []\n" + ENGINE, "has no workload"),
        (ENGINE + ENGINE + TRACE, "2 systems are called 'a'"),
        (ENGINE + ENGINE.replace('"a"', '"A"') + TRACE, "capitals do not tell them apart"),
        (ENGINE + TRACE + TRACE, "2 workloads are called 'w'"),
        ("rates = [1]\nspeed_ups = [1]\n" + ENGINE + TRACE, "rates and speed_ups each say"),
        ("rates = [1, 2, 1]\n" + ENGINE + TRACE, "rates holds a number twice"),
        ("rates = [0]\n" + ENGINE + TRACE, r"\$\.rates\[0\]|> 0"),
        ("rates = [1]\n" + ENGINE + TRACE + "time_scale = 0.5", "'w' has a rate or a time scale"),
        ("rates = [1]\n" + ENGINE + TRACE + "rate_rps = 3", "'w' has a rate or a time scale"),
        (
            "speed_ups = [2]\n" + ENGINE + '[[workloads]]\nname = "w"\nsynthetic = {}\n',
            "does not start as a trace recorded it",
        ),
        ('slo = "ttft<5"\n' + ENGINE + TRACE, "has no unit"),
        ('[[systems]]\nname = "a"\n' + TRACE, "'a' is either an endpoint or an engine"),
        (ENGINE + 'launch = { command = "x" }\n' + TRACE, "'a' launches what is no endpoint"),
        (
            '[[systems]]\nname = "a"\nreal = true\nendpoint = { base_url = "http://x" }\n' + TRACE,
            "'a' is real as it is",
        ),
        (ENGINE.replace('"a"', '"../a"') + TRACE, r"\$\.systems\[0\]\.name"),
        (ENGINE.replace('"a"', '"reports"') + TRACE, "cannot be called 'reports'"),
        (ENGINE + '[[workloads]]\nname = "w"\n', "Workload 'w': A workload is either a trace or"),
        ("systems = 3\x00", "is not a study"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        read(tmp_path, text)
    assert "study.toml" in str(raised.value)


def test_a_file_that_is_not_there_is_an_error_of_the_user(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match="is no file"):
            studying.read(path)


@pytest.mark.parametrize(
    "launch",
    [
        {"command": ["serve", "--api-key", "abc"]},
        {"command": "serve --api-key=abc"},
        {"command": "x", "env": {"MY_SECRET": "abc"}},
        {"command": "x", "stop": {"command": "end --password abc"}},
    ],
)
def test_a_secret_in_a_launch_is_refused_for_it_would_be_written_down(
    launch: dict[str, object],
) -> None:
    system = {"name": "a", "endpoint": {"base_url": "http://x"}, "launch": launch}
    with pytest.raises(InputError, match="looks like a secret"):
        msgspec.convert(system, SystemSpec)


def test_a_secret_that_is_named_by_a_variable_is_taken() -> None:
    system = {
        "name": "a",
        "endpoint": {"base_url": "http://x"},
        "launch": {"command": "serve --api-key $KEY --port {port}"},
    }
    assert msgspec.convert(system, SystemSpec).launch is not None


def test_a_health_url_is_a_path_or_a_url() -> None:
    system = {
        "name": "a",
        "endpoint": {"base_url": "http://x"},
        "launch": {"command": "x", "health": "ftp://x"},
    }
    with pytest.raises(InputError, match="is no health URL"):
        msgspec.convert(system, SystemSpec)


def test_a_rate_stretches_a_trace_and_draws_made_up_starts(tmp_path: Path) -> None:
    text = ENGINE + TRACE + '[[workloads]]\nname = "m"\nsynthetic = {}\n'
    text += '[[workloads]]\nname = "g"\ntrace = "azure:sample"\n'
    text += 'arrivals = { process = "gamma", params = { burstiness = 0.5 } }\n'
    study = read(tmp_path, "rates = [4]\n" + text)
    trace, made_up, drawn = (study.loads[0].of(workload) for workload in study.workloads)
    assert (trace.rate_rps, trace.arrivals) == (4.0, None)
    assert made_up.arrivals is not None
    assert (made_up.arrivals.process, made_up.arrivals.rate_rps) == ("poisson", 4.0)
    assert drawn.arrivals is not None
    assert (drawn.arrivals.process, drawn.arrivals.rate_rps) == ("gamma", 4.0)
    assert drawn.rate_rps is None


def test_a_speed_up_of_two_halves_the_time_scale(tmp_path: Path) -> None:
    study = read(tmp_path, "speed_ups = [2]\n" + ENGINE + TRACE + "time_scale = 0.5\n")
    assert study.loads[0].of(study.workloads[0]).time_scale == 0.25


def test_a_study_is_the_same_after_it_was_written_and_its_digest_is_of_what_is_asked(
    tmp_path: Path,
) -> None:
    launched = (
        '[[systems]]\nname = "b"\nendpoint = { base_url = "http://127.0.0.1:{port}" }\n'
        'launch = { command = ["x"], stop = { signal = "INT" } }\n'
    )
    study = read(tmp_path, "rates = [1, 2]\n" + ENGINE + launched + TRACE)
    again = read(tmp_path, tomli_w.dumps(studying.to_toml(study)))
    assert again == study
    assert digest(again) == digest(study)
    reworded = read(tmp_path, "# a comment\nrates = [1.0, 2]\n" + ENGINE + launched + TRACE)
    assert digest(reworded) == digest(study)
    other = read(tmp_path, "rates = [1, 3]\n" + ENGINE + launched + TRACE)
    assert digest(other) != digest(study)


@pytest.mark.parametrize(
    ("heading", "struct"),
    [
        ("Top", Study),
        ("[[systems]]", SystemSpec),
        ("[systems.launch]", LaunchSpec),
        ("[systems.launch.stop]", StopSpec),
    ],
)
def test_every_key_of_a_study_is_listed_in_its_table(
    heading: str, struct: type[msgspec.Struct]
) -> None:
    tables = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (table,) = (each for each in tables if each.splitlines()[0].strip("`") == heading)
    keys = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]+)\|", table, re.MULTILINE)))
    assert set(keys) == set(struct.__struct_fields__)


def test_the_study_on_its_page_can_be_read(tmp_path: Path) -> None:
    for shown in re.findall(r"```toml.*?\n(.*?)```", PAGE.read_text(), re.DOTALL):
        assert read(tmp_path, shown).systems


def test_a_study_of_a_python_file_is_another_one_once_the_file_is(tmp_path: Path) -> None:
    text = ENGINE.replace("sarathi", "policy.py") + TRACE
    digests = []
    for folder, source in (("a", "x = 1"), ("b", "x = 1"), ("c", "x = 2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "policy.py").write_text(source)
        digests.append(digest(read(tmp_path / folder, text)))
    assert digests[0] == digests[1] != digests[2]
