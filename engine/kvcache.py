"""The paged KV cache of one replica, counted in blocks of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servescope.engine.catalog import Gpu, Model
from servescope.traces.errors import InputError, ServescopeError

if TYPE_CHECKING:
    from servescope.engine.prefixes import Node, Prefixes
    from servescope.engine.request import Request

BLOCK_TOKENS = 16


class OutOfBlocks(ServescopeError):
    """A policy planned more blocks than are free."""


class BlockPool:
    """All KV blocks of one replica: free, held by requests, or kept by the prefix cache.

    With `prefixes`, blocks that no request holds any more stay until somebody needs them. `host`
    says of which programs how many tokens were copied to host memory.
    """

    __slots__ = ("free", "host", "prefixes", "total", "watermark")

    def __init__(self, total: int, prefixes: Prefixes | None = None) -> None:
        self.total = total
        self.free = total
        self.watermark = total // 100  # blocks that admission leaves free, as vLLM v0 does
        self.prefixes = prefixes
        self.host: dict[str, int] = {}

    @property
    def room(self) -> int:
        """Blocks that can be taken: free ones, and cached ones that nobody holds."""
        return self.free if self.prefixes is None else self.free + self.prefixes.idle

    @property
    def used(self) -> int:
        """Blocks that some request holds."""
        return self.total - self.room

    @property
    def usage(self) -> float:
        """The share of blocks in use, 0 to 1."""
        return self.used / self.total

    def cached(self, request: Request) -> int:
        """Return how many tokens of a waiting request are in the prefix cache or in host memory.

        The last token of a prompt is always computed: its answer's first token comes of it.
        """
        blocks = 0
        if self.prefixes is not None and request.prefix:
            blocks = shared_blocks(self.prefixes.find(request.prefix), request)
        if request.program_id in self.host:
            kept = min(self.host[request.program_id], request.remaining - 1)
            blocks = max(blocks, kept // BLOCK_TOKENS)
        return blocks * BLOCK_TOKENS

    def cost(self, request: Request, blocks: int) -> int:
        """Return by how many blocks `room` shrinks when a waiting request gets so many."""
        if self.prefixes is None or not request.prefix or request.swapped:
            return blocks  # what was swapped out comes back whole
        node = self.prefixes.find(request.prefix)
        return blocks - shared_blocks(node, request) + self.prefixes.idle_to(node)

    def take(self, blocks: int) -> None:
        """Allocate blocks, of the prefix cache if too few are free."""
        missing = blocks - self.free
        if missing > 0 and self.prefixes is not None:
            self.free += self.prefixes.drop(missing)
        if blocks > self.free:
            raise OutOfBlocks(
                f"The plan takes {blocks} KV blocks, {self.free} are free.",
                "The policy must preempt, or admit less, before it allocates.",
            )
        self.free -= blocks

    def release(self, blocks: int) -> None:
        """Give blocks back."""
        self.free += blocks


def shared_blocks(node: Node, request: Request) -> int:
    """Return how many blocks of a node of the prefix cache a waiting request need not compute."""
    return min(node.end, request.remaining - 1) // BLOCK_TOKENS


def blocks_for(tokens: int) -> int:
    """Return how many blocks hold that many tokens."""
    return -(-tokens // BLOCK_TOKENS)


def kv_blocks(model: Model, gpu: Gpu, tp: int, utilisation: float = 0.9, pp: int = 1) -> int:
    """Return how many KV blocks fit beside the weights on `tp` x `pp` GPUs.

    `utilisation` is the share of GPU memory the engine may use. Activations are not
    subtracted: on the calibrated H200 that overstates the capacity by 2 %.
    """
    weights = model.weight_bytes / (tp * pp)
    room = gpu.memory_bytes * utilisation - weights
    # a GPU keeps what its own layers made of every token
    blocks = int(room / (BLOCK_TOKENS * model.kv_bytes_per_token(tp) / pp))
    if blocks < 1:
        raise InputError(
            f"The weights need {weights / 1e9:.0f} GB on each of {tp * pp} GPUs, "
            f"{gpu.memory_bytes * utilisation / 1e9:.0f} GB may be used.",
            "Use more GPUs (tp, pp), a larger GPU or a smaller model.",
        )
    return blocks
