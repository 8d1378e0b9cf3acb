"""Rebalancing a cluster in a real browser: the plan, what it would change, and its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, expect

from tests.console.browser import PHONE, Viewer
from tests.console.conftest import logged_in
from tests.console.doing import is_fine
from tests.console.installation import Installation, installation
from virtmgr.console.pages.rebalancing import lines

PATIENCE: Final = 60_000  # milliseconds: a loaded machine is slow, and says nothing about the code
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Two hosts with a container each, in a cluster that would rather have one empty."""
    with installation(tmp_path_factory.mktemp("rebalancing"), hosts=2) as found:
        for name in ("one", "two"):
            body = {"name": name, "kind": "container", "image": "busybox"}
            found.call("POST", "/projects/default/workloads", body)
        found.call("PATCH", "/clusters/default", {"policy": "pack"})
        yield found


@pytest.mark.slow
def test_a_host_is_emptied_after_its_plan_was_seen(
    viewer: Viewer, installed: Installation, browser: Browser
) -> None:
    page = viewer.page
    viewer.open("/clusters/default")
    page.get_by_role("button", name="Make a plan").click()
    expect(page.locator("#plan")).to_contain_text("Nothing is to be moved")
    expect(page.locator("#plan")).to_contain_text("containers do not move while they run")
    is_fine(viewer)

    page.get_by_label("Also what has to be stopped").check()
    expect(page.locator("#plan")).to_contain_text("1 host is empty then, 0 now")
    expect(page.get_by_role("region", name="Hosts before and after")).to_contain_text("after")
    assert len(_hosts(installed)) == 2  # nothing has moved
    is_fine(viewer)
    with logged_in(browser, installed, size=PHONE, theme="dark") as phone:
        phone.open("/clusters/default")
        phone.page.get_by_role("button", name="Make a plan").click()
        expect(phone.page.locator("#plan")).to_contain_text("Nothing is to be moved")
        is_fine(phone)

    page.get_by_role("button", name="Move 1").click()
    page.click("#confirm [data-yes]")
    expect(page.locator(".toast-box")).to_contain_text("is rebalanced")
    viewer.open("/operations?verb=rebalance")
    expect(page.locator("#list tbody")).to_contain_text("succeeded")
    assert len(_hosts(installed)) == 1


def _hosts(installed: Installation) -> set[str]:
    return {one["host"]["name"] for one in installed.call("GET", "/workloads")["items"]}


def test_only_hosts_that_change_are_shown() -> None:
    def load(name: str, share: float, count: int) -> dict[str, Any]:
        host = {"id": name, "name": name}
        return {"host": host, "vcpus": share, "memory": share, "disk": 0.0, "workloads": count}

    plan = {
        "before": {"hosts": [load("a", 0.5, 2), load("b", 0.25, 1), load("c", 0.1, 1)]},
        "after": {"hosts": [load("a", 0.75, 3), load("b", 0.0, 0), load("c", 0.1, 1)]},
    }
    shown = lines(plan)
    assert [line.host["name"] for line in shown] == ["a", "b"]
    assert shown[0].shares == [("CPU", 50.0, 75.0), ("Memory", 50.0, 75.0)]
    assert shown[1].workloads == (1, 0)
