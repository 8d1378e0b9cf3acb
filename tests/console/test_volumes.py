"""Volumes in the console."""

from __future__ import annotations

import pytest

from tests.console.browser import Viewer
from tests.console.doing import fill, is_fine, press, sees, told
from tests.console.installation import Installation
from tests.scaleout.client import wait_until

pytestmark = pytest.mark.slow


def test_a_volume_lives_and_dies(viewer: Viewer, installed: Installation) -> None:
    one = "/projects/shop/volumes/ledger"
    viewer.open("/volumes")
    is_fine(viewer)
    viewer.page.click("text=Create volume")
    fill(viewer, name="ledger", size="1XB", project="shop")
    viewer.expected.append("422")
    press(viewer, "Create volume")
    viewer.page.wait_for_selector("#field-size.is-invalid")
    is_fine(viewer)
    fill(viewer, size="1GiB", labels="tier=db")
    press(viewer, "Create volume")
    told(viewer, "Volume ledger is there")
    sees(viewer, "its host makes it when it is first attached")
    is_fine(viewer)

    viewer.page.click("text=Edit or grow")
    assert viewer.page.input_value("[name=size]") == "1GiB"
    fill(viewer, size="2GiB")
    press(viewer, "Save")
    told(viewer, "Volume ledger is changed")
    sees(viewer, "2 GiB")
    viewer.page.click("text=Edit or grow")
    fill(viewer, size="1GiB")
    press(viewer, "Save")
    sees(viewer, "cannot shrink")

    viewer.open(one)
    fill(viewer, workload="web-1")
    press(viewer, "Attach")
    viewer.page.wait_for_selector("#field-path.is-invalid, .alert-danger")
    is_fine(viewer)
    fill(viewer, workload="web-1", path="/ledger")
    press(viewer, "Attach")
    told(viewer, "ledger is being attached to web-1")
    viewer.page.locator("#volume").get_by_text("web-1").wait_for()
    wait_until(lambda: not _changing(installed))
    press(viewer, "Detach")
    told(viewer, "ledger is being detached from web-1")
    wait_until(lambda: installed.call("GET", one)["workload"] is None)
    viewer.open(one)
    press(viewer, "Delete", type_name="ledger")
    told(viewer, "Volume ledger is being deleted")


def _changing(installed: Installation) -> bool:
    """Whether web-1 is still becoming what it should be."""
    found = installed.call("GET", "/operations?target_type=workload&limit=20")["items"]
    return any(each["finished_at"] is None for each in found)
