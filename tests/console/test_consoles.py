"""Screens of workloads in a real browser: they show, take keys, end, and come back."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.browser import PHONE, Viewer
from tests.console.conftest import logged_in
from tests.console.installation import Installation, installation, populate
from tests.scaleout.client import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WEB = "/projects/shop/workloads/web-1"
VM = "/projects/shop/workloads/db"

expect.set_options(timeout=30_000)  # a loaded machine is slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("screens")) as started:
        populate(started)
        wait_until(lambda: all(_state(started, path) == "running" for path in (WEB, VM)))
        yield started


@pytest.fixture
def viewer(browser: Browser, found: Installation) -> Iterator[Viewer]:
    with logged_in(browser, found) as one:
        one.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield one
        assert one.unexpected() == []


def _state(found: Installation, path: str) -> str:
    return str(found.call("GET", path)["status"]["state"])


def _connected(page: Page, state: str = "connected") -> None:
    expect(page.locator("#screen-state")).to_have_attribute("data-state", state)


def _rows(page: Page) -> str:
    return page.locator(".xterm-rows").inner_text().replace("\xa0", " ")


def _shows(page: Page, text: str) -> None:
    expect(page.locator(".xterm-rows")).to_contain_text(text)


def test_a_terminal_takes_keys_and_shows_what_comes(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/console?show=serial")
    _connected(page)
    page.keyboard.type("hello there")
    _shows(page, "hello there")
    page.keyboard.press("Enter")
    page.click("summary:has-text('Keys')")
    page.click("[data-keys='Ctrl-L']")  # repeated: the fake console echoes
    assert page.evaluate("document.activeElement.className") == "xterm-helper-textarea"
    assert viewer.barriers() == []


def test_copy_and_paste(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/console?show=serial")
    _connected(page)
    page.evaluate("navigator.clipboard.writeText('out of the clipboard')")
    page.click("[data-do=paste]")
    _shows(page, "out of the clipboard")
    page.evaluate("navigator.clipboard.writeText('')")
    page.click("[data-do=copy]")
    expect(page.locator("#toasts")).to_contain_text("copied")
    assert "out of the clipboard" in page.evaluate("navigator.clipboard.readText()")


def test_the_keyboard_finds_out_of_a_terminal(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/console?show=serial")
    _connected(page)
    page.keyboard.press("Control+F6")
    assert page.evaluate("document.activeElement.closest('.screen-bar') !== null")


def test_letters_are_resized_and_stay_so(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/console?show=serial")
    _connected(page)
    before = page.locator(".xterm-rows > div").count()
    page.click("[data-do=larger]")
    page.click("[data-do=larger]")
    expect(page.locator(".xterm-rows > div")).not_to_have_count(before)
    page.reload()
    _connected(page)
    assert page.locator(".xterm-rows > div").count() < before


def test_a_command_and_its_end(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/console?show=shell")
    expect(page.locator("#over h2")).to_have_text("The shell has ended")  # the fake has no sh
    page.fill("[name=command]", "echo hi there")
    page.click("#shell-form button")
    _shows(page, "hi there")
    expect(page.locator("#over [data-why]")).to_have_text("Exit code 0.")
    page.fill("[name=command]", "exit 7")
    page.click("#over [data-do=reconnect]")
    expect(page.locator("#over [data-why]")).to_have_text("Exit code 7.")
    assert viewer.barriers() == []


def test_a_log_is_followed_and_is_only_text(viewer: Viewer, found: Installation) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/console?show=log")
    expect(page.locator("#log")).to_contain_text("web-1 started")
    _write(found, "\x1b[31mred\x1b[0m <img src=x onerror=alert(1)> \x07bell\nsecond line\n")
    expect(page.locator("#log div").nth(1)).to_have_text("red <img src=x onerror=alert(1)> bell")
    assert page.locator("#log img").count() == 0
    page.fill("#log-filter", "SECOND")
    expect(page.locator("#log mark")).to_have_text("second")
    expect(page.locator("#log div").first).to_be_hidden()
    with page.expect_download() as download:
        page.click("text=Download all")
    assert "second line" in Path(download.value.path()).read_text()
    assert viewer.barriers() == []


def _write(found: Installation, text: str) -> None:
    identity = found.call("GET", WEB)["id"]
    for host in found.hosts:
        guest = host.world.guest(identity)
        if guest is not None:
            host.world.put(identity, replace(guest, output=guest.output + text))


def test_what_cannot_be_shown_says_why(viewer: Viewer) -> None:
    viewer.open(f"{VM}/console")
    expect(viewer.page.locator("#over")).to_contain_text("has no display")
    assert viewer.barriers() == []
    viewer.expected.append("404")
    viewer.open(f"{WEB}/console?show=display")
    expect(viewer.page.locator("main")).to_contain_text("no 'display'")


def test_the_console_of_what_stops_comes_back_with_it(viewer: Viewer, found: Installation) -> None:
    page = viewer.page
    viewer.open(f"{VM}/console?show=serial")
    _connected(page)
    found.call("POST", f"{VM}/stop", {"force": True})
    wait_until(lambda: _state(found, VM) == "stopped")
    viewer.expected.append("409")
    page.click(".screen-bar [data-do=reconnect]")
    expect(page.locator("#over")).to_contain_text("stopped")
    page.click("#over [data-start]")
    _connected(page)
    expect(page.locator("#over")).to_be_hidden()


def test_a_shell_opens_once_its_workload_runs(viewer: Viewer, found: Installation) -> None:
    page = viewer.page
    found.call("POST", f"{WEB}/stop", {"force": True})
    wait_until(lambda: _state(found, WEB) == "stopped")
    viewer.expected.append("409")
    viewer.open(f"{WEB}/console?show=shell")
    expect(page.locator("#over h2")).to_have_text("It cannot be opened")
    found.call("POST", f"{WEB}/start")
    expect(page.locator("#over h2")).to_have_text("The shell has ended")  # the fake has no sh


def test_a_lost_connection_comes_back(viewer: Viewer, found: Installation) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/console?show=serial")
    _connected(page)
    page.keyboard.type("before")
    _shows(page, "before")
    viewer.expected += ["WebSocket", "503"]
    os.kill(_hub(found), signal.SIGKILL)
    _connected(page, "lost")
    _connected(page)
    page.keyboard.type(" and after")
    _shows(page, "before and after")


def _hub(found: Installation) -> int:
    """The hub's process, which ``virtmgr serve`` starts again."""
    own = str(found.server.settings.run_directory).encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if b"virtmgr.bootstrap.hub" in command and own in environment:
            return int(process.name)
    raise AssertionError("there is no hub")


def test_full_screen(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/console?show=serial")
    _connected(page)
    page.click("[data-do=full]")
    wait_until(lambda: page.evaluate("document.fullscreenElement?.id") == "screen")
    page.click("[data-do=full]")
    wait_until(lambda: page.evaluate("document.fullscreenElement") is None)


def test_on_a_phone(browser: Browser, found: Installation) -> None:
    with logged_in(browser, found, size=PHONE, theme="dark") as viewer:
        for screen in ("serial", "log"):
            viewer.open(f"{WEB}/console?show={screen}")
            _connected(viewer.page)
            wide = viewer.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= PHONE["width"]
            assert viewer.barriers() == []
        assert viewer.unexpected() == []


def test_usage_is_charted(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/usage")
    expect(page.locator("#chart-memory-now")).to_have_text("1 MiB")
    expect(page.locator("[data-total=pids]")).to_have_text("1")
    assert page.locator(".chart canvas").count() == 4
    expect(page.locator("[data-period][aria-pressed=true]")).to_have_count(1)
    with page.expect_response(lambda answer: "history?period=day" in answer.url) as answer:
        page.click("[data-period=day]")
    assert answer.value.json()["seconds"] == 900
    expect(page.locator("[data-period=day]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#chart-memory-now")).to_have_text("1 MiB")
    page.click("[data-theme-switch]")
    expect(page.locator(".chart canvas")).to_have_count(4)
    assert viewer.barriers() == []


def test_tickets_are_asked_for_by_this_consoles_pages_only(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open(f"{WEB}/console?show=serial")
    _connected(page)
    viewer.expected.append("403")
    status = page.evaluate(
        f"fetch('{WEB}/console/serial/ticket', {{method: 'POST', body: '{{}}', "
        "headers: {'Content-Type': 'application/json'}}).then((answer) => answer.status)"
    )
    assert status == 403
    policy = page.evaluate(
        "fetch(location.href).then((one) => one.headers.get('content-security-policy'))"
    )
    assert re.search(r"connect-src 'self';", policy)


def test_charts_begin_with_what_was_before(viewer: Viewer, found: Installation) -> None:
    """Of the workload and of its host: both are told with averages of a past minute."""
    page = viewer.page
    host = found.call("GET", WEB)["host"]["name"]
    an_hour = f"{datetime.now(UTC) - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    for path in (f"{WEB}/usage", f"/hosts/{host}/usage"):
        asked = f"{path}?since={an_hour}"
        wait_until(lambda asked=asked: found.call("GET", asked)["history"]["at"], 150)
        viewer.open(path)
        expect(page.locator("#charts-note")).to_contain_text("verages over a minute")
        expect(page.locator("#chart-memory-now")).not_to_have_text("–")
        assert viewer.barriers() == []
