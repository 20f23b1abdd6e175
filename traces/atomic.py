"""Files that are replaced at once or not at all: a kill leaves the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file; raises OSError if the disk does not take it."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(content)
    os.replace(partial, path)


def write_json(path: Path, value: object) -> None:
    """Replace a file by a value as JSON that a person can read."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(value), indent=2))
