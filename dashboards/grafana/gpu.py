"""GPUs as NVIDIA's DCGM exporter shows them."""

from __future__ import annotations

from servescope.dashboards.grafana.board import Board, Panel, Row
from servescope.dashboards.grafana.promql import Query, chosen

_GPU = "GPU {{gpu}} {{instance}}"


def _shown(name: str, says: str = "", factor: str = "") -> Query:
    """Return the metric of every GPU, times a factor where its unit wants one."""
    return Query(f"{chosen(name)}{factor}", f"{says} {_GPU}".lstrip())


_USED, _FREE = chosen("DCGM_FI_DEV_FB_USED"), chosen("DCGM_FI_DEV_FB_FREE")

_WORK = (
    Panel(
        "Utilisation",
        "percent",
        (_shown("DCGM_FI_DEV_GPU_UTIL"),),
        "Share of the time in which anything ran; it says nothing of how much.",
        top=100,
    ),
    Panel(
        "Engine active",
        "percentunit",
        (_shown("DCGM_FI_PROF_GR_ENGINE_ACTIVE"),),
        "Share of the time in which the compute engine was busy.",
        top=1,
    ),
    Panel(
        "Tensor cores active",
        "percentunit",
        (_shown("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),),
        "Share of the cycles in which tensor cores worked: high in prefill, low in decode.",
        top=1,
    ),
    Panel(
        "Memory interface active",
        "percentunit",
        (_shown("DCGM_FI_PROF_DRAM_ACTIVE"),),
        "Share of the cycles in which memory was read or written: what bounds decode.",
        top=1,
    ),
    Panel(
        "SM clock",
        "hertz",
        (_shown("DCGM_FI_DEV_SM_CLOCK", factor=" * 1e6"),),
        "Clock of the multiprocessors; it falls when power or heat is at its limit.",
    ),
    Panel(
        "Last XID error",
        "none",
        (_shown("DCGM_FI_DEV_XID_ERRORS"),),
        "The driver's number of the last error of each GPU; 0 is none.",
        kind="stat",
        limits=(1,),
    ),
)

_MEMORY = (
    Panel(
        "Memory",
        "mbytes",
        (_shown("DCGM_FI_DEV_FB_USED", "used"), _shown("DCGM_FI_DEV_FB_FREE", "free")),
        "Memory in use and free; servers take most of it for KV cache as they start.",
    ),
    Panel(
        "Memory in use",
        "percentunit",
        (Query(f"{_USED} / ({_USED} + {_FREE})", _GPU),),
        "Share of the memory in use.",
        top=1,
    ),
)

_POWER = (
    Panel(
        "Power",
        "watt",
        (_shown("DCGM_FI_DEV_POWER_USAGE"),),
        "Power draw of each GPU.",
    ),
    Panel(
        "Temperature",
        "celsius",
        (_shown("DCGM_FI_DEV_GPU_TEMP"),),
        "Temperature of each GPU; from some 85 degrees on most lower their clock.",
        limits=(80, 90),
    ),
)

_LINKS = (
    Panel(
        "NVLink",
        "MBs",
        (_shown("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL"),),
        "Traffic over NVLink, both ways: a rate, though the exporter calls it a counter.",
    ),
    Panel(
        "NVLink by direction",
        "Bps",
        (
            _shown("DCGM_FI_PROF_NVLINK_TX_BYTES", "sent"),
            _shown("DCGM_FI_PROF_NVLINK_RX_BYTES", "received"),
        ),
        "Traffic over NVLink; empty unless both fields are added to the exporter's list.",
    ),
    Panel(
        "PCIe",
        "Bps",
        (
            _shown("DCGM_FI_PROF_PCIE_TX_BYTES", "sent"),
            _shown("DCGM_FI_PROF_PCIE_RX_BYTES", "received"),
        ),
        "Traffic over PCIe: weights, and KV blocks that are moved to the host.",
    ),
)

BOARD = Board(
    "gpu",
    "servescope: GPU",
    "NVIDIA GPUs by the names of the DCGM exporter; what starts with PROF needs a data-centre GPU.",
    "DCGM_FI_DEV_GPU_UTIL",
    (
        Row("Work", _WORK),
        Row("Memory", _MEMORY),
        Row("Power", _POWER),
        Row("Links", _LINKS),
    ),
)
