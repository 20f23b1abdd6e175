"""A policy in a file: chunked prefill, the shortest prompt of the queue first, prefixes cached.

Score it with `servescope evaluate examples/shortest_prompt_chunked.py`; run as a script, it says
whether it beats two baselines on the suite that ships.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from servescope.engine import Batch, Request, View
from servescope.engine.systems.batching import stall_free


@dataclass(frozen=True, slots=True)
class ShortestPromptChunked:
    """All decodes in every step, and the shortest prompts in what they leave of a budget."""

    chunk_tokens: Annotated[int, Meta(ge=1)] = 768
    max_num_seqs: Annotated[int, Meta(ge=1)] = 128
    prefix_cache: bool = True

    def plan(self, view: View) -> Batch:
        """Return the next step."""
        return stall_free(view, self.chunk_tokens, self.max_num_seqs, shortest)


def shortest(waiting: Sequence[Request]) -> Iterable[Request]:
    """Order a queue by the tokens that are to be computed."""
    return sorted(waiting, key=lambda request: request.remaining)


if __name__ == "__main__":
    from servescope.loadgen import suite
    from servescope.loadgen.evaluation import evaluate

    loads = suite.read("default")
    mine = evaluate(__file__, loads)
    for baseline in ("vllm_v0", "sarathi"):
        print(f"beats {baseline}: {mine.score > evaluate(baseline, loads).score}")
