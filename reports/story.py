"""What a report tells, with everything that its sections have in common worked out once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from servescope.analysis.comparison import Comparison
from servescope.analysis.cut import EVERYTHING, Cut
from servescope.analysis.measured import Measured
from servescope.analysis.pairing import names_of
from servescope.analysis.profiles import Profile, Seen
from servescope.analysis.sample import Sample
from servescope.analysis.slo import SLO
from servescope.analysis.steady_state import Steadiness, steadiness_of
from servescope.analysis.totals import Whole
from servescope.traces.errors import InputError
from servescope.traces.run import Run


@dataclass(frozen=True)
class Story:
    """What a report tells: one run, or several and how they compare, and the SLO they are held to.

    Of a system that was run several times, `runs` holds the first; the comparison is of all.
    `profiles` are other tools whose definitions are asked for beside ours. A part of a story tells
    of a `part` of each run of the `whole` one.
    """

    runs: tuple[Run, ...]
    slo: SLO | None = None
    comparison: Comparison | None = None
    refused: InputError | None = None  # why runs were not compared
    profiles: tuple[Profile, ...] = ()
    missing: tuple[str, ...] = ()  # which runs there should have been, and why they failed
    whole: Story | None = None
    part: Cut = EVERYTHING

    def cut(self, part: Cut) -> Story:
        """Return the story of a part of each run; raises InputError for what a run does not know.

        What was worked out of this story is not worked out again. Nothing is compared in it.
        """
        whole = self.whole or self
        return replace(whole, comparison=None, refused=None, whole=whole, part=part)

    @property
    def title(self) -> str:
        """Heading of the page."""
        return " against ".join(self.named)

    @cached_property
    def named(self) -> dict[str, Run]:
        """The runs by the names that tell them apart."""
        return dict(zip(names_of(self.runs), self.runs, strict=True))

    @cached_property
    def measured(self) -> dict[str, Measured]:
        """What was measured of each run, by name."""
        if self.whole:
            return {name: each.cut(self.part) for name, each in self.whole.measured.items()}
        return {name: Measured.of(run) for name, run in self.named.items()}

    @cached_property
    def wholes(self) -> dict[str, Whole]:
        """Each run as a whole, by name."""
        if self.whole:
            return {
                name: Whole(self.measured[name], self.named[name], whole, self.part)
                for name, whole in self.whole.wholes.items()
            }
        return {name: Whole(self.measured[name], run) for name, run in self.named.items()}

    @cached_property
    def calls(self) -> dict[str, pl.DataFrame]:
        """Per-call metrics of each run, by name."""
        return {name: measured.calls for name, measured in self.measured.items()}

    def columns(self, *names: str) -> dict[str, pl.DataFrame]:
        """Columns of the calls of each run, by name: of a part they cost less than all."""
        return {run: measured.columns(*names) for run, measured in self.measured.items()}

    @cached_property
    def summaries(self) -> dict[str, pl.DataFrame]:
        """Distribution of every metric of each run, by name."""
        return {name: measured.summary for name, measured in self.measured.items()}

    def samples(self, metric: str) -> dict[str, Sample]:
        """Values of a metric in each run that has any, by name, without sections of time."""
        found = {name: each.spread(metric) for name, each in self.measured.items()}
        return {name: sample for name, sample in found.items() if len(sample)}

    @cached_property
    def steady(self) -> dict[str, Steadiness]:
        """How steady each run was, by name; runs without an answered call are left out."""
        found = {name: steadiness_of(measured) for name, measured in self.measured.items()}
        return {name: steady for name, steady in found.items() if steady}

    @cached_property
    def seen(self) -> dict[str, Seen]:
        """Each run as the client of another tool would have met it, by name."""
        return {name: Seen(self.measured[name], run, self.slo) for name, run in self.named.items()}

    @cached_property
    def servers(self) -> dict[str, pl.DataFrame]:
        """What the servers of each run said over time, by name; runs without that are left out."""
        said = {name: whole.series for name, whole in self.wholes.items()}
        return {
            name: series for name, series in said.items() if series is not None and series.height
        }

    @cached_property
    def received(self) -> dict[str, dict[str, int]]:
        """Tokens of the answers of each replica of each run, by name, in the warm-up too.

        Of a part, those of its calls.
        """
        return {name: self._received(name, run) for name, run in self.named.items()}

    def _received(self, name: str, run: Run) -> dict[str, int]:
        calls = self.measured[name].columns("replica", "output_tokens").lazy()
        tokens = (
            (calls if self.whole else run.rows)
            .group_by("replica")
            .agg(pl.col("output_tokens").sum())
        )
        return {str(replica): count for replica, count in tokens.collect().iter_rows() if replica}
