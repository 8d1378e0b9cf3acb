"""Screens of real workloads in a real browser: what is typed arrives, and the answer is seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Page, expect

from tests.console.browser import CHROMIUM, Viewer, chromium
from tests.console.browser import viewer as new_viewer
from tests.guests import rescue

from .conftest import Product

pytestmark = pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Chromium is not installed")

DEFAULT = "/projects/default/workloads"
_PATIENCE = 60_000  # milliseconds


@pytest.fixture(scope="module")
def person(product: Product) -> Iterator[Viewer]:
    """The first administrator, logged in by the token of ``init``."""
    path = Path(product.environment["HOME"]) / ".config/virtmgr/config.yaml"
    context: dict[str, Any] = yaml.safe_load(path.read_text())["contexts"]["default"]
    with chromium() as browser, new_viewer(browser, context["server"]) as found:
        found.page.set_default_timeout(_PATIENCE)
        expect.set_options(timeout=_PATIENCE)
        found.log_in_by_token(context["token"])
        yield found


@pytest.fixture(autouse=True)
def _nothing_unexpected(person: Viewer) -> Iterator[None]:
    yield
    assert person.unexpected() == []


@pytest.fixture(scope="module")
def iso(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A VM at GRUB's prompt, which speaks on display and serial port alike."""
    image = rescue.build(tmp_path_factory.mktemp("iso") / "grub.iso", terminals="console serial")
    product.run("image", "import", str(image), "--name", "grub")
    options = ("--kind", "vm", "--cdrom", "grub", "--boot", "cdrom", "--memory", "128MiB")
    product.run("create", "grub1", *options, "--disk", "16MiB")
    yield "grub1"
    product.run("delete", "grub1", "--yes")
    product.run("image", "delete", "grub", "--yes")


def _open(person: Viewer, name: str, screen: str) -> Page:
    person.open(f"{DEFAULT}/{name}/console?show={screen}")
    expect(person.page.locator("#screen-state")).to_have_attribute("data-state", "connected")
    return person.page


def _says(page: Page, text: str) -> None:
    expect(page.locator(".xterm-rows")).to_contain_text(text)


@pytest.mark.parametrize("name", ["app1", "sys1"])
def test_a_shell_in_a_container(person: Viewer, name: str) -> None:
    page = _open(person, name, "shell")
    page.keyboard.type("echo from-$(hostname)-$((6*7))\n")
    _says(page, f"from-{name}-42")
    page.keyboard.type("stty size\n")
    rows = page.locator(".xterm-rows > div").count()
    _says(page, f"{rows} ")
    page.keyboard.type("exit 3\n")
    expect(page.locator("#over")).to_contain_text("Exit code 3.")


def test_much_output_arrives_whole(person: Viewer) -> None:
    page = _open(person, "app1", "shell")
    page.keyboard.type("seq 1 20000; echo do''ne\n")
    _says(page, "done")
    _says(page, "20000")


def test_a_serial_console(person: Viewer, product: Product) -> None:
    product.wait_until(lambda: "has address" in product.run("logs", "vm1").stdout)
    page = _open(person, "vm1", "serial")
    page.keyboard.press("Enter")
    page.keyboard.type("echo serial-$((6*7))\n")
    _says(page, "serial-42")


def test_a_display_takes_keys_and_shows_the_answer(
    person: Viewer, product: Product, iso: str
) -> None:
    product.wait_until(lambda: rescue.UP.decode() in product.run("logs", iso).stdout, 60)
    page = _open(person, iso, "display")
    page.wait_for_selector("#view canvas")
    wide = "document.querySelector('#view canvas').width > 100"
    product.wait_until(lambda: bool(page.evaluate(wide)))
    page.wait_for_timeout(1500)
    before = page.locator("#view canvas").screenshot()
    page.keyboard.type("echo by-vnc-keys", delay=100)  # without Shift, which Playwright leaves out
    page.keyboard.press("Enter")
    product.wait_until(lambda: "by-vnc-keys" in product.run("logs", iso).stdout, 60)
    page.wait_for_timeout(1000)
    assert page.locator("#view canvas").screenshot() != before
    page.click("[data-do=type]")
    page.fill("#type-text", 'echo Typed: "text"\n')
    page.click("text=Type it")
    product.wait_until(lambda: "Typed: text" in product.run("logs", iso).stdout, 60)
    assert person.barriers() == []


def test_a_display_is_taken_over(person: Viewer, iso: str) -> None:
    first = _open(person, iso, "display")
    context = first.context
    second = context.new_page()
    second.goto(f"{person.url}{DEFAULT}/{iso}/console?show=display")
    expect(second.locator("#screen-state")).to_have_attribute("data-state", "connected")
    expect(first.locator("#screen-state")).to_have_attribute("data-state", "connected")
    first.wait_for_timeout(3000)
    second.click("summary:has-text('View')")
    second.click("[data-do=take-over]")
    expect(first.locator("#over")).to_contain_text("taken it over")
    expect(second.locator("#screen-state")).to_contain_text("taken over")
    second.close()


def test_a_log(person: Viewer) -> None:
    page = _open(person, "vm1", "log")
    expect(page.locator("#log")).to_contain_text("has address")


def test_usage_moves_under_load(person: Viewer, product: Product) -> None:
    person.open(f"{DEFAULT}/app1/usage")
    expect(person.page.locator("#chart-cpu-now")).not_to_have_text("–")
    product.run(
        "exec", "app1", "--", "timeout", "25", "sh", "-c", "while :; do :; done", check=False
    )
    shown = "parseFloat(document.getElementById('chart-cpu-now').textContent)"
    product.wait_until(lambda: (person.page.evaluate(shown) or 0) > 3)  # on a busy machine


def test_files_come_and_go(person: Viewer, product: Product, tmp_path: Path) -> None:
    page = person.page
    (tmp_path / "note.txt").write_text("from the browser")
    person.open(f"{DEFAULT}/app1/files")
    page.set_input_files("#push-files", str(tmp_path / "note.txt"))
    page.click("[data-begin]")
    expect(page.locator("#push-list [data-status]")).to_have_text("It is in /tmp.")
    assert product.run("exec", "app1", "--", "cat", "/tmp/note.txt").stdout == "from the browser"
    page.fill("#field-path", "/etc/hostname")
    with page.expect_download() as download:
        page.click("button:text('Download')")
    assert Path(download.value.path()).read_text().strip() == "app1"
