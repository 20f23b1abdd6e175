"""Random numbers that depend on what they are for and when, and on nothing that was drawn before."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np


@dataclass(frozen=True, slots=True)
class Draws:
    """The randomness of one stream of a synthesis: a generator for every purpose and window.

    Counter-based (Philox, Salmon et al. 2011), so that any window can be drawn alone, in any order
    and in any process, to the same bit.
    """

    seed: int
    stream: int = 0

    def rng(self, purpose: str, window: int = 0) -> np.random.Generator:
        """Return the generator of a purpose in a window."""
        named = f"{self.seed}/{self.stream}/{purpose}/{window}".encode()
        key = np.frombuffer(blake2b(named, digest_size=16).digest(), np.uint64)
        return np.random.Generator(np.random.Philox(key=key))
