import polars as pl
import pytest

from servescope.traces import Provenance, Trace, infer_sessions, inspect, load


def judged(trace: Trace) -> dict[str, tuple[bool, str]]:
    return {use.purpose: (use.can, use.why) for use in inspect(trace).uses}


LENGTHS, OPEN_LOOP, BURSTS, DAY, SESSIONS, PAUSES, PREFIXES, FAILURES, FAIRNESS, TEXT, OWN = judged(
    load("azure:sample")
)


def test_a_trace_without_sessions_has_no_jct_and_one_of_seconds_no_fine_bursts() -> None:
    """The two examples that every user meets first."""
    uses = judged(load("burstgpt:sample"))
    assert uses[SESSIONS] == (False, "no sessions: every call stands alone")
    assert uses[BURSTS][1].startswith("from 2 s up; stamps are multiples of 1 s")
    assert uses[DAY] == (False, "the date of its zero is not known")


@pytest.mark.parametrize(
    ("name", "can", "cannot"),
    [
        ("azure:sample", {DAY, BURSTS, OPEN_LOOP}, {SESSIONS, PREFIXES, FAILURES, OWN, TEXT}),
        ("burstgpt:sessions", {SESSIONS, PAUSES, FAILURES, OWN}, {PREFIXES, DAY, FAIRNESS}),
        ("mooncake:sample", {PREFIXES, LENGTHS}, {SESSIONS, PAUSES, FAILURES}),
    ],
)
def test_bundled_traces_serve_what_they_record(name: str, can: set[str], cannot: set[str]) -> None:
    uses = judged(load(name))
    assert {purpose for purpose in can if uses[purpose][0]} == can
    assert not {purpose for purpose in cannot if uses[purpose][0]}


def test_batches_of_three_seconds_leave_no_inter_arrival_statistics() -> None:
    can, why = judged(load("mooncake:conversation"))[BURSTS]
    assert can
    assert why.startswith("from 6 s up")
    assert why.endswith("no inter-arrival statistics, only counts per window")


def test_what_was_inferred_is_called_so() -> None:
    inferred = infer_sessions(load("mooncake:sample"))
    assert judged(inferred)[SESSIONS][1].endswith(", inferred")


def test_a_program_clock_allows_no_open_loop() -> None:
    about = Provenance(format="t", source="t", arrival_basis="program")
    table = {"arrival_s": [0.0], "input_tokens": [1], "output_tokens": [None], "program_id": ["p"]}
    trace = Trace.of(pl.DataFrame(table, schema_overrides={"output_tokens": pl.Int64}), about)
    uses = judged(trace)
    assert not uses[OPEN_LOOP][0]
    assert not uses[BURSTS][0]
    assert uses[LENGTHS] == (False, "no token counts: name a --tokenizer where there is text")
