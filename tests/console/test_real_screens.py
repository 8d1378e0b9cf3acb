"""A real shell and a real machine's display in a real browser: typed, seen, taken over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.browser import Viewer
from tests.console.conftest import logged_in
from tests.console.installation import Installation, installation, populate
from tests.console.real_screens import Machine, ScreenDriver, machine
from tests.guests import rescue
from tests.scaleout.client import wait_until

pytestmark = [
    pytest.mark.long,  # real QEMU and shells, and not sure enough yet
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (shutil.which("qemu-system-x86_64") and shutil.which("grub-mkrescue")),
        reason="QEMU or grub-mkrescue is not installed",
    ),
]

WEB = "/projects/shop/workloads/web-1"
VM = "/projects/shop/workloads/db"

expect.set_options(timeout=30_000)  # a loaded machine is slow


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(tmp_path_factory.mktemp("machine") / "one") as found:
        yield found


@pytest.fixture(scope="module")
def found(shown: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    driver = partial(ScreenDriver, shown=shown)
    with installation(tmp_path_factory.mktemp("real"), hosts=1, driver=driver) as started:
        populate(started)
        for path in (WEB, VM):
            wait_until(partial(_runs, started, path))
        yield started


def _runs(found: Installation, path: str) -> bool:
    return bool(found.call("GET", path)["status"]["state"] == "running")


@pytest.fixture
def viewer(browser: Browser, found: Installation) -> Iterator[Viewer]:
    with logged_in(browser, found) as one:
        yield one
        assert one.unexpected() == []


def _open(page: Page, url: str) -> None:
    page.goto(url)
    expect(page.locator("#screen-state")).to_have_attribute("data-state", "connected")


def _shows(page: Page, text: str) -> None:
    expect(page.locator(".xterm-rows")).to_contain_text(text)


def _sees(page: Page) -> None:
    """Wait for the first picture; not by ``wait_for_function``, which the page's policy binds."""
    wide = "document.querySelector('#view canvas')?.width > 100"
    wait_until(lambda: bool(page.evaluate(wide)))


def test_a_shell(viewer: Viewer) -> None:
    page = viewer.page
    _open(page, f"{viewer.url}{WEB}/console?show=shell")
    page.keyboard.type("echo answer-$((6*7)) $TERM\n")
    _shows(page, "answer-42 xterm-256color")
    page.keyboard.type("stty size\n")
    rows = page.locator(".xterm-rows > div").count()
    _shows(page, f"{rows} ")
    page.set_viewport_size({"width": 1000, "height": 700})
    expect(page.locator(".xterm-rows > div")).not_to_have_count(rows)
    page.keyboard.type("clear; stty size\n")
    _shows(page, f"{page.locator('.xterm-rows > div').count()} ")
    page.keyboard.type("sleep 1000\n")
    page.click("summary:has-text('Keys')")
    page.click("[data-keys='Ctrl-C']")
    page.keyboard.type("exit 3\n")
    expect(page.locator("#over")).to_contain_text("Exit code 3.")
    page.click("#over [data-do=reconnect]")
    expect(page.locator("#screen-state")).to_have_attribute("data-state", "connected")
    page.keyboard.type("echo agai''n\n")
    _shows(page, "again")


def test_much_output(viewer: Viewer) -> None:
    page = viewer.page
    _open(page, f"{viewer.url}{WEB}/console?show=shell")
    page.keyboard.type("seq 1 50000; echo do''ne\n")
    _shows(page, "50000")
    _shows(page, "done")


def test_a_display_takes_keys_and_shows_the_answer(viewer: Viewer, shown: Machine) -> None:
    page = viewer.page
    wait_until(lambda: rescue.UP.decode() in shown.said())
    _open(page, f"{viewer.url}{VM}/console")
    _sees(page)
    page.wait_for_timeout(1500)
    before = page.locator("#view canvas").screenshot()
    page.keyboard.type("echo by-vnc-keys", delay=100)
    page.keyboard.press("Enter")
    wait_until(lambda: "by-vnc-keys" in shown.said())
    page.wait_for_timeout(1500)
    assert page.locator("#view canvas").screenshot() != before
    page.click("[data-do=type]")
    page.fill("#type-text", "echo Typed+Text\n")
    page.click("text=Type it")
    wait_until(lambda: "Typed+Text" in shown.said())
    page.keyboard.press("Control+F6")
    assert page.evaluate("document.activeElement.closest('.screen-bar') !== null")
    with page.expect_download() as download:
        page.click("summary:has-text('View')")
        page.click("[data-do=picture]")
    assert download.value.suggested_filename == "db.png"
    assert viewer.barriers() == []


def test_a_display_is_shared_and_taken_over(viewer: Viewer) -> None:
    first = viewer.page
    _open(first, f"{viewer.url}{VM}/console")
    _sees(first)
    first.wait_for_timeout(2500)
    second = first.context.new_page()
    _open(second, f"{viewer.url}{VM}/console")
    _sees(second)
    expect(first.locator("#screen-state")).to_have_attribute("data-state", "connected")
    second.click("summary:has-text('View')")
    second.click("[data-do=take-over]")
    expect(first.locator("#over")).to_contain_text("admin opened it")
    expect(second.locator("#screen-state")).to_contain_text("taken over")
    first.click("#over [data-do=reconnect]")  # and shares it again
    expect(first.locator("#screen-state")).to_have_attribute("data-state", "connected")
    expect(second.locator("#screen-state")).to_have_attribute("data-state", "connected")
