"""What vLLM answered when it refused, gave up or died, repeated byte for byte."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from background import Background
from vllm_echo import ASKED, RECORDED, Echo, echoing

from servescope.loadgen import runner
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.probe import probe
from servescope.loadgen.target import Target
from servescope.traces import Run
from servescope.traces.errors import EndpointError

FIRST = 10  # tokens asked for by the first call that meets an error; each next asks for one more
TOKENS = 4  # those of the calls between, which are served
AT_ONCE = {
    "too_long": ("http_400", "your prompt contains 2100 input tokens"),
    "max_tokens": ("http_400", "max_tokens=5000 cannot be greater than max_model_len=2048"),
    "min_over_max": ("http_400", "min_tokens must be less than or equal to max_tokens=4, got 8"),
    "wrong_type": ("http_400", "Input should be a valid integer"),
    "no_prompt": ("http_400", "Either prompt or prompt_embeds must be provided"),
    "no_model": ("http_404", "The model `nope` does not exist"),
    "out_of_vocabulary": ("server", "Token id 99999 is out of vocabulary"),
    "dead": ("http_500", "EngineCore encountered an issue"),
}
IN_THE_MIDDLE = {
    "aborted": ("server", "the server aborted the request"),
    "died": ("server", "EngineCore encountered an issue"),
}
IN_A_CHAT = {
    "too_long_chat": ("http_400", "your prompt contains at least 2049 input tokens"),
    "aborted_chat": ("server", "the server aborted the request"),
}


@contextmanager
def replayed(
    names: list[str], folder: Path, served: str = "served", **options: Any
) -> Iterator[tuple[Run, Echo]]:
    """Replay calls of which each second one meets one of the named errors."""

    def plan(body: dict[str, Any]) -> str:
        return served if body["max_tokens"] == TOKENS else names[body["max_tokens"] - FIRST]

    rows = [
        f"{n * 0.02:.2f},16,{FIRST + n // 2 if n % 2 else TOKENS}" for n in range(2 * len(names))
    ]
    trace = folder / "trace.csv"
    trace.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows]) + "\n")
    with Background(echoing(Echo(plan))) as echo:
        experiment = Experiment(
            name="echo",
            workload=WorkloadSpec(trace=str(trace), sessions="none"),
            endpoint=EndpointSpec(base_url=echo.url, workers=1, scrape_s=0, **options),
        )
        yield runner.replay(experiment, folder / "run"), echo


def test_every_error_is_a_row_with_vllm_s_words_and_harms_no_other_call(tmp_path: Path) -> None:
    expected = {**AT_ONCE, **IN_THE_MIDDLE}
    with replayed([*expected], tmp_path, backend="vllm") as (run, echo):
        calls = run.trace.collect().sort("due_s")
    served, failed = calls[::2], calls[1::2]
    assert served["status"].to_list() == ["ok"] * len(expected)
    assert set(served["input_tokens"]) == {16}
    assert set(served["output_tokens"]) == {TOKENS}
    assert failed["status"].to_list() == [status for status, _ in expected.values()]
    for said, (_, words) in zip(failed["error"], expected.values(), strict=True):
        assert words in said
    assert all(echo.met[name] == 1 for name in expected)  # and none is tried again
    # vLLM keeps its connections through all of that, so no call opens another
    assert calls["connection_calls"].max() == calls.height - 1
    # what came before the end is kept, and what never came is missing
    before = dict(zip(expected, failed["chunk_s"].list.len(), strict=True))
    assert all(before[name] > 10 for name in IN_THE_MIDDLE)
    assert not any(before[name] for name in AT_ONCE)
    assert failed["first_token_s"].null_count() == len(AT_ONCE)


def test_errors_of_chats_are_the_same(tmp_path: Path) -> None:
    options = {"served": "served_chat", "backend": "vllm-chat"}
    with replayed([*IN_A_CHAT], tmp_path, **options) as (run, _):
        calls = run.trace.collect().sort("due_s")
    assert calls["status"].to_list() == ["ok", "http_400", "ok", "server"]
    for said, (_, words) in zip(calls["error"][1::2], IN_A_CHAT.values(), strict=True):
        assert words in said


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_model", r"answered 404: .*`nope` does not exist.* Check the path"),
        ("too_long", r"failed a small call \(http_400\): .*maximum context length"),
        ("out_of_vocabulary", r"failed a small call \(server\): Token id 99999"),
        ("dead", r"failed a small call \(http_500\): .*EngineCore"),
    ],
)
async def test_a_server_that_answers_the_probe_so_cannot_be_measured(name: str, says: str) -> None:
    async with echoing(Echo(lambda _: name)) as echo:
        with pytest.raises(EndpointError, match=says):
            await probe(Target.of(EndpointSpec(base_url=echo.url, backend="vllm")))


@pytest.mark.parametrize("refusal", ["min_over_max", "out_of_vocabulary"])
async def test_a_refusal_is_found_before_the_stream_and_in_it(refusal: str) -> None:
    async with echoing(Echo(lambda body: refusal if "min_tokens" in body else "served")) as echo:
        spec = EndpointSpec(base_url=echo.url, backend="vllm", min_tokens=True)
        found = await probe(Target.of(spec))
    assert (found.model, found.refused, found.reuse) == ("tiny", ("min_tokens",), True)


def test_all_that_was_recorded_is_looked_at() -> None:
    names = {"models", "served", "served_chat", *AT_ONCE, *IN_THE_MIDDLE, *IN_A_CHAT}
    assert {path.stem for path in RECORDED.glob("*.http")} == names == {"models", *ASKED}
