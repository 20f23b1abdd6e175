"""vLLM before chunked prefill (Kwon et al., 2023): prompts first, whole, on their own."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine.policy import Batch, Conserving, View
from servescope.engine.systems.batching import prompts_first


@dataclass(frozen=True, slots=True)
class VllmV0:
    """Prefill whatever waits and fits; decode only when nothing does.

    A prompt longer than `max_num_batched_tokens` gets a step of its own.
    """

    max_num_batched_tokens: Annotated[int, Meta(ge=1)] = 8192
    max_num_seqs: Annotated[int, Meta(ge=1)] = 256

    @property
    def conserves(self) -> Conserving:
        """What a checked run holds it to."""
        return Conserving(self.max_num_seqs)

    def plan(self, view: View) -> Batch:
        """Return the prompts that fit, or else all decodes."""
        return prompts_first(view, self.max_num_batched_tokens, self.max_num_seqs)
