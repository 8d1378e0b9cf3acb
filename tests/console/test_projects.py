"""Projects in the console: made, limited, given members, deleted."""

from __future__ import annotations

import pytest

from tests.console.browser import Viewer
from tests.console.doing import fill, is_fine, press, sees, told
from tests.console.installation import Installation
from virtmgr.console import forms
from virtmgr.console.formatting import exact_size
from virtmgr.domain.difference import patch_for

pytestmark = pytest.mark.slow


def test_a_project_lives_and_dies(viewer: Viewer, installed: Installation) -> None:
    viewer.open("/projects")
    sees(viewer, "2.5 GiB of 32 GiB")
    is_fine(viewer)
    viewer.page.click("text=Create project")
    fill(viewer, name="Shop!", description="What is sold", labels="tier=web\nteam=a")
    viewer.expected.append("422")
    press(viewer, "Create project")
    viewer.page.wait_for_selector(".is-invalid")
    assert viewer.page.input_value("[name=description]") == "What is sold", "it is kept"
    is_fine(viewer)
    fill(viewer, name="sales")
    press(viewer, "Create project")
    told(viewer, "Project sales is there")
    assert viewer.page.url.endswith("/projects/sales")
    sees(viewer, "tier=web")
    is_fine(viewer)

    viewer.page.click("text=Edit quota")
    fill(viewer, limit_vcpus="2.5", limit_memory="4GiB", limit_volumes="3")
    press(viewer, "Save quota")
    told(viewer, "The quota of sales is changed")
    sees(viewer, "0 of 2.5")
    sees(viewer, "0 B of 4 GiB")
    viewer.page.click("text=Edit quota")
    assert viewer.page.input_value("[name=limit_memory]") == "4GiB"
    fill(viewer, limit_vcpus="")
    press(viewer, "Save quota")
    told(viewer, "The quota of sales is changed")
    quota = installed.call("GET", "/projects/sales/quota")
    assert (quota["limit_vcpus"], quota["limit_memory"]) == (None, 4 * 1024**3)

    fill(viewer, user="maria", role="viewer")
    press(viewer, "Add")
    told(viewer, "maria is viewer now")
    viewer.page.locator("#members").get_by_text("viewer").wait_for()
    press(viewer, "Remove")
    told(viewer, "The role in sales is taken away")
    sees(viewer, "Nobody has a role in just this project")

    viewer.page.locator(".page-actions").get_by_text("Edit", exact=True).click()
    fill(viewer, name="selling", labels="tier=web")
    press(viewer, "Save")
    told(viewer, "Project selling is changed")
    assert installed.call("GET", "/projects/selling")["labels"] == {"tier": "web"}
    press(viewer, "Delete", type_name="selling")
    told(viewer, "Project selling is deleted")
    assert viewer.page.url.endswith("/projects")


def test_what_is_in_use_stays(viewer: Viewer) -> None:
    viewer.open("/projects/shop")
    for link in ("web-1", "orders", "backend"):
        assert viewer.page.locator("#inside").get_by_text(link, exact=True).count() == 1
    viewer.expected.append("409")
    press(viewer, "Delete", type_name="shop")
    viewer.page.locator(".toast-danger", has_text="used by").wait_for()


def test_forms_say_what_the_api_wants() -> None:
    assert forms.labels("a=1\n b = 2 ,c=") == {"a": "1", "b": "2", "c": ""}
    assert forms.labels(forms.labels_text({"x": "1", "a": ""})) == {"a": "", "x": "1"}
    assert forms.names("one, two\nthree") == ["one", "two", "three"]
    assert [forms.number(text) for text in ("", " 2 ", "2.5", "two")] == [None, 2, 2.5, "two"]
    before = {"name": "a", "labels": {"x": "1", "y": "2"}, "aliases": ["b"]}
    wanted = {"name": "a", "labels": {"y": "3", "z": "4"}, "aliases": []}
    assert patch_for(before, wanted) == {
        "labels": {"x": None, "y": "3", "z": "4"},
        "aliases": [],
    }
    assert patch_for(before, before) == {}


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1, "1"), (1536, "1536"), (2048, "2KiB"), (5 * 1024**3, "5GiB")]
)
def test_sizes_are_written_so_that_they_are_read_back_exactly(size: int, text: str) -> None:
    assert str(exact_size(size)) == text
