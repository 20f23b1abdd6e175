import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from servescope.traces.formats.arrivals import MOVED, in_order


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30))
def test_calls_are_sorted_and_ties_stay_as_they_stood(times: list[int]) -> None:
    calls = pl.DataFrame({"arrival_s": times, "row": range(len(times))})
    ordered, doubts = in_order(calls)
    assert ordered.rows() == sorted(calls.rows())
    assert doubts == ((MOVED,) if times != sorted(times) else ())
