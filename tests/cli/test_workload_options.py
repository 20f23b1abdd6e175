import pytest
import typer
from typer.testing import CliRunner

from servescope.cli.options import grouped
from servescope.cli.workload_options import Asked
from servescope.loadgen.experiment import ArrivalSpec, SyntheticSpec, WorkloadSpec
from servescope.traces.errors import InputError

RANDOM = WorkloadSpec(synthetic=SyntheticSpec())


def spec_of(*words: str) -> WorkloadSpec:
    """What a command line asks for."""
    found: list[WorkloadSpec] = []
    app = typer.Typer()

    @app.command()
    @grouped(workload=Asked)
    def verb(workload: Asked, other: int = 0) -> None:
        found.append(workload.spec())

    result = CliRunner().invoke(app, [*words, "--other", "3"])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return found[0]


def drawn(process: str, rate_rps: float | None = None, **params: object) -> WorkloadSpec:
    arrivals = ArrivalSpec(process=process, rate_rps=rate_rps, params=params)  # type: ignore[arg-type]
    return WorkloadSpec(trace="t", arrivals=arrivals)


@pytest.mark.parametrize(
    ("line", "spec"),
    [
        ("t", WorkloadSpec(trace="t")),
        ("--dataset-path t", WorkloadSpec(trace="t")),
        ("--input-file t --fixed-schedule", WorkloadSpec(trace="t")),
        ("t --benchmark-duration 60", WorkloadSpec(trace="t", duration_s=60.0)),
        ("t --request-count 9", WorkloadSpec(trace="t", calls=9)),
        ("t --rate 9", WorkloadSpec(trace="t", rate_rps=9.0)),
        ("t --delays none", WorkloadSpec(trace="t", delays="none")),
        ("t --delay-scale 2", WorkloadSpec(trace="t", delay_scale=2.0)),
        ("t --request-rate 9", drawn("poisson", 9.0)),
        ("t --request-rate 9 --burstiness 1", drawn("poisson", 9.0)),
        ("t --request-rate 9 --burstiness 0.5", drawn("gamma", 9.0, burstiness=0.5)),
        ("t --request-rate 9 --arrival-smoothness 2", drawn("gamma", 9.0, burstiness=2.0)),
        ("t --request-rate 9 --arrival-pattern constant", drawn("constant", 9.0)),
        ("t --request-rate inf", drawn("immediately")),
        ("t --arrivals concurrency_burst", drawn("immediately")),
        ("t --rate-csv rates.csv", drawn("csv", path="rates.csv")),
        (
            "t --arrivals weibull --request-rate 2 --arrival-param shape=0.7",
            drawn("weibull", 2.0, shape="0.7"),
        ),
        (
            "t --ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 9",
            drawn("ramp", strategy="linear", start_rps=1.0, end_rps=9.0),
        ),
        ("workload:infercept", WorkloadSpec(generator="infercept")),
        (
            "workload:continuum-bfcl -w turns_scale=3 --rate 2",
            WorkloadSpec(generator="continuum-bfcl", params={"turns_scale": "3"}, rate_rps=2.0),
        ),
        ("--dataset-name random", RANDOM),
        ("--isl 1024", RANDOM),
        ("--random-output-len 128", RANDOM),
        (
            "--input-len 7 --osl 3 --random-range-ratio 0.2 --random-prefix-len 5",
            WorkloadSpec(
                synthetic=SyntheticSpec(
                    input_tokens=7, output_tokens=3, range_ratio=0.2, prefix_tokens=5
                )
            ),
        ),
        (
            "--turns 4 --think 2.5",
            WorkloadSpec(synthetic=SyntheticSpec(turns=4, think_s=2.5)),
        ),
    ],
)
def test_the_field_s_own_words_are_understood(line: str, spec: WorkloadSpec) -> None:
    assert spec_of(*line.split()) == spec


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("", "It is not said what to send"),
        ("t -w cv=2", "params are those of a generator"),
        ("workload:infercept --isl 5", "--random-input-len describes made-up calls"),
        ("workload:infercept --time-scale 2", "time_scale says what to do with a trace"),
        ("t --isl 5", "--random-input-len describes made-up calls"),
        ("t --dataset-name random", "--dataset-name describes made-up calls"),
        ("t --dataset-path t", "two traces"),
        ("--dataset-name sharegpt", "only random"),
        ("--isl 0", "--random-input-len cannot be that: Expected int >= 1"),
        ("--isl 5 --rate 2", "rate_rps says what to do with a trace"),
        ("t --request-rate 0", "--request-rate cannot be 0"),
        ("t --request-rate often", "--request-rate cannot be often"),
        ("t --burstiness 0.5", "not said at which rate"),
        ("t --request-rate inf --arrivals gamma", "each say when programs start"),
        ("t --rate-csv a --arrivals gamma", "each say when programs start"),
        ("t --fixed-schedule --request-rate 3", "each say when programs start"),
        ("t --rate 2 --request-rate 3", "each say when programs start"),
        ("t --delays none --delay-scale 2", "delay scale scales"),
    ],
)
def test_what_does_not_go_together_is_said_by_the_names_of_options(line: str, match: str) -> None:
    with pytest.raises(InputError, match=match):
        spec_of(*line.split())
