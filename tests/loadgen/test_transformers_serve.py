"""`transformers serve`, asked for by SERVESCOPE_TRANSFORMERS_PYTHON.

docs/how-to/test-against-real-servers.md says how.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from real import TOKENIZER, transformers_server

from servescope.loadgen import runner
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.probe import probe
from servescope.loadgen.target import Target
from servescope.traces.errors import EndpointError

pytestmark = [pytest.mark.optin, pytest.mark.slow]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with transformers_server(tmp_path_factory.mktemp("transformers")) as served:
        yield served


def spec_of(served: tuple[str, str], **options: object) -> EndpointSpec:
    url, model = served
    fields: dict[str, object] = {"backend": "transformers", "model": model, **options}
    return EndpointSpec(base_url=url, **fields)  # type: ignore[arg-type]


async def test_the_probe_finds_a_stream_without_an_end_mark(served: tuple[str, str]) -> None:
    found = await probe(Target.of(spec_of(served)))
    assert not found.done
    assert found.streams
    assert found.refused == ()
    assert found.output_tokens == 4
    assert found.input_tokens is not None
    assert (found.cached_tokens, found.each) == (None, False)


async def test_the_fields_that_it_refuses_are_found_out(served: tuple[str, str]) -> None:
    """In vLLM's dialect it is asked for more than it takes."""
    found = await probe(Target.of(spec_of(served, backend="vllm-chat", min_tokens=True)))
    assert {"ignore_eos", "min_tokens"} <= set(found.refused)
    assert any("refuses" in doubt for doubt in found.doubts)


async def test_it_knows_no_model_but_its_own(served: tuple[str, str]) -> None:
    with pytest.raises(EndpointError, match="pinned"):
        await probe(Target.of(spec_of((served[0], "nope"))))


def test_its_chats_are_replayed_and_counted(served: tuple[str, str], tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = "\n".join(f"{n * 0.2:.1f},{40 + 9 * n},{3 + n}" for n in range(8))
    trace.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}\n")
    experiment = Experiment(
        name="transformers",
        workload=WorkloadSpec(trace=str(trace), sessions="none"),
        endpoint=spec_of(served, tokenizer=str(TOKENIZER)),
    )
    run = runner.replay(experiment, tmp_path / "run")
    calls = run.trace.collect().join(run.plan, on="call_id", suffix="_planned")
    assert (calls["status"] == "ok").all(), calls["error"].to_list()
    # exact after the chat template, though the length of an answer cannot be asked for
    assert (calls["input_tokens"] == calls["input_tokens_planned"]).all()
    assert (calls["output_tokens"] <= calls["output_tokens_planned"]).all()
    assert (calls["first_token_s"] > calls["sent_s"]).all()
    assert set(calls["finish_reason"]) <= {"length", "stop"}
