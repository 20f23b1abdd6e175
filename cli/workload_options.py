"""The options that say what is sent and when: of a trace, or made up. Verbs share them.

A verb takes `workload` in their stead:

    @grouped(workload=Asked)
    def replay(context: typer.Context, workload: Asked, ...) -> None: ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from servescope.cli.options import OPTION_OF, Format, checked, params

if TYPE_CHECKING:
    from servescope.loadgen.experiment import ArrivalSpec, SyntheticSpec, WorkloadSpec

CALLS, WHEN, MADE_UP = "Which calls", "When they start", "Calls that no trace holds"
GENERATOR = "workload:"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options say of a workload; `spec` makes it part of an experiment."""

    trace: Annotated[
        str | None,
        typer.Argument(
            metavar="[TRACE]",
            help="A bundled name (see `traces list`), a trace file, a run directory, workload:NAME"
            " (see `workload`), or an experiment file (.toml), as every run directory holds one."
            " Without it, calls are made up of lengths.",
        ),
    ] = None
    workload_param: Annotated[
        list[str] | None,
        typer.Option(
            "--workload-param",
            "-w",
            help="A parameter of workload:NAME, key=value.",
            rich_help_panel=CALLS,
        ),
    ] = None
    format: Format = None
    start: Annotated[
        float,
        typer.Option(
            "--start", min=0, help="Begin at this second of the trace.", rich_help_panel=CALLS
        ),
    ] = 0.0
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            "--benchmark-duration",
            help="Take this many seconds: of the trace, or of starts that are drawn.",
            rich_help_panel=CALLS,
        ),
    ] = None
    num_prompts: Annotated[
        int | None,
        typer.Option(
            "--num-prompts",
            "--request-count",
            min=1,
            help="Take at most this many calls.",
            rich_help_panel=CALLS,
        ),
    ] = None
    sessions: Annotated[
        Literal["auto", "none"],
        typer.Option(
            help="auto: recorded sessions, or inferred from shared prefixes; none: no sessions.",
            rich_help_panel=CALLS,
        ),
    ] = "auto"
    prompts: Annotated[
        Literal["recorded", "synthetic"],
        typer.Option(
            help="recorded: the trace's own texts, where it has them; synthetic: made up.",
            rich_help_panel=CALLS,
        ),
    ] = "recorded"
    time_scale: Annotated[
        float,
        typer.Option(
            "--time-scale",
            help="Stretch all arrivals and pauses; 0.5 is twice as fast.",
            rich_help_panel=WHEN,
        ),
    ] = 1.0
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate",
            help="Bring the starts, recorded or of workload:NAME, to this mean rate, in programs a"
            " second.",
            rich_help_panel=WHEN,
        ),
    ] = None
    request_rate: Annotated[
        str | None,
        typer.Option(
            "--request-rate",
            help="Draw the starts anew at this mean rate, in programs a second; inf: all at once.",
            rich_help_panel=WHEN,
        ),
    ] = None
    arrivals: Annotated[
        str | None,
        typer.Option(
            "--arrivals",
            "--arrival-pattern",
            help="The process they are drawn from: constant, poisson, gamma, weibull, mmpp, hawkes,"
            " piecewise, csv, ramp; poisson by default.",
            rich_help_panel=WHEN,
        ),
    ] = None
    arrival_param: Annotated[
        list[str] | None,
        typer.Option(
            "--arrival-param",
            help="A parameter of it, key=value; docs/reference/arrivals.md lists them.",
            rich_help_panel=WHEN,
        ),
    ] = None
    burstiness: Annotated[
        float | None,
        typer.Option(
            "--burstiness",
            "--arrival-smoothness",
            help="Shape of gamma arrivals: 1 is Poisson, less is burstier.",
            rich_help_panel=WHEN,
        ),
    ] = None
    ramp_up_strategy: Annotated[
        str | None,
        typer.Option(
            "--ramp-up-strategy",
            help="linear or exponential: let the rate go from one to another.",
            rich_help_panel=WHEN,
        ),
    ] = None
    ramp_up_start_rps: Annotated[
        float | None,
        typer.Option("--ramp-up-start-rps", help="First rate of the ramp.", rich_help_panel=WHEN),
    ] = None
    ramp_up_end_rps: Annotated[
        float | None,
        typer.Option("--ramp-up-end-rps", help="Last rate of the ramp.", rich_help_panel=WHEN),
    ] = None
    rate_csv: Annotated[
        str | None,
        typer.Option(
            "--rate-csv",
            help="Draw starts whose rate a CSV file gives (t_s,rate_rps).",
            rich_help_panel=WHEN,
        ),
    ] = None
    delays: Annotated[
        Literal["recorded", "none", "scale"],
        typer.Option(
            help="Pauses of users and tools: as recorded, left out, or scaled (by --delay-scale, or"
            " as --time-scale).",
            rich_help_panel=WHEN,
        ),
    ] = "scale"
    delay_scale: Annotated[
        float | None,
        typer.Option("--delay-scale", help="Factor of the pauses.", rich_help_panel=WHEN),
    ] = None
    input_len: Annotated[
        int | None,
        typer.Option(
            "--random-input-len",
            "--input-len",
            "--isl",
            help="Mean tokens of a prompt, 1024 by default.",
            rich_help_panel=MADE_UP,
        ),
    ] = None
    output_len: Annotated[
        int | None,
        typer.Option(
            "--random-output-len",
            "--output-len",
            "--osl",
            help="Mean tokens of an answer, 128 by default.",
            rich_help_panel=MADE_UP,
        ),
    ] = None
    range_ratio: Annotated[
        float | None,
        typer.Option(
            "--random-range-ratio",
            help="Draw lengths from mean x (1 - this) to mean x (1 + this); 0 by default.",
            rich_help_panel=MADE_UP,
        ),
    ] = None
    prefix_len: Annotated[
        int | None,
        typer.Option(
            "--random-prefix-len",
            help="Tokens in front of every prompt, the same in all; none by default.",
            rich_help_panel=MADE_UP,
        ),
    ] = None
    turns: Annotated[
        int | None,
        typer.Option("--turns", help="Calls of a program, 1 by default.", rich_help_panel=MADE_UP),
    ] = None
    think: Annotated[
        float | None,
        typer.Option(
            "--think",
            help="Seconds between an answer and the next turn; none by default.",
            rich_help_panel=MADE_UP,
        ),
    ] = None

    dataset_path: Annotated[
        str | None,
        typer.Option("--dataset-path", "--input-file", help="The same as TRACE.", hidden=True),
    ] = None
    dataset_name: Annotated[
        str | None,
        typer.Option("--dataset-name", help="random: the same as no TRACE.", hidden=True),
    ] = None
    fixed_schedule: Annotated[
        bool,
        typer.Option(
            "--fixed-schedule", help="Starts as recorded, which is the default.", hidden=True
        ),
    ] = False

    def __post_init__(self) -> None:
        """Take the names that other tools have for TRACE."""
        from servescope.traces.errors import InputError

        if self.dataset_path is not None and self.trace is not None:
            raise InputError("There are two traces.", "Leave --dataset-path out.")
        if self.dataset_name not in (None, "random"):
            raise InputError(
                f"--dataset-name cannot be {self.dataset_name}, only random.",
                "Name the trace itself: its format is seen from its content.",
            )
        object.__setattr__(self, "trace", self.trace or self.dataset_path)

    @property
    def experiment_file(self) -> str | None:
        """The experiment file that stands in place of a trace, if one does."""
        return self.trace if self.trace and self.trace.endswith(".toml") else None

    @property
    def generator(self) -> str | None:
        """The workload of the literature that stands in place of a trace, if one does."""
        named = self.trace and self.trace.startswith(GENERATOR)
        return self.trace.removeprefix(GENERATOR) if self.trace and named else None

    @property
    def name(self) -> str:
        """What is replayed, in words."""
        return self.generator or self.trace or "made-up calls"

    def spec(self) -> WorkloadSpec:
        """Return the workload; raises InputError for options that do not go together."""
        from servescope.loadgen.experiment import WorkloadSpec

        return checked(
            WorkloadSpec,
            trace=None if self.generator else self.trace,
            synthetic=self._synthetic(),
            generator=self.generator,
            params=params(self.workload_param) or None,
            format=self.format,
            start_s=self.start,
            duration_s=self.duration,
            calls=self.num_prompts,
            sessions=self.sessions,
            prompts=self.prompts,
            arrivals=self._arrivals(),
            rate_rps=self.rate,
            time_scale=self.time_scale,
            delays=self.delays,
            delay_scale=self.delay_scale,
        )

    def _synthetic(self) -> SyntheticSpec | None:
        from servescope.loadgen.experiment import SyntheticSpec
        from servescope.traces.errors import InputError

        lengths = {
            "input_tokens": self.input_len,
            "output_tokens": self.output_len,
            "range_ratio": self.range_ratio,
            "prefix_tokens": self.prefix_len,
            "turns": self.turns,
            "think_s": self.think,
        }
        given = {key: value for key, value in lengths.items() if value is not None}
        random = self.dataset_name == "random"
        if self.trace is None and not given and not random:
            raise InputError(
                "It is not said what to send.",
                "Name a trace (`servescope traces list`), or lengths: --random-input-len 1024.",
            )
        if self.trace is not None and (given or random):
            first = next(iter(given), "dataset-name")
            option = OPTION_OF.get(first, first)
            raise InputError(
                f"--{option} describes made-up calls, and there is a trace.", "Leave one out."
            )
        return checked(SyntheticSpec, **given) if self.trace is None else None

    def _arrivals(self) -> ArrivalSpec | None:
        """Return the arrival process that is asked for; raises InputError for two of them."""
        from servescope.loadgen.experiment import ArrivalSpec
        from servescope.traces.errors import InputError

        ramp = {
            "strategy": self.ramp_up_strategy,
            "start_rps": self.ramp_up_start_rps,
            "end_rps": self.ramp_up_end_rps,
        }
        ramp = {key: value for key, value in ramp.items() if value is not None}
        rate = _rate(self.request_rate)
        pattern = PATTERNS.get(self.arrivals or "", self.arrivals)
        asked = {
            "--arrivals": pattern,
            "--rate-csv": "csv" if self.rate_csv else None,
            "--ramp-up-strategy": "ramp" if ramp else None,
            "--request-rate inf": "immediately" if rate == math.inf else None,
            "--fixed-schedule": "recorded" if self.fixed_schedule else None,
            "--request-rate": "drawn" if self.fixed_schedule and rate else None,
        }
        named = {option: process for option, process in asked.items() if process}
        if len(set(named.values())) > 1:
            raise InputError(
                f"{' and '.join(named)} each say when programs start.", "Leave one of them out."
            )
        given: dict[str, Any] = dict(params(self.arrival_param))
        given |= ramp
        if self.rate_csv:
            given["path"] = self.rate_csv
        if self.burstiness is not None:
            given["burstiness"] = self.burstiness
        if self.fixed_schedule:
            return None
        if not named and rate is None:
            if given:
                raise InputError(
                    "It is not said at which rate programs start.", "Add --request-rate."
                )
            return None
        drawn = "poisson" if self.burstiness in (None, 1.0) else "gamma"
        process = next(iter(named.values()), drawn)
        if process == "poisson":
            given.pop("burstiness", None)
        rate = None if rate == math.inf else rate
        return checked(ArrivalSpec, process=process, rate_rps=rate, params=given)


PATTERNS = {"concurrency_burst": "immediately"}  # what AIPerf calls it


def _rate(text: str | None) -> float | None:
    from servescope.traces.errors import InputError

    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not rate > 0:
        raise InputError(f"--request-rate cannot be {text}.", "Give a number above 0, or inf.")
    return rate
