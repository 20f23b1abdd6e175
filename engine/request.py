"""One request from its arrival to its last token."""

from dataclasses import dataclass, field
from enum import Enum


class Status(Enum):
    """Where a request is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Request:
    """A prompt to compute and tokens to generate, with the engine's state of it.

    `output_tokens` is the hidden truth: the engine stops there, and no policy may read it.
    Times are seconds on the engine's clock.
    """

    id: str
    input_tokens: int
    output_tokens: int
    arrival_s: float
    program_id: str | None = None
    priority: int = 0

    status: Status = field(default=Status.WAITING, init=False)
    computed: int = field(default=0, init=False)  # tokens whose keys and values are in the cache
    remaining: int = field(init=False)  # tokens to compute before the next one is emitted
    generated: int = field(default=0, init=False)
    blocks: int = field(default=0, init=False)
    preemptions: int = field(default=0, init=False)
    first_scheduled_s: float | None = field(default=None, init=False)
    token_s: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.remaining = self.input_tokens

    @property
    def done(self) -> bool:
        """Whether its last token is out."""
        return self.status is Status.FINISHED
