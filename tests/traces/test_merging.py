import polars as pl
import pytest

from servescope.traces import Provenance, Trace, load, merge
from servescope.traces.errors import InputError


def a_trace(arrivals: list[float], t0_ns: int | None = None, **facts: object) -> Trace:
    about = Provenance(
        format="test",
        source="here",
        t0_ns=t0_ns,
        clock=None if t0_ns is None else "utc",
        **facts,  # type: ignore[arg-type]
    )
    table = {
        "arrival_s": arrivals,
        "input_tokens": [8] * len(arrivals),
        "output_tokens": [1] * len(arrivals),
        "prefix_blocks": [[1, 2]] * len(arrivals),
        "parents": [[]] + [["0"]] * (len(arrivals) - 1),
    }
    blocks = {"prefix_blocks": pl.List(pl.UInt64), "parents": pl.List(pl.String)}
    return Trace.of(pl.DataFrame(table, schema_overrides=blocks), about)


def test_calls_of_both_come_in_order_and_names_stay_apart() -> None:
    both = merge([a_trace([0.0, 2.0]), a_trace([0.0, 1.0, 3.0])])
    calls = both.collect()
    assert calls["arrival_s"].to_list() == [0.0, 0.0, 1.0, 2.0, 3.0]
    assert calls["call_id"].to_list() == ["0@1", "0@2", "1@2", "1@1", "2@2"]
    assert calls["parents"].to_list() == [[], [], ["0@2"], ["0@1"], ["0@2"]]
    assert both.provenance.steps == ("merge of 2 traces by their start",)
    assert both.provenance.kind == "derived"


def test_prefixes_of_different_traces_are_not_the_same() -> None:
    calls = merge([a_trace([0.0, 2.0]), a_trace([0.0])]).collect()
    blocks = {
        name: tuple(ids) for name, ids in calls.select("call_id", "prefix_blocks").iter_rows()
    }
    assert blocks["0@1"] == blocks["1@1"]
    assert not set(blocks["0@1"]) & set(blocks["0@2"])


def test_by_the_clock_each_call_keeps_its_moment() -> None:
    early, late = a_trace([0.0, 9.0], 1_000_000_000), a_trace([0.0], 6_500_000_000)
    both = merge([late, early], align="clock")
    assert both.collect()["arrival_s"].to_list() == [0.0, 5.5, 9.0]
    assert both.provenance.t0_ns == 1_000_000_000


def test_without_a_common_clock_they_cannot_be_merged_by_it() -> None:
    with pytest.raises(InputError, match="when in UTC they began"):
        merge([a_trace([0.0]), a_trace([0.0], 5)], align="clock")
    with pytest.raises(InputError, match="one for each program"):
        merge([a_trace([0.0]), a_trace([0.0], arrival_basis="program")])
    with pytest.raises(InputError, match="nothing to merge"):
        merge([])


def test_real_traces_keep_licences_doubts_and_counts() -> None:
    parts = [load("azure:sample"), load("burstgpt:sessions"), load("mooncake:sample")]
    both = merge(parts)
    assert both.collect().height == 1500 + 280 + 475
    assert both.provenance.licence == "CC-BY-4.0; Apache-2.0"
    assert set(parts[1].provenance.doubts) <= set(both.provenance.doubts)
    assert both.provenance.tick_s == 1.0
