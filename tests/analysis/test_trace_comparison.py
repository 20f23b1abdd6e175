"""Comparing traces: equal ones do not differ, and planted differences are found."""

import numpy as np
import polars as pl
import pytest

from servescope.analysis import characterize
from servescope.analysis.arrivals import process
from servescope.analysis.characterization import Characterization
from servescope.analysis.trace_comparison import differences, names_of, side_by_side
from servescope.traces import Trace
from servescope.traces.provenance import Provenance


def made(seed: int, *, mean: float = 5.0, name: str = "gamma", **how: object) -> Characterization:
    rng = np.random.default_rng(seed)
    how = how or {"rate_rps": 5.0, "burstiness": 0.3}
    at = process(name, **how).sample(rng, count=4000)
    frame = pl.DataFrame(
        {
            "arrival_s": at,
            "input_tokens": np.rint(rng.lognormal(mean, 1, 4000)).astype(int) + 1,
            "output_tokens": np.rint(rng.lognormal(4, 1, 4000)).astype(int) + 1,
        }
    )
    return characterize(Trace.of(frame, Provenance(format="t", source="t")), name=f"seed {seed}")


def test_draws_of_one_law_do_not_differ() -> None:
    table = differences([made(1), made(2), made(3)])
    assert table.height > 20
    assert (table["p_adjusted"] >= table["p_value"]).all()
    assert not (table["p_adjusted"] < 0.05).any()


def test_longer_prompts_and_calmer_arrivals_are_found_and_nothing_else() -> None:
    table = differences([made(1), made(4, mean=5.7, name="poisson", rate_rps=5.0)])
    sure = set(table.filter(pl.col("p_adjusted") < 0.05)["subject"])
    assert {"input_tokens", "gap_s"} <= sure
    assert not {"output_tokens", "lengths, 10 s"} & sure
    ratio = table.filter(
        (pl.col("quantity") == "mean_tokens") & (pl.col("subject") == "input_tokens")
    ).row(0, named=True)
    assert ratio["low"] < np.exp(0.7) < ratio["high"]
    cv = table.filter(pl.col("quantity") == "gap_cv").row(0, named=True)
    assert cv["change"] == pytest.approx(1 / np.sqrt(1 / 0.3), rel=0.1)


def test_traces_stand_side_by_side_under_names_that_tell_them_apart() -> None:
    a = made(1)
    assert names_of([a, a]) == ["seed 1", "seed 1 (2)"]
    table = side_by_side([a, a, made(2)])
    assert table.columns[4:] == ["seed 1", "seed 1 (2)", "seed 2"]
    assert table.filter(pl.col("statistic") == "gap_cv").height == 1
    assert (table["seed 1"] == table["seed 1 (2)"]).all()
