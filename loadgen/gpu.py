"""The GPUs of the machine that the client runs on, as NVML says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from servescope.traces.server import labels_text


class Sampler:
    """Asks NVML for every GPU; where there is none it says nothing, and `reason` why.

    `nvml` is the module to ask, pynvml if it is left out (the extra `servescope[gpu]`).
    """

    def __init__(self, nvml: Any = None) -> None:
        self.reason: str | None = None
        self._nvml = nvml
        self._gpus: list[tuple[Any, str]] = []  # a handle and labels each
        try:
            if self._nvml is None:
                self._nvml = import_module("pynvml")
            self._nvml.nvmlInit()
        except ImportError:
            self.reason = "GPUs are not sampled: install servescope[gpu]."
            return
        except self._nvml.NVMLError as error:
            self.reason = f"GPUs are not sampled: NVML says {error}."
            return
        with suppress(self._nvml.NVMLError):
            for index in range(self._nvml.nvmlDeviceGetCount()):
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                name = self._nvml.nvmlDeviceGetName(handle)
                self._gpus.append((handle, labels_text({"gpu": str(index), "name": name})))
        if not self._gpus:
            self.reason = "GPUs are not sampled: NVML finds none."

    def sample(self) -> list[tuple[str, str, float]]:
        """Return (name, labels, value) of what each GPU tells now; what it cannot is left out.

        Utilisation is the share of the last sixth of a second to second in which anything ran on
        it, memory is in bytes, power in watts, energy in joules since the driver was loaded.
        """
        nvml = self._nvml
        quantities: tuple[tuple[str, Callable[[Any], float]], ...] = (
            (
                "gpu_utilisation_ratio",
                lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
            ),
            ("gpu_memory_used_bytes", lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used),
            ("gpu_power_watts", lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            (
                "gpu_energy_joules_total",
                lambda gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
            ),
        )
        told: list[tuple[str, str, float]] = []
        for handle, labels in self._gpus:
            for name, ask in quantities:
                with suppress(nvml.NVMLError):
                    told.append((name, labels, float(ask(handle))))
        return told

    def close(self) -> None:
        """Let NVML go."""
        if self._gpus:
            self._gpus = []
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
