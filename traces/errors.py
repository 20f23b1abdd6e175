"""Every error that servescope raises on purpose, and the exit code each one ends the program with.

    ServescopeError
    ├── InputError           2  what the user gave cannot be used
    │   ├── NotATrace           no format recognises the source
    │   ├── BadRow              a format recognises the source, a row of it makes no sense
    │   ├── MissingColumns      the table lacks what the question needs
    │   ├── NotARun             the folder is not a run directory
    │   ├── NotAResult          the file is no tool's result, or holds no calls
    │   ├── OutputExists        the place to write is taken
    │   └── OutputFailed        the place to write cannot be written: full, read-only, forbidden
    ├── EndpointError        3  the serving endpoint cannot be used
    └── GateFailed           1  the work was done and did not pass: the run is invalid

The engine adds leaves of its own: Refused and OutOfBlocks (what was asked does not fit), Deadlock
(a policy plans nothing), BadPlan (what cannot be) and PolicyFailed (it raises). A failed call of a
replay is none of these: it is a row of the result.
"""


class ServescopeError(Exception):
    """What is wrong and how to mend it: two sentences, no traceback."""

    exit_code = 2

    def __init__(self, wrong: str, mend: str) -> None:
        super().__init__(wrong, mend)
        self.wrong = wrong
        self.mend = mend

    def __str__(self) -> str:
        stop = "" if self.wrong.rstrip().endswith((".", "!", "?")) else "."
        return f"{self.wrong.rstrip()}{stop} {self.mend}"


class InputError(ServescopeError):
    """What the user gave cannot be used."""


class NotATrace(InputError):
    """No trace format recognises the source."""


class BadRow(InputError):
    """A row of a recognised format makes no sense."""


class MissingColumns(InputError):
    """The table lacks columns that the question needs."""


class NotARun(InputError):
    """The folder is not a run directory."""


class NotAResult(InputError):
    """The file is not the result of a tool that is known, or holds no calls of its own."""


class OutputExists(InputError):
    """The place to write to is taken; nothing is ever overwritten silently."""


class OutputFailed(InputError):
    """The place to write to cannot be written; what was written before is kept."""

    @classmethod
    def of(cls, path: object, error: OSError) -> "OutputFailed":
        """Say what the operating system said of a path."""
        return cls(
            f"{path} cannot be written: {error.strerror or error}.",
            "Choose a folder with room and the right to write; what was written before is kept.",
        )


class EndpointError(ServescopeError):
    """The serving endpoint cannot be used."""

    exit_code = 3


class GateFailed(ServescopeError):
    """The work was done and did not pass."""

    exit_code = 1
