"""A plug-in that is a plain Python file: `path/to/policy.py`, or `policy.py:Name` for one of it."""

from __future__ import annotations

import hashlib
import re
import sys
import traceback
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

from servescope.traces.errors import InputError


@dataclass(frozen=True, slots=True)
class PluginFile:
    """A Python file, and the name of the class in it that is meant; None: the only one."""

    path: Path
    name: str | None = None

    @classmethod
    def of(cls, text: str) -> PluginFile | None:
        """Return the file that a text names, whether or not it is there; None if it names none."""
        found = re.fullmatch(r"(.+\.py)(?::(\w+))?", text)
        return cls(Path(found[1]), found[2]) if found else None

    def __str__(self) -> str:
        return f"{self.path}:{self.name}" if self.name else str(self.path)

    @property
    def label(self) -> str:
        """A short name: that of the class, or else of the file."""
        return self.name or self.path.stem

    def beside(self, folder: Path) -> PluginFile:
        """Return the file below a folder, if it is there, or else the same one."""
        there = folder / self.path
        return replace(self, path=there) if there.is_file() else self

    @property
    def source(self) -> bytes:
        """What stands in the file; raises InputError if it cannot be read."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise InputError(f"There is no file {self.path}.", "Check the path.") from None
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be read: {error.strerror}.", "Name a Python file."
            ) from None

    @property
    def sha256(self) -> str:
        """The digest of the file's content; raises InputError if it cannot be read."""
        return hashlib.sha256(self.source).hexdigest()

    def load(self) -> ModuleType:
        """Run the file anew and return it as a module of a private name.

        Nothing of an earlier load is kept, and nothing is written beside the file. Raises
        InputError, with the line, for a file that cannot be read or run.
        """
        source = self.source
        name = f"_servescope_plugin_{hashlib.sha256(source).hexdigest()[:16]}"
        # Python's own loader would keep compiled code, and take it for a file that was written
        # again within the second
        module = module_from_spec(ModuleSpec(name, None, origin=str(self.path)))
        module.__file__ = str(self.path)
        sys.modules[name] = module  # dataclasses and msgspec look the module of a class up
        try:
            exec(compile(source, str(self.path), "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            if isinstance(error, SyntaxError) and error.filename == str(self.path):
                wrong = f"{self.path}, line {error.lineno}: {error.msg}."
                raise InputError(wrong, "Mend the syntax.") from error
            wrong = self.fault(error) or f"{self.path} cannot be compiled: {error}."
            raise InputError(wrong, "Mend the file.") from error
        return module

    def classes(self, module: ModuleType, *methods: str) -> dict[str, type]:
        """Return the classes that the file itself defines and that have one of some methods.

        Those whose names begin with an underscore are its own business.
        """
        return {
            name: each
            for name, each in vars(module).items()
            if isinstance(each, type)
            and each.__module__ == module.__name__
            and not name.startswith("_")
            and any(callable(getattr(each, method, None)) for method in methods)
        }

    def fault(self, error: BaseException) -> str | None:
        """Say where in the file an error was raised; None if the file has no part in it."""
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self.path)]
        if not lines:
            return None
        said = f": {error}" if str(error) else ""
        return f"{self.path}, line {lines[-1]}: {type(error).__name__}{said}."
