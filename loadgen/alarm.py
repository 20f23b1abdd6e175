"""An alarm clock finer than the event loop's own: loops round their timers to a millisecond."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable

_MONOTONIC, _NONBLOCK_CLOEXEC, _ABSOLUTE = 1, 0o2004000, 1


class Alarm:
    """Calls back at an absolute moment of `time.monotonic()`; one moment at a time.

    On Linux it is a timerfd, exact to some ten microseconds. Elsewhere it is the loop's own timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = None
        self._fd: int | None = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            fd = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK_CLOEXEC)
            if fd >= 0:
                self._fd = fd
                loop.add_reader(fd, self._rang)

    def set(self, at_s: float) -> None:
        """Ring once at `at_s`, and not at the moment set before; a past moment rings at once."""
        if self._fd is not None:
            # all zeros would disarm it
            ns = max(1, round(at_s * 1e9))
            when = struct.pack("qqqq", 0, 0, ns // 10**9, ns % 10**9)
            if self._libc.timerfd_settime(self._fd, _ABSOLUTE, when, None) == 0:
                return
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, at_s - time.monotonic()), self._callback)

    def close(self) -> None:
        """Ring no more."""
        if self._timer:
            self._timer.cancel()
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _rang(self) -> None:
        assert self._fd is not None
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set anew between the ring and the reading
            return
        self._callback()
