"""Every page that links lead to, at a desktop and on a phone, light and dark, with hostile texts.

Pictures are kept in .cache/screenshots.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Route, expect
from werkzeug.exceptions import NotFound
from werkzeug.routing import MapAdapter

from tests.console.browser import DESKTOP, PHONE, Viewer
from tests.console.conftest import logged_in
from tests.console.hostile import NASTY, add_hostile
from tests.console.installation import Installation, installation, populate
from virtmgr.console.app import create_console

PICTURES: Final = Path(__file__).parents[2] / ".cache/screenshots"
LOOKS: Final = [(size, theme) for size in (DESKTOP, PHONE) for theme in ("light", "dark")]
NOT_PAGES: Final = ("/api/", "/static/", "/logout")
# Places of the menu that have no page yet. This may only shrink.
MISSING: Final[set[str]] = set()
_LINKS: Final = """() => [...document.querySelectorAll("a[href]")]
  .filter(a => a.origin === location.origin && !a.hasAttribute("download"))
  .map(a => a.pathname + a.search)"""
_SETTLED: Final = (
    "() => document.readyState === 'complete' && !document.querySelector('.htmx-request')"
)
_TOO_WIDE: Final = """() => {
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= wide) return [];
  return [...document.querySelectorAll("body *")]
    .filter(e => e.getBoundingClientRect().right > wide + 1)
    .slice(0, 3).map(e => e.outerHTML.slice(0, 120));
}"""


@pytest.fixture(scope="module")
def routes() -> MapAdapter:
    """The console's own table, to tell which links are of one shape."""
    nothing: Any = None
    return create_console(nothing).url_map.bind("console")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """With a thing of each noun whose texts are not what they seem; nobody else's."""
    with installation(tmp_path_factory.mktemp("hostile")) as found:
        populate(found)
        add_hostile(found)
        yield found


def shape(routes: MapAdapter, address: str) -> str | None:
    """The name of the page behind an address, whatever names are in it; None: there is none."""
    try:
        endpoint, _ = routes.match(urlsplit(address).path, method="GET")
    except NotFound:
        return None
    return str(endpoint)


class Crawl:
    """Follows one link of each shape, and remembers what is wrong where."""

    def __init__(self, viewer: Viewer, routes: MapAdapter) -> None:
        self.viewer, self.routes = viewer, routes
        self.problems: dict[str, list[str]] = {}
        self.dead: set[str] = set()
        self.seen: dict[str, str] = {}  # addresses by shape
        self.foreign: set[str] = set()
        viewer.page.on("dialog", lambda dialog: self._wrong("a dialog opened: " + dialog.message))
        viewer.page.route("**/*", self._watch)

    def _wrong(self, problem: str) -> None:
        self.problems.setdefault(self.viewer.page.url, []).append(problem)

    def _watch(self, route: Route) -> None:
        if not route.request.url.startswith((self.viewer.url, "data:", "blob:")):
            self.foreign.add(route.request.url)
        route.continue_()

    def run(self, start: str) -> None:
        waiting = deque([start])
        while waiting:
            address = waiting.popleft()
            kind = shape(self.routes, address)
            if kind is None:
                self.dead.add(urlsplit(address).path)
            elif kind not in self.seen:
                self.seen[kind] = address
                self._look(kind, address)
                links = self.viewer.page.evaluate(_LINKS)
                inside = [link for link in links if not link.startswith(NOT_PAGES)]
                waiting.extend(sorted(inside, key=lambda link: "hostile" not in link))

    def _look(self, kind: str, address: str) -> None:
        page, heard = self.viewer.page, len(self.viewer.complaints)
        page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]
        page.emulate_media(color_scheme="light", reduced_motion="reduce")  # none half way
        answer = page.goto(self.viewer.url + address, wait_until="load")
        page.wait_for_function(_SETTLED)
        page.wait_for_timeout(200)
        found = [f"status {answer.status}"] if answer is None or answer.status != 200 else []
        if not page.title().removesuffix(" · virtmgr").strip():
            found.append("it has no title")
        if page.locator("h1:visible").count() != 1:
            found.append(f"{page.locator('h1:visible').count()} headings of the first level")
        if page.evaluate("'pwned' in window") or page.locator("[data-pwned]").count():
            found.append("hostile text became markup")
        for size, theme in LOOKS:
            page.set_viewport_size(size)  # type: ignore[arg-type]
            page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            page.wait_for_timeout(50)
            found += [f"{theme} {size['width']}: {barrier}" for barrier in self.viewer.barriers()]
            found += [f"{theme} {size['width']} too wide: {e}" for e in page.evaluate(_TOO_WIDE)]
            self.viewer.picture(PICTURES / f"{kind}-{size['width']}-{theme}.png")
        found += self.viewer.complaints[heard:]
        if found:
            self.problems[f"{kind} {address}"] = found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_page_is_whole(browser: Browser, hostile: Installation, routes: MapAdapter) -> None:
    with logged_in(browser, hostile) as viewer:
        crawl = Crawl(viewer, routes)
        crawl.run("/")
    told = json.dumps(crawl.problems, indent=1)
    assert crawl.foreign == set(), "requests to other hosts"
    assert crawl.dead == MISSING, "dead links, or pages that are not missing any more"
    assert crawl.problems == {}, told
    assert {"overview.show", "workloads.list_", "workloads.show", "hosts.show"} <= set(crawl.seen)


@pytest.mark.slow
def test_pages_without_links_to_them(browser: Browser, hostile: Installation) -> None:
    """What htmx asks for shows hostile texts as texts too."""
    with logged_in(browser, hostile) as viewer:
        shown: list[str] = []
        viewer.page.on("dialog", lambda dialog: shown.append(dialog.message))
        viewer.open("/")
        viewer.page.keyboard.press("/")
        expect(viewer.page.locator("#palette input")).to_be_focused()
        viewer.page.keyboard.type("hostile")
        viewer.page.wait_for_selector("#palette-found a")
        viewer.page.keyboard.press("Escape")
        viewer.page.locator("#tasks summary").click()
        text = NASTY[:20]
        viewer.page.locator("#tasks", has_text=text).wait_for()
        assert not viewer.page.evaluate("'pwned' in window")
        assert viewer.page.locator("[data-pwned]").count() == 0
        assert shown == viewer.unexpected() == []
