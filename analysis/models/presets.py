"""Models that ship with servescope, fitted to public traces, by name."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.resources import files
from importlib.resources.abc import Traversable

from servescope.analysis.models.model import Model
from servescope.traces.errors import InputError

_SUFFIX = ".json"


def listed(folder: Traversable) -> dict[str, Traversable]:
    """Return the model files of a folder by name; none if there is no folder."""
    if not folder.is_dir():
        return {}
    found = {each.name: each for each in folder.iterdir() if each.name.endswith(_SUFFIX)}
    return {name.removesuffix(_SUFFIX): found[name] for name in sorted(found)}


PRESETS: dict[str, Traversable] = listed(files("servescope.analysis.models") / "data")


def load_preset(name: str) -> Model:
    """Return the preset of a name; raises InputError for one that is none."""
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=3, cutoff=0.3) or list(PRESETS)
        mend = f"Near it: {', '.join(near)}." if near else "No models ship with this servescope."
        raise InputError(f"There is no preset '{name}'.", mend)
    return Model.from_json(PRESETS[name].read_bytes(), name)
