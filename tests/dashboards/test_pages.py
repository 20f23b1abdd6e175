"""Every page in headless Chromium: clicks, brushing, sliders, deep links, a phone, a live run."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest

pytest.importorskip("playwright", reason="needs the playwright package of the dev group")
import chromium
from playwright.sync_api import Browser, Locator, Page, expect

from servescope.dashboards import Library, Server, app_of
from servescope.traces.run import Run

pytestmark = chromium.needed
NASTY = "<img src=x onerror=alert(1)><script>alert(2)</script> & <b>bold</b>"
SOON_MS = 20_000
expect.set_options(timeout=SOON_MS)  # other tests are on the same cores


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium.browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good runs; one whose every string is markup; one that is damaged; one that was killed."""
    folder = Path(shutil.copytree(kept, tmp_path_factory.mktemp("shown") / "runs"))
    nasty = Path(shutil.copytree(kept / "chat" / "sarathi", folder / "nasty"))
    info = json.loads((nasty / "run.json").read_text())
    for name in ("name", "system", "model"):
        info[name] = NASTY
    info["doubts"] = [NASTY]
    info["trace"]["source"] = NASTY
    (nasty / "run.json").write_text(json.dumps(info))
    named = pl.col("call_id") + NASTY
    calls = pl.read_parquet(nasty / "calls.parquet").with_columns(
        call_id=named,
        program_id=pl.col("program_id") + NASTY,
        parents=pl.col("parents").list.eval(pl.element() + NASTY),
        client_id=pl.when(pl.col("turn") == 0).then(pl.lit(NASTY)).otherwise(pl.lit("other")),
        call_class=pl.when(pl.col("turn") == 0).then(pl.lit(NASTY)).otherwise(pl.lit("other")),
        model=pl.lit(NASTY),
        error=pl.lit(NASTY),
        status=pl.when(pl.col("due_s") > 20).then(pl.lit("http_500")).otherwise(pl.lit("ok")),
    )
    calls.write_parquet(nasty / "calls.parquet")
    plan = pl.read_parquet(nasty / "plan.parquet")
    plan.with_columns(call_id=named).write_parquet(nasty / "plan.parquet")
    torn = Path(shutil.copytree(kept / "chat" / "sarathi", folder / "torn"))
    (torn / "calls.parquet").write_bytes((torn / "calls.parquet").read_bytes()[:500])
    half = Path(shutil.copytree(kept / "chat" / "sarathi", folder / "half"))
    (half / "run.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with Server(app_of(Library(folder))) as server:
        yield server.address.rstrip("/")


@contextmanager
def opened(
    browser: Browser, url: str, width: int = 1280, *, dark: bool = False, touch: bool = False
) -> Iterator[Page]:
    """Open a page, and hold it to no error, no dialog, and no request that leaves the dashboard."""
    page = browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        has_touch=touch,
    )
    errors: list[str] = []
    hosts: set[str] = set()
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(f"a script ran: {dialog.message}"))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto(url)
    yield page
    page.wait_for_load_state("networkidle")
    assert errors == []
    assert hosts <= {urlsplit(url).netloc, ""}  # data: has none
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def drawn(part: Locator) -> None:
    """Go to the figures of a part of the page, which draws them, and wait for all of them."""
    expect(part.locator(".plot").first).to_be_attached()
    for plot in part.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        expect(plot.locator(".main-svg").first).to_be_visible()


def drag(page: Page, strip: Locator, begin: float, end: float) -> None:
    """Drag over a figure from one share of its width to another."""
    box = strip.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + begin * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=8)
    page.mouse.up()


def dots(page: Page) -> list[float]:
    """Return where in time the calls stand that a figure shows as dots."""
    found: list[float] = page.evaluate(
        """[...document.querySelectorAll('#plots-part .js-plotly-plot')]
           .flatMap(plot => plot.data.filter(trace => trace.mode === 'markers'))
           .flatMap(trace => [...trace.x])"""
    )
    return found


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what comes soon; the pages allow no script of a test's own to wait for it."""
    until = time.monotonic() + SOON_MS / 1000
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


def first_card(page: Page) -> int:
    return int(page.locator(".cards b").first.inner_text().replace("\u202f", ""))


def test_runs_are_sorted_filtered_tagged_and_led_on_from(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}/") as page:
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(5)
        page.fill("#runs-words", "chat")
        expect(rows).to_have_count(2)
        page.get_by_role("button", name="TTFT p50").click()
        expect(page.locator("th[aria-sort=descending]")).to_contain_text("TTFT p50")
        expect(rows.first).to_contain_text("chat/sarathi")  # chunked prefill answers later
        page.get_by_role("button", name="TTFT p50").click()
        expect(rows.first).to_contain_text("chat/vllm_v0")
        page.get_by_label("select chat/vllm_v0").check()
        page.get_by_label("select chat/sarathi").check()
        expect(page.locator("#runs-compare")).to_have_attribute(
            "href", "/compare?run=chat%2Fvllm_v0&run=chat%2Fsarathi"
        )
        assert query(page) == {
            "q": ["chat"], "sort": ["ttft_p50_s"], "pick": ["chat/vllm_v0", "chat/sarathi"]
        }  # fmt: skip
        page.fill("#runs-tag", "baseline")
        page.get_by_role("button", name="Add tag").click()
        expect(rows.first.locator(".tag")).to_have_text("baseline")
        page.reload()
        expect(rows).to_have_count(2)
        expect(page.get_by_label("select chat/sarathi")).to_be_checked()
        page.get_by_role("button", name="Remove tag").click()
        expect(page.locator("#runs-said")).to_contain_text("The tag is empty")


def test_a_damaged_run_is_a_sentence_in_the_list(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}/?q=cannot+be+read") as page:
        expect(page.locator("tbody tr")).to_have_count(2)


@pytest.mark.parametrize("kind", ["run", "compare", "slo", "live", "trace"])
@pytest.mark.parametrize("name", ["torn", "half", "../nasty", "%252e%252e%252fnasty"])
def test_a_damaged_run_is_a_sentence_on_its_page(
    browser: Browser, address: str, kind: str, name: str
) -> None:
    if (kind, name) == ("trace", "half"):
        pytest.skip("what traffic it was stands in the tables, which are whole")
    other = "&run=chat/sarathi" if kind in ("compare", "slo") else ""
    with opened(browser, f"{address}/{kind}?run={name}&trace={name}{other}") as page:
        expect(page.locator("#page .doubt").first).to_be_visible()


def test_every_figure_of_a_run_follows_the_brush(
    browser: Browser, address: str, kept: Path
) -> None:
    due = Run.open(kept / "chat" / "sarathi").rows.select("due_s").collect().to_series()
    with opened(browser, f"{address}/run?run=chat/sarathi") as page:
        drawn(page.locator("#plots-part"))
        assert first_card(page) == len(due)
        page.locator("#run-strip").scroll_into_view_if_needed()
        drag(page, page.locator("#run-strip"), 0.25, 0.5)
        expect(page).to_have_url(re.compile("until="))
        begin, end = float(query(page)["from"][0]), float(query(page)["until"][0])
        inside = int(due.is_between(begin, end, closed="left").sum())
        expect(page.locator(".cards b").first).to_have_text(str(inside))
        assert 0 < inside < len(due)
        drawn(page.locator("#plots-part"))
        eventually(lambda: len(dots(page)) == inside)
        assert min(dots(page)) >= begin - 0.01
        assert max(dots(page)) < end + 0.01
        page.get_by_role("button", name="All of it").click()
        expect(page.locator(".cards b").first).to_have_text(str(len(due)))
        assert "from" not in query(page)


def test_a_window_can_be_moved_by_the_keyboard(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}/run?run=chat/sarathi") as page:
        drawn(page.locator("#plots-part"))
        handle = page.get_by_role("slider").first
        handle.focus()
        for _ in range(5):
            page.keyboard.press("PageUp")
        expect(page).to_have_url(re.compile("from="))
        assert float(query(page)["from"][0]) > 0


def test_a_class_filters_and_a_deep_link_opens_the_same(browser: Browser, address: str) -> None:
    link = f"{address}/run?run=nasty&from=2&until=15&class=other"
    with opened(browser, link) as page:
        drawn(page.locator("#plots-part"))
        count = first_card(page)
        page.get_by_role("button", name="All of it").click()
        expect(page).not_to_have_url(re.compile("class="))
        expect(page.locator(".cards b").first).not_to_have_text(str(count))
        assert first_card(page) > count


@pytest.mark.parametrize("tab", ["slow", "slo", "groups", "latencies", "server", "about"])
def test_every_tab_of_a_run_has_its_say(browser: Browser, address: str, tab: str) -> None:
    with opened(browser, f"{address}/run?run=chat/sarathi&tab={tab}") as page:
        expect(page.locator("#run-part h2, #run-part .doubt").first).to_be_visible()


def test_a_slow_call_shows_its_program_and_its_gaps(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}/run?run=chat/sarathi") as page:
        drawn(page.locator("#plots-part"))
        page.get_by_text("Slowest calls").click()
        call = page.locator("#run-part button.plain").first
        name = call.inner_text()
        call.click()
        drawn(page.locator("#run-program"))
        assert query(page)["call"] == [name]
        expect(page.locator("#run-program .plot")).to_have_count(2)
        page.get_by_text("Pictures", exact=True).click()
        drawn(page.locator("#plots-part"))
        point = page.locator("#plots-part .scatterlayer .point").nth(3)
        point.scroll_into_view_if_needed()
        box = point.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        expect(page).not_to_have_url(re.compile(f"call={name}$"))


def test_runs_are_compared_with_their_verdict(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}/compare?run=chat/vllm_v0&run=chat/sarathi") as page:
        expect(page.locator(".verdict")).to_contain_text("sarathi")
        expect(page.get_by_text("By how much, how sure, and why")).to_be_visible()
        drawn(page.locator("#compare-made"))
        page.fill("#compare-slo", "ttft<50ms")
        page.keyboard.press("Enter")
        expect(page.locator("#compare-made")).to_contain_text("TTFT < 50 ms")
        assert query(page)["slo"] == ["ttft<50ms"]


def test_the_slo_explorer_follows_its_sliders(browser: Browser, address: str) -> None:
    link = f"{address}/slo?run=chat/sarathi&run=chat/vllm_v0&ttft=2&stall=0.1"
    with opened(browser, link) as page:
        made = page.locator("#slo-made")
        drawn(page.locator("#plots-slo"))
        expect(made).to_contain_text("--slo 'ttft<2000ms,stall<100ms'")
        before = made.locator("tbody").inner_text()
        handle = page.get_by_role("slider").first
        handle.focus()
        page.keyboard.press("Home")
        expect(made).to_contain_text("ttft<10ms")
        assert made.locator("tbody").inner_text() != before
        assert float(query(page)["ttft"][0]) == pytest.approx(0.01)
        page.get_by_text("over JCT").click()
        expect(page.locator("#plots-slo .xtitle").first).to_have_text("JCT below (ms)")
        assert query(page)["over"] == ["jct"]


def test_traffic_is_characterised_alone_and_beside_another(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}/trace?trace=mooncake:sample") as page:
        drawn(page.locator("#trace-made"))
    with opened(browser, f"{address}/trace?trace=mooncake:sample&beside=chat/sarathi") as page:
        drawn(page.locator("#trace-made"))
        expect(page.locator("#trace-made")).to_contain_text("chat/sarathi")


@pytest.mark.parametrize(
    "link",
    [
        "/",
        "/run?run=nasty",
        "/run?run=nasty&tab=slow",
        "/run?run=nasty&tab=groups",
        "/run?run=nasty&tab=about",
        "/compare?run=nasty&run=chat/sarathi",
        "/slo?run=nasty",
        "/trace?trace=nasty",
        "/live?run=nasty",
        "/run?run=%3Cscript%3Ealert(3)%3C/script%3E",
        "/%3Cscript%3Ealert(3)%3C/script%3E",
        "/?q=%3Cimg%20src=x%20onerror=alert(4)%3E",
    ],
)
def test_what_a_trace_or_a_server_says_is_text(browser: Browser, address: str, link: str) -> None:
    """No planted script runs and no planted image is asked for: `opened` would see both."""
    with opened(browser, address + link) as page:
        page.wait_for_load_state("networkidle")
        expect(page.locator("#page > *").first).to_be_visible()
        assert page.locator("#page img, #page script").count() == 0


def test_a_planted_name_is_shown_as_it_is_in_the_timeline(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}/run?run=nasty&tab=slow") as page:
        call = page.locator("#run-part button.plain").first
        expect(call).to_contain_text("<script>")
        call.click()
        drawn(page.locator("#run-program"))
        expect(page.locator("#run-program h2")).to_contain_text("<script>")


@pytest.mark.parametrize(
    "link",
    ["/", "/run?run=chat/sarathi", "/compare?run=chat/vllm_v0&run=chat/sarathi",
     "/slo?run=chat/sarathi", "/trace?trace=mooncake:sample", "/live?run=chat/sarathi"],
)  # fmt: skip
def test_pages_fit_a_phone_in_the_dark(browser: Browser, address: str, link: str) -> None:
    with opened(browser, address + link, 390, dark=True, touch=True) as page:
        page.wait_for_load_state("networkidle")
        expect(page.locator("h1")).to_be_visible()
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(int(part) for part in dark[4:-1].split(",")[:3]) < 150


def test_the_theme_can_be_turned_and_stays(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}/") as page:
        page.get_by_role("button", name="Light or dark").click()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
