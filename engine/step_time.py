"""How long one engine step takes: a soft-max roofline of a batch's bytes and flops.

The linear operators of a layer take

    ((bytes / (bandwidth mbu))^p + (flops / (peak mfu))^p)^(1/p) + constant

and so does the LM head, for the tokens that are sampled. A hard maximum of the two
is twice as wrong, and worst at 128 to 512 tokens, where chunked prefill works.
Attention, small operators, all-reduce and the engine's own overhead are added.
"""

from typing import NamedTuple

from servescope.engine.catalog import PLAIN, Gpu, Model, Overhead, find_overhead
from servescope.traces.errors import InputError

# The part of a decode that slows down with fewer SMs: .6284 / y + .3818 in semi-PD's figure 10.
MEMORY_BOUND = 0.6284 / (0.6284 + 0.3818)


class Load(NamedTuple):
    """What one step computes, summed over its batch."""

    tokens: int  # through the linear operators: prefill and decode
    sequences: int  # requests in the batch
    kv_tokens: int  # cached tokens that decodes read
    pairs: float  # query-key pairs of the prefill pieces
    swapped: int = 0  # tokens whose keys and values come from host memory first


class StepTime:
    """The step time (s) of a model on `tp` x `pp` GPUs, as a function of the load.

    A pipeline of `pp` stages is filled with as many micro-batches, each an equal part of the load:
    while one goes through all layers every other one does, so a step lasts as long as one of them
    takes, and the messages between stages.
    """

    __slots__ = (
        "_compute", "_constant_s", "_experts_read_s", "_head_compute", "_head_read", "_inverse_p",
        "_kv_token_s", "_model", "_p", "_pair_s", "_parts", "_read", "_sequence_s",
        "_swap_token_s", "_token_s",
    )  # fmt: skip

    def __init__(
        self,
        model: Model,
        gpu: Gpu,
        tp: int = 1,
        overhead: Overhead | None = None,
        pp: int = 1,
    ) -> None:
        overhead = overhead or find_overhead(PLAIN)
        bandwidth = gpu.bandwidth * gpu.mbu
        flops = gpu.peak_flops * gpu.mfu
        p = gpu.p
        layers = model.layers
        head = model.vocabulary * model.hidden / tp

        # The parts of the two soft maxima, already raised to p.
        self._p = p
        self._inverse_p = 1 / p
        read_s = layers * model.layer_weights * model.bytes_per_weight / tp / bandwidth
        self._read = read_s**p
        self._compute = (2 * layers * model.active_weights / tp / flops) ** p
        self._head_read = (head * model.dtype_bytes / bandwidth) ** p
        self._head_compute = (2 * head / flops) ** p
        # What a step need not read of an expert that no token is sent to; None where all are.
        self._experts_read_s: tuple[float, float] | None = None
        self._model = model
        if model.experts > model.active_experts:
            expert = layers * model.expert_weights * model.bytes_per_weight / tp
            self._experts_read_s = (read_s, expert / bandwidth)

        self._constant_s = overhead.step_s + layers * (gpu.layer_s + gpu.small_ops_s)
        self._token_s = layers * gpu.small_ops_s_per_element * model.hidden
        self._sequence_s = overhead.sequence_s
        self._kv_token_s = model.kv_bytes_per_token(tp) / (gpu.bandwidth * gpu.kv_mbu)
        self._swap_token_s = model.kv_bytes_per_token(tp) / gpu.host_bandwidth
        pair_flops = 4 * layers * model.heads * model.head_dim / tp  # scores, then values
        self._pair_s = pair_flops / (gpu.peak_flops * gpu.attention_mfu)

        if tp > 1:
            if tp not in gpu.all_reduce:
                raise InputError(
                    f"There is no all-reduce time for {tp} such GPUs.",
                    f"Use tp 1 or one of {', '.join(map(str, sorted(gpu.all_reduce)))}.",
                )
            reduce = gpu.all_reduce[tp]
            self._constant_s += 2 * layers * reduce.latency_s  # after attention, after the MLP
            message = model.hidden * model.dtype_bytes
            self._token_s += 2 * layers * message / reduce.bandwidth

        self._parts = pp
        if pp > 1:
            self._constant_s += (pp - 1) * gpu.send.latency_s
            self._token_s += (pp - 1) * model.hidden * model.dtype_bytes / gpu.send.bandwidth

    def __call__(self, load: Load, share: float = 1.0) -> float:
        """Return the seconds that a step of this load takes on a share of the GPU's SMs.

        On fewer SMs, what computes takes as many times longer, and what reads memory less than
        that: semi-PD's fit of the decode time over the share (its figure 10). Constants stay.
        """
        tokens: float
        sequences: float
        kv_tokens: float
        swapped: float
        tokens, sequences, kv_tokens, pairs, swapped = load
        if self._parts > 1:
            parts = self._parts
            tokens, sequences = max(1, tokens / parts), max(1, sequences / parts)
            kv_tokens, pairs, swapped = kv_tokens / parts, pairs / parts, swapped / parts
        p = self._p
        inverse_p = self._inverse_p
        read = self._read
        if self._experts_read_s is not None:
            all_s, expert_s = self._experts_read_s
            read = (all_s - expert_s * self._model.idle_experts(tokens)) ** p
        head_read, computed, sampled = self._head_read, tokens, sequences
        if share < 1.0:
            slower = MEMORY_BOUND / share + 1 - MEMORY_BOUND
            read, head_read = read * slower**p, head_read * slower**p
            computed, sampled = tokens / share, sequences / share
            tokens, kv_tokens, pairs = tokens * slower, kv_tokens * slower, pairs / share
        seconds: float = (
            self._constant_s
            + (read + self._compute * computed**p) ** inverse_p
            + (head_read + self._head_compute * sampled**p) ** inverse_p
            + self._token_s * tokens
            + self._sequence_s * sequences
            + self._kv_token_s * kv_tokens
            + self._pair_s * pairs
            + self._swap_token_s * swapped
        )
        return seconds
