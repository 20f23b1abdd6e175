"""Rates that are a function of time: counts against its integral, computed by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from servescope.analysis.point_processes import Times
from servescope.analysis.rate_functions import Piecewise, Ramp
from servescope.traces.errors import InputError


def drawn(process: Piecewise | Ramp, seed: int = 1, until_s: float | None = None) -> Times:
    return process.sample(np.random.default_rng(seed), until_s=until_s, count=200_000)


def counted(process: Piecewise | Ramp, edges: list[float]) -> Times:
    return np.histogram(drawn(process, until_s=edges[-1]), edges)[0].astype(float)


def test_counts_follow_the_integral_of_the_rate() -> None:
    """Up from 100 to 300 in 10 s, a jump to 50, down to 0, up again: areas by hand."""
    process = Piecewise((0, 10, 10, 30, 40), (100, 300, 50, 0, 200))
    expected = np.array([750, 1250, 375, 125, 1000, 2000, 2000])
    counts = counted(process, [0, 5, 10, 20, 30, 40, 50, 60])
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()
    assert process.rate_rps == pytest.approx((2000 + 500 + 1000) / 40)


def test_starts_are_poisson_on_the_clock_of_the_expected_count() -> None:
    process = Piecewise((0, 100, 250), (2, 40, 6))
    times = drawn(process, until_s=250)
    clock = np.where(
        times < 100,
        2 * times + 0.19 * times**2,
        2100 + 40 * (times - 100) - (34 / 300) * (times - 100) ** 2,
    )
    assert stats.kstest(np.diff(clock, prepend=0.0), "expon").pvalue > 0.01


def test_the_first_and_the_last_rate_go_on_outside() -> None:
    process = Piecewise((100, 200), (10, 30))
    counts = counted(process, [0, 100, 200, 300])
    expected = np.array([1000, 2000, 3000])
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()
    assert process.rate_rps == pytest.approx(15)
    assert Piecewise((0,), (5,)).rate_rps == 5


def test_nothing_starts_while_the_rate_is_0_and_nothing_after_it_ends_there() -> None:
    times = drawn(Piecewise((0, 10, 10, 20, 20, 30), (50, 50, 0, 0, 50, 0)))
    assert not ((times >= 10) & (times < 20)).any()
    assert times.max() <= 30
    assert 600 < len(times) < 900  # 500 + 250 expected


def test_burstiness_spreads_counts_and_keeps_their_mean() -> None:
    counts = {
        burstiness: [
            len(drawn(Piecewise((0, 10), (20, 40), burstiness), seed, until_s=10))
            for seed in range(600)
        ]
        for burstiness in (1.0, 0.1)
    }
    assert np.mean(counts[1.0]) == pytest.approx(300, rel=0.02)
    assert np.var(counts[1.0]) / np.mean(counts[1.0]) == pytest.approx(1, abs=0.25)
    assert np.var(counts[0.1]) / np.mean(counts[0.1]) == pytest.approx(10, rel=0.3)


def test_a_linear_ramp_adds_the_same_rate_in_every_second_and_stays_at_its_end() -> None:
    ramp = Ramp(0, 100, 40)
    expected = np.array([500, 1500, 4000])
    counts = counted(ramp, [0, 20, 40, 80])
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()
    assert ramp.rate_rps == 50


def test_an_exponential_ramp_multiplies_by_the_same_factor_in_every_second() -> None:
    """From 10 to 160 in 40 s: twice as many in every 10 s. 10 x 10 / ln 2 in the first."""
    first = 100 / math.log(2)
    expected = np.array([first, 2 * first, 4 * first, 8 * first, 1600])
    counts = counted(Ramp(10, 160, 40, "exponential"), [0, 10, 20, 30, 40, 50])
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_a_ramp_may_go_down_or_nowhere() -> None:
    for strategy in ("linear", "exponential"):
        flat = counted(Ramp(20, 20, 40, strategy), [0, 40, 80])  # type: ignore[arg-type]
        assert (np.abs(flat - 800) < 4 * math.sqrt(800)).all()
    down = counted(Ramp(160, 10, 40, "exponential"), [0, 10, 40])
    assert down[0] > down[1]


@pytest.mark.parametrize("strategy", ["linear", "exponential"])
def test_a_ramp_over_a_count_ends_when_so_many_are_expected(strategy: str) -> None:
    """As vLLM's, whose last request has the last rate."""
    ramp = Ramp.over(1000, 5, 20, strategy)  # type: ignore[arg-type]
    counts = [len(drawn(ramp, seed, until_s=ramp.duration_s)) for seed in range(200)]
    assert np.mean(counts) == pytest.approx(1000, abs=4 * math.sqrt(1000 / 200))


def test_a_rate_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rate.csv"
    path.write_bytes(b"\xef\xbb\xbft_s,rate_rps\r\n0,5\r\n60,20.5\r\n\r\n90,0\r\n")
    assert Piecewise.from_csv(path) == Piecewise((0.0, 60.0, 90.0), (5.0, 20.5, 0.0))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1: '' is not the head of a rate file. Begin it with t_s,rate_rps."),
        ("time,rate\n0,1\n", "line 1: 'time,rate' is not the head"),
        ("t_s,rate_rps\n", "has no rate above 0"),
        ("t_s,rate_rps\n0,0\n5,0\n", "has no rate above 0"),
        ("t_s,rate_rps\n0,1\n\n5,x\n", "line 4: '5,x' is no time and rate"),
        ("t_s,rate_rps\n0,1\n5\n", "line 3: '5' is no time and rate"),
        ("t_s,rate_rps\n0,1,2\n", "line 2: '0,1,2' is no time and rate"),
        ("t_s,rate_rps\n0,-1\n", "line 2: '0,-1' has no rate of 0 or more"),
        ("t_s,rate_rps\n0,nan\n", "line 2: '0,nan' has no rate of 0 or more"),
        ("t_s,rate_rps\n9,1\n5,1\n", "line 3: '5,1' does not come after 9 s"),
        ("t_s,rate_rps\n-1,1\n", "line 2: '-1,1' does not come after 0 s"),
        ("t_s,rate_rps\ninf,1\n", "line 2: 'inf,1' does not come after 0 s"),
    ],
)
def test_a_wrong_rate_file_is_refused_by_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rate.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Piecewise.from_csv(path)
    assert says in str(error.value)


def test_a_rate_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read: No such file"):
        Piecewise.from_csv(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="cannot be read"):
        Piecewise.from_csv(tmp_path / "binary.csv")


@pytest.mark.parametrize(
    ("times_s", "rates_rps", "says"),
    [
        ((), (), "0 times and 0 rates make no line"),
        ((0, 1), (1,), "2 times and 1 rates"),
        ((5, 1), (1, 1), "After 5 s comes 1 s. Put them in order."),
        ((-5, 1), (1, 1), "After 0 s comes -5 s."),
        ((0, 1), (1, -1), "rates_rps cannot hold -1"),
        ((0, 1), (0, 0), "rates_rps cannot all be 0"),
    ],
)
def test_points_that_make_no_line_are_refused(
    times_s: tuple[float, ...], rates_rps: tuple[float, ...], says: str
) -> None:
    with pytest.raises(InputError) as error:
        Piecewise(times_s, rates_rps)
    assert says in str(error.value)


def test_ramps_that_cannot_be_are_refused() -> None:
    for wrong in [
        (0, 5, 10, "exponential"),
        (5, 0, 10, "linear"),
        (1, 5, 0, "linear"),
        (-1, 5, 9, "linear"),
        (1, 5, 9, "steep"),
    ]:
        with pytest.raises(InputError):
            Ramp(*wrong)  # type: ignore[arg-type]
