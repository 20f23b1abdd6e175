"""A server as far as a trace's load on it goes: what its memory holds, and how long calls stay."""

from __future__ import annotations

from dataclasses import dataclass

from servescope.analysis.sample import Floats


@dataclass(frozen=True, slots=True)
class ServerShape:
    """A model on its GPUs: bytes of keys and values a token, tokens that fit, and two speeds.

    A call stays for its prompt at `prefill_tps` tokens/s and `tpot_s` for each token of its answer.
    """

    name: str
    kv_bytes_per_token: float
    kv_capacity_tokens: float
    prefill_tps: float
    tpot_s: float

    def stay_s(self, input_tokens: Floats, output_tokens: Floats) -> Floats:
        """Return how long calls stay, without any queue (s)."""
        return input_tokens / self.prefill_tps + output_tokens * self.tpot_s
