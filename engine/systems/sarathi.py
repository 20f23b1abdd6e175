"""Sarathi-Serve (Agrawal et al., OSDI 2024): chunked prefills that never stall a decode."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine.policy import Batch, Conserving, Parts, View
from servescope.engine.request import Request
from servescope.engine.systems.batching import chunks_first, decodes_alone, stall_free


@dataclass(frozen=True, slots=True)
class Sarathi:
    """Fill a budget of tokens a step: decodes, then unfinished prompts, then the queue.

    A prompt gets all its blocks when it is admitted.
    """

    chunk_tokens: Annotated[int, Meta(ge=1)] = 512
    max_num_seqs: Annotated[int, Meta(ge=1)] = 128

    @property
    def conserves(self) -> Conserving:
        """What a checked run holds it to."""
        return Conserving(min(self.max_num_seqs, self.chunk_tokens), self.chunk_tokens)

    def plan(self, view: View) -> Batch:
        """Return all decodes and as much of the prompts as the budget leaves room for."""
        return stall_free(view, self.chunk_tokens, self.max_num_seqs)


@dataclass(frozen=True, slots=True)
class SarathiHybridOnly:
    """Decodes and whole prompts in one step, without chunks: an ablation of the paper."""

    max_num_seqs: Annotated[int, Meta(ge=1)] = 128

    def plan(self, view: View) -> Batch:
        """Return all decodes and every prompt that fits."""
        return stall_free(view, None, self.max_num_seqs)


@dataclass(frozen=True, slots=True)
class SarathiChunkedOnly:
    """Chunks of prompts and decodes in turns, never in one step: an ablation of the paper.

    Unfinished prompts have their turn without new ones beside them, as in the repository.
    """

    chunk_tokens: Annotated[int, Meta(ge=1)] = 512
    max_num_seqs: Annotated[int, Meta(ge=1)] = 128

    def parts(self, replicas: int) -> Parts:
        """Return the scheduler, which remembers whose turn it is."""
        return Parts(_InTurns(self))


class _InTurns:
    def __init__(self, system: SarathiChunkedOnly) -> None:
        self._system = system
        self._decoded = [True]  # by replica: whether its last step was one of decodes

    def plan(self, view: View) -> Batch:
        self._decoded += [True] * (view.replica + 1 - len(self._decoded))
        decoded, self._decoded[view.replica] = self._decoded[view.replica], True
        if decoded or not view.decoding:
            asked = view._replace(waiting=()) if view.prefilling else view
            batch = chunks_first(asked, self._system.chunk_tokens, self._system.max_num_seqs)
            self._decoded[view.replica] = not batch.prefill
            return batch
        return decodes_alone(view)._replace(steps=1)


@dataclass(frozen=True, slots=True)
class SarathiDynamic:
    """Chunks that shrink as a prompt is computed, since later ones attend to more.

    A prompt of `max_tokens` passes through `stages`; chunks are multiples of 32. Each prompt goes
    on as far as its own chunk reaches beyond what the step has already (the repository's dynamic
    chunking).
    """

    high_chunk_tokens: Annotated[int, Meta(ge=32)] = 2048
    low_chunk_tokens: Annotated[int, Meta(ge=32)] = 128
    stages: Annotated[int, Meta(ge=1)] = 16
    max_tokens: Annotated[int, Meta(ge=1)] = 131_072
    max_num_seqs: Annotated[int, Meta(ge=1)] = 128

    def plan(self, view: View) -> Batch:
        """Return all decodes, and of each prompt as much as its stage leaves room for."""
        return stall_free(view, self.high_chunk_tokens, self.max_num_seqs, withheld=self._withheld)

    def _withheld(self, request: Request) -> int:
        return self.high_chunk_tokens - self.chunk_at(request.computed)

    def chunk_at(self, computed: int) -> int:
        """Return the chunk of a prompt that is computed so far."""
        stage = min(self.stages - 1, computed * self.stages // self.max_tokens)
        step = (self.high_chunk_tokens - self.low_chunk_tokens) / max(1, self.stages - 1)
        return max(32, round((self.high_chunk_tokens - step * stage) / 32) * 32)
