import pytest

from servescope.loadgen.papers.generator import Turn, chain
from servescope.loadgen.papers.statistics import beside, figure
from servescope.loadgen.program import Program
from servescope.traces.errors import InputError

PROGRAMS = [
    Program("a", 0.0, chain("a", [
        Turn(100, 10, tool="cd", call_class="ask"), Turn(150, 20, 3.0, "tool", call_class="do"),
        Turn(40, 30, 1.0, "user", call_class="do"),
    ])),
    Program("b", 1.0, chain("b", [Turn(200, 40, call_class="ask")])),
]  # fmt: skip


@pytest.mark.parametrize(
    ("quantity", "statistic", "value"),
    [
        ("input_tokens", "mean", 490 / 4),
        ("input_tokens", "p50", 125),
        ("input_tokens of do", "mean", 95),
        ("output_tokens of ask", "sd", 15),
        ("output_tokens", "=10", 0.25),
        ("new_tokens", "mean", (100 + 40 - 130 + 200) / 4),
        ("growth_tokens", "mean", (50 - 110) / 2),
        ("first_input_tokens", "mean", 150),
        ("later_input_tokens", "mean", 95),
        ("pause_s", "mean", 2.0),
        ("pause_s", "slowest tenth", 0.75),
        ("pause_s of cd", "mean", 3.0),
        ("calls", "mean", 2),
        ("calls of do", "mean", 2),
        ("calls of do", "present", 0.5),
        ("calls of ask", "present", 1.0),
        ("program_tokens", "mean", (350 + 240) / 2),
        ("program_input_tokens", "mean", 245),
        ("program_output_tokens", "mean", 50),
        ("input_tokens", "corr", 1.0),
        ("pause_s of ls", "mean", None),
        ("pause_s of cd", "sd", None),
    ],
)
def test_a_figure_is_what_the_hand_counts(
    quantity: str, statistic: str, value: float | None
) -> None:
    assert figure(PROGRAMS, quantity, statistic) == pytest.approx(value)


def test_published_figures_stand_beside_those_that_were_counted() -> None:
    published = {"calls": {"mean": 3.0}, "pause_s": {"mean": 1.0, "p50": 1.5}}
    assert list(beside(PROGRAMS, published)) == [
        ("calls", "mean", 3.0, 2.0),
        ("pause_s", "mean", 1.0, 2.0),
        ("pause_s", "p50", 1.5, 2.0),
    ]


def test_what_is_no_quantity_and_no_statistic_is_said() -> None:
    with pytest.raises(InputError, match="'lenghts' is no quantity"):
        figure(PROGRAMS, "lenghts", "mean")
    with pytest.raises(InputError, match="'typical' is no statistic"):
        figure(PROGRAMS, "calls", "typical")
