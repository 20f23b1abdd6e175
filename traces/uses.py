"""What a trace can and cannot be used for, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servescope.traces.trace import Trace

if TYPE_CHECKING:
    from servescope.traces.quality import Quality

# Below twice the step of a clock a count of arrivals says more of the clock than of the users.
TICKS_NEEDED = 2
_MOSTLY_TIED = 0.5


@dataclass(frozen=True, slots=True)
class Use:
    """One purpose: whether the trace serves it, and why or how far."""

    purpose: str
    can: bool
    why: str


def uses(trace: Trace, quality: Quality) -> tuple[Use, ...]:
    """Judge a trace for every common purpose."""
    known = {name: quality.calls - count for name, count in quality.missing.items()}
    return (
        _lengths(known, quality.calls),
        _open_loop(trace, known),
        _burstiness(trace, quality, known),
        _time_of_day(trace, known),
        _programs(trace, quality),
        _pauses(trace, quality),
        _prefixes(trace, known),
        _by_column("failure rates", known, "status", "calls say how they ended", "no outcomes"),
        _by_column(
            "fairness between clients", known, "client_id", "calls name a client", "no clients"
        ),
        _by_column("real prompts", known, "content_ref", "calls have their text", "no text"),
        _observed(known),
    )


def _lengths(known: dict[str, int], calls: int) -> Use:
    both = min(known["input_tokens"], known["output_tokens"])
    lacking = calls - both
    if not both:
        return Use("lengths", False, "no token counts: name a --tokenizer where there is text")
    why = "every call has both counts" if not lacking else f"{lacking} calls lack a count"
    return Use("lengths", True, why)


def _open_loop(trace: Trace, known: dict[str, int]) -> Use:
    purpose = "replay on the source's own times"
    if not known.get("arrival_s"):
        return Use(purpose, False, "no arrivals: an arrival process must be added")
    if trace.provenance.arrival_basis == "program":
        return Use(
            purpose, False, "each program has a zero of its own: when they began is not known"
        )
    return Use(purpose, True, f"{known['arrival_s']} calls have an arrival")


def _burstiness(trace: Trace, quality: Quality, known: dict[str, int]) -> Use:
    purpose = "burstiness of arrivals"
    if not known.get("arrival_s") or trace.provenance.arrival_basis == "program":
        return Use(purpose, False, "no arrivals on one clock")
    step_s = max(trace.provenance.tick_s or 0.0, quality.resolution_s or 0.0)
    if not step_s:
        return Use(purpose, True, "at all time scales: no two stamps share a grid")
    tied = quality.tied_share or 0.0
    why = f"from {TICKS_NEEDED * step_s:g} s up; stamps are multiples of {step_s:g} s"
    if tied:
        why += f", {tied:.1%} of the gaps are 0"
    if tied > _MOSTLY_TIED:
        why += ": no inter-arrival statistics, only counts per window"
    return Use(purpose, True, why)


def _time_of_day(trace: Trace, known: dict[str, int]) -> Use:
    clock = trace.provenance.clock
    if not known.get("arrival_s") or clock not in ("utc", "local"):
        return Use("time of day", False, "the date of its zero is not known")
    zone = "in UTC" if clock == "utc" else "on a clock whose zone is not said"
    return Use("time of day", True, zone)


def _programs(trace: Trace, quality: Quality) -> Use:
    purpose = "sessions and job completion times (JCT)"
    found = quality.structure
    if found is None or not (found.programs or found.followers):
        return Use(purpose, False, "no sessions: every call stands alone")
    label = _inferred(trace, "program_id", "parents")
    return Use(
        purpose, True, f"{found.programs} programs, {found.multi_turn} of several calls{label}"
    )


def _pauses(trace: Trace, quality: Quality) -> Use:
    purpose = "closed-loop replay with think and tool times"
    found = quality.structure
    if found is None or not found.pauses:
        return Use(purpose, False, "no pauses between calls")
    return Use(purpose, True, f"{found.pauses} calls say their pause{_inferred(trace, 'delay_s')}")


def _prefixes(trace: Trace, known: dict[str, int]) -> Use:
    purpose = "prefix caching"
    about = trace.provenance
    if known.get("prefix_blocks"):
        size = f"blocks of {about.block_tokens} tokens" if about.block_tokens else "components"
        scope = "within a program only" if about.block_scope == "program" else "across all calls"
        return Use(purpose, True, f"{size}, shared {scope}{_inferred(trace, 'prefix_blocks')}")
    if known.get("content_ref"):
        return Use(purpose, True, "by the text of the prompts")
    if known.get("observed_cached_tokens"):
        return Use(purpose, False, "only how many tokens the source found in its cache")
    return Use(purpose, False, "nothing says which prompts share a prefix")


def _observed(known: dict[str, int]) -> Use:
    purpose = "comparison with the source's own latencies"
    found = [n for n in ("observed_ttft_s", "observed_e2e_s", "observed_queue_s") if known.get(n)]
    return Use(purpose, bool(found), ", ".join(found) or "the source measured none")


def _by_column(purpose: str, known: dict[str, int], column: str, has: str, lacks: str) -> Use:
    count = known.get(column, 0)
    return Use(purpose, bool(count), f"{count} {has}" if count else lacks)


def _inferred(trace: Trace, *columns: str) -> str:
    return ", inferred" if any(c in trace.provenance.inferred for c in columns) else ""
