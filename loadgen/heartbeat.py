"""Whether the client's own loop stood still: its pause would look like the server's."""

from __future__ import annotations

import asyncio
import time

EVERY_S = 0.02


class Heartbeat:
    """Wakes every EVERY_S and keeps how much too late each time; `late_s` in order of time."""

    def __init__(self) -> None:
        self.late_s: list[float] = []

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            due_s = time.monotonic() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self.late_s.append(max(0.0, time.monotonic() - due_s))
