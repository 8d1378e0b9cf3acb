"""Overview, hosts and clusters in a real browser, with three real agents behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.console.browser import PHONE, Viewer
from tests.console.conftest import logged_in
from tests.console.installation import Installation, installation, populate

PATIENCE: Final = 60_000  # milliseconds: a loaded machine is slow, and says nothing about the code
expect.set_options(timeout=PATIENCE)

PAGES: Final = (
    "/",
    "/hosts",
    "/hosts?view=map&by=vcpus",
    "/hosts?state=ready&state=cordoned",
    "/hosts/host3",
    "/hosts/host3/workloads",
    "/hosts/host3/activity",
    "/hosts/host3/fencing",
    "/hosts/host3/drain",
    "/hosts/host3/edit",
    "/hosts/host3/remove",
    "/hosts/host3/join-token",
    "/hosts/host3/again/upgrade",
    "/hosts/add",
    "/hosts/token",
    "/clusters",
    "/clusters/create",
    "/clusters/default",
    "/clusters/default/edit",
    "/migrations",
    "/failovers",
    "/pools",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Of this file alone: its hosts are drained, and one is lost."""
    with installation(tmp_path_factory.mktemp("hosts")) as found:
        populate(found)
        yield found


def heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1, name=text)).to_be_visible()


def say_yes(page: Page, name: str = "") -> None:
    """Confirm what was asked."""
    dialog = page.locator("#confirm")
    if name:
        expect(dialog.locator("[data-yes]")).to_be_disabled()
        dialog.locator("[data-named] input").fill(name)
    dialog.locator("[data-yes]").click()


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_every_page_is_open_to_all_and_fits(
    browser: Browser, installed: Installation, size: str
) -> None:
    options: dict[str, Any] = {"size": PHONE, "theme": "dark"} if size == "phone" else {}
    with logged_in(browser, installed, **options) as viewer:
        for path in PAGES:
            viewer.open(path)
            if path.endswith("/drain"):
                expect(viewer.page.locator("#plan-title")).to_be_visible()
            assert viewer.barriers() == [], path
            width = viewer.page.evaluate("document.documentElement.scrollWidth")
            assert width <= viewer.page.viewport_size["width"], path  # type: ignore[index]
        assert viewer.unexpected() == []


def test_each_number_of_the_overview_leads_to_its_list(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open("/")
    links = page.locator(".counts a").evaluate_all(
        "all => all.map(one => [one.getAttribute('href'), one.querySelector('b').textContent])"
    )
    assert {path.partition("?")[0] for path, _ in links} == {"/hosts", "/workloads"}
    for path, number in links:
        viewer.open(path)
        expect(page.locator(".paging").first).to_contain_text(f"{number} of {number}")


def test_what_fails_is_told_on_the_overview_by_itself(
    viewer: Viewer, installed: Installation
) -> None:
    page = viewer.page
    viewer.open("/")
    expect(page.get_by_text("Nothing needs a person")).to_be_visible()
    device = {"agent": "redfish", "address": "127.0.0.1", "port": 1, "user": "u", "password": "p"}
    installed.call("PUT", "/hosts/host2/fence-devices/bmc", device)
    installed.call("POST", "/hosts/host2/fence/test")
    alert = page.locator(".alert-line", has_text="An operation failed within the last day")
    expect(alert).to_contain_text("host2")
    expect(page.locator(".feed").first).to_contain_text("bmc")
    installed.call("DELETE", "/hosts/host2/fence-devices/bmc")


def test_activity_has_operations_only_where_there_are_some(
    viewer: Viewer, installed: Installation
) -> None:
    page = viewer.page
    for host in installed.call("GET", "/hosts")["items"]:
        operations = installed.call("GET", f"/operations?target={host['id']}&limit=1")["items"]
        viewer.open(f"/hosts/{host['name']}/activity")
        expect(page.locator(".feed li").first).to_be_visible()
        expect(page.locator("#operations-title")).to_have_count(len(operations))


def test_hosts_are_listed_filtered_and_mapped(viewer: Viewer, installed: Installation) -> None:
    page = viewer.page
    viewer.open("/hosts")
    expect(page.locator("#list tbody tr")).to_have_count(3)
    page.get_by_role("link", name="Name", exact=True).click()
    expect(page.locator("#list tbody tr").first).to_contain_text("host3")
    page.locator("select[name=state]").select_option("unreachable")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    viewer.open("/hosts?state=ready&state=cordoned")
    expect(page.locator(".filters .tag")).to_have_count(2)
    expect(page.locator("#list tbody tr")).to_have_count(3)

    viewer.open("/hosts/host1/edit")
    page.fill("#field-labels", "zone")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#help-labels")).to_contain_text("is no label")
    assert page.input_value("#field-labels") == "zone"
    page.fill("#field-labels", "zone=a\nrack=r7")
    page.get_by_role("button", name="Save").click()
    heading(page, "host1")
    expect(page.locator(".labels").first).to_contain_text("rack=r7")

    viewer.open("/hosts")
    page.get_by_role("link", name="Map").click()
    expect(page.get_by_label("Zone a")).to_contain_text("host1")
    page.get_by_role("link", name="CPU", exact=True).click()
    expect(page.locator("#map .cell").first).to_contain_text("CPU")
    page.get_by_role("link", name="host1").click()
    heading(page, "host1")
    assert installed.call("GET", "/hosts/host1")["labels"] == {"zone": "a", "rack": "r7"}
    viewer.expected.append("422")


def test_a_host_is_cordoned_and_taken_back(viewer: Viewer, installed: Installation) -> None:
    page = viewer.page
    viewer.open("/hosts/host2")
    page.get_by_role("button", name="Cordon", exact=True).click()
    expect(page.locator("#summary .state").first).to_contain_text("cordoned")
    page.get_by_role("button", name="Uncordon").click()
    expect(page.locator("#summary .state").first).to_contain_text("ready")
    # Somebody else does it: the page follows.
    installed.call("POST", "/hosts/host2/cordon")
    expect(page.locator("#summary .state").first).to_contain_text("cordoned")
    installed.call("POST", "/hosts/host2/uncordon")
    expect(page.get_by_role("button", name="Cordon", exact=True)).to_be_visible()


def test_maintenance_of_a_host_that_is_not_empty_is_refused(viewer: Viewer) -> None:
    page = viewer.page
    viewer.expected.append("409")
    viewer.open("/hosts/host1")
    page.get_by_label("More of host1").click()
    page.get_by_role("button", name="Put into maintenance").click()
    expect(page.locator(".toast-danger")).to_contain_text("workloads run")


def test_a_host_is_drained_after_its_plan_was_seen(viewer: Viewer, installed: Installation) -> None:
    page = viewer.page
    before = installed.call("GET", "/workloads?host=host1&limit=100")["items"]
    assert before
    viewer.open("/hosts/host1")
    page.get_by_role("link", name="Drain…").click()
    expect(page.locator("#plan-title")).to_contain_text(f"{len(before)} workload")
    for workload in before:
        row = page.locator("#plan tbody tr", has_text=workload["name"]).first
        expect(row).to_contain_text("host")
    assert installed.call("GET", "/hosts/host1")["state"] == "ready"  # nothing has moved

    page.get_by_label("Stop running VMs").check()
    expect(page.get_by_label("Stop running VMs")).to_be_checked()
    page.get_by_role("button", name="Drain: move").click()
    expect(page.get_by_text("host1 is in maintenance")).to_be_visible()
    assert installed.call("GET", "/workloads?host=host1&count=true")["total"] == 0

    viewer.open("/migrations")
    expect(page.locator("#list tbody tr")).to_have_count(len(before))
    page.locator("#list tbody tr").first.locator("a[href^='/migrations/']").first.click()
    heading(page, "Migration of")
    viewer.open("/hosts/host1/drain")
    page.locator("#drained").get_by_role("button", name="Uncordon").click()
    expect(
        page.locator("#host-head").get_by_role("button", name="Cordon", exact=True)
    ).to_be_visible()


def test_fence_devices_are_set_tested_and_forgotten(
    viewer: Viewer, installed: Installation
) -> None:
    page = viewer.page
    viewer.expected.append("422")
    viewer.open("/hosts/host2/fencing")
    page.fill("#field-name", "bmc")
    page.fill("#field-address", "127.0.0.1")
    page.fill("#field-user", "operator")
    page.fill("#field-port", "1")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#help-password")).to_contain_text("no password")
    assert page.input_value("#field-user") == "operator"
    page.fill("#field-password", "secret words")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#devices")).to_contain_text("127.0.0.1:1")
    assert "secret words" not in page.content()

    page.get_by_role("link", name="Edit", exact=True).click()
    page.fill("#field-level", "2")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#devices tbody tr").first).to_contain_text("2")
    page.get_by_role("button", name="Test").click()
    expect(page.locator("#devices")).to_contain_text("failed")
    page.get_by_role("button", name="Forget").click()
    say_yes(page)
    expect(page.get_by_text("No fence devices")).to_be_visible()
    assert installed.call("GET", "/hosts/host2/fence-devices")["items"] == []


def test_machines_are_added_after_their_keys_were_asked_for(viewer: Viewer) -> None:
    page = viewer.page
    viewer.open("/hosts")
    page.get_by_role("link", name="Add host").click()
    page.fill("#field-addresses", "one=127.0.0.1:1")
    page.fill("#field-labels", "zone=a")
    page.get_by_role("button", name="Look at their keys").click()
    expect(page.locator("#machine-1")).to_contain_text("127.0.0.1")
    page.get_by_role("button", name="Ask again").click()  # nobody answers there
    expect(page.locator("#machine-1 [role=alert]")).to_be_visible()
    assert page.input_value("#name-1") == "one"


def test_a_host_joins_by_a_token_that_is_shown_once_and_is_removed(
    viewer: Viewer, installed: Installation
) -> None:
    page = viewer.page
    viewer.open("/hosts/token")
    page.fill("#field-name", "node9")
    page.fill("#field-labels", "rack=r1")
    page.get_by_role("button", name="Make a join token").click()
    assert page.input_value("#token").startswith("vmj_")
    page.get_by_role("link", name="Go to node9").click()
    expect(page.get_by_text("It waits for its agent")).to_be_visible()

    viewer.open("/hosts/node9/join-token")
    page.get_by_role("button", name="Make a join token").click()
    assert page.input_value("#token").startswith("vmj_")
    viewer.open("/hosts/node9/remove")
    page.get_by_role("button", name="Remove", exact=True).click()
    say_yes(page, "node9")
    heading(page, "Hosts")
    expect(page.locator("#list")).not_to_contain_text("node9")
    assert installed.client.call("GET", "/hosts/node9").status == 404


def test_a_run_by_ssh_without_credentials_says_so(viewer: Viewer) -> None:
    page = viewer.page
    viewer.expected.append("422")
    viewer.open("/hosts/host3")
    page.get_by_label("More of host3").click()
    page.get_by_role("link", name="Upgrade its agent…").click()
    page.get_by_role("button", name="Upgrade the agent").click()
    expect(page.get_by_role("alert")).to_contain_text("never logged in")


def test_a_cluster_is_made_changed_and_deleted(viewer: Viewer, installed: Installation) -> None:
    page = viewer.page
    viewer.expected.append("422")
    viewer.open("/clusters/create")
    page.fill("#field-name", "edge")
    page.fill("#field-reserve", "many")
    page.select_option("#field-policy", "pack")
    page.get_by_role("button", name="Create", exact=True).click()
    expect(page.locator("#field-reserve")).to_have_class("form-control is-invalid")
    assert page.input_value("#field-policy") == "pack"
    page.fill("#field-reserve", "1")
    page.get_by_role("button", name="Create", exact=True).click()
    heading(page, "edge")
    made = installed.call("GET", "/clusters/edge")
    assert (made["policy"], made["reserve"], made["ha_lease"]) == ("pack", 1, 9)

    page.get_by_role("link", name="Edit").click()
    installed.call("PATCH", "/clusters/edge", {"description": "somebody else"})
    page.fill("#field-ha_margin", "3.5")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("was changed meanwhile")
    viewer.open("/clusters/edge/edit")
    page.fill("#field-ha_margin", "3.5")
    page.get_by_role("button", name="Save").click()
    heading(page, "edge")
    assert installed.call("GET", "/clusters/edge")["ha_margin"] == 3.5

    viewer.open("/clusters")
    expect(page.locator("#list tbody tr")).to_have_count(2)
    viewer.open("/clusters/edge")
    page.get_by_role("button", name="Delete").click()
    say_yes(page, "edge")
    heading(page, "Clusters")
    assert installed.client.call("GET", "/clusters/edge").status == 404


def test_a_lost_host_is_confirmed_to_be_off(viewer: Viewer, installed: Installation) -> None:
    page = viewer.page
    installed.hosts[2].fall_silent()
    viewer.open("/hosts/host3")
    confirm = page.get_by_role("button", name="Confirm that it is off")
    expect(confirm).to_be_visible(timeout=2 * PATIENCE)  # its lease ends first
    confirm.click()
    say_yes(page, "host3")
    expect(page.locator("#summary .state").first).to_contain_text("fenced")
    viewer.open("/")
    expect(page.locator(".severity-critical")).to_contain_text("A host does not answer")
    page.locator(".severity-critical").first.click()
    expect(page.locator("#list tbody tr")).to_have_count(1)
