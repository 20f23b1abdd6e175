import numpy as np
import pytest

from servescope.loadgen.papers.lengths import Zipf
from servescope.loadgen.papers.llumnix import MOST, Llumnix


@pytest.mark.parametrize(
    ("mean", "alpha", "percentiles"),
    [
        # Counted from the authors' generator, ten thousand draws each.
        (128, 2.0, (35, 103, 410, 1707)),
        (256, 1.5, (30, 161, 1287, 4560)),
        (512, 1.15, (54, 596, 3117, 5250)),
    ],
)
def test_the_power_laws_are_those_of_the_authors_generator(
    mean: int, alpha: float, percentiles: tuple[int, ...]
) -> None:
    law = Zipf.of(mean, alpha, MOST)
    found = law.quantile(np.array([0.5, 0.8, 0.95, 0.99]))
    assert found == pytest.approx(percentiles, rel=0.02)


def test_a_cv_makes_gamma_arrivals_of_that_cv() -> None:
    assert Llumnix().arrivals().process == "poisson"
    bursty = Llumnix(cv=4.0).arrivals()
    assert (bursty.process, bursty.params) == ("gamma", {"burstiness": 1 / 16})
