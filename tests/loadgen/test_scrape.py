"""What servers say of themselves: pages read by hand, servers that fail, and two real ones."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import polars as pl
import pytest
from aiohttp import web

from servescope.engine import http
from servescope.loadgen import scrape
from servescope.loadgen.experiment import EngineSpec
from servescope.loadgen.gpu import Sampler
from servescope.loadgen.scrape import Scraper
from servescope.loadgen.simulate import cluster_of
from servescope.traces import server

PAGES = Path(__file__).parents[1] / "data" / "metrics"
TRUE_VLLM = Path(__file__).parents[2].parent / "shared" / "servers" / "vllm_metrics_sample.txt"
KEY = "sk-planted-4711"


# --- servers --------------------------------------------------------------------------------------

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Metrics:
    """A server whose /metrics a test plays."""

    answer: Answer
    url: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.headers))
        return await self.answer(request)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Metrics]:
    metrics = Metrics(answer)
    app = web.Application()
    app.router.add_get("/{anything:.*}", metrics.handle)
    async with listening(app) as metrics.url:
        yield metrics


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def good(_: web.Request) -> web.Response:
    return web.Response(
        text=f"vllm:num_requests_running 3\nvllm:generation_tokens_total {time.time()}"
    )


async def silent(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


def answering(status: int, text: str = "", **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return answer


@asynccontextmanager
async def scraping(scraper: Scraper) -> AsyncIterator[None]:
    task = asyncio.create_task(scraper.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


def scraper_of(folder: Path, *urls: str, **options: object) -> Scraper:
    options = {"every_s": 0.05, **options}
    return Scraper(urls, folder, time.monotonic, **options)  # type: ignore[arg-type]


def table(folder: Path) -> pl.DataFrame:
    found = server.read(folder)
    assert found is not None
    return found


def ups(folder: Path, url: str) -> list[float]:
    said = table(folder).filter(pl.col("replica") == url, pl.col("name") == "up")
    return said["value"].to_list()


async def test_a_server_is_asked_again_and_again_and_its_changes_are_kept(tmp_path: Path) -> None:
    async with serving(good) as metrics:
        scraper = scraper_of(tmp_path, metrics.url + "/v1")
        async with scraping(scraper):
            await until(lambda: len(metrics.asked) > 4)
        assert scraper.latest[0]["running"] == 3.0
    said = table(tmp_path).filter(pl.col("replica") == metrics.url + "/v1")
    running = said.filter(pl.col("name") == "vllm:num_requests_running")
    assert running.height == 1
    assert running["t_s"][0] == said["t_s"].min()
    assert said.filter(pl.col("name") == "vllm:generation_tokens_total").height > 2
    assert set(ups(tmp_path, metrics.url + "/v1")) == {1.0}
    assert scraper.doubts == ()


async def test_a_server_that_never_answers_holds_up_no_other(tmp_path: Path) -> None:
    async with serving(silent) as slow, serving(good) as quick:
        scraper = scraper_of(tmp_path, slow.url, quick.url)
        async with scraping(scraper):
            await until(lambda: len(quick.asked) > 3 and len(slow.asked) > 1)
        assert list(scraper.latest) == [1]
    assert set(ups(tmp_path, slow.url)) == {0.0}
    assert set(ups(tmp_path, quick.url)) == {1.0}
    (doubt,) = scraper.doubts
    assert doubt.startswith(f"{slow.url}/metrics does not answer within 0.04 s, so the queue")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (answering(404), "answers 404"),
        (answering(501, "off"), "answers 501"),
        (answering(503), "answers 503"),
        (
            answering(200, "<html>\n<p>Hello</p>"),
            "answers with something else than Prometheus text",
        ),
        (answering(302, Location="/metrics"), "redirects to itself"),
    ],
)
async def test_a_server_without_metrics_is_a_doubt_and_no_error(
    tmp_path: Path, answer: Answer, says: str
) -> None:
    async with serving(answer) as metrics:
        scraper = scraper_of(tmp_path, metrics.url)
        async with scraping(scraper):
            await until(lambda: len(metrics.asked) > 2)
    assert scraper.latest == {}
    assert scraper.doubts == (
        f"{metrics.url}/metrics {says}, so the queue and KV use of that server are not recorded;"
        " start it with its metrics on (SGLang: --enable-metrics, llama.cpp: --metrics).",
    )
    assert set(table(tmp_path)["name"]) == {"up", "scrape_duration_seconds"}


async def test_an_endless_page_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"vllm:a 1\n" * 10_000)

    monkeypatch.setattr(scrape, "MOST_BYTES", 1 << 20)
    async with serving(endless) as metrics:
        scraper = scraper_of(tmp_path, metrics.url, every_s=10.0)
        await scraper.finish(5.0)
    assert "answers more than 1 MB" in scraper.doubts[0]


async def test_a_server_that_comes_up_late_is_found_and_its_hole_is_said(tmp_path: Path) -> None:
    async def late(request: web.Request) -> web.Response:
        return web.Response(status=503) if len(metrics.asked) < 4 else await good(request)

    async with serving(late) as metrics:
        scraper = scraper_of(tmp_path, metrics.url)
        async with scraping(scraper):
            await until(lambda: bool(scraper.latest))
    assert ups(tmp_path, metrics.url)[:4] == [0.0, 0.0, 0.0, 1.0]
    (doubt,) = scraper.doubts
    assert doubt.startswith("3 of ")
    assert "(the last: it answers 503)" in doubt


async def test_what_a_server_said_before_it_went_is_not_what_it_says_now(tmp_path: Path) -> None:
    async def dying(request: web.Request) -> web.Response:
        return await good(request) if len(metrics.asked) == 1 else web.Response(status=500)

    async with serving(dying) as metrics:
        scraper = scraper_of(tmp_path, metrics.url)
        async with scraping(scraper):
            await until(lambda: len(metrics.asked) > 2)
    assert scraper.latest == {}


async def test_a_page_without_a_known_name_is_kept_and_doubted(tmp_path: Path) -> None:
    async with serving(answering(200, "queue_depth 4\n")) as metrics:
        scraper = scraper_of(tmp_path, metrics.url)
        await scraper.finish()
    assert "under a name that is known here" in scraper.doubts[0]
    assert "queue_depth" in set(table(tmp_path)["name"])


async def test_a_slash_that_a_server_wants_is_added(tmp_path: Path) -> None:
    async def mounted(request: web.Request) -> web.Response:
        if request.path != "/metrics/":
            return web.Response(status=307, headers={"Location": "/metrics/"})
        return await good(request)

    async with serving(mounted) as metrics:
        scraper = scraper_of(tmp_path, metrics.url)
        await scraper.finish()
        await scraper.finish()
    assert len(metrics.asked) == 3
    assert scraper.doubts == ()


async def test_a_key_is_sent_to_the_server_only_and_written_nowhere(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with serving(good) as elsewhere:
        away = answering(302, f"no {KEY}", Location=f"{elsewhere.url}/metrics")
        async with serving(away) as metrics:
            scraper = scraper_of(tmp_path, metrics.url, headers=headers)
            await scraper.finish()
            unsendable = scraper_of(tmp_path, metrics.url, headers={"Authorization": f"{KEY}\n"})
            await unsendable.finish()
    assert elsewhere.asked == []
    assert metrics.asked[0]["Authorization"] == f"Bearer {KEY}"
    assert "answers 302" in scraper.doubts[0]
    said = " ".join((*scraper.doubts, *unsendable.doubts))
    assert "cannot be read (ValueError)" in said
    assert KEY not in said
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*.*"))


async def test_a_last_look_holds_the_totals_at_the_end(tmp_path: Path) -> None:
    tokens = [10]

    async def counting(_: web.Request) -> web.Response:
        return web.Response(text=f"vllm:generation_tokens_total {tokens[0]}")

    async with serving(counting) as metrics:
        scraper = scraper_of(tmp_path, metrics.url, every_s=1000.0)
        async with scraping(scraper):
            await until(lambda: bool(scraper.latest))
        tokens[0] = 64
        await scraper.finish(5.0)
    said = table(tmp_path).filter(pl.col("name") == "vllm:generation_tokens_total")
    assert said["value"].to_list() == [10.0, 64.0]


async def test_a_full_disk_ends_the_record_and_not_the_run(tmp_path: Path) -> None:
    (tmp_path / "server").write_text("a file where the folder should be")
    async with serving(good) as metrics:
        scraper = scraper_of(tmp_path, metrics.url)
        async with scraping(scraper):
            await until(lambda: bool(scraper.doubts))
            asked = len(metrics.asked)
            await until(lambda: len(metrics.asked) > asked)
        assert scraper.latest[0]["running"] == 3.0
    assert scraper.doubts[0].startswith("What the servers said of themselves is not recorded: ")


class OneGpu(Sampler):
    def __init__(self) -> None:
        self.reason = None

    def sample(self) -> list[tuple[str, str, float]]:
        return [("gpu_power_watts", "gpu=0", 250.0)]


async def test_gpus_are_sampled_on_the_same_ticks(tmp_path: Path) -> None:
    scraper = scraper_of(tmp_path, gpu=OneGpu())
    async with scraping(scraper):
        await until(lambda: bool(scraper._journal and scraper._journal._rows))
    await scraper.finish()
    said = table(tmp_path)
    assert said.height >= 2
    assert set(said.select("replica", "name", "labels", "value").rows()) == {
        ("host", "gpu_power_watts", "gpu=0", 250.0)
    }


class FakeTime:
    """A clock that only sleeping and work move; sleeps end a little early, as loops' do."""

    def __init__(self, now_s: float, end_s: float = math.inf) -> None:
        self.now_s = now_s
        self.end_s = end_s

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds - 1e-4, 1e-5)
        if self.now_s > self.end_s:
            raise TimeoutError


async def test_ticks_are_multiples_of_the_period_and_missed_ones_are_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime(-0.3)
    monkeypatch.setattr(scrape.asyncio, "sleep", clock.sleep)
    work_s = iter([0.1, 0.1, 2.5, 0.1, 0.1])
    began: list[float] = []

    async def act() -> float:
        began.append(clock.now_s)
        clock.now_s += next(work_s)  # ends the test when there is none left
        return 0.0

    scraper = Scraper([], tmp_path, clock, every_s=1.0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await scraper._on_every_tick(act)
    assert began[0] == -0.3
    assert [math.floor(moment) for moment in began[1:]] == [0, 1, 4, 5, 6]
    assert all(moment - math.floor(moment) < 1e-3 for moment in began[1:])


async def test_a_server_that_is_not_there_is_soon_asked_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime(0.0, end_s=33.0)
    monkeypatch.setattr(scrape.asyncio, "sleep", clock.sleep)
    scraper = Scraper(["http://127.0.0.1:9"], tmp_path, clock, every_s=1.0)
    async with scraper._session() as session:
        with pytest.raises(TimeoutError):
            await scraper._keep_scraping(session, 0)
    scraper._flush()
    asked = table(tmp_path).filter(pl.col("name") == "up")
    assert [round(moment) for moment in asked["t_s"]] == [0, 1, 2, 12, 22, 32]
    assert "refuses connections" in scraper.doubts[0]


# --- two real servers -----------------------------------------------------------------------------


async def complete(url: str, tokens: int, prompt: list[int]) -> None:
    body = {"model": "tiny", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/completions", json=body) as answer,
    ):
        assert answer.status == 200
        await answer.read()


def grown(folder: Path, name: str) -> float:
    said = table(folder).filter(pl.col("name") == name)["value"]
    return float(said[-1] - said[0])


async def test_the_embedded_engine_says_what_it_did(tmp_path: Path) -> None:
    app = http.make_app(
        cluster_of(EngineSpec(system="sarathi", model="Llama-3.2-1B", tp=2)), "tiny"
    )
    async with listening(app) as url:
        scraper = scraper_of(tmp_path, url, every_s=0.02)
        async with scraping(scraper):
            await until(lambda: bool(scraper.latest))
            calls = [asyncio.create_task(complete(url, 40, [1] * 64)) for _ in range(3)]
            await until(lambda: scraper.latest.get(0, {}).get("running", 0.0) > 0)
            assert scraper.latest[0]["kv_usage"] > 0
            await asyncio.gather(*calls)
        await scraper.finish(5.0)
    assert grown(tmp_path, "vllm:generation_tokens_total") == 120
    assert grown(tmp_path, "vllm:prompt_tokens_total") == 3 * 64
    assert "servescope_engine_behind_max_seconds" in set(table(tmp_path)["name"])
    assert scraper.doubts == ()


@pytest.mark.thirdparty
async def test_llama_cpp_says_what_it_did(llama_url: str, tmp_path: Path) -> None:
    scraper = scraper_of(tmp_path, llama_url)
    async with scraping(scraper):
        await until(lambda: bool(scraper.latest))
        before = scraper.latest[0]
        for number in range(4):  # after the first, the server has their beginning in its cache
            await complete(llama_url, 16, [*range(200, 300), 400 + number])
    await scraper.finish(5.0)
    after = scraper.latest[0]
    assert after["generation_tokens"] - before["generation_tokens"] == 64
    assert after["prefix_queries"] - before["prefix_queries"] == 4 * 101
    assert after["prefix_hits"] - before["prefix_hits"] >= 3 * 64
    assert after["running"] == after["waiting"] == 0.0
    assert "kv_usage" not in after
    assert scraper.doubts == ()
