"""vLLM since version 1: one budget of tokens a step for prompts and decodes alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine.policy import Batch, Conserving, View
from servescope.engine.systems.batching import unified


@dataclass(frozen=True, slots=True)
class VllmV1:
    """Compute what runs, then what waits, until the budget of tokens is used; share prefixes.

    A prompt gets blocks as it is computed. The budget is the default of `vllm serve` on an H100
    (2048 on an A100), the number of requests that on an A100 (1024 on an H100).
    """

    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256
    prefix_cache: bool = True

    @property
    def conserves(self) -> Conserving:
        """What a checked run holds it to."""
        return Conserving(self.max_num_seqs, self.max_num_batched_tokens)

    def plan(self, view: View) -> Batch:
        """Return all decodes and as much of the prompts as the budget leaves room for."""
        return unified(view, self.max_num_batched_tokens, self.max_num_seqs)
