"""The manual cannot rot: what it names exists, what exists is named, what it shows runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from servescope.analysis.arrivals import PROCESSES
from servescope.analysis.metrics import METRICS
from servescope.analysis.models.model import Model
from servescope.analysis.profiles import PROFILES
from servescope.cli.main import app
from servescope.engine import SYSTEMS
from servescope.loadgen import endpoints, validity
from servescope.loadgen.dispatch import DISPATCH, PRIORITY
from servescope.loadgen.experiment import Experiment, WorkloadSpec
from servescope.loadgen.health import Health
from servescope.loadgen.papers import WORKLOADS, parameters_of
from servescope.loadgen.probe import Probe
from servescope.loadgen.records import Record
from servescope.loadgen.runner import workload_of
from servescope.reports.sections import SECTIONS
from servescope.traces import BUNDLED, RunInfo, status
from servescope.traces import server as server_metrics
from servescope.traces.formats import BUILT_IN as FORMATS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ROOMS = ("traces", "analysis", "engine", "loadgen", "reports", "dashboards", "cli")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
# A plug-in each, which is run by the tests of what it plugs into.
RUN_ELSEWHERE = {"docs/explanation/engine.md", "docs/how-to/add-a-trace-format.md"}
COMMAND = typer.main.get_command(app)
UsageError = typer.BadParameter.__mro__[1]  # click's, or that of typer's own copy of click

PYTHON = re.compile(r"```python[^\n]*\n(.*?)```", re.DOTALL)

each_page = pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)


def text_of(page: str) -> str:
    return (DOCS / page).read_text()


def names(text: str) -> set[str]:
    """Return what stands between single backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))


# --- the command line ---------------------------------------------------------------------------


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_systems_is_fresh() -> None:
    script = load_script(DOCS / "system_reference.py")
    assert text_of("reference/systems.md") == script.page(), "run: python docs/system_reference.py"


def test_the_page_of_the_characterisation_is_fresh() -> None:
    script = load_script(DOCS / "characterization_reference.py")
    page = text_of("reference/characterization.md")
    assert page == script.page(), "run: python docs/characterization_reference.py"


def test_the_page_of_the_fidelity_is_fresh() -> None:
    script = load_script(DOCS / "fidelity_reference.py")
    assert text_of("reference/fidelity.md") == script.page(), (
        "run: python docs/fidelity_reference.py"
    )


def test_the_page_of_the_presets_is_fresh() -> None:
    script = load_script(DOCS / "presets_reference.py")
    assert text_of("reference/presets.md") == script.page(), "run: python docs/presets_reference.py"


def test_the_page_of_the_command_line_is_fresh() -> None:
    script = load_script(DOCS / "cli_reference.py")
    assert text_of("reference/cli.md") == script.page(), "run: python docs/cli_reference.py"


def test_the_page_of_metric_profiles_is_fresh_and_has_every_field() -> None:
    script = load_script(DOCS / "profile_reference.py")
    page = text_of("reference/metric-profiles.md")
    assert page == script.page(), "run: python docs/profile_reference.py"
    fields = {field.name for profile in PROFILES.values() for field in profile.fields}
    assert fields <= names(page)


def test_every_profile_stands_in_every_comparison_of_definitions() -> None:
    tables = text_of("explanation/definitions.md").split("## ")
    for title, _, text in (part.partition("\n") for part in tables[2:-1]):
        tools = {profile.version.split()[0] for profile in PROFILES.values()}
        known = {"0.1.0": "MLPerf", "the": "LLMPerf"}
        missing = {known.get(tool, tool) for tool in tools} - set(re.findall(r"[\w-]+", text))
        assert not missing, f"{title}: {missing}"


def leaves(command: Any = COMMAND, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    children = getattr(command, "commands", None)
    if not children:
        yield words
    for name, child in (children or {}).items():
        yield from leaves(child, (*words, name))


@pytest.mark.parametrize("words", list(leaves()), ids=" ".join)
def test_every_verb_is_shown_somewhere_besides_its_reference(words: tuple[str, ...]) -> None:
    said = " ".join(["servescope", *words])
    pages = [page for page in PAGES if page.name != "cli.md"]
    assert any(said in page.read_text() for page in pages)


def shown_commands(text: str) -> list[str]:
    """Return the lines of the shell blocks that call servescope, without what is around them."""
    found = []
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            tokens = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            tokens.whitespace_split = True
            operators = {"&", "&&", "|", "||", ";", ">"}
            for between, words in groupby(tokens, operators.__contains__):
                called = [word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word)]
                if not between and called and Path(called[0]).name == "servescope":
                    found.append(shlex.join(called[1:]))
    return found


def parse(args: list[str]) -> None:
    """Parse arguments as the program does, without running anything; raises UsageError."""
    command: Any = COMMAND
    context = command.make_context("servescope", list(args))
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@each_page
def test_the_commands_in_shell_blocks_would_run(page: Path) -> None:
    for line in shown_commands(page.read_text()):
        try:
            parse(shlex.split(line))
        except typer.Exit:  # --help, --version
            pass
        except UsageError as error:
            pytest.fail(f"servescope {line}: {error}")


@each_page
def test_commands_in_the_prose_name_verbs_and_options_that_exist(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for said in re.findall(r"`servescope ([^`]+)`", prose):
        command: Any = COMMAND
        for word in said.replace("...", "").split():
            known = {name for option in command.params for name in option.opts} | {"--help", "-h"}
            if word.startswith("-"):
                assert word in known, f"servescope {said}"
            elif hasattr(command, "commands"):
                assert word in command.commands, f"servescope {said}"
                command = command.commands[word]


def test_the_parser_of_this_file_finds_faults() -> None:
    block = (
        "```sh\nA=b .venv/bin/servescope replay x --nope &\n# servescope\nservescope report\n```"
    )
    assert shown_commands(block) == ["replay x --nope", "report"]
    with pytest.raises(UsageError, match="nope"):
        parse(["replay", "x", "--nope"])
    with pytest.raises(UsageError, match="Missing"):
        parse(["report"])
    with pytest.raises(UsageError, match="No such command"):
        parse(["traces", "lisst"])


# --- what exists is named -----------------------------------------------------------------------


def entry_point_groups() -> set[str]:
    sources = (path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {
        group for text in sources for group in re.findall(r'installed\("(servescope\.\w+)"', text)
    }


def test_the_groups_of_entry_points_are_those_that_are_known_here() -> None:
    points = {
        "arrivals", "dispatch", "endpoints", "formats", "priority", "sections", "systems",
        "workloads",
    }  # fmt: skip
    assert entry_point_groups() == {f"servescope.{point}" for point in points}


@pytest.mark.parametrize("group", sorted(entry_point_groups()))
def test_every_plug_in_point_is_in_the_table_and_has_a_page_with_its_entry_point(
    group: str,
) -> None:
    row = next(line for line in text_of("explanation/design.md").splitlines() if group in line)
    links = re.findall(r"\]\(([^)#]+)", row)
    assert links
    page = (DOCS / "explanation" / links[-1]).read_text()
    assert f'[project.entry-points."{group}"]' in page


@pytest.mark.parametrize(
    ("page", "known"),
    [
        (
            "explanation/design.md",
            {
                *FORMATS,
                *endpoints.BUILT_IN,
                *SECTIONS,
                *PROCESSES,
                *DISPATCH,
                *PRIORITY,
                *WORKLOADS,
            },
        ),
        ("reference/arrivals.md", set(PROCESSES)),
        (
            "reference/workloads.md",
            {*WORKLOADS, *(key for each in WORKLOADS.values() for key in parameters_of(each))},
        ),
        ("reference/dispatch.md", {*DISPATCH, *PRIORITY}),
        ("reference/statuses.md", {v for k, v in vars(status).items() if k.isupper()}),
        ("how-to/replay-a-trace.md", set(endpoints.BUILT_IN)),
        ("how-to/add-a-report-section.md", set(SECTIONS)),
        ("reference/formats/index.md", {*FORMATS, *BUNDLED}),
        ("reference/experiment.md", set(endpoints.BUILT_IN)),
        ("reference/dialects.md", set(endpoints.BUILT_IN)),
        ("reference/systems.md", set(SYSTEMS)),
        ("reference/metric-profiles.md", set(PROFILES)),
    ],
)
def test_what_is_built_in_is_listed(page: str, known: set[str]) -> None:
    assert known <= names(text_of(page).replace("[`", "`"))


def test_every_field_of_a_run_is_listed() -> None:
    page = text_of("reference/run-directory.md")
    plan = workload_of(WorkloadSpec(trace="mooncake:sample", calls=2), 0).plan()
    fields = {*RunInfo.__struct_fields__, *Probe.__struct_fields__, *Record.__struct_fields__}
    assert fields | set(plan.columns) | set(Health.__dataclass_fields__) <= names(page)


def keys_of(struct: type[msgspec.Struct], above: str = "") -> dict[str, set[str]]:
    """The keys of every table below a struct, by the table's name."""
    keys: dict[str, set[str]] = {}
    for field in msgspec.structs.fields(struct):
        for part in getattr(field.type, "__args__", (field.type,)):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                keys[above + field.name] = set(part.__struct_fields__)
                keys |= keys_of(part, f"{above}{field.name}.")
    return keys


def test_every_metric_that_is_taken_from_a_server_is_listed() -> None:
    known = {*server_metrics.KNOWN, *server_metrics.KNOWN_NAMES, *server_metrics.SCHEMA}
    assert known <= names(text_of("reference/server-metrics.md"))


def structs_in(kind: Any) -> set[type[msgspec.Struct]]:
    """The structs that a type is made of, itself among them."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        return {kind}.union(*(structs_in(field.type) for field in fields))
    return set().union(*(structs_in(part) for part in getattr(kind, "__args__", ())))


def test_every_field_and_shape_of_a_model_file_is_listed() -> None:
    found = structs_in(Model)
    fields = {name for struct in found for name in struct.__struct_fields__}
    tags = {str(struct.__struct_config__.tag) for struct in found if struct.__struct_config__.tag}
    assert fields | tags <= names(text_of("reference/model-file.md"))


def test_every_key_of_an_experiment_is_listed_in_its_table() -> None:
    head, *tables = re.split(r"^## ", text_of("reference/experiment.md"), flags=re.MULTILINE)
    listed = {
        table.splitlines()[0].strip("`[] "): set(
            re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]+)\|", table, re.MULTILINE)))
        )
        for table in tables
    }
    assert listed == {"Top": set(Experiment.__struct_fields__), **keys_of(Experiment)}
    (example,) = re.findall(r"```toml.*?\n(.*?)```", head, re.DOTALL)
    assert msgspec.toml.decode(example, type=Experiment).endpoint is not None


def test_the_thresholds_of_validity_are_those_of_the_code() -> None:
    page = text_of("explanation/validity.md")
    suspect, invalid = validity.SUSPECT_LAG_S * 1000, validity.INVALID_LAG_S * 1000
    assert f"| over {suspect:g} ms | over {invalid:g} ms |" in page
    assert f"| over {validity.SUSPECT_CPU * 100:g} % |" in page


def test_every_metric_is_in_the_glossary() -> None:
    words = re.findall(r"^\| ([^|]+) \|", text_of("glossary.md"), re.MULTILINE)
    labels = {metric.label.removesuffix(" from due") for metric in METRICS.values()}
    renamed = {"Longest stall": "stall", "Schedule lag": "lag"}
    assert {renamed.get(label, label) for label in labels} <= set(words)


# --- what is shown holds ------------------------------------------------------------------------


@each_page
def test_relative_links_point_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        there = page.parent / path if path else page
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", t).strip().lower().replace(" ", "-") for t in titles}
            assert anchor in slugs, target


@pytest.mark.parametrize(
    "page",
    sorted(
        {str(page.relative_to(ROOT)) for page in PAGES if PYTHON.search(page.read_text())}
        - RUN_ELSEWHERE
    ),
)
def test_python_on_the_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("shown")
    monkeypatch.setitem(sys.modules, "shown", module)  # dataclasses and msgspec look it up
    monkeypatch.chdir(tmp_path)
    for block in PYTHON.findall((ROOT / page).read_text()):
        exec(compile(block, page, "exec"), module.__dict__)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/tutorials/first-verdict.md"])
def test_the_verdict_that_is_quoted_is_the_one_that_the_demo_gives(
    page: str, demo_verdict: str
) -> None:
    quoted = re.findall(r"^> \*\*Verdict:\*\* (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert quoted == [demo_verdict], "say it anew, and read what the page says of it"


@pytest.fixture(scope="module")
def demo_verdict(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("docs") / "demo"
    shown = CliRunner().invoke(app, ["demo", "--simulate", "--out", str(out)])
    assert shown.exit_code == 0, shown.output
    (verdict,) = re.findall(r"^Verdict: (.*)$", shown.output, re.MULTILINE)
    return str(verdict)


def test_every_module_named_in_the_manual_is_there() -> None:
    for page in PAGES:
        for dotted in re.findall(r"\bservescope(?:\.[a-z_]+)+", page.read_text()):
            assert dotted in entry_point_groups() or importable(dotted), f"{page.name}: {dotted}"


def importable(dotted: str) -> bool:
    """Tell whether a dotted name is a module, or a name in one."""
    if importlib.util.find_spec(dotted.rpartition(".")[0]) is None:
        return False
    try:
        return bool(import_module(dotted))
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return hasattr(import_module(module), name)
