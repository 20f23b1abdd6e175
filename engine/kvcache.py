"""The paged KV cache, counted in blocks of tokens.

This version counts blocks only: every block has one owner. Reference counts and
the prefix cache come with a later version.
"""

from servescope.engine.catalog import Gpu, Model
from servescope.traces.errors import InputError, ServescopeError

BLOCK_TOKENS = 16


class OutOfBlocks(ServescopeError):
    """A policy planned more blocks than are free."""


class BlockPool:
    """All KV blocks of one replica: how many there are and how many are free."""

    __slots__ = ("free", "total", "watermark")

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self.watermark = total // 100  # blocks that admission leaves free, as vLLM v0 does

    @property
    def used(self) -> int:
        """Blocks that some request holds."""
        return self.total - self.free

    @property
    def usage(self) -> float:
        """The share of blocks in use, 0 to 1."""
        return self.used / self.total

    def take(self, blocks: int) -> None:
        """Allocate blocks."""
        if blocks > self.free:
            raise OutOfBlocks(
                f"The plan takes {blocks} KV blocks, {self.free} are free.",
                "The policy must preempt, or admit less, before it allocates.",
            )
        self.free -= blocks

    def release(self, blocks: int) -> None:
        """Give blocks back."""
        self.free += blocks


def blocks_for(tokens: int) -> int:
    """Return how many blocks hold that many tokens."""
    return -(-tokens // BLOCK_TOKENS)


def kv_blocks(model: Model, gpu: Gpu, tp: int, utilisation: float = 0.9) -> int:
    """Return how many KV blocks fit beside the weights on `tp` GPUs.

    `utilisation` is the share of GPU memory the engine may use. Activations are not
    subtracted: on the calibrated H200 that overstates the capacity by 2 %.
    """
    room = gpu.memory_bytes * utilisation - model.weight_bytes / tp
    blocks = int(room / (BLOCK_TOKENS * model.kv_bytes_per_token(tp)))
    if blocks < 1:
        raise InputError(
            f"The weights need {model.weight_bytes / tp / 1e9:.0f} GB on each of {tp} GPUs, "
            f"{gpu.memory_bytes * utilisation / 1e9:.0f} GB may be used.",
            "Use more GPUs (tp), a larger GPU or a smaller model.",
        )
    return blocks
