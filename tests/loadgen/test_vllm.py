"""vLLM itself, asked for by SERVESCOPE_VLLM_PYTHON: docs/how-to/test-against-real-servers.md."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import polars as pl
import pytest
from real import TOKENIZER, vllm_server

from servescope.loadgen import answer, runner
from servescope.loadgen.experiment import EndpointSpec, Experiment, WorkloadSpec
from servescope.loadgen.probe import probe
from servescope.loadgen.scrape import Scraper
from servescope.loadgen.target import Target
from servescope.traces import Run, server
from servescope.traces.errors import EndpointError

pytestmark = [pytest.mark.optin, pytest.mark.slow]

BLOCK = 512  # tokens of a block of Mooncake's


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = ("--scheduling-policy", "priority", "--enable-prompt-tokens-details")
    with vllm_server(tmp_path_factory.mktemp("vllm"), *options) as url:
        yield url


@pytest.fixture
def prefixes(tmp_path: Path) -> Path:
    """A trace of ten calls, whose first 1,024 tokens are one of two beginnings."""
    path = tmp_path / "prefixes.jsonl"
    lines = [
        {
            "timestamp": 150 * n,
            "input_length": 2 * BLOCK + 17 * (n + 1),
            "output_length": 5 + 4 * n,
            "hash_ids": [n % 2, 2 + n % 2, 10 + n],
        }
        for n in range(10)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """A trace of three sessions of three turns, each turn with all that was said before."""
    path = tmp_path / "chats.csv"
    rows = ["arrival_s,input_tokens,output_tokens,program_id"]
    for session in range(3):
        length = 40
        for turn in range(3):
            rows.append(f"{session * 0.1 + turn * 0.5:g},{length},{8 + turn},s{session}")
            length += 60 + 8 + turn
    path.write_text("\n".join(rows) + "\n")
    return path


def replayed(url: str, trace: Path, out: Path, sessions: str = "none", **options: object) -> Run:
    fields: dict[str, object] = {"backend": "vllm", **options}
    experiment = Experiment(
        name="vllm",
        workload=WorkloadSpec(trace=str(trace), sessions=sessions),  # type: ignore[arg-type]
        endpoint=EndpointSpec(base_url=url, **fields),  # type: ignore[arg-type]
    )
    return runner.replay(experiment, out)


def exact(run: Run) -> pl.DataFrame:
    """Return the calls in order, all of them served with exactly the planned tokens."""
    calls = run.trace.collect()
    assert (calls["status"] == "ok").all(), calls["error"].to_list()
    both = calls.join(run.plan, on="call_id", suffix="_planned")
    assert (both["input_tokens"] == both["input_tokens_planned"]).all()
    assert (both["output_tokens"] == both["output_tokens_planned"]).all()
    assert not [doubt for doubt in run.info.doubts if "counted" in doubt]
    return calls.sort("due_s")


# --- the probe ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["vllm", "vllm-chat"])
async def test_the_probe_finds_all_that_vllm_can(url: str, backend: str) -> None:
    spec = EndpointSpec(base_url=url, backend=backend, min_tokens=True, usage_each=True)
    found = await probe(Target.of(spec))
    assert (found.model, found.refused) == ("tiny", ())
    assert found.reuse
    assert found.streams
    assert found.done
    assert found.each
    assert found.output_tokens == 4
    assert found.cached_tokens is not None
    assert found.doubts == ()
    if backend == "vllm":
        assert found.input_tokens == 16


async def test_without_ignore_eos_answers_end_early_and_min_tokens_holds_them_up(url: str) -> None:
    """All but 64 of 2,048 tokens end this model's answers, so what is not asked for shows."""
    short = await probe(Target.of(EndpointSpec(base_url=url, ignore_eos=False)))
    assert short.output_tokens is not None
    assert short.output_tokens < 4
    assert any("ignore_eos" in doubt for doubt in short.doubts)
    held = await probe(Target.of(EndpointSpec(base_url=url, ignore_eos=False, min_tokens=True)))
    assert held.output_tokens == 4


# --- replays ------------------------------------------------------------------------------------


def test_tokens_are_exact_and_shared_prefixes_are_found_in_the_cache(
    url: str, prefixes: Path, tmp_path: Path
) -> None:
    calls = exact(replayed(url, prefixes, tmp_path / "run", users=1))
    # one at a time, so all but the first call of a beginning find it: whole blocks of the cache
    cached = calls["cached_tokens"].to_list()
    assert cached == [0, 0] + [2 * BLOCK] * 8
    again = exact(replayed(url, prefixes, tmp_path / "again", users=1))
    assert min(again["cached_tokens"]) >= 2 * BLOCK  # the same seed, the same prompts


@pytest.mark.parametrize("history", ["planned", "generated"])
def test_chats_are_exact_after_the_template(
    url: str, chats: Path, tmp_path: Path, history: str
) -> None:
    run = replayed(
        url,
        chats,
        tmp_path / "run",
        sessions="auto",
        backend="vllm-chat",
        tokenizer=str(TOKENIZER),
        history=history,
    )
    assert exact(run)["program_id"].n_unique() == 3


def test_usage_in_every_chunk_tells_the_tokens_of_each(
    url: str, prefixes: Path, tmp_path: Path
) -> None:
    calls = exact(replayed(url, prefixes, tmp_path / "run", usage_each=True))
    counted = calls["chunk_tokens"]
    assert counted.null_count() == 0
    assert (counted.list.len() == calls["chunk_s"].list.len()).all()
    # a token that is no whole letter yet is counted with the chunk that brings the letter
    assert (counted.list.sum() <= calls["output_tokens"]).all()
    assert counted.list.sum().sum() >= 0.9 * calls["output_tokens"].sum()


def test_a_priority_is_taken(url: str, prefixes: Path, tmp_path: Path) -> None:
    run = replayed(url, prefixes, tmp_path / "run", priority="program-arrival")
    exact(run)
    assert run.info.probe["refused"] == []


def test_the_server_s_own_counters_agree_with_the_calls(
    url: str, prefixes: Path, tmp_path: Path
) -> None:
    def totals(folder: str) -> dict[str, float]:
        (tmp_path / folder).mkdir()
        scraper = Scraper([url], tmp_path / folder, lambda: 0.0)
        asyncio.run(scraper.finish(5.0))
        assert scraper.doubts == ()
        return last(tmp_path / folder)

    def last(folder: Path) -> dict[str, float]:
        said = server.read(folder)
        assert said is not None
        return dict(said.filter(pl.col("name").str.ends_with("_total"))["name", "value"].rows())

    before = totals("before")
    calls = exact(replayed(url, prefixes, tmp_path / "run"))
    after = totals("after")
    grown = {name: after[name] - before[name] for name in after}
    # and the two calls of the probe
    assert grown["vllm:prompt_tokens_total"] == calls["input_tokens"].sum() + 2 * 16
    assert grown["vllm:generation_tokens_total"] == calls["output_tokens"].sum() + 2 * 4
    assert grown["vllm:prefix_cache_hits_total"] == calls["cached_tokens"].sum()
    # the run's own table ends with the same
    counters = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    said = last(tmp_path / "run")
    assert [said[name] for name in counters] == [after[name] for name in counters]


# --- errors -------------------------------------------------------------------------------------


def test_a_prompt_that_is_too_long_is_a_row_with_the_words_of_the_server(
    url: str, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens,output_tokens\n0,50,4\n0.1,2100,4\n0.2,60,4\n")
    calls = replayed(url, trace, tmp_path / "run").trace.collect().sort("due_s")
    assert calls["status"].to_list() == ["ok", "http_400", "ok"]
    assert "your prompt contains 2100 input tokens" in calls["error"][1]


async def test_an_unknown_model_stops_before_anything_is_measured(url: str) -> None:
    with pytest.raises(EndpointError, match=r"answered 404: .*`nope` does not exist"):
        await probe(Target.of(EndpointSpec(base_url=url, model="nope")))


async def test_an_error_inside_a_stream_of_status_200_is_a_failure(url: str) -> None:
    target = Target.of(EndpointSpec(base_url=url))
    body = {"model": "tiny", "prompt": [300, 99999], "max_tokens": 4, "stream": True}
    async with target.client() as client:
        exchange = await client.send(target.urls[0], msgspec.json.encode(body))
    assert (exchange.status, exchange.stream is None) == (None, False)
    assert exchange.stream is not None
    read = answer.read(target.dialect, exchange.stream.blocks, exchange.stream.stamps)
    assert (read.status, read.error) == ("server", "Token id 99999 is out of vocabulary")


async def test_an_answer_that_vllm_gives_up_is_a_failure(url: str) -> None:
    """Pausing it for a change of weights aborts what is running."""
    target = Target.of(EndpointSpec(base_url=url))
    body = {"model": "tiny", "prompt": [300], "max_tokens": 2000, "ignore_eos": True}
    request = msgspec.json.encode({**body, "stream": True})
    async with target.client() as client, aiohttp.ClientSession(url) as session:
        sending = asyncio.create_task(client.send(target.urls[0], request))
        await asyncio.sleep(0.5)
        async with session.post("/pause?mode=abort") as paused, session.post("/resume") as resumed:
            assert (paused.status, resumed.status) == (200, 200)
        exchange = await sending
    assert exchange.stream is not None
    read = answer.read(target.dialect, exchange.stream.blocks, exchange.stream.stamps)
    assert (read.status, read.finish) == ("server", "abort")
    assert 0 < len(read.chunk_s) < 2000
