"""What pages send from a real browser, across origins, and what becomes of it in the analytics."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Page
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.limits import MAX_LIMIT
from tests.browser.chromium import chromium, site
from tests.edges import EVENTS, view
from tests.whole import Whole, whole_system
from tests.working import until

HEADERS = ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]


class Asked(NamedTuple):
    """A request as it came to the edge."""

    method: str
    path: str
    headers: dict[str, str]


class Recorder:
    """Notes every request on its way to the application."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []

    def around(self, app: ASGIApp) -> ASGIApp:
        async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
                if "origin" in headers:  # of a page, not of the test
                    self.requests.append(Asked(scope["method"], scope["path"], headers))
            await app(scope, receive, send)

        return recorded

    def methods(self) -> list[str]:
        return [asked.method for asked in self.requests]


class World(NamedTuple):
    system: Whole
    recorder: Recorder
    site: str

    @property
    def url(self) -> str:
        """Where a beacon goes, with the key in it."""
        return f"{self.system.base}{EVENTS}?key={self.system.keys[0]}"

    def body(self, *ids: int, **fields: Any) -> dict[str, Any]:
        flow = self.system.flows[0].flow_id
        return {"events": [view(id=f"00000000-0000-4000-8000-{n:012}", flowId=flow, **fields) for n in ids]}

    def counted(self, views: int) -> dict[str, Any]:
        """The totals, when the worker has counted so many views."""
        until(lambda: self._totals()["views"] >= views)
        totals = self._totals()
        assert totals["views"] == views
        return totals

    def _totals(self) -> dict[str, Any]:
        totals: Any = self.system.analytics(self.system.flows[0])["totals"]
        return dict(totals)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def world(browser: Browser, tmp_path: Path) -> Iterator[World]:
    recorder = Recorder()
    with site() as address, whole_system(tmp_path, around=recorder.around) as system:
        # Asked again and again until the worker has counted, which may take a slow machine longer than 60 questions.
        system.catalog.set_limit(system.organisations[0], "analytics", MAX_LIMIT)
        yield World(system, recorder, address)


@pytest.fixture
def page(browser: Browser, world: World) -> Iterator[Page]:
    """A page of a customer, in a profile of its own."""
    with browser.new_context() as context:
        opened = context.new_page()
        opened.goto(world.site)
        yield opened


def test_a_string_beacon_is_counted_and_needs_no_preflight(page: Page, world: World) -> None:
    script = "([url, body]) => navigator.sendBeacon(url, JSON.stringify(body))"
    assert page.evaluate(script, [world.url, world.body(1, 2, userId="ada")]) is True
    assert world.counted(2)["uniqueUsers"] == 1
    [sent] = world.recorder.requests
    assert (sent.method, sent.headers["content-type"]) == ("POST", "text/plain;charset=UTF-8")
    assert sent.headers["origin"] == world.site


def test_a_json_beacon_is_counted_after_its_preflight(page: Page, world: World) -> None:
    script = """([url, body]) =>
        navigator.sendBeacon(url, new Blob([JSON.stringify(body)], {type: "application/json"}))"""
    assert page.evaluate(script, [world.url, world.body(1)]) is True
    world.counted(1)
    assert world.recorder.methods() == ["OPTIONS", "POST"]
    assert world.recorder.requests[1].headers["content-type"] == "application/json"


def test_what_is_sent_on_pagehide_is_counted(page: Page, world: World) -> None:
    script = """([url, body]) => addEventListener("pagehide", () => {
        fetch(url, {method: "POST", body: JSON.stringify(body), keepalive: true})
    })"""
    page.evaluate(script, [world.url, world.body(1)])
    page.goto(f"{world.site}/next")
    world.counted(1)
    assert world.recorder.methods() == ["POST"]


def test_the_beacon_of_a_tab_that_closes_at_once_is_counted(browser: Browser, world: World) -> None:
    with browser.new_context() as context:
        kept = context.new_page()  # a browser lives on when one of its tabs is closed
        kept.goto(world.site)
        tab = context.new_page()
        tab.goto(world.site)
        tab.evaluate("([url, body]) => navigator.sendBeacon(url, JSON.stringify(body))", [world.url, world.body(1)])
        tab.close()
        world.counted(1)


def test_a_form_is_counted_and_needs_no_preflight(page: Page, world: World) -> None:
    script = """([url, body]) => {
        const form = document.createElement("form")
        form.method = "post"
        form.action = url
        const field = document.createElement("input")
        field.name = "data"
        field.value = JSON.stringify(body)
        form.append(field)
        document.body.append(form)
        form.submit()
    }"""
    with page.expect_navigation(url="**/api/v1/events*"):
        page.evaluate(script, [world.url, world.body(1, data="a & b = ü")])
    assert page.inner_text("body") == '{"accepted":1}'
    world.counted(1)
    [sent] = world.recorder.requests
    assert (sent.method, sent.headers["content-type"]) == ("POST", "application/x-www-form-urlencoded")


def test_a_body_that_the_browser_compressed_is_counted(page: Page, world: World) -> None:
    script = """async ([url, body]) => {
        const text = new Blob([JSON.stringify(body)])
        const packed = await new Response(text.stream().pipeThrough(new CompressionStream("gzip"))).blob()
        const headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        const answer = await fetch(url, {method: "POST", body: packed, headers})
        return [answer.status, await answer.json()]
    }"""
    assert page.evaluate(script, [world.url, world.body(*range(50))]) == [202, {"accepted": 50}]
    world.counted(50)
    assert world.recorder.methods() == ["OPTIONS", "POST"]


def test_a_page_reads_answers_errors_and_limits(page: Page, world: World) -> None:
    script = """async ([url, key, names]) => {
        const found = []
        for (const credential of [key, "wrong"]) {
            const headers = {"Authorization": `Bearer ${credential}`}
            const answer = await fetch(url, {headers, credentials: "include"})
            found.push([answer.status, await answer.json(), names.map(name => Number(answer.headers.get(name)))])
        }
        return found
    }"""
    asked = [f"{world.system.base}/api/v1/heartbeat", world.system.keys[0], HEADERS]
    good, bad = page.evaluate(script, asked)
    assert (good[0], good[1], good[2][:2]) == (200, {"ok": True}, [10, 9])
    assert (bad[0], bad[1]) == (401, {"error": "Unauthorized"})
    assert all(number > 0 for number in bad[2])
    assert world.recorder.methods() == ["OPTIONS", "GET", "GET"]  # the preflight's answer is kept


def test_a_page_over_its_limit_is_told_when_to_come_back(page: Page, world: World) -> None:
    script = """async ([url]) => {
        for (let n = 0; n < 10; n++) await fetch(url)
        const answer = await fetch(url)
        return [answer.status, await answer.json(), Number(answer.headers.get("Retry-After"))]
    }"""
    url = f"{world.system.base}/api/v1/heartbeat?key={world.system.keys[0]}"
    status, body, seconds = page.evaluate(script, [url])
    assert (status, body) == (429, {"error": "Rate limit exceeded", "retryAfter": seconds})
    assert 1 <= seconds <= 60
    assert set(world.recorder.methods()) == {"GET"}


def test_of_a_browser_that_asks_for_privacy_no_user_is_kept(browser: Browser, world: World) -> None:
    # Chromium has no such setting of its own; extensions send the header, and so does this.
    with browser.new_context(extra_http_headers={"Sec-GPC": "1"}) as context:
        page = context.new_page()
        page.goto(world.site)
        script = "([url, body]) => navigator.sendBeacon(url, JSON.stringify(body))"
        page.evaluate(script, [world.url, world.body(1, userId="ada", anonymousId="b-17")])
        assert world.counted(1)["uniqueUsers"] == 0
        [sent] = world.recorder.requests
        assert sent.headers["sec-gpc"] == "1"
