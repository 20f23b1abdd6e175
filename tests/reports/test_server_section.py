from pathlib import Path

import pytest

from servescope.loadgen.experiment import EngineSpec, Experiment, SyntheticSpec, WorkloadSpec
from servescope.loadgen.simulate import simulate
from servescope.reports import Story, render, sections_of, story_of
from servescope.reports.blocks import Figure, Table
from servescope.reports.sections.server import server
from servescope.traces import Run, RunInfo
from servescope.traces.run import frame_of_rows
from servescope.traces.server import HOST, Journal, Sample, seal

URL = "http://127.0.0.1:8000"


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """A run of 8 calls of 10 tokens, with what a server might have said beside it."""
    experiment = Experiment(
        name="mine",
        workload=WorkloadSpec(synthetic=SyntheticSpec(output_tokens=10), calls=8),
        engine=EngineSpec(),
    )
    return story_of([simulate(experiment, tmp_path / "run")])


def say(story: Story, *samples: tuple[float, str, str, str, float | None]) -> None:
    path = story.runs[0].path
    journal = Journal(path)
    journal.append(Sample(*sample) for sample in samples)
    journal.flush()
    seal(path)


def test_a_run_of_silent_servers_has_no_such_section(story: Story) -> None:
    assert server(story) is None
    say(story, (0.0, URL, "up", "", 0.0))
    assert server(Story(story.runs)) is None


def test_the_section_shows_what_was_said_and_no_column_of_what_was_not(story: Story) -> None:
    say(
        story,
        (0.0, URL, "vllm:num_requests_running", "", 0.0),
        (0.0, URL, "vllm:generation_tokens_total", "", 20.0),
        (0.0, URL, "up", "", 1.0),
        (1.0, URL, "vllm:num_requests_running", "", 6.0),
        (1.0, URL, "vllm:generation_tokens_total", "", 100.0),
        (1.0, URL, "up", "", 1.0),
        (0.0, HOST, "gpu_memory_used_bytes", "gpu=0,name=NVIDIA H100", 3 * 2.0**30),
    )
    told = Story(story.runs)
    section = server(told)
    assert section is not None
    assert section in sections_of(told)
    replicas, gpus = (block for block in section.blocks if isinstance(block, Table))
    (row,) = replicas.rows
    assert (row["run"], row["replica"], row["running_peak"]) == ("mine", URL, 6.0)
    assert row["generation_tokens"] == 80
    assert {column.key for column in replicas.columns} == {
        "run", "replica", "running_mean", "running_peak", "generation_tokens", "unseen",
    }  # fmt: skip
    assert [(row["gpu"], row["memory_peak_gib"]) for row in gpus.rows] == [("0 NVIDIA H100", 3.0)]
    (picture,) = (block for block in section.blocks if isinstance(block, Figure))
    (line,) = picture.figure.data
    assert list(line.y) == [0.0, 6.0]
    assert "3.00" in render.html("page", [section])


def test_tokens_received_are_those_of_the_whole_run_as_tokens_generated_are(tmp_path: Path) -> None:
    """A server that lost nothing must not look as if it had: its counters know no warm-up."""
    info = RunInfo(
        name="mine", system="x", clock="real", version="0", started="", seed=0, warmup_s=5.0
    )
    rows = [
        {
            "call_id": f"c{due_s}",
            "status": "ok",
            "due_s": due_s,
            "sent_s": due_s,
            "end_s": due_s + 1,
            "input_tokens": 5,
            "output_tokens": 40,
            "replica": URL,
        }
        for due_s in (1.0, 6.0)
    ]
    run = Run.create(tmp_path / "run", {}, frame_of_rows(rows), info)
    run.append(frame_of_rows(rows))
    told = Story((run,))
    say(
        told,
        (0.0, URL, "vllm:generation_tokens_total", "", 1000.0),
        (0.0, URL, "up", "", 1.0),
        (7.0, URL, "vllm:generation_tokens_total", "", 1080.0),
        (7.0, URL, "up", "", 1.0),
    )
    section = server(told)
    assert section is not None
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [(row["generation_tokens"], row["received_tokens"]) for row in table.rows] == [(80, 80)]
    assert "warm-up" in table.says
