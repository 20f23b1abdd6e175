"""What becomes of rows that make no sense: the first one ends the reading, or each is put aside."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import msgspec

from servescope.traces.errors import BadRow, OutputExists, OutputFailed

SHOWN_BYTES = 2000


class Rejects:
    """Raises BadRow at the first bad row, or writes each to a side file and counts the reasons.

    The side file is JSON lines of `{"where", "reason", "problem", "row"}`, made when the first row
    goes there; `row` is cut to 2,000 bytes. Raises OutputExists if a file of that name is there.
    """

    def __init__(self, aside: Path | None = None) -> None:
        self.aside = aside
        self.counts: dict[str, int] = {}
        self._one_at_a_time = Lock()  # a batch is read while the one before it is checked

    def add(self, where: str, problem: str, mend: str, *, reason: str, row: bytes = b"") -> None:
        """Refuse a row: `problem` says what is wrong in it, `reason` is the kind it counts as."""
        if self.aside is None:
            raise BadRow(f"{where}: {problem}", mend)
        shown = row[:SHOWN_BYTES].decode(errors="replace")
        line = {"where": where, "reason": reason, "problem": problem, "row": shown}
        with self._one_at_a_time:
            self._write(self.aside, msgspec.json.encode(line) + b"\n", is_first=not self.total)
            self.counts[reason] = self.counts.get(reason, 0) + 1

    def _write(self, aside: Path, line: bytes, *, is_first: bool) -> None:
        try:
            with aside.open("xb" if is_first else "ab") as file:
                file.write(line)
        except FileExistsError:
            raise OutputExists(
                f"{aside} exists already.", "Move it away, or name another with --rejected."
            ) from None
        except OSError as error:
            raise OutputFailed.of(aside, error) from None

    @property
    def total(self) -> int:
        """How many rows were put aside."""
        return sum(self.counts.values())
