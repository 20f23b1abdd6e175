"""What holds for every format, and for formats that strangers add."""

import gzip
import re
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from servescope.traces import BUNDLED, Provenance, Trace, formats, load
from servescope.traces.errors import BadRow, InputError, MissingColumns, NotATrace
from servescope.traces.formats import BUILT_IN, Format, locate
from servescope.traces.formats.gather import MOVED
from servescope.traces.formats.source import Source

ROOT = Path(__file__).parents[3]
DATA = ROOT / "traces" / "data"
PAGES = ROOT / "docs" / "reference" / "formats"
TEXT = {"burstgpt_v1.csv", "burstgpt_v3.csv", "azure_2023_code.csv", "mooncake_synthetic.jsonl.gz"}


def unpacked(name: str) -> bytes:
    content = (DATA / name).read_bytes()
    return gzip.decompress(content) if name.endswith(".gz") else content


def strangers(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    found = [EntryPoint(name, value, "servescope.formats") for name, value in points.items()]
    monkeypatch.setattr(
        "servescope.traces.plugins.entry_points",
        lambda *, group: found if group == "servescope.formats" else [],
    )


def a_module(monkeypatch: pytest.MonkeyPatch, **names: object) -> str:
    module = ModuleType("a_strangers_module")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def never_read(source: Source) -> Trace:
    raise AssertionError(source)


@pytest.mark.parametrize("sample", BUNDLED.values(), ids=list(BUNDLED))
def test_exactly_one_format_recognises_a_file(sample: object) -> None:
    head = unpacked(sample.file)[:65_536]
    assert [name for name, form in BUILT_IN.items() if form.sniff(head)] == [sample.format]


@pytest.mark.parametrize("name", sorted(TEXT))
@pytest.mark.parametrize(
    "change",
    [
        gzip.compress,
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"\r\n", b"\n"),
        lambda text: text.rstrip(),
        lambda text: text.rstrip() + b"\n\n\n",
        lambda text: gzip.compress(b"\xef\xbb\xbf" + text.replace(b"\r", b"").rstrip()),
    ],
    ids=["gzip", "byte order mark", "CRLF", "LF", "no last newline", "blank lines", "all"],
)
def test_the_packing_of_a_file_changes_nothing_in_it(
    a_file: Callable[..., Path], name: str, change: Callable[[bytes], bytes]
) -> None:
    text = unpacked(name)
    plain = load(a_file(text, "plain"))
    packed = load(a_file(change(text), "packed"))
    assert packed.collect().equals(plain.collect())
    assert packed.provenance.rows_read == plain.provenance.rows_read
    assert packed.provenance.doubts == plain.provenance.doubts


@pytest.mark.parametrize("form", BUILT_IN)
@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01\xff\xfe" * 50,
        b"\n\n\n",
        b"hello",
        b"a,b\n1,2\n",
        b'{"timestamp": 3}',
        b"PAR1",
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n",
        b"Timestamp,Model,Request tokens,Response tokens,Log Type",
        b"Timestamp,Model,Request tokens,Response tokens,Log Type\n\n\n",
        "Timestamp,Mod\u00e8le\n1,2\n".encode("latin-1"),
        b"a, a\n1,2\n",
        gzip.compress(b"", mtime=0),
        gzip.compress(b"TIMESTAMP,ContextTokens,GeneratedTokens\n" * 9, mtime=0)[:-9],
        b"\x1f\x8b\x00\x00",
    ],
)
def test_whatever_cannot_be_read_is_the_users_input_and_no_traceback(
    a_file: Callable[..., Path], form: str, content: bytes
) -> None:
    path = a_file(content)
    with pytest.raises(InputError) as named:
        load(path, format=form).collect()
    with pytest.raises(InputError) as detected:
        load(path).collect()
    for error in (named.value, detected.value):
        assert error.wrong.endswith((".", "'"))
        assert error.mend.endswith(".")
        assert "\n" not in str(error)


def test_an_unknown_text_is_shown_by_its_first_line(a_file: Callable[..., Path]) -> None:
    with pytest.raises(NotATrace, match=r"Its first line is 'zeit;tokens'\. Name the format"):
        load(a_file("zeit;tokens\n1;2\n"))


def test_a_first_record_may_be_longer_than_the_first_look(a_file: Callable[..., Path]) -> None:
    line = f'{{"note": "{"x" * 200_000}", "timestamp": 0, "input_length": 1, "output_length": 1'
    (file,) = locate.find(str(a_file(line + ', "hash_ids": [1]}\n')))
    assert formats.recognise(file) == "mooncake"


def test_a_binary_file_is_called_one(a_file: Callable[..., Path]) -> None:
    with pytest.raises(NotATrace, match="It is a binary file"):
        load(a_file(bytes(range(256))))


@pytest.mark.parametrize("form", ["burstgpt", "azure"])
def test_a_named_format_says_which_columns_it_misses(
    a_file: Callable[..., Path], form: str
) -> None:
    with pytest.raises(MissingColumns, match=r"has no .* It has a, b;"):
        load(a_file("a,b\n1,2\n"), format=form)


def test_every_format_has_its_page_and_its_line_in_the_index() -> None:
    index = (PAGES / "index.md").read_text()
    for name, form in BUILT_IN.items():
        assert f"| [`{name}`]({name}.md) |" in index
        page = (PAGES / f"{name}.md").read_text()
        assert "**Recognised by**" in page
        assert "icence" in page
        assert "## Doubts said" in page
        assert form.says
    for name in BUNDLED:
        assert f"| `{name}` | {load(name).provenance.rows_read:,} |" in index


@pytest.mark.parametrize("name", BUNDLED)
def test_every_doubt_that_a_reader_says_is_on_its_page(name: str) -> None:
    trace = load(name)
    page = (PAGES / f"{trace.provenance.format}.md").read_text()
    assert all(f"*{doubt}*" in page for doubt in trace.provenance.doubts)


@pytest.mark.parametrize("page", ["index.md", "canonical.md"])
def test_the_examples_on_the_pages_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, page, "exec"), names)
    assert isinstance(names["trace"], Trace)
    assert names["trace"].collect().height > 0


def test_a_stranger_adds_a_format(
    monkeypatch: pytest.MonkeyPatch, a_file: Callable[..., Path]
) -> None:
    sample = load("azure:sample").frame.head(2)

    def read(source: Source) -> Trace:
        return Trace.of(sample, Provenance(format="odd", source=source.name))

    odd = Format(lambda head: head.startswith(b"ODD"), read, "odd files")
    strangers(monkeypatch, odd=f"{a_module(monkeypatch, odd=odd)}:odd")
    assert load(a_file("ODD 1")).provenance.format == "odd"
    assert load(a_file("even"), format="odd").collect().height == 2
    assert list(formats.formats()) == ["odd", *BUILT_IN]
    with pytest.raises(NotATrace, match="Its first line is 'EVEN'"):
        load(a_file("EVEN"))
    with pytest.raises(InputError, match="Known: odd, burstgpt"):
        load(a_file("EVEN"), format="even")


def test_a_stranger_can_recognise_a_dialect_before_the_built_in_format(
    monkeypatch: pytest.MonkeyPatch, a_file: Callable[..., Path]
) -> None:
    dialect = Format(lambda head: b'"dialect"' in head, BUILT_IN["mooncake"].read, "a dialect")
    strangers(monkeypatch, dialect=f"{a_module(monkeypatch, it=dialect)}:it")
    line = '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1], "dialect": 1}'
    (file,) = locate.find(str(a_file(line)))
    form, files, doubts = formats.choose([file], "it")
    assert (form, files, doubts) == (dialect, (file,), [])


def test_a_stranger_cannot_take_a_built_in_name(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Format(lambda head: True, never_read, "not azure")
    strangers(monkeypatch, azure=f"{a_module(monkeypatch, it=taken)}:it")
    assert formats.formats()["azure"] is BUILT_IN["azure"]
    assert formats.named("azure") is BUILT_IN["azure"]


def test_a_broken_stranger_is_named_and_leaves_the_built_in_formats_alone(
    monkeypatch: pytest.MonkeyPatch, a_file: Callable[..., Path]
) -> None:
    strangers(monkeypatch, broken="there_is_no_such_module:it")
    with pytest.raises(
        InputError, match=r"'broken' of servescope.formats \(there_is_no_such_module:it\) cannot be"
    ):
        load(a_file("hello"))
    assert load("azure:sample").provenance.rows_read == 1500


def test_the_how_to_makes_a_format_that_works(
    monkeypatch: pytest.MonkeyPatch, a_file: Callable[..., Path]
) -> None:
    """The page's log, module and entry point are taken as they stand there."""
    page = (ROOT / "docs" / "how-to" / "add-a-trace-format.md").read_text()
    blocks = {
        title: text
        for title, text in re.findall(r'```\w+ title="(.+?)"\n(.*?)```', page, flags=re.DOTALL)
    }
    points = tomllib.loads(blocks["pyproject.toml"])["project"]["entry-points"]
    module = ModuleType("gateway_format")
    exec(compile(blocks["gateway_format.py"], "gateway_format.py", "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "gateway_format", module)
    strangers(monkeypatch, **points["servescope.formats"])

    for content in (blocks["gateway.log"].encode(), gzip.compress(blocks["gateway.log"].encode())):
        trace = load(a_file(content, "gateway.log"))
        calls = trace.collect()
        assert calls["arrival_s"].to_list() == [0.0, 0.25, 1.75]
        assert calls["source_row"].to_list() == [2, 1, 3]
        assert calls["output_tokens"].to_list() == [None, 64, 64]
        assert trace.provenance.t0 == "1700000000000 ms since 1970-01-01 UTC"
        assert trace.provenance.doubts == (MOVED,)
    with pytest.raises(BadRow, match=r"gateway\.log, line 2: 'x y' is not three numbers"):
        load(a_file("#gateway 1\nx y\n", "gateway.log"))
    with pytest.raises(BadRow, match="has no row that can be read"):
        load(a_file("#gateway 1\n", "gateway.log"))
