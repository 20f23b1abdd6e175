"""A board that all processes of a run see: what each worker has in flight, how free servers are.

A few numbers in a file that all map into memory; each cell has one writer, so nothing is locked.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from servescope.loadgen.dispatch import Replica, freeness


class Board:
    """Counts of calls and tokens in flight, by worker and replica, and the replicas' freeness."""

    def __init__(self, path: Path, workers: int, replicas: int) -> None:
        cells = (2 * workers + 1) * replicas
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), cells * 8)
        table = np.frombuffer(self._map, dtype=np.float64).reshape(2 * workers + 1, replicas)
        self._calls, self._tokens, self._freeness = table[:workers], table[workers:-1], table[-1]

    @classmethod
    def create(cls, path: Path, workers: int, replicas: int) -> Board:
        """Make a board on which nothing is in flight and no freeness is known."""
        path.write_bytes(bytes((2 * workers + 1) * replicas * 8))
        board = cls(path, workers, replicas)
        board._freeness[:] = np.nan
        return board

    def replicas(self) -> list[Replica]:
        """Return what is known of every replica."""
        calls, tokens = self._calls.sum(axis=0).tolist(), self._tokens.sum(axis=0).tolist()
        return [
            Replica(int(c), int(t), None if f != f else f)
            for c, t, f in zip(calls, tokens, self._freeness.tolist(), strict=True)
        ]

    def add(self, worker: int, replica: int, calls: int, tokens: int) -> None:
        """Add to what a worker has in flight."""
        self._calls[worker, replica] += calls
        self._tokens[worker, replica] += tokens

    def tell(self, replica: int, said: Mapping[str, float]) -> None:
        """Say how free a replica is, by what it says itself; unknown if it says too little."""
        known = {name: said[name] for name in ("running", "waiting", "kv_usage") if name in said}
        self._freeness[replica] = freeness(**known) if len(known) == 3 else np.nan
