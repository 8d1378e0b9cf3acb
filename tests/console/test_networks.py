"""Networks and their picture in the console."""

from __future__ import annotations

from typing import Any

import pytest

from tests.console.browser import PHONE, Viewer
from tests.console.conftest import logged_in
from tests.console.doing import fill, is_fine, press, sees, told
from tests.console.installation import Installation
from virtmgr.console import topology
from virtmgr.console.pages.networks import gateway, network_body, room


@pytest.mark.slow
def test_a_network_of_each_type(viewer: Viewer, installed: Installation) -> None:
    viewer.open("/networks")
    is_fine(viewer)
    made = (
        ({"name": "net-nat"}, "nat", "10.61.0.0/24", ""),
        ({"name": "net-overlay"}, "overlay", "10.62.0.0/24", "shop"),
        ({"name": "net-bridge", "bridge": "br0"}, "bridge", "192.0.2.0/24", "shop"),
        ({"name": "net-vlan", "interface": "eth1", "vlan": "7"}, "vlan", "198.51.100.0/24", ""),
    )
    for fields, kind, ipv4, project in made:
        viewer.open("/networks/create")
        viewer.page.check(f"#main input[value={kind}]")
        assert viewer.page.locator("[name=bridge]").is_visible() == (kind == "bridge")
        assert viewer.page.locator("[name=vlan]").is_visible() == (kind == "vlan")
        fill(viewer, ipv4=ipv4, project=project, **fields)
        press(viewer, "Create network")
        told(viewer, f"Network {fields['name']} is there")
        sees(viewer, ipv4)
        is_fine(viewer)
        shown = installed.call("GET", f"/networks?q={fields['name']}")["items"]
        assert [network["type"] for network in shown] == [kind]
        press(viewer, "Delete", type_name=fields["name"])
        told(viewer, f"Network {fields['name']} is deleted")


@pytest.mark.slow
def test_a_network_shows_who_has_its_addresses_and_is_changed(
    viewer: Viewer, installed: Installation
) -> None:
    viewer.open("/networks/default")
    row = viewer.page.locator("#network tr", has_text="web-1").first
    for text in ("10.", "shop", "running"):
        assert text in row.inner_text()
    is_fine(viewer)
    viewer.page.locator(".page-actions").get_by_text("Edit").click()
    fill(viewer, labels="used=much")
    press(viewer, "Save")
    told(viewer, "Network default is changed")
    sees(viewer, "used=much")
    installed.call("PATCH", "/networks/default", {"labels": {"used": None}})
    viewer.expected.append("409")
    press(viewer, "Delete", type_name="default")
    viewer.page.locator(".toast-danger", has_text="used by").wait_for()


@pytest.mark.slow
def test_the_picture_leads_to_what_it_shows(viewer: Viewer, installed: Installation) -> None:
    viewer.open("/networks/topology")
    is_fine(viewer)
    svg = viewer.page.locator("#topology svg[width]")
    for text in ("host1", "web-1", "default", "backend"):
        assert svg.get_by_text(text, exact=True).count() == 1
    viewer.page.click("text=As a table too")
    table = viewer.page.locator("#topology table")
    assert table.get_by_text("web-1").count() == 1
    is_fine(viewer)
    viewer.page.locator("#topology svg[width]").get_by_text("backend", exact=True).click()
    viewer.page.wait_for_url("**/projects/shop/networks/backend")
    with logged_in(viewer.page.context.browser, installed, size=PHONE, theme="dark") as phone:  # type: ignore[arg-type]
        phone.open("/networks/topology")
        is_fine(phone)


def _network(name: str, **loads: int) -> dict[str, Any]:
    shown = [
        {"host": {"id": host, "name": host} if host != "none" else None, "workloads": count}
        for host, count in loads.items()
    ]
    return {"id": name, "name": name, "type": "nat", "loads": shown}


def _workload(name: str, host: str | None, *networks: str) -> dict[str, Any]:
    nics = [
        {"network": {"id": each, "name": each}, "addresses": [f"{each}-address"], "mac": "m"}
        for each in networks
    ]
    return {"name": name, "host": host and {"id": host, "name": host}, "nics": nics}


def test_few_workloads_are_rows_below_their_hosts() -> None:
    networks = [_network("a", h1=2), _network("b", h1=1)]
    workloads = [_workload("w2", "h2", "b"), _workload("w1", "h1", "a", "b"), _workload("w3", None)]
    drawn = topology.picture(networks, workloads)
    assert [row.name for row in drawn.rows] == ["h1", "w1", "h2", "w2", "not placed", "w3"]
    assert [port.text for port in drawn.rows[1].ports] == ["a-address", "b-address"]
    assert drawn.rows[1].end == drawn.lanes[1].x
    assert drawn.rows[5].ports == []
    assert not drawn.counted
    assert max(row.y for row in drawn.rows) < drawn.bottom < drawn.height
    assert max(lane.x for lane in drawn.lanes) < drawn.width


def test_many_workloads_are_numbers_and_hosts_are_bounded() -> None:
    loads = {f"h{number:03}": number + 1 for number in range(topology.MOST_HOSTS + 5)}
    drawn = topology.picture([_network("a", **loads), _network("b", h000=9, none=1)], None)
    assert drawn.counted
    assert drawn.left_out == 6, "those that are not placed come last"
    assert len(drawn.rows) == topology.MOST_HOSTS
    assert [port.text for port in drawn.rows[0].ports] == ["1", "9"]


def test_nothing_is_drawn_of_nothing() -> None:
    assert topology.picture([], []).rows == []
    assert topology.picture([_network("a")], []).lanes[0].network["name"] == "a"


def test_rooms_and_gateways() -> None:
    assert (room("10.0.0.0/24"), gateway("10.0.0.0/24")) == (253, "10.0.0.1")
    assert (room("10.0.0.0/29"), room("fd00::/120")) == (5, 254)
    assert gateway("fd00::/64") == "fd00::1"


def test_a_form_says_what_the_api_wants() -> None:
    form = {"name": " n ", "type": "vlan", "vlan": "7", "mtu": "", "ipv4": "10.0.0.0/8"}
    assert network_body(form | {"labels": "a=b"}) == {
        "name": "n",
        "type": "vlan",
        "vlan": 7,
        "ipv4": "10.0.0.0/8",
        "labels": {"a": "b"},
    }
