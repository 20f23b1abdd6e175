"""Requests that decode, for policies that are asked without an engine."""

from collections.abc import Callable

import pytest

from servescope.engine.decoding import Decoding
from servescope.engine.kvcache import blocks_for
from servescope.engine.request import Request, Status


@pytest.fixture
def decoding() -> Callable[..., Decoding]:
    """Return a function that makes a decode of each number of computed tokens."""

    def make(*computed: int) -> Decoding:
        made = Decoding()
        for number, tokens in enumerate(computed):
            request = Request(f"d{number}", tokens, 100, 0.0)
            request.status, request._computed, request._generated = Status.RUNNING, tokens, 1
            request._blocks = blocks_for(tokens)
            made.add(request)
        return made

    return make
