"""The trace formats: one small file each, all of them in this table.

Another package adds one by an entry point of the group `servescope.formats` that names a `Format`.
"""

from collections.abc import Sequence

from servescope.traces.errors import InputError, NotATrace
from servescope.traces.formats import (
    aibrix,
    aiperf_dag,
    atif,
    azure,
    bailian,
    burstgpt,
    canonical,
    cc_traces,
    continuum,
    exgentic,
    gmi,
    langfuse,
    langsmith,
    litellm,
    llmservingsim,
    lmcache,
    mlcommons,
    mooncake,
    openai_batch,
    openai_messages,
    otel,
    prism,
    ragpulse,
    servegen,
    sharegpt,
    splitwise,
    swarm,
    swe_agent,
    table,
    timed_trace,
    token_lengths,
    tracelab,
    vidur,
    weka,
)
from servescope.traces.formats.format import Format
from servescope.traces.formats.source import File, Options, Source
from servescope.traces.plugins import installed

__all__ = ["BUILT_IN", "Format", "Options", "Source", "choose", "formats", "named", "recognise"]

BUILT_IN = {
    "burstgpt": burstgpt.FORMAT,
    "azure": azure.FORMAT,
    "mooncake": mooncake.FORMAT,
    "otel": otel.FORMAT,
    "exgentic": exgentic.FORMAT,
    "langfuse": langfuse.FORMAT,
    "langsmith": langsmith.FORMAT,
    "litellm": litellm.FORMAT,
    "lmcache": lmcache.FORMAT,
    "mlcommons": mlcommons.FORMAT,
    "swarm": swarm.FORMAT,
    "swe_agent": swe_agent.FORMAT,
    "atif": atif.FORMAT,
    "aiperf_dag": aiperf_dag.FORMAT,
    "bailian": bailian.FORMAT,
    "gmi": gmi.FORMAT,
    "ragpulse": ragpulse.FORMAT,
    "timed_trace": timed_trace.FORMAT,
    "openai_batch": openai_batch.FORMAT,
    "openai_messages": openai_messages.FORMAT,
    "servegen": servegen.FORMAT,
    "sharegpt": sharegpt.FORMAT,
    "vidur": vidur.FORMAT,
    "splitwise": splitwise.FORMAT,
    "token_lengths": token_lengths.FORMAT,
    "prism": prism.FORMAT,
    "llmservingsim": llmservingsim.FORMAT,
    "tracelab": tracelab.FORMAT,
    "continuum": continuum.FORMAT,
    "aibrix": aibrix.FORMAT,
    "weka": weka.FORMAT,
    "cc_traces": cc_traces.FORMAT,
    "table": table.FORMAT,
    "canonical": canonical.FORMAT,
}
# A first record may be long: more is looked at where the first 64 KiB say nothing.
_HEADS = (1 << 16, 1 << 20, 1 << 24)
_LISTED = 5


def formats() -> dict[str, Format]:
    """Return every known format by name, built in or from an entry point.

    Strangers are asked first, so that a dialect of a built-in format can be recognised.
    """
    return installed("servescope.formats", BUILT_IN)


def named(name: str) -> Format:
    """Return the format called `name`; raises InputError if there is none."""
    known = BUILT_IN if name in BUILT_IN else formats()
    if name not in known:
        raise InputError(f"There is no trace format '{name}'.", f"Known: {', '.join(known)}.")
    return known[name]


def recognise(file: File) -> str | None:
    """Return the name of the format that recognises a file by its beginning; None if none does."""
    known = formats()
    for size in _HEADS:
        head = file.head(size)
        found = next((name for name, form in known.items() if form.sniff(head)), None)
        if found is not None or len(head) < size:
            return found
    return None


def choose(files: Sequence[File], name: str) -> tuple[Format, tuple[File, ...], list[str]]:
    """Return the one format of the files, the files that are in it, and doubts about the rest.

    Raises NotATrace where no file is in a known format, InputError where they are in several.
    """
    groups: dict[str | None, list[File]] = {}
    for file in files:
        groups.setdefault(recognise(file), []).append(file)
    strange = groups.pop(None, [])
    if not groups:
        raise NotATrace(
            f"{name} is in no trace format that servescope knows. {_looks(files)}",
            "Name the format with --format to see what it misses, or say what its columns mean"
            " with --column (docs/how-to/bring-your-own-trace.md).",
        )
    if len(groups) > 1:
        found = ", ".join(f"{form} ({len(those)})" for form, those in groups.items())
        raise InputError(
            f"{name} holds files of several formats: {found}.",
            "Name one with --format, or name only the files of one.",
        )
    ((form, chosen),) = groups.items()
    return formats()[str(form)], tuple(chosen), _left_out(strange, "in no known format")


def of_format(files: Sequence[File], form: Format) -> tuple[tuple[File, ...], list[str]]:
    """Return the files that a format recognises, and doubts about the rest.

    A format that recognises none gets all of them, since the user says that it reads them.
    """
    if len(files) == 1:
        return tuple(files), []
    chosen = tuple(file for file in files if form.sniff(file.head(_HEADS[1])))
    if not chosen:
        return tuple(files), []
    strange = [file for file in files if file not in chosen]
    return chosen, _left_out(strange, "not in the format that is named")


def _left_out(files: Sequence[File], why: str) -> list[str]:
    if not files:
        return []
    listed = ", ".join(file.path.name for file in files[:_LISTED])
    more = f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
    return [f"{len(files)} files are {why} and left out: {listed}{more}."]


def _looks(files: Sequence[File]) -> str:
    if len(files) > 1:
        return f"It holds {len(files)} files."
    head = files[0].head()
    if not head:
        return "It is empty once unpacked."
    if b"\0" in head:
        return "It is a binary file."
    first = head.split(b"\n", 1)[0].decode(errors="replace").strip()
    return f"Its first line is {first[:100]!r}."
