"""The section of what the servers said of themselves, beside what the client received."""

from __future__ import annotations

from servescope.analysis import servers
from servescope.reports import timelines
from servescope.reports.blocks import Cell, Column, Figure, Section, Table, told
from servescope.reports.story import Story
from servescope.traces.server import labels_of

_COLUMNS = (
    Column("run", "run"),
    Column("replica", "replica"),
    Column("running_mean", "running, mean", "rate"),
    Column("running_peak", "peak", "count"),
    Column("waiting_mean", "waiting, mean", "rate"),
    Column("waiting_peak", "peak", "count"),
    Column("kv_usage_peak", "KV use, peak", "share"),
    Column("prefix_hit_share", "prefix hits", "share"),
    Column("preemptions", "preemptions", "count"),
    Column("queue_mean_s", "queue, mean (ms)", "ms"),
    Column("generation_tokens", "tokens generated", "count"),
    Column("received_tokens", "received", "count"),
    Column("unseen", "scrapes failed", "share"),
)
_GPU = (
    Column("run", "run"),
    Column("gpu", "GPU of the client's machine"),
    Column("utilisation_mean", "busy, mean", "share"),
    Column("memory_peak_gib", "memory, peak (GiB)", "rate"),
    Column("power_mean_watts", "power, mean (W)", "rate"),
    Column("energy_joules", "energy (J)", "rate"),
)


def server(story: Story) -> Section | None:
    """Show queue, KV use and totals of every server that says them."""
    rows: list[dict[str, Cell]] = []
    for name, series in story.servers.items():
        received = story.received[name]
        for each in servers.summaries(series):
            known: dict[str, Cell] = {
                column.key: getattr(each, column.key)
                for column in _COLUMNS
                if column.key not in ("run", "received_tokens")
            }
            rows.append({"run": name, "received_tokens": received.get(each.replica), **known})
    gpus: list[dict[str, Cell]] = []
    for name, whole in story.wholes.items():
        for gpu in whole.gpus:
            memory = gpu.memory_peak_bytes
            gpus.append(
                {
                    "run": name,
                    "gpu": " ".join(labels_of(gpu.gpu).values()),
                    "utilisation_mean": gpu.utilisation_mean,
                    "memory_peak_gib": None if memory is None else memory / 2**30,
                    "power_mean_watts": gpu.power_mean_watts,
                    "energy_joules": gpu.energy_joules,
                }
            )
    blocks: list[Table | Figure] = []
    if rows:
        says = (
            "What each server said on /metrics. Prefix hits are of the tokens of prompts. Tokens"
            " generated and not received were those of calls that failed, or of somebody else."
        )
        if any(run.info.warmup_s for run in story.runs):
            says += " The warm-up counts here."
        blocks.append(Table(told(_COLUMNS, rows), rows, says))
        for quantity, (_, text) in timelines.QUANTITIES.items():
            picture = timelines.said_by_servers(story.servers, quantity)
            if picture is not None:
                blocks.append(Figure(picture, text))
    if gpus:
        blocks.append(Table(told(_GPU, gpus), gpus))
    return Section("server", "What the servers say", tuple(blocks)) if blocks else None
