"""Images in the console: imported, looked into, pruned, deleted."""

from __future__ import annotations

import pytest

from tests.console.browser import Viewer
from tests.console.doing import fill, is_fine, press, reloads_until_it_sees, sees, told
from tests.console.installation import Installation
from virtmgr.console.pages.images import import_body, import_fields


@pytest.mark.slow
def test_an_image_is_imported_edited_and_deleted(viewer: Viewer, installed: Installation) -> None:
    viewer.open("/images")
    sees(viewer, "hosts")
    is_fine(viewer)
    viewer.page.locator(".page-actions").get_by_text("Import").click()
    for choice, field in (("url", "url"), ("simplestreams", "server"), ("registry", "reference")):
        viewer.page.check(f"#main input[value={choice}]")
        assert viewer.page.locator(f"[name={field}]").is_visible()
        is_fine(viewer)
    fill(viewer, reference="127.0.0.1:1/app:1", name="app", aliases="app:1")
    press(viewer, "Import")
    told(viewer, "Image app is being imported")
    viewer.page.locator("#image").get_by_text("docker://127.0.0.1:1/app:1").wait_for()
    is_fine(viewer)
    viewer.page.locator(".page-actions").get_by_text("Edit", exact=True).click()
    fill(viewer, name="application", aliases="", labels="tier=web")
    press(viewer, "Save")
    told(viewer, "Image application is changed")
    image = installed.call("GET", "/images/application")
    assert (image["aliases"], image["labels"]) == ([], {"tier": "web"})
    viewer.page.locator(".page-actions").get_by_text("Edit", exact=True).click()
    fill(viewer, description="What the shop runs on")
    viewer.page.check("[name=protected]")
    press(viewer, "Save")
    told(viewer, "Image application is changed")
    sees(viewer, "What the shop runs on")
    assert viewer.page.locator("button:text-is('Delete')").count() == 0
    is_fine(viewer)
    viewer.page.get_by_text("take that away").click()
    viewer.page.uncheck("[name=protected]")
    press(viewer, "Save")
    told(viewer, "Image application is changed")
    viewer.page.locator(".alert-danger", has_text="connection refused").wait_for()
    sees(viewer, "Import again…")
    is_fine(viewer)
    press(viewer, "Delete", type_name="application")
    told(viewer, "Image application is deleted")


@pytest.mark.slow
def test_an_image_server_is_searched(viewer: Viewer) -> None:
    viewer.open("/images/import")
    viewer.page.check("#main input[value=simplestreams]")
    fill(viewer, server="http://127.0.0.1:1", alias="debian 12")
    viewer.page.click("text=Search the server")
    viewer.page.locator("#offers .alert-danger", has_text="refused").wait_for()
    is_fine(viewer)


@pytest.mark.slow
def test_an_image_says_what_it_holds_and_who_uses_it(
    viewer: Viewer, installed: Installation
) -> None:
    host = installed.call("GET", "/projects/shop/workloads/web-1")["host"]["name"]
    reloads_until_it_sees(viewer, "/images/busybox", host)  # it is told by syncs
    for text in ("What it holds", "sleep 1d", "web-1", host):
        sees(viewer, text)
    is_fine(viewer)
    viewer.expected.append("409")
    press(viewer, "Delete", type_name="busybox")
    viewer.page.locator(".toast-danger", has_text="used by").wait_for()
    viewer.open("/images/build")
    assert viewer.page.locator("[name=init]").is_visible()
    fill(viewer, kind="vm")
    assert not viewer.page.locator("[name=init]").is_visible()
    is_fine(viewer)


@pytest.mark.slow
def test_pruning_says_first_what_it_would_remove(viewer: Viewer) -> None:
    viewer.open("/images/prune")
    is_fine(viewer)
    if viewer.page.get_by_role("button", name="Remove it").count():
        press(viewer, "Remove it")
        told(viewer, "What is not needed is being removed")
    else:
        sees(viewer, "Nothing to remove")


def test_each_way_to_import() -> None:
    named = {"name": "i", "aliases": "", "labels": ""}
    empty = {"name": "i", "aliases": [], "labels": {}, "description": "", "protected": False}
    registry = {"from": "registry", "reference": "docker://h/a:1", "username": "u", "password": "p"}
    assert import_body(named | registry) == empty | {
        "source": "docker://h/a:1",
        "registry_auth": {"username": "u", "password": "p"},
    }
    url = {"from": "url", "url": "https://h/d.qcow2", "format": "qcow2", "checksum": ""}
    assert import_body(named | url) == empty | {"source": "https://h/d.qcow2", "format": "qcow2"}
    streams = {"from": "simplestreams", "server": "https://h/", "alias": "debian/12"}
    made = import_body(named | streams)
    assert made == empty | {"source": "simplestreams:https://h#debian/12"}
    assert import_body(named | streams | {"offered": "disk"}) == made | {"format": "qcow2"}


@pytest.mark.parametrize(
    "source", ["docker://h/a:1", "https://h/d.iso", "simplestreams:https://h#debian/12"]
)
def test_a_source_is_said_again_by_the_form(source: str) -> None:
    assert import_body({"name": "i", **import_fields(source)})["source"] == source
