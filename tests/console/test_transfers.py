"""Files into and out of workloads, and image files into the control plane, by a real browser."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.console.browser import Viewer
from tests.console.conftest import logged_in
from tests.console.installation import Installation, installation, populate
from tests.scaleout.client import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WEB = "/projects/shop/workloads/web-1"
MIB = 2**20

expect.set_options(timeout=30_000)  # a loaded machine is slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installation(tmp_path_factory.mktemp("transfers"), hosts=1) as started:
        populate(started)
        wait_until(lambda: started.call("GET", WEB)["status"]["state"] == "running")
        yield started


@pytest.fixture
def viewer(browser: Browser, found: Installation) -> Iterator[Viewer]:
    with logged_in(browser, found) as one:
        yield one
        assert one.unexpected() == []


def _push(viewer: Viewer, folder: str, *paths: Path) -> None:
    page = viewer.page
    page.fill("#push-folder", folder)
    page.set_input_files("#push-files", [str(path) for path in paths])
    page.click("[data-begin]")
    expect(page.locator("#push-list [data-status]")).to_have_text(f"It is in {folder}.")


def test_a_file_goes_in_and_comes_out_as_it_was(viewer: Viewer, tmp_path: Path) -> None:
    page, content = viewer.page, bytes(range(256)) * 4000
    (tmp_path / "data.bin").write_bytes(content)
    viewer.open(f"{WEB}/files")
    assert viewer.barriers() == []
    _push(viewer, "/srv", tmp_path / "data.bin")
    page.fill("#field-path", "/srv/data.bin")
    with page.expect_download() as download:
        page.click("button:text('Download')")
    assert download.value.suggested_filename == "data.bin"
    assert Path(download.value.path()).read_bytes() == content


def test_files_with_long_and_foreign_names(viewer: Viewer, tmp_path: Path) -> None:
    page = viewer.page
    names = ["ä" * 60 + ".txt", "with space <b>.txt"]
    for name in names:
        (tmp_path / name).write_text(name)
    viewer.open(f"{WEB}/files")
    _push(viewer, "/srv/names", *(tmp_path / name for name in names))
    page.fill("#field-path", "/srv/names/" + names[0])
    with page.expect_download() as download:
        page.click("button:text('Download')")
    assert Path(download.value.path()).read_text() == names[0]


def test_a_folder(viewer: Viewer, tmp_path: Path) -> None:
    page, site = viewer.page, tmp_path / "site"
    (site / "css").mkdir(parents=True)
    (site / "index.html").write_text("hello")
    (site / "css/main.css").write_text("body {}")
    viewer.open(f"{WEB}/files")
    page.fill("#push-folder", "/var/www")
    page.set_input_files("#push-directory", str(site))
    expect(page.locator("#push-list [data-what]")).to_have_text("2 files")
    page.click("[data-begin]")
    expect(page.locator("#push-list [data-status]")).to_have_text("It is in /var/www.")
    page.fill("#field-path", "/var/www/site/css/main.css")
    with page.expect_download() as download:
        page.click("button:text('Download')")
    assert Path(download.value.path()).read_text() == "body {}"


def test_larger_than_other_bodies(viewer: Viewer, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(24 * MIB))
    viewer.open(f"{WEB}/files")
    _push(viewer, "/srv", tmp_path / "large")


def test_what_is_not_there_is_told_and_what_was_typed_stays(viewer: Viewer) -> None:
    page = viewer.page
    viewer.expected.append("422")
    viewer.open(f"{WEB}/files")
    page.fill("#field-path", "/nowhere")
    page.click("button:text('Download')")
    expect(page.locator("[role=alert]")).to_contain_text("no such file")
    assert page.input_value("#field-path") == "/nowhere"
    assert viewer.barriers() == []


def test_what_may_not_go_in_is_told(viewer: Viewer, tmp_path: Path) -> None:
    page = viewer.page
    (tmp_path / "a").write_text("a")
    viewer.open(f"{WEB}/files")
    page.fill("#push-folder", "not/absolute")
    page.set_input_files("#push-files", str(tmp_path / "a"))
    page.click("[data-begin]")
    expect(page.locator("#push-list [data-status]")).to_contain_text("begins with /")


# ---- images


def _root(path: Path, size: int = 0) -> Path:
    """A container's root file system as an archive, of at least ``size`` bytes."""
    with tarfile.open(path, "w") as archive:
        for name, content in (("bin/sh", b"#!/bin/true\n"), ("data", bytes(size))):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return path


def test_an_image_from_a_file(viewer: Viewer, found: Installation, tmp_path: Path) -> None:
    page, path = viewer.page, _root(tmp_path / "Tiny Root.tar")
    viewer.open("/images/upload")
    assert viewer.barriers() == []
    page.set_input_files("#file", str(path))
    expect(page.locator("[data-status]").first).to_contain_text("The file has come")
    assert page.input_value("#field-name") == "tiny-root"
    page.fill("#field-aliases", "tiny, small")
    page.fill("#field-checksum", hashlib.sha256(path.read_bytes()).hexdigest())
    page.click("#import-button")
    expect(page.locator("#import-operation")).to_contain_text("is ready", timeout=120_000)
    image = found.call("GET", "/images/tiny")
    assert image["name"] == "tiny-root"
    assert viewer.barriers() == []


def test_a_name_that_is_taken_keeps_what_was_typed(viewer: Viewer, tmp_path: Path) -> None:
    page = viewer.page
    viewer.expected.append("422")
    viewer.open("/images/upload")
    page.set_input_files("#file", str(_root(tmp_path / "debian.tar")))
    expect(page.locator("#import-button")).to_be_enabled()
    page.fill("#field-aliases", "kept")
    page.click("#import-button")
    expect(page.locator("#import-fields [role=alert]")).to_contain_text("debian")
    assert page.input_value("#field-aliases") == "kept"
    page.fill("#field-name", "another")
    page.click("#import-button")
    expect(page.locator("#import-operation")).to_contain_text("is ready", timeout=120_000)


def test_a_file_that_was_no_image_is_sent_again(viewer: Viewer, tmp_path: Path) -> None:
    page = viewer.page
    (tmp_path / "odd.bin").write_bytes(b"\x01" * MIB)
    viewer.open("/images/upload")
    page.set_input_files("#file", str(tmp_path / "odd.bin"))
    expect(page.locator("#import-button")).to_be_enabled()
    page.click("#import-button")
    operation = page.locator("#import-operation")
    expect(operation).to_contain_text("its format is said to be raw", timeout=120_000)
    assert viewer.barriers() == []
    page.select_option("#field-format", "raw")
    page.click("[data-send-again]")
    expect(page.locator("#import-button")).to_be_enabled()
    page.click("#import-button")
    expect(operation).to_contain_text("is ready", timeout=120_000)


def _share(page: Page) -> int:
    """Percent that have come, as the page says."""
    return int(page.locator("[data-share]").inner_text().removesuffix(" %") or 0)


def _wait(page: Page, condition: Callable[[], bool]) -> None:
    """Wait for it, and let routes be served meanwhile."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        page.wait_for_timeout(50)


def test_an_upload_is_paused_and_goes_on_after_a_reload(viewer: Viewer, tmp_path: Path) -> None:
    page, path = viewer.page, _root(tmp_path / "large.tar", 40 * MIB)
    viewer.open("/images/upload")
    sent: list[int] = []

    def slowly(route: Route) -> None:
        sent.append(int(route.request.headers["upload-offset"]))
        time.sleep(0.4)
        route.continue_()

    page.route("**/images/upload/part-*", slowly)
    page.set_input_files("#file", str(path))
    _wait(page, lambda: _share(page) >= 20)
    page.click("[data-pause]")
    expect(page.locator("#sending [data-status]")).to_have_text("It is paused.")
    assert page.locator("#import-button").is_disabled()
    page.click("[data-resume]")
    before = _share(page)
    _wait(page, lambda: _share(page) >= before + 20)
    page.click("[data-pause]")
    page.reload()
    expect(page.locator("[data-ask]")).to_contain_text("large.tar")
    known = len(sent)
    page.set_input_files("#file", str(path))
    expect(page.locator("#sending [data-status]")).to_contain_text("The file has come")
    assert sent[known] >= 8 * MIB, "what had come was sent again"
    page.click("#import-button")
    expect(page.locator("#import-operation")).to_contain_text("is ready", timeout=120_000)


def test_a_cancelled_upload_is_forgotten(
    viewer: Viewer, found: Installation, tmp_path: Path
) -> None:
    page = viewer.page
    viewer.open("/images/upload")
    page.set_input_files("#file", str(_root(tmp_path / "gone.tar", 9 * MIB)))
    expect(page.locator("#import-button")).to_be_enabled()
    uploads = found.server.settings.shared / "images/uploads"
    assert any(uploads.iterdir())
    page.click("#sending [data-cancel]")
    expect(page.locator("#drop")).to_be_visible()
    _wait(page, lambda: not any(uploads.iterdir()))
