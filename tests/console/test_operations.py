"""Operations in the console: what goes on, what failed and why, what can be done about it."""

from __future__ import annotations

import pytest

from tests.console.browser import PHONE, Viewer
from tests.console.conftest import logged_in
from tests.console.doing import is_fine, sees
from tests.console.installation import Installation
from virtmgr.console import links
from virtmgr.console.pages.operations import CANCELLED, explained
from virtmgr.domain.operation_verbs import CANCELLABLE


@pytest.mark.slow
def test_operations_are_listed_and_looked_into(viewer: Viewer, installed: Installation) -> None:
    viewer.open("/operations")
    sees(viewer, "succeeded", "#list")
    is_fine(viewer)
    viewer.page.select_option("[name=state]", "failed")
    viewer.page.wait_for_url("**state=failed*")
    viewer.open("/operations?verb=create&project=shop")
    viewer.page.locator("#list tbody a").first.click()
    viewer.page.wait_for_url("**/operations/*")
    sees(viewer, "Who asked")
    sees(viewer, "Events of it")
    is_fine(viewer)
    with logged_in(viewer.page.context.browser, installed, size=PHONE, theme="dark") as phone:  # type: ignore[arg-type]
        for path in ("/operations", viewer.page.url.removeprefix(installed.url), "/events"):
            phone.open(path)
            is_fine(phone)


def test_what_can_be_cancelled_is_explained() -> None:
    assert {verb for _, verb in CANCELLABLE} == set(CANCELLED)


def test_what_an_error_explains() -> None:
    error = {"title": "t", "detail": "d", "hosts": {"h1": "full"}, "log": [], "field": None}
    assert explained(error) == {"hosts": {"h1": "full"}}


@pytest.mark.parametrize(
    ("kind", "project", "path"),
    [
        ("host", None, "/hosts/1"),
        ("quota", {"id": "p", "name": "shop"}, "/projects/1"),
        ("workload", {"id": "p", "name": "shop"}, "/projects/shop/workloads/1"),
        ("volume", {"id": "p", "name": ""}, "/projects/p/volumes/1"),
        ("volume", None, None),
        ("network", None, "/networks/1"),
        ("token", None, None),
    ],
)
def test_where_things_are(kind: str, project: dict[str, str] | None, path: str | None) -> None:
    assert links.to({"type": kind, "id": "1", "name": "it"}, project) == path
