"""What stands around every page: log-in and log-out, palette, live news, tasks, confirmation."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console import browser as browsers
from tests.console.browser import PHONE, Viewer
from tests.console.conftest import logged_in
from tests.console.installation import PASSWORD, Installation

expect.set_options(timeout=60_000)

REFUSED = "Failed to load resource"  # what Chromium says of a status of 400 and above


@pytest.fixture
def visitor(browser: Browser, installed: Installation) -> Iterator[Viewer]:
    """Somebody who has not logged in."""
    with browsers.viewer(browser, installed.url) as found:
        found.page.set_default_timeout(60_000)
        yield found
        assert found.unexpected() == []


def add(page: Page, html: str) -> None:
    """Something for the frame's scripts to work on that belongs to no page."""
    page.evaluate(
        """html => {
          document.getElementById("main").insertAdjacentHTML("afterbegin", html);
          htmx.process(document.getElementById("main"));
        }""",
        html,
    )


def test_a_page_without_session_leads_to_the_log_in_and_back(visitor: Viewer) -> None:
    visitor.open("/workloads?kind=vm&sort=-name")
    assert "/login" in visitor.page.url
    assert visitor.barriers() == []
    visitor.page.fill("#field-name", "admin")
    visitor.page.fill("#field-password", PASSWORD)
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector("#main")
    assert visitor.page.url.endswith("/workloads?kind=vm&sort=-name")


def test_a_wrong_password_is_told_and_the_name_kept(visitor: Viewer) -> None:
    visitor.expected.append(REFUSED)
    visitor.open("/login")
    visitor.page.fill("#field-name", "maria")
    visitor.page.fill("#field-password", "wrong")
    visitor.page.click("button.btn-primary")
    expect(visitor.page.get_by_role("alert")).to_contain_text("The name or the password is wrong")
    assert visitor.page.input_value("#field-name") == "maria"
    assert visitor.page.input_value("#field-password") == ""
    expect(visitor.page.locator("#field-password")).to_be_focused()
    assert visitor.barriers() == []


def test_many_wrong_passwords_lock_out(visitor: Viewer, installed: Installation) -> None:
    visitor.expected.append(REFUSED)
    installed.call("POST", "/users", {"name": "guessed"})
    installed.call("PUT", "/users/guessed/password", {"password": PASSWORD})
    visitor.open("/login")
    for password in [*("wrong",) * 5, PASSWORD]:
        visitor.page.fill("#field-name", "guessed")
        visitor.page.fill("#field-password", password)
        with visitor.page.expect_navigation():
            visitor.page.click("button.btn-primary")
    expect(visitor.page.get_by_role("alert")).to_contain_text("oo many log-ins failed")
    installed.call("DELETE", "/users/guessed")


def test_a_token_logs_in_too(visitor: Viewer, installed: Installation) -> None:
    visitor.log_in_by_token(installed.server.token)
    kept = {cookie["name"]: cookie for cookie in visitor.page.context.cookies()}
    assert installed.server.token not in str(kept), "the session has a token of its own"


def test_a_log_out_ends_the_session_also_of_a_copied_cookie(
    browser: Browser, installed: Installation
) -> None:
    with (
        logged_in(browser, installed) as viewer,
        browsers.viewer(browser, installed.url) as thief,
    ):
        thief.expected.append("401")  # what its page asks for by itself, once the session is over
        viewer.expected.append("401")
        thief.page.context.add_cookies(viewer.page.context.cookies())  # type: ignore[arg-type]
        thief.open("/workloads")
        assert "/login" not in thief.page.url
        viewer.page.click("summary[aria-label^=admin]")
        viewer.page.get_by_role("button", name="Log out").click()
        viewer.page.wait_for_url("**/login**")
        assert "session" not in str(viewer.page.context.cookies())
        thief.open("/workloads")
        assert "/login" in thief.page.url
        assert viewer.unexpected() == thief.unexpected() == []


def test_the_palette_finds_pages_and_objects_by_keyboard(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open("/")
    page.keyboard.press("/")
    expect(page.locator("#palette input")).to_be_focused()
    page.keyboard.type("web-2")
    expect(page.locator("#palette-found a").first).to_contain_text("web-2")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#palette-found a").first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/projects/shop/workloads/web-2")
    page.wait_for_load_state()
    page.keyboard.press("Control+k")
    page.keyboard.type("machines")  # what the place is about
    expect(page.locator("#palette-found a").first).to_contain_text("Hosts")
    assert viewer.barriers() == []
    page.keyboard.press("Enter")  # the first that was found
    page.wait_for_url("**/hosts")
    page.keyboard.press("/")
    page.keyboard.type("nothing-is-called-so")
    expect(page.locator("#palette-found")).to_contain_text("Nothing is called like")
    page.keyboard.press("Escape")
    expect(page.locator("#palette")).to_be_hidden()


def test_the_theme_is_the_systems_until_it_is_chosen(
    browser: Browser, installed: Installation
) -> None:
    with logged_in(browser, installed, theme="dark") as viewer:
        root = viewer.page.locator("html")
        expect(root).to_have_attribute("data-bs-theme", "dark")
        viewer.page.get_by_role("button", name="Dark or light").click()
        expect(root).to_have_attribute("data-bs-theme", "light")
        viewer.open("/hosts")
        expect(root).to_have_attribute("data-bs-theme", "light")
        assert viewer.unexpected() == []


def test_a_chosen_project_narrows_the_lists(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open("/workloads")
    expect(page.get_by_role("link", name="build", exact=True)).to_be_visible()
    page.locator("summary", has_text="All projects").click()
    with page.expect_navigation():
        page.get_by_role("button", name="shop", exact=True).click()
    expect(page.get_by_role("link", name="web-1", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="build", exact=True)).to_have_count(0)
    page.locator("summary", has_text="shop").click()
    with page.expect_navigation():
        page.get_by_role("button", name="All projects").click()
    expect(page.get_by_role("link", name="build", exact=True)).to_be_visible()


def test_what_others_change_appears_without_reload(viewer: Viewer, installed: Installation) -> None:
    page = viewer.page
    viewer.open("/workloads")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.evaluate("window.marked = true")
    body = {"name": "new-one", "kind": "container", "image": "busybox"}
    installed.call("POST", "/projects/lab/workloads", body)
    row = page.locator("#list tr", has_text="new-one")
    expect(row).to_contain_text("running")
    expect(page.locator("#tasks tr", has_text="new-one")).to_contain_text("succeeded")
    installed.call("DELETE", "/projects/lab/workloads/new-one")
    expect(row).to_have_count(0)
    assert page.evaluate("window.marked"), "the page was loaded again"


def test_the_drawer_of_tasks_stays_open_from_page_to_page(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open("/workloads")
    page.locator("#tasks summary").click()
    expect(page.locator("#tasks tbody tr").first).to_be_visible()
    viewer.open("/hosts")
    expect(page.locator("#tasks tbody tr").first).to_be_visible()
    assert viewer.barriers() == []
    page.locator("#tasks summary").click()
    expect(page.locator("#tasks tbody tr").first).to_be_hidden()


def test_what_is_refused_is_told_in_the_corner_and_stays(viewer: Viewer) -> None:
    viewer.expected.append(REFUSED)
    page = viewer.page
    viewer.open("/workloads")
    values = """'{"project": "no-such-project"}'"""
    add(page, f'<button id="refused" hx-post="/project" hx-swap="none" hx-vals={values}>x</button>')
    page.click("#refused")
    told = page.locator(".toast-danger")
    expect(told).to_contain_text("no-such-project")
    assert page.url.endswith("/workloads")
    assert viewer.barriers() == []
    told.get_by_role("button", name="Close").click()
    expect(told).to_have_count(0)


def test_what_loses_data_wants_the_name_typed(viewer: Viewer) -> None:
    page, sent = viewer.page, []
    page.on("request", lambda request: sent.append(request.method))
    viewer.open("/workloads")
    attributes = (
        'hx-post="/project" hx-swap="none" data-confirm="Delete db?" '
        'data-confirm-text="Its disk is lost." data-confirm-name="db" data-confirm-yes="Delete"'
    )
    add(page, f'<button id="loses" {attributes}>Delete</button>')
    dialog, yes = page.locator("#confirm"), page.locator("#confirm [data-yes]")
    page.focus("#loses")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("Its disk is lost.")
    expect(yes).to_be_disabled()
    assert viewer.barriers() == []
    page.keyboard.type("d")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#loses")).to_be_focused()
    assert "POST" not in sent
    page.keyboard.press("Enter")
    page.keyboard.type("db")
    expect(yes).to_be_enabled()
    with page.expect_request(lambda request: request.method == "POST"):
        page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()


def test_on_a_phone_the_menu_opens_and_closes(browser: Browser, installed: Installation) -> None:
    with logged_in(browser, installed, size=PHONE) as viewer:
        page = viewer.page
        link = page.locator("#side").get_by_role("link", name="Hosts")
        expect(link).not_to_be_in_viewport()
        page.get_by_role("button", name="Menu").click()
        expect(link).to_be_in_viewport()
        page.keyboard.press("Escape")
        expect(link).not_to_be_in_viewport()
        page.get_by_role("button", name="Menu").click()
        link.click()
        page.wait_for_url("**/hosts")
        assert viewer.unexpected() == []


def test_ages_go_with_the_time(viewer: Viewer) -> None:
    page = viewer.page
    page.clock.install()
    viewer.open("/projects/shop/workloads/web-1/events")
    age = page.locator("#events time[data-age]").first
    before = age.inner_text()
    page.clock.fast_forward("50:00:00")
    expect(age).not_to_have_text(before)
    expect(age).to_contain_text("2 d")


def test_the_drawers_buttons_are_seen_however_long_an_error_is(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open("/workloads")
    page.locator("#tasks summary").click()
    row = page.locator("#tasks tbody tr").first
    row.locator("td.said").evaluate("cell => { cell.textContent = 'it failed '.repeat(200); }")
    expect(row.locator("td").last).to_be_in_viewport(ratio=0.9)
    expect(row.locator("td a").nth(1)).to_have_attribute("href", re.compile("^/"))
    assert viewer.barriers() == []
    page.locator("#tasks summary").click()


def test_tabs_are_scrolled_and_the_page_is_not(browser: Browser, installed: Installation) -> None:
    with logged_in(browser, installed, size=PHONE) as viewer:
        page = viewer.page
        viewer.open("/hosts/host1/activity")
        expect(page.locator(".tabs [aria-current]")).to_be_in_viewport(ratio=0.9)
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        at = page.evaluate("scrollY")
        page.evaluate("document.dispatchEvent(new CustomEvent('htmx:after:swap', {detail: {}}))")
        assert page.evaluate("scrollY") == at > 0
        assert viewer.unexpected() == []


def test_an_unknown_address_is_told_with_a_way_on(viewer: Viewer) -> None:
    viewer.expected.append(REFUSED)
    viewer.open("/hosts/no-such-host")
    expect(viewer.page.locator("h1")).to_have_text("There is no such thing")
    expect(viewer.page.locator("#side [aria-current]")).to_have_text("Hosts")
    assert viewer.barriers() == []
    viewer.page.locator("#main").get_by_role("link", name="Overview").click()
    expect(viewer.page.locator("h1")).to_have_text(re.compile("Overview"))


def test_plain_http_gets_no_answer(installed: Installation) -> None:
    listens = installed.server.settings.listen
    with socket.create_connection((listens.host, listens.port), 60) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with suppress(ConnectionResetError):
            assert plain.recv(4096) == b""


def test_a_server_that_goes_is_told_and_the_page_goes_on_when_it_is_back(
    viewer: Viewer, installed: Installation
) -> None:
    viewer.expected += [REFUSED, "net::ERR", "Failed to fetch"]
    page: Any = viewer.page
    viewer.open("/workloads")
    live = page.locator("#live")
    expect(live).to_have_attribute("data-state", "live")
    page.evaluate("window.marked = true")
    installed.plane.stop()
    try:
        expect(live).to_have_attribute("data-state", "stale")
        add(page, '<button id="lost" hx-post="/project" hx-swap="none">x</button>')
        page.click("#lost")
        expect(page.locator(".toast-danger")).to_contain_text("cannot be reached")
    finally:
        installed.restart()
    expect(live).to_have_attribute("data-state", "live")
    assert page.evaluate("window.marked"), "the page was loaded again"
