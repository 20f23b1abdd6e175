"""Programs that were cut off, by hand and against scipy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from servescope.analysis import Measured
from servescope.analysis.survival import kaplan_meier, of_programs
from servescope.traces.run import frame_of_rows

Make = Callable[..., dict[str, Any]]


def test_kaplan_and_meiers_estimate_by_hand() -> None:
    """Of four one ends at 1, one is cut off at 2, one ends at 3: 3/4, then 3/4 x 1/2."""
    found = kaplan_meier([1, 2, 3, 4], [True, False, True, False])
    assert found.times_s.tolist() == [1, 3]
    assert found.above == pytest.approx([3 / 4, 3 / 8])
    assert (found.ended, found.censored, found.failed, found.seen_s) == (2, 2, 0, 4)
    assert [found.quantile(q) for q in (0.25, 0.5, 0.9)] == [1.0, 3.0, None]
    mean = found.restricted_mean(4.0)
    assert mean is not None
    assert mean[0] == pytest.approx(1 + 2 * 3 / 4 + 1 * 3 / 8)


def test_it_is_scipys_estimate_of_the_same_data() -> None:
    rng = np.random.default_rng(0)
    took, limit = rng.exponential(1, 300), rng.uniform(0, 2, 300)
    ended = took <= limit
    found = kaplan_meier(np.minimum(took, limit), ended)
    censored = stats.CensoredData.right_censored(np.minimum(took, limit), ~ended)
    expected = stats.ecdf(censored).sf
    assert found.above == pytest.approx(expected.evaluate(found.times_s))
    low = expected.confidence_interval(0.95).low.evaluate(found.times_s)
    reach = stats.norm.ppf(0.975) * found.errors
    assert np.maximum(found.above - reach, 0)[:200] == pytest.approx(low[:200], abs=1e-9)


def test_what_was_cut_off_makes_the_median_right_where_the_rest_alone_is_too_quick() -> None:
    """Exponential programs of mean 1, seen for up to 1 s each."""
    rng = np.random.default_rng(1)
    took = rng.exponential(1, 5000)
    ended = took <= 1.0
    found = kaplan_meier(np.minimum(took, 1.0), ended)
    assert found.quantile(0.5) == pytest.approx(np.log(2), rel=0.05)
    assert np.median(took[ended]) < 0.6 * np.log(2) + 0.1
    mean = found.restricted_mean(1.0)
    assert mean is not None
    assert mean[0] == pytest.approx(1 - np.exp(-1), abs=3 * mean[1])
    assert 0 < mean[1] < 0.02


def test_a_failure_is_never_done() -> None:
    found = kaplan_meier([1, 1, 1, 1], [True, True, True, True], [False, False, False, True])
    assert found.quantile(0.75) == 1.0
    assert found.quantile(0.76) is None
    assert found.failed == 1


def test_without_anything_cut_off_it_is_the_plain_mean_and_quantiles() -> None:
    took = np.random.default_rng(2).lognormal(size=101)
    found = kaplan_meier(took, np.ones(101, bool))
    mean = found.restricted_mean()
    assert mean is not None
    assert mean[0] == pytest.approx(took.mean())
    assert mean[1] == pytest.approx(took.std() / np.sqrt(101), rel=0.01)
    assert found.quantile(0.5) == np.quantile(took, 0.5, method="inverted_cdf")


def test_nothing_has_no_estimate() -> None:
    nothing = kaplan_meier([], [])
    assert nothing.quantile(0.5) is nothing.restricted_mean() is None


def test_programs_of_a_run_that_was_stopped(call: Make, failed: Make) -> None:
    """One done after 2 s, one failed, one in flight at the end, one with a turn not sent yet."""
    rows = [
        call("a", 0.0, 1.0, 2.0, program_id="done"),
        failed("b", 0.0, program_id="failed"),
        failed("c", 4.0, "cancelled", end_s=10.0, program_id="flying"),
        call("d", 5.0, 6.0, 7.0, program_id="waiting"),
        failed("e", 0.0, "not_sent", end_s=None, sent_s=None, program_id="waiting"),
    ]
    rows[4]["due_s"] = None
    found = of_programs(Measured(frame_of_rows(rows).lazy()).calls)
    assert (found.ended, found.censored, found.failed) == (1, 2, 1)
    assert found.times_s.tolist() == [2.0]
    assert found.above == pytest.approx([3 / 4])
    assert found.seen_s == 6.0
