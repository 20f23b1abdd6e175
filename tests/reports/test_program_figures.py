"""The figures of one program hold what its calls did."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from servescope.analysis import Measured
from servescope.analysis.timeline import STAGES, Timeline
from servescope.reports.canvas import INK, MOST_POINTS
from servescope.reports.program_figures import _LOOKS, MOST_CALLS, chunk_gaps, timeline
from servescope.traces.run import frame_of_rows

NASTY = '<b>x</b><a href="javascript:alert(1)">y</a>'


def a_call(call_id: str, due_s: float, *chunk_s: float, **fields: Any) -> dict[str, Any]:
    return {
        "call_id": call_id, "program_id": "p", "turn": 0, "status": "ok", "due_s": due_s,
        "dispatched_s": due_s, "sent_s": due_s, "input_tokens": 10, "output_tokens": len(chunk_s),
        "chunk_s": list(chunk_s), "first_token_s": chunk_s[0] if chunk_s else None,
        "last_token_s": chunk_s[-1] if chunk_s else None,
        "end_s": chunk_s[-1] if chunk_s else due_s,
    } | fields  # fmt: skip


def told(*rows: dict[str, Any]) -> Timeline:
    return Timeline(Measured(frame_of_rows(rows).lazy()), "p")


def bars(figure: go.Figure) -> dict[str, list[tuple[float, float, float]]]:
    """Lane, begin and length of the bars of each stage."""
    return {
        each.name: list(zip(each.y, each.base, each.x, strict=True))
        for each in figure.data
        if each.type == "bar"
    }


def test_every_stage_of_every_call_is_a_bar_of_its_length() -> None:
    figure = timeline(
        told(
            a_call("root", 5.0, 6.0, 8.0, parents=[]),
            a_call("next", 9.0, 10.5, 11.0, parents=["root"], ready_s=8.0, sent_s=9.5,
                   dispatched_s=9.25),
        )
    )  # fmt: skip
    assert bars(figure) == {
        "pause": [(1, 3.0, 1.0)],
        "client wait": [(1, 4.0, 0.25)],
        "connect": [(1, 4.25, 0.25)],
        "queue + prefill": [(0, 0.0, 1.0), (1, 4.5, 1.0)],
        "decode": [(0, 1.0, 2.0), (1, 5.5, 0.5)],
    }
    assert list(figure.layout.yaxis.ticktext) == ["root", "next"]


def test_the_critical_path_is_outlined_pause_included() -> None:
    figure = timeline(
        told(
            a_call("root", 0.0, 1.0, parents=[]),
            a_call("quick", 2.0, 2.5, parents=["root"], ready_s=1.0),
            a_call("slow", 2.0, 4.0, parents=["root"], ready_s=1.0),
        )
    )
    assert [(shape.x0, shape.x1, round(shape.y0)) for shape in figure.layout.shapes] == [
        (0.0, 1.0, 0), (1.0, 4.0, 2),
    ]  # fmt: skip
    assert {shape.line.color for shape in figure.layout.shapes} == {INK}


def test_what_hovers_is_in_words_and_names_show_as_they_are() -> None:
    rows = (
        a_call("root", 0.0, 1.0, parents=[]),
        a_call(NASTY, 3.0, parents=["root"], ready_s=1.0, delay_kind="tool", turn=1, end_s=4.5,
               status="http_503", error="<img src=x onerror=alert(1)>", output_tokens=None),
    )  # fmt: skip
    figure = timeline(told(*rows))
    by_stage = {each.name: each.customdata for each in figure.data if each.type == "bar"}
    call_id, said = by_stage["failed"][0]
    assert call_id == NASTY  # for whoever clicks
    assert said.split("<br>") == [
        'call &lt;b&gt;x&lt;/b&gt;&lt;a href="javascript:alert(1)"&gt;y&lt;/a&gt;, turn 2',
        "failed: 1,500.0 ms, from 3.000 s",
        "10 tokens in, no out",
        "http_503: &lt;img src=x onerror=alert(1)&gt;",
    ]
    assert "pause of a tool: 2,000.0 ms, from 1.000 s" in by_stage["pause"][0][1]
    assert "on the critical path" in by_stage["queue + prefill"][0][1]
    assert "<" not in "".join(figure.layout.yaxis.ticktext)


def test_a_refusal_that_took_no_time_is_marked() -> None:
    figure = timeline(told(a_call("a", 0.0, 1.0), a_call("b", 2.0, status="refused")))
    (mark,) = (each for each in figure.data if each.type == "scatter" and each.customdata)
    assert (list(mark.x), list(mark.y)) == ([2.0], [1])


def test_of_many_calls_the_critical_path_and_the_longest_are_drawn() -> None:
    many = [a_call(str(n), float(n), n + (0.5 if n != 7 else 0.9)) for n in range(MOST_CALLS + 50)]
    figure = timeline(told(*many))
    drawn = list(figure.layout.yaxis.ticktext)
    assert len(drawn) == MOST_CALLS
    assert {"7", str(MOST_CALLS + 49)} <= set(drawn)  # the longest; the last to end is the path
    assert figure.layout.yaxis.title.text == f"{MOST_CALLS} of {MOST_CALLS + 50} calls"


def test_a_program_without_a_moment_is_an_empty_figure() -> None:
    row = a_call("a", 0.0, status="not_sent")
    nothing = dict.fromkeys(("due_s", "dispatched_s", "sent_s", "end_s"))
    assert not timeline(told(row | nothing)).data


def test_every_stage_has_a_look_of_its_own() -> None:
    assert set(_LOOKS) == set(STAGES)
    assert len(set(_LOOKS.values())) == len(_LOOKS)


def test_gaps_stand_where_they_ended_under_the_p99_of_the_run() -> None:
    program = told(a_call("a", 1.0, 2.0, 2.25, 3.25, chunk_tokens=[1, 1, 4], output_tokens=6))
    figure = chunk_gaps(program.gaps("a"), 0.5)
    (line,) = figure.data
    assert list(line.x) == [1.25, 2.25]
    assert list(line.y) == [250.0, 1000.0]
    assert list(line.text) == [" of 1 token", " of 4 tokens"]
    assert figure.layout.shapes[0].y0 == 500
    assert figure.layout.annotations[0].text == "p99 of the run: 500 ms"


def test_a_long_answer_is_thinned_and_keeps_its_longest_gap() -> None:
    gap_s = np.full(20_000, 0.01)
    gap_s[12_345] = 3.0
    gaps = pl.DataFrame({"t_s": gap_s.cumsum(), "gap_s": gap_s}).with_columns(
        tokens=pl.lit(None, pl.Int64)
    )
    (line,) = chunk_gaps(gaps).data
    assert len(line.x) <= 2 * MOST_POINTS + 2
    assert max(line.y) == pytest.approx(3000)


def test_a_call_of_one_chunk_has_no_gap_to_draw() -> None:
    assert not len(chunk_gaps(told(a_call("a", 0.0, 1.0)).gaps("a")).data[0].x)
