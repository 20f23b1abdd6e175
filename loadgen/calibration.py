"""What was measured of this machine's client, and where that is kept."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec
import numpy as np

from servescope.traces.errors import InputError, OutputFailed

GOOD = 0.1  # error of a tail up to which a rate counts as sustained


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One rate, and how far the client's numbers were from the server's truth.

    Errors of tails are relative, with the sign of what the client says too much. `stamp_p99_s` is
    how long after a token was written it was stamped; `lag_p99_s` how late calls were sent.
    """

    rate_rps: float
    token_rate: float
    delivered: float
    ttft_p50_error_s: float
    ttft_p99_error: float
    gap_p99_error: float
    stamp_p99_s: float
    lag_p99_s: float
    cpu_share: float
    validity: str

    @property
    def error(self) -> float:
        """The greater error of the two tails."""
        return max(abs(self.ttft_p99_error), abs(self.gap_p99_error))


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine's client can do: one worker unpaced, and `workers` at each rate in turn."""

    host: dict[str, str]
    version: str
    workers: int
    unpaced_rps: float
    unpaced_token_rate: float
    steps: tuple[Step, ...]

    @property
    def sustained(self) -> Step | None:
        """The last step up to which every error of a tail is at most 10 %; None if none is."""
        good = None
        for step in self.steps:
            if step.error > GOOD:
                break
            good = step
        return good

    def error_at(self, token_rate: float) -> float:
        """Return the error of tails at a rate of tokens, between the measured ones by line."""
        rates = [step.token_rate for step in self.steps]
        return float(np.interp(token_rate, rates, [step.error for step in self.steps]))


def host() -> dict[str, str]:
    """Return what a calibration belongs to: the processor, its number, and Python."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": model, "cores": str(cores), "python": platform.python_version()}


def place() -> Path:
    """Return the file in which this machine's calibration is kept."""
    home = os.environ.get("XDG_CACHE_HOME", "").strip()
    return (Path(home) if home else Path.home() / ".cache") / "servescope" / "calibration.json"


def keep(calibration: Calibration, path: Path) -> None:
    """Write a calibration; raises OutputFailed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=2))
    except OSError as error:
        raise OutputFailed.of(path, error) from None


def kept(path: Path) -> Calibration | None:
    """Return this machine's calibration, or None if there is none or it is another machine's.

    Raises InputError for a file that is no calibration.
    """
    try:
        calibration = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError:
        return None
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path} is no calibration: {error}.", "Remove it, and calibrate again."
        ) from None
    return calibration if calibration.host == host() else None
