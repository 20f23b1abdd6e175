"""What a run in progress says of itself, once a second: into its directory, and to who asks."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from servescope.analysis.buckets import Buckets
from servescope.loadgen.calibration import Calibration
from servescope.loadgen.conductor import Conductor
from servescope.loadgen.counts import Counts
from servescope.loadgen.health import Health, HostClock
from servescope.loadgen.messages import Beat
from servescope.loadgen.scrape import Scraper
from servescope.loadgen.validity import judge_so_far
from servescope.traces import live
from servescope.traces.live import Live, Server
from servescope.traces.run import Run, RunInfo, Validity
from servescope.traces.server import GAUGES

TELL_S = 1.0
EARLY_S = 2.0  # while workers begin, a share of their time says nothing
_RECENT_BEATS = 500  # a worker's, fifty a second


class Watch:
    """Watches a run from the conductor's process; `latest` is what it said last.

    It takes numbers that the conductor has anyway, and a failure of it ends nothing.
    """

    def __init__(
        self,
        run: Run,
        conductor: Conductor,
        counts: Counts,
        replicas: Sequence[str],
        *,
        scraper: Scraper | None = None,
        calibration: Calibration | None = None,
        host: HostClock | None = None,
    ) -> None:
        self.conductor = conductor
        self.counts = counts
        self.info: RunInfo = run.info
        self.folder: Path = run.path
        self._replicas = replicas
        self._scraper = scraper
        self._calibration = calibration
        self._host = host
        self._began_s = time.monotonic()
        self._late = Buckets()
        self._late_seen: dict[int, int] = {}
        self._before: dict[int, Beat] = {}
        self._cpu_share: float | None = None
        self.latest = self._live()

    async def keep_telling(self) -> None:
        """Say how the run goes once a second, until cancelled."""
        while True:
            self.tell()
            await asyncio.sleep(TELL_S)

    def tell(self, *, sealing: bool = False) -> None:
        """Say how the run goes now; `sealing` once every call has ended."""
        with suppress(Exception):
            self._look()
            self.latest = self._live(sealing=sealing)
            live.write(self.folder, self.latest)

    def seal(self, validity: Validity, doubts: Iterable[str]) -> None:
        """Say for the last time what the run came to, once it is sealed."""
        self.latest = msgspec.structs.replace(
            self.latest, validity=validity, doubts=tuple(doubts), sealing=False
        )
        with suppress(OSError):
            live.remove(self.folder)

    def _look(self) -> None:
        """Take what the workers said since the last look."""
        for worker, late_s in self.conductor.late_s.items():
            seen = self._late_seen.get(worker, 0)
            self._late.add(np.array(late_s[seen:]))
            self._late_seen[worker] = len(late_s)
        beats = dict(self.conductor.beats)
        shares = list(_shares(self._before, beats))
        if shares:
            self._cpu_share = max(shares)
            self._before = beats

    def _live(self, *, sealing: bool = False) -> Live:
        tally = self.conductor.tally
        ttft, tpot = tally.spread(tally.ttft_s), tally.spread(tally.tpot_s)
        lag = tally.spread(self.counts.recent_lag_s)
        validity, doubts = self._judged()
        return Live(
            written_unix_s=time.time(),
            host=platform.node(),
            pid=os.getpid(),
            now_s=tally.now_s,
            planned=tally.planned,
            sent=tally.sent,
            in_flight=tally.in_flight,
            waiting=tally.waiting,
            done=tally.done,
            failures=self.counts.failures,
            lag_s=tally.lag_s,
            lag_p99_s=lag and lag[1],
            late_p99_s=self._recent_late_s(),
            cpu_share=self._cpu_share,
            ttft_p50_s=ttft and ttft[0],
            ttft_p99_s=ttft and ttft[1],
            tpot_p50_s=tpot and tpot[0],
            tpot_p99_s=tpot and tpot[1],
            judged=tally.judged,
            met=tally.met,
            servers=tuple(self._servers()),
            validity=validity,
            doubts=doubts,
            sealing=sealing,
        )

    def _judged(self) -> tuple[Validity, tuple[str, ...]]:
        """Return the validity and the doubts so far, of which those of the start are the first."""
        validity: Validity = "suspect" if self.info.resumed_s else "valid"
        doubts: tuple[str, ...] = ()
        if time.monotonic() - self._began_s >= EARLY_S:
            health = Health.so_far(
                self.counts,
                self.conductor.beats,
                self._late,
                self.conductor.uncounted,
                self._host.steal_share() if self._host else None,
            )
            found, doubts = judge_so_far(
                self.counts.statuses,
                health,
                self.counts.gaps.quantile(0.99),
                calibration=self._calibration,
            )
            validity = validity if found == "valid" else found
        of_servers = self._scraper.doubts if self._scraper else ()
        return validity, (*self.info.doubts, *doubts, *of_servers)

    def _recent_late_s(self) -> float | None:
        recent = [s for late_s in self.conductor.late_s.values() for s in late_s[-_RECENT_BEATS:]]
        return float(np.quantile(recent, 0.99, method="inverted_cdf")) if recent else None

    def _servers(self) -> Iterable[Server]:
        if self._scraper is not None:
            for number, replica in enumerate(self._replicas):
                said = self._scraper.latest.get(number, {})
                yield Server(replica=replica, **{name: said.get(name) for name in GAUGES})


def _shares(before: Mapping[int, Beat], now: Mapping[int, Beat]) -> Iterable[float]:
    """Yield the part of a core that each worker used since the beat before; none if too short."""
    for worker, beat in now.items():
        then = before.get(worker)
        wall_s = beat.wall_s - (then.wall_s if then else 0.0)
        if wall_s > TELL_S / 2:
            yield (beat.cpu_s - (then.cpu_s if then else 0.0)) / wall_s
