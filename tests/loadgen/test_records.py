from pathlib import Path

import pytest

from servescope.loadgen.program import Call
from servescope.loadgen.records import Journal, Record
from servescope.loadgen.replay import Due
from servescope.traces.errors import OutputFailed
from servescope.traces.run import frame_of_rows


def record(name: str = "a", **fields: object) -> Record:
    made = Record.of(Due(Call(name, "p", 0, 10, 5), 1.0, 0.5), "ok")
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def test_a_record_is_written_the_moment_it_is_appended(tmp_path: Path) -> None:
    """A kill after the append loses nothing, so the line must not wait in a buffer."""
    path = tmp_path / "calls.jsonl"
    with Journal(path) as journal:
        journal.append(record("a"))
        assert path.read_bytes().count(b"\n") == 1
        journal.append(record("b"))
        assert path.read_bytes().count(b"\n") == 2


def test_a_journal_is_appended_to_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    for name in "ab":
        with Journal(path) as journal:
            journal.append(record(name))
    assert [line[:15] for line in path.read_text().splitlines()] == [
        '{"call_id":"a",',
        '{"call_id":"b",',
    ]


def test_an_unknown_value_is_null_in_the_table_and_a_root_has_no_parents(tmp_path: Path) -> None:
    import msgspec

    row = frame_of_rows([msgspec.to_builtins(record())]).row(0, named=True)
    assert row["first_token_s"] is None
    assert row["cached_tokens"] is None
    assert row["parents"] == []
    assert row["due_s"] == 1.0


def test_a_call_that_is_given_up_is_due_its_delay_after_the_failure() -> None:
    made = Record.given_up(Call("b", "p", 1, 10, 5, ("a",), delay_s=2.0), 4.0)
    assert (made.status, made.due_s, made.sent_s, made.end_s) == ("not_sent", 6.0, None, 4.0)
    assert made.error == "not sent: a call it waits for failed"


def test_appending_to_a_closed_journal_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        Journal(Path("nowhere")).append(record())


def test_a_disk_that_takes_half_a_line_is_an_error(tmp_path: Path) -> None:
    """A torn line in the middle would join the next one: two calls lost, or the whole run."""

    class HalfFull:
        def write(self, line: bytes) -> int:
            return len(line) // 2

        def close(self) -> None:
            pass

    journal = Journal(tmp_path / "calls.jsonl")
    journal._file = HalfFull()  # type: ignore[assignment]
    with pytest.raises(OutputFailed, match="No space left on device"):
        journal.append(record())
