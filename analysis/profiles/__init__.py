"""The definitions of other tools, computed of the same run: all profiles in this table.

A profile says which calls its tool counts, what it measures of them, and by which names it prints
what. What a run does not tell is null with its reason; nothing is guessed.
"""

from __future__ import annotations

from servescope.analysis.profiles.aiperf import AIPERF
from servescope.analysis.profiles.guidellm import GUIDELLM
from servescope.analysis.profiles.inference_perf import INFERENCE_PERF
from servescope.analysis.profiles.llmperf import LLMPERF
from servescope.analysis.profiles.mlperf import MLPERF
from servescope.analysis.profiles.profile import Field, Profile, Value
from servescope.analysis.profiles.reading import Reading
from servescope.analysis.profiles.seen import Seen
from servescope.analysis.profiles.sglang import SGLANG
from servescope.analysis.profiles.vllm import VLLM
from servescope.traces.errors import InputError

__all__ = ["PROFILES", "Field", "Profile", "Reading", "Seen", "Value", "named"]

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (VLLM, SGLANG, AIPERF, GUIDELLM, INFERENCE_PERF, MLPERF, LLMPERF)
}


def named(name: str) -> Profile:
    """Return the profile called `name`; raises InputError if there is none."""
    if name not in PROFILES:
        raise InputError(f"There is no metric profile '{name}'.", f"Known: {', '.join(PROFILES)}.")
    return PROFILES[name]
