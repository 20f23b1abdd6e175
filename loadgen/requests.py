"""The requests of a plan: from a call to the bytes that are sent, and to which replica."""

from __future__ import annotations

import msgspec

from servescope.loadgen import endpoints
from servescope.loadgen.endpoints import Ask, Dialect
from servescope.loadgen.messages import Setup
from servescope.loadgen.program import Call
from servescope.loadgen.prompts import Prompts

_encode = msgspec.json.Encoder().encode


class Requests:
    """Makes the requests of a worker's calls and chooses where they go.

    `late` says that a request can only be made when it is sent, because its priority depends on
    that moment.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.dialect: Dialect = endpoints.named(setup.backend)
        self._prompts = Prompts(setup.seed, setup.block_tokens)
        self.late = False

    def made(self, call: Call, now_s: float) -> tuple[bytes, dict[str, str] | None]:
        """Return the body of a call's request, and the headers that it has of its own."""
        setup = self._setup
        ask = Ask(
            call=call,
            model=setup.model,
            prompt=self._prompts.prompt(call) if self.dialect.takes == "prompt" else None,
            messages=self._prompts.messages(call) if self.dialect.takes == "messages" else None,
            ignore_eos=setup.ignore_eos,
            min_tokens=setup.min_tokens,
            usage_each=setup.usage_each,
            refused=frozenset(setup.refused),
        )
        headers = self.dialect.headers(ask) if self.dialect.headers else None
        return _encode(self.dialect.body(ask) | setup.extra_body), headers

    def pick(self, call: Call, now_s: float) -> int:
        """Return the number of the replica that a call goes to."""
        return 0

    def landed(self, call: Call, replica: int) -> None:
        """Tell that a call has ended."""

    def answered(self, call: Call, text: str) -> None:
        """Tell what a call was answered that others wait for."""
