"""Every error that servescope raises on purpose, and the exit code each one ends the program with.

    ServescopeError
    ├── InputError           2  what the user gave cannot be used
    │   ├── NotATrace           no format recognises the source
    │   ├── BadRow              a format recognises the source, a row of it makes no sense
    │   ├── MissingColumns      the table lacks what the question needs
    │   ├── NotARun             the folder is not a run directory
    │   └── OutputExists        the place to write is taken
    ├── EndpointError        3  the serving endpoint cannot be used
    └── GateFailed           1  the work was done and did not pass: the run is invalid

A failed call of a replay is none of these: it is a row of the result.
"""


class ServescopeError(Exception):
    """What is wrong and how to mend it: two sentences, no traceback."""

    exit_code = 2

    def __init__(self, wrong: str, mend: str) -> None:
        super().__init__(wrong, mend)
        self.wrong = wrong
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.wrong} {self.mend}"


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


class OutputExists(InputError):
    """The place to write to is taken; nothing is ever overwritten silently."""


class EndpointError(ServescopeError):
    """The serving endpoint cannot be used."""

    exit_code = 3


class GateFailed(ServescopeError):
    """The work was done and did not pass."""

    exit_code = 1
