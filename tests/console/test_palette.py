"""What the palette offers to do."""

from __future__ import annotations

from playwright.sync_api import Browser, Page, expect

from tests.console.browser import Viewer
from tests.console.conftest import logged_in
from tests.console.doing import told
from tests.console.installation import Installation
from virtmgr.console import palette


def test_the_first_word_is_a_verb() -> None:
    assert [(verb.title, name) for verb, name in palette.verbs("dr host1")] == [("Drain", "host1")]
    assert [verb.title for verb, _ in palette.verbs("st")] == ["Start", "Stop"]
    assert palette.verbs("s web") == ()
    assert palette.verbs("web") == []
    assert [one.title for one in palette.doings("image import")] == ["Import image"]
    assert len(palette.doings("")) == len(palette.DOINGS)


def test_addresses_are_of_ids_where_names_have_slashes() -> None:
    image = {"id": "1", "name": "library/nginx:1"}
    assert palette.address("/images", image) == "/images/1"
    volume = {"id": "2", "name": "data", "project": {"name": "shop"}}
    assert palette.address("/volumes", volume) == "/projects/shop/volumes/data"


def test_workloads_are_looked_for_by_addresses() -> None:
    assert palette.asked("/workloads", "FD00::07") == {"address": "fd00::7"}
    assert palette.asked("/workloads", "10.0") == {"q": "10.0"}
    assert palette.asked("/images", "10.0.0.7") == {"q": "10.0.0.7"}


def type_into_palette(page: Page, text: str) -> None:
    page.keyboard.press("Control+k")
    page.keyboard.type(text)


def test_verbs_are_done_by_keyboard(viewer: Viewer) -> None:
    page = viewer.page
    found = page.locator("#palette-found :is(a, button)")
    viewer.open("/")
    type_into_palette(page, "console web-1")
    expect(found.first).to_contain_text("Console web-1")
    assert viewer.barriers() == []
    page.keyboard.press("Enter")
    page.wait_for_url("**/projects/shop/workloads/web-1/console")
    viewer.open("/images")
    type_into_palette(page, "create vol")
    expect(found.first).to_contain_text("Create volume")
    page.keyboard.press("Enter")
    page.wait_for_url("**/volumes/create")


def test_workloads_are_found_by_addresses(viewer: Viewer, installed: Installation) -> None:
    (nic,) = installed.call("GET", "/projects/shop/workloads/web-1")["nics"]
    found = viewer.page.locator("#palette-found :is(a, button)")
    for text in (nic["mac"], nic["addresses"][0], f"console {nic['addresses'][0]}"):
        viewer.open("/")
        type_into_palette(viewer.page, text)
        expect(found.first).to_contain_text("web-1")
    viewer.page.keyboard.press("Enter")
    viewer.page.wait_for_url("**/projects/shop/workloads/web-1/console")


def test_verbs_that_change_something_are_sent_from_where_one_is(viewer: Viewer) -> None:
    page = viewer.page
    found = page.locator("#palette-found button")
    viewer.open("/images")
    type_into_palette(page, "cordon host3")
    expect(found.first).to_contain_text("Cordon host3")
    page.keyboard.press("ArrowDown")
    expect(found.first).to_be_focused()
    page.keyboard.press("Enter")
    told(viewer, "host3 takes nothing new")
    expect(page.locator("#palette")).to_be_hidden()
    type_into_palette(page, "uncordon host3")
    found.first.click()
    told(viewer, "host3 takes new workloads again")
    type_into_palette(page, "restart web-2")
    expect(found.first).to_contain_text("Restart web-2")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).to_contain_text("Restart web-2?")
    page.keyboard.press("Escape")
    assert page.url.endswith("/images")


def test_what_one_may_not_do_is_not_offered(browser: Browser, installed: Installation) -> None:
    made = installed.call("POST", "/tokens", {"name": "looks", "role": "viewer"})
    with logged_in(browser, installed) as viewer:
        viewer.log_in_by_token(made["token"])
        viewer.open("/")
        page = viewer.page
        type_into_palette(page, "drain host")
        expect(page.locator("#palette-found")).to_contain_text("Nothing is called like")
        page.fill("#palette input", "create")
        expect(page.locator("#palette-found")).to_contain_text("Nothing is called like “create”")
        assert viewer.unexpected() == []
    installed.call("DELETE", f"/tokens/{made['id']}")
