import sys
from types import SimpleNamespace

import pytest

from servescope.loadgen.gpu import Sampler


class Nvml:
    """NVML with two GPUs of planted values; the second, a small one, counts no energy."""

    class NVMLError(Exception):
        pass

    def __init__(self, count: int = 2, broken: str = "") -> None:
        self.count = count
        self.broken = broken
        self.lost = False
        self.open = 0

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError(self.broken)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, gpu: int) -> str:
        return ("NVIDIA H100", "Small, old")[gpu]

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> SimpleNamespace:
        if self.lost:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(gpu=(87, 0)[gpu], memory=12)

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> SimpleNamespace:
        return SimpleNamespace(total=80 << 30, free=70 << 30, used=10 << 30)

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return 412_500  # mW

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> int:
        if gpu == 1:
            raise self.NVMLError("Not Supported")
        return 9_000_500  # mJ


def test_every_gpu_is_told_in_si_units_and_what_it_cannot_tell_is_left_out() -> None:
    sampler = Sampler(Nvml())
    assert sampler.reason is None
    assert sampler.sample() == [
        ("gpu_utilisation_ratio", "gpu=0,name=NVIDIA H100", 0.87),
        ("gpu_memory_used_bytes", "gpu=0,name=NVIDIA H100", 10.0 * 2**30),
        ("gpu_power_watts", "gpu=0,name=NVIDIA H100", 412.5),
        ("gpu_energy_joules_total", "gpu=0,name=NVIDIA H100", 9000.5),
        ("gpu_utilisation_ratio", "gpu=1,name=Small\\, old", 0.0),
        ("gpu_memory_used_bytes", "gpu=1,name=Small\\, old", 10.0 * 2**30),
        ("gpu_power_watts", "gpu=1,name=Small\\, old", 412.5),
    ]


def test_a_gpu_that_is_lost_while_running_is_no_error() -> None:
    nvml = Nvml(count=1)
    sampler = Sampler(nvml)
    nvml.lost = True
    assert [name for name, _, _ in sampler.sample()] == [
        "gpu_memory_used_bytes",
        "gpu_power_watts",
        "gpu_energy_joules_total",
    ]


def test_a_machine_without_a_driver_or_without_a_gpu_says_why_it_says_nothing() -> None:
    no_driver = Sampler(Nvml(broken="NVML Shared Library Not Found"))
    assert no_driver.sample() == []
    assert no_driver.reason is not None
    assert "NVML Shared Library Not Found" in no_driver.reason
    empty = Sampler(Nvml(count=0))
    assert empty.sample() == []
    assert empty.reason == "GPUs are not sampled: NVML finds none."


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # an import of it fails
    sampler = Sampler()
    assert sampler.sample() == []
    assert sampler.reason == "GPUs are not sampled: install servescope[gpu]."
    sampler.close()


def test_closing_lets_nvml_go_once_and_then_nothing_is_told() -> None:
    nvml = Nvml()
    sampler = Sampler(nvml)
    sampler.close()
    sampler.close()
    assert nvml.open == 0
    assert sampler.sample() == []
