"""One request from its arrival to its last token."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from servescope.engine.kvcache import blocks_for

if TYPE_CHECKING:
    from servescope.engine.decoding import Decoding
    from servescope.engine.prefixes import Node, Segment


class Status(Enum):
    """Where a request is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class Request:
    """A prompt to compute and tokens to generate, with the engine's state of it.

    How many tokens the answer has is the engine's secret: it stops there, and no policy may know
    unless it asks for an oracle, which every report then says.
    `prefix` names the prompt's text piece by piece: what two prompts begin with alike is computed
    once where there is a prefix cache. Times are seconds on the engine's clock.
    """

    id: str
    input_tokens: int
    output_tokens: InitVar[int]
    arrival_s: float
    program_id: str | None = None
    priority: int = 0
    prefix: tuple[Segment, ...] = ()
    program_s: float | None = None  # when its program began; None: when it came itself
    turn: int = 0
    last: bool | None = None  # whether its program ends with it; None: nobody said
    call_class: str | None = None
    tool: str | None = None  # what its answer will call: known once it is finished
    deadline_s: float | None = None  # when its program should be done
    pause_s: InitVar[float | None] = None  # until its program comes back: as secret as the length

    # What an annotator works out and a scheduler goes by; the engine never looks at it.
    rank: float = field(default=0.0, init=False)
    oracle_tokens: int | None = field(default=None, init=False)  # only for systems that ask for it
    oracle_pause_s: float | None = field(default=None, init=False)  # likewise
    replica: int = field(default=0, init=False)

    status: Status = field(default=Status.WAITING, init=False)
    preemptions: int = field(default=0, init=False)
    lost_s: float = field(default=0.0, init=False)  # to preemptions: queued again, computed again
    swapped: bool = field(default=False, init=False)  # its keys and values are in host memory
    cached_tokens: int = field(default=0, init=False)  # of those it has, what it found computed
    found_tokens: int = field(default=0, init=False)  # the same, when it was first admitted
    first_scheduled_s: float | None = field(default=None, init=False)

    # The engine's own. While a request decodes, what changes with every step is worked out from the
    # number of steps, so that a step costs the same for one request and for two hundred.
    _output_tokens: int = field(init=False)
    _pause_s: float | None = field(init=False)
    _computed: int = field(default=0, init=False)
    _generated: int = field(default=0, init=False)
    _blocks: int = field(default=0, init=False)
    _token_s: list[float] = field(default_factory=list, init=False)
    _decoding: Decoding | None = field(default=None, init=False)
    _from_step: int = field(default=0, init=False)
    _place: int = field(default=0, init=False)  # among all that ever joined those that decode
    _node: Node | None = field(default=None, init=False)  # of the prefix cache, and held
    _shared: int = field(default=0, init=False)  # blocks of the prefix cache among its own
    _reached: int = field(
        default=0, init=False
    )  # the most tokens known to have been computed of it
    _preempted_s: float | None = field(default=None, init=False)  # while it is not where it was
    _remote: bool = field(default=False, init=False)  # its keys and values are at another replica

    def __post_init__(self, output_tokens: int, pause_s: float | None) -> None:
        self._output_tokens = output_tokens
        self._pause_s = pause_s

    @property
    def computed(self) -> int:
        """Tokens whose keys and values are in the cache."""
        return self._computed + self._steps

    @property
    def generated(self) -> int:
        """Tokens of the answer that are out."""
        return self._generated + self._steps

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one is emitted."""
        return self.input_tokens + self._generated - self._computed

    @property
    def demand(self) -> int:
        """Blocks that its prompt and what is out of its answer need."""
        return blocks_for(self.input_tokens + self._generated)

    @property
    def blocks(self) -> int:
        """KV blocks that it holds, those that it shares included."""
        decoding = self._decoding
        if decoding is None or self._blocks:
            return self._blocks
        return blocks_for(self._computed + max(0, decoding.begun - self._from_step))

    @property
    def own_blocks(self) -> int:
        """KV blocks that are free once it holds them no more: all but those of the prefix cache."""
        return self.blocks - self._shared

    @property
    def token_s(self) -> list[float]:
        """When each token came out."""
        decoding = self._decoding
        if decoding is None:
            return self._token_s
        return self._token_s + decoding.ends_since(self._from_step)

    @property
    def gap_s(self) -> float:
        """Time between its last two tokens."""
        decoding = self._decoding
        if decoding is None or decoding.count == self._from_step:
            return self._token_s[-1] - self._token_s[-2]
        return decoding.gap_s(self)

    @property
    def program_began_s(self) -> float:
        """When its program began, or it came itself."""
        return self.arrival_s if self.program_s is None else self.program_s

    @property
    def done(self) -> bool:
        """Whether its last token is out."""
        return self.status is Status.FINISHED

    @property
    def _steps(self) -> int:
        decoding = self._decoding
        return 0 if decoding is None else max(0, decoding.count - self._from_step)
