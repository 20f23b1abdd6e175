"""The prompts of a plan: the same bytes for the same seed, on every machine and in any order.

Every token is a hash of the seed, the stream it belongs to and its place in it, so a prompt can be
made when it is needed, and prompts share exactly the prefixes that the trace says they share.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from servescope.loadgen.program import Call

# Ids that every vocabulary has and that are no special tokens: past the control ids, below 1024.
FIRST_ID, LAST_ID = 256, 1023

# Short words that common tokenizers hold as one token with the space before them.
_TEXT = """
the of and to in is was for on that with as it at by from be are this have or had not but one
all were when we there can an your which their said if do will each about how up out them then
she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may water long little
"""
WORDS = np.array(_TEXT.split())


@dataclass(frozen=True, slots=True)
class Prompts:
    """Makes the prompt of any call; `block_tokens` is what one id of `prefix_blocks` stands for."""

    seed: int
    block_tokens: int | None = None

    def token_ids(self, call: Call) -> npt.NDArray[np.int64]:
        """Return the prompt as token ids, shape (input_tokens,): no tokenizer is needed."""
        span = np.uint64(LAST_ID - FIRST_ID + 1)
        return (self._hashes(call) % span).astype(np.int64) + FIRST_ID

    def prompt(self, call: Call) -> list[int] | str:
        """Return what a completions endpoint is asked: the real text if there is one, or ids."""
        ids: list[int] = self.token_ids(call).tolist()
        return call.text or ids

    def messages(self, call: Call) -> list[dict[str, Any]]:
        """Return what a chat endpoint is asked."""
        return [{"role": "user", "content": self.text(call)}]

    def text(self, call: Call) -> str:
        """Return the prompt as common words: about a token each, exactly so in no vocabulary."""
        return " ".join(WORDS[(self._hashes(call) % np.uint64(len(WORDS))).astype(np.intp)])

    def _hashes(self, call: Call) -> npt.NDArray[np.uint64]:
        place = np.arange(call.input_tokens, dtype=np.uint64)
        seed = _mixed(np.array([self.seed], dtype=np.uint64))
        if self.block_tokens and call.prefix_blocks:
            block = np.uint64(self.block_tokens)
            ids = np.array(call.prefix_blocks, dtype=np.uint64)
            # A prompt's end may have no id: what nobody named is nobody else's.
            ids = np.append(ids, _named(call.id))
            stream = (_mixed(ids) ^ seed)[np.minimum(place // block, len(ids) - 1).astype(np.intp)]
            place = place % block
        else:
            stream = _named(call.prompt_stream) ^ seed
        return _mixed(stream + place)


def _named(name: str) -> npt.NDArray[np.uint64]:
    """Return a number for a name, shape (1,)."""
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), dtype="<u8")


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit integers one to one (the finaliser of SplitMix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
