import re
from pathlib import Path

import msgspec

from servescope.traces import Provenance

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "schema.md"


def test_every_field_is_on_its_page_and_none_is_made_up() -> None:
    _, _, section = PAGE.read_text().partition("\n## Provenance\n")
    cells = re.findall(r"^\| (`[^|]+) \|", section, flags=re.MULTILINE)
    listed = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(listed) == sorted(Provenance.__struct_fields__)


def test_what_is_unknown_is_not_written() -> None:
    assert msgspec.json.decode(msgspec.json.encode(Provenance(format="f", source="s"))) == {
        "format": "f",
        "source": "s",
    }
