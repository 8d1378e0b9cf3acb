"""Operations in the console: what goes on, what failed and why, what can be done about it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.console.browser import PHONE, Viewer
from tests.console.conftest import logged_in
from tests.console.doing import is_fine, sees
from tests.console.installation import Installation
from virtmgr.console import links
from virtmgr.console.pages.operations import cancelling, explained, repeating


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


def _operation(verb: str, kind: str, state: str, **more: Any) -> dict[str, Any]:
    return {
        "verb": verb,
        "state": state,
        "target": {"type": kind, "id": "1", "name": "it"},
        "project": {"id": "p", "name": "shop"} if kind == "workload" else None,
        "finished_at": None if state in ("pending", "running") else "2026-01-01T00:00:00Z",
        **more,
    }


def test_what_can_be_cancelled() -> None:
    image = cancelling(_operation("import", "image", "running"))
    assert image is not None
    assert (image.method, image.path) == ("DELETE", "/images/{image}")
    drain = cancelling(_operation("drain", "host", "running"))
    assert drain is not None
    assert drain.path == "/hosts/{host}/drain/cancel"
    assert cancelling(_operation("import", "image", "succeeded")) is None
    assert cancelling(_operation("start", "workload", "running")) is None


def test_what_can_be_tried_again() -> None:
    start = repeating(_operation("start", "workload", "failed"))
    assert start is not None
    assert start.path == "/projects/{project}/workloads/{workload}/start"
    assert start.parameters == {"project": "p", "workload": "1"}
    enrolled = repeating(_operation("enroll", "host", "failed"))
    assert enrolled is not None
    assert enrolled.path == "/hosts/{host}/retry"
    assert repeating(_operation("start", "workload", "succeeded")) is None
    assert repeating(_operation("create", "workload", "failed")) is None


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
