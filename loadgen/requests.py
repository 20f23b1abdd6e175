"""The requests of a plan: from a call to the bytes that are sent, and to which replica."""

from __future__ import annotations

from pathlib import Path

import msgspec

from servescope.loadgen import dispatch as policies
from servescope.loadgen import endpoints
from servescope.loadgen.board import Board
from servescope.loadgen.endpoints import Ask, Dialect
from servescope.loadgen.messages import Setup
from servescope.loadgen.program import Call, Program
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
        self._prompts = prompts_of(setup)
        self._answers: dict[str, str] = {}
        self._keep_answers = setup.history == "generated"
        self._priority = policies.priority(setup.priority, setup.priority_params)
        self._dispatch = policies.dispatch(setup.dispatch, setup.dispatch_params, len(setup.urls))
        self._board = Board(Path(setup.board), setup.workers, len(setup.urls))
        self.late = self._priority.late

    def made(
        self, call: Call, program: Program | None, now_s: float
    ) -> tuple[bytes, dict[str, str] | None]:
        """Return the body of a call's request, and the headers that it has of its own."""
        setup, asked_with = self._setup, self.dialect.takes
        prompt = {"prompt": self._prompts.prompt, "text": self._prompts.text}.get(asked_with)
        priority = self._priority.of(call, program, now_s)
        if priority != call.priority:
            call = msgspec.structs.replace(call, priority=priority)
        ask = Ask(
            call=call,
            model=setup.model,
            prompt=prompt(call) if prompt else None,
            messages=(
                self._prompts.messages(call, program, self._answers)
                if asked_with == "messages"
                else None
            ),
            ignore_eos=setup.ignore_eos,
            min_tokens=setup.min_tokens,
            usage_each=setup.usage_each,
            refused=frozenset(setup.refused),
            before=_before(call, program),
        )
        headers = self.dialect.headers(ask) if self.dialect.headers else None
        return _encode(self.dialect.body(ask) | setup.extra_body), headers

    @property
    def inexact(self) -> int:
        """How many prompts so far could not be made as long as planned."""
        return self._prompts.inexact

    def pick(self, call: Call) -> int:
        """Return the number of the replica that a call goes to, and count it as in flight there."""
        replica = self._dispatch.pick(call, self._board.replicas())
        self._board.add(self._setup.worker, replica, 1, call.input_tokens + call.output_tokens)
        return replica

    def landed(self, call: Call, replica: int) -> None:
        """Tell that a call has ended."""
        self._board.add(self._setup.worker, replica, -1, -call.input_tokens - call.output_tokens)

    def answered(self, call: Call, text: str) -> None:
        """Tell what a call was answered that others wait for."""
        if self._keep_answers:
            self._answers[call.id] = text

    def forget(self, program: Program) -> None:
        """Tell that all calls of a program have ended."""
        if self._keep_answers:
            for call in program.calls:
                self._answers.pop(call.id, None)


def prompts_of(setup: Setup) -> Prompts:
    """Return what makes a worker's prompts; raises InputError for a tokenizer that is none."""
    tokenizer = None
    if setup.tokenizer is not None:
        from servescope.loadgen.chat_tokenizer import ChatTokenizer

        tokenizer = ChatTokenizer.load(setup.tokenizer)
    return Prompts(setup.seed, setup.block_tokens, tokenizer, setup.history)


def _before(call: Call, program: Program | None) -> Call | None:
    """Return the last of the calls that a call waits for, if it was sent in this run."""
    if program is None or not call.parents:
        return None
    parents = set(call.parents) - program.ended.keys()
    return next((other for other in reversed(program.calls) if other.id in parents), None)
