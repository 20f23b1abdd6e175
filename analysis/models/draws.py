"""Random numbers that depend on what they are for and when, on nothing that was drawn before."""

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
        key = np.frombuffer(self._digest(purpose, window), np.uint64)
        return np.random.Generator(np.random.Philox(key=key))

    def key(self, purpose: str, window: int = 0) -> int:
        """Return 64 random bits of a purpose in a window, for what makes its own of them."""
        return int.from_bytes(self._digest(purpose, window)[:8], "little")

    def _digest(self, purpose: str, window: int) -> bytes:
        named = f"{self.seed}/{self.stream}/{purpose}/{window}".encode()
        return blake2b(named, digest_size=16).digest()
