"""Networks, shared and of projects, and volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.domain.sync import SyncRequest
from virtmgr.services.container import Services

NETWORKS = "/projects/default/networks"
VOLUMES = "/projects/default/volumes"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"ipv4": "10.1.2.3/16"}, "ipv4"),
        ({"ipv4": "10.0.0.0/30"}, "ipv4"),
        ({"ipv4": "8.8.8.0/24"}, "ipv4"),
        ({"ipv4": "127.0.0.0/8"}, "ipv4"),
        ({"ipv4": "fd00::/64"}, "ipv4"),
        ({"ipv6": "2001:db8::/64"}, "ipv6"),
        ({"ipv6": "fd00::/127"}, "ipv6"),
        ({}, "ipv4"),
        ({"ipv4": "10.1.0.0/16", "bridge": "br0"}, "bridge"),
        ({"ipv4": "10.1.0.0/16", "type": "bridge"}, "bridge"),
        ({"ipv4": "8.8.8.0/24", "type": "overlay"}, "ipv4"),
        ({"ipv4": "10.1.0.0/16", "vlan": 7}, "vlan"),
        ({"ipv4": "10.1.0.0/16", "type": "vlan", "vlan": 7}, "interface"),
        ({"ipv4": "10.1.0.0/16", "type": "vlan", "interface": "eth1"}, "vlan"),
        ({"ipv4": "10.1.0.0/16", "type": "vlan", "interface": "eth1", "vlan": 4095}, "vlan"),
        ({"ipv4": "10.1.0.0/16", "type": "vlan", "interface": "e/1", "vlan": 1}, "interface"),
        (
            {
                "ipv4": "10.1.0.0/16",
                "type": "vlan",
                "interface": "eth1",
                "vlan": 7,
                "bridge": "br0",
            },
            "bridge",
        ),
        ({"ipv4": "10.1.0.0/16", "mtu": 100}, "mtu"),
    ],
)
def test_fields_must_fit(api: Api, fields: dict[str, Any], field: str) -> None:
    refused = api.post(NETWORKS, {"name": "n"} | fields)
    assert (refused.status, refused.body["field"]) == (422, field)


def test_addresses_do_not_overlap(api: Api, as_role: Callable[..., Api]) -> None:
    made = api.post(NETWORKS, {"name": "n", "ipv4": "10.1.0.0/16", "ipv6": "fd01::/64"})
    assert made.status == 201
    overlap = api.post(NETWORKS, {"name": "m", "ipv4": "10.0.0.0/8"})
    assert (overlap.status, overlap.code) == (409, "addresses_overlap")
    api.post("/projects", {"name": "shop"})
    stranger = as_role("member", "shop")
    hidden = stranger.post("/projects/shop/networks", {"name": "m", "ipv4": "10.1.1.0/24"})
    assert hidden.status == 409
    assert "'n'" not in hidden.body["detail"]


def test_shared_networks_are_seen_by_all_and_changed_by_operators(
    api: Api, as_role: Callable[..., Api]
) -> None:
    api.post("/projects", {"name": "shop"})
    member = as_role("member", "shop")
    shop = "/projects/shop/networks"
    assert member.post(shop, {"name": "own", "ipv4": "10.1.0.0/16"}).status == 201
    for path in (shop, "/networks"):
        listed = {item["name"] for item in member.get(path).body["items"]}
        assert listed == {"default", "own"}
    assert member.get(shop + "/default").status == 200
    assert member.patch(shop + "/default", {"labels": {"a": "b"}}).status == 403
    assert member.delete(shop + "/default").status == 403
    assert member.post("/networks", {"name": "all", "ipv4": "10.2.0.0/16"}).status == 403
    assert api.post("/networks", {"name": "all", "ipv4": "10.2.0.0/16"}).status == 201
    assert api.get("/projects/default/networks/own").status == 404
    assert api.patch(shop + "/default", {"dns_domain": "lan"}).body["dns_domain"] == "lan"
    assert api.delete(shop + "/all").status == 204


def test_filters_and_addresses(api: Api) -> None:
    bridge = {"name": "b", "type": "bridge", "bridge": "br0", "ipv4": "10.3.0.0/16"}
    api.post(NETWORKS, bridge)
    assert [n["name"] for n in api.get(NETWORKS, type="bridge").body["items"]] == ["b"]
    assert api.get("/networks", project="nowhere").status == 404
    assert api.get(NETWORKS + "/b/addresses").body == {
        "items": [],
        "next_cursor": None,
        "total": None,
    }


def test_a_volume_grows_and_never_shrinks(api: Api) -> None:
    made = api.post(VOLUMES, {"name": "data", "size": "1GiB"})
    assert (made.body["state"], made.body["size"]) == ("pending", 1024**3)
    assert api.patch(VOLUMES + "/data", {"size": "2GiB"}).body["size"] == 2 * 1024**3
    assert api.get("/projects/default/quota").body["used_disk"] == 2 * 1024**3
    shrink = api.patch(VOLUMES + "/data", {"size": "1GiB"})
    assert (shrink.status, shrink.code) == (422, "volume_shrinks")
    assert api.post(VOLUMES, {"name": "tiny", "size": 1}).status == 422
    assert api.patch(VOLUMES + "/data", {"name": "other"}).status == 200
    assert api.delete(VOLUMES + "/other").status == 204
    assert api.get("/projects/default/quota").body["used_disk"] == 0


def test_volumes_of_others_are_not_listed(api: Api, as_role: Callable[..., Api]) -> None:
    api.post("/projects", {"name": "shop"})
    api.post(VOLUMES, {"name": "data", "size": "1GiB"})
    api.post("/projects/shop/volumes", {"name": "data", "size": "1GiB"})
    viewer = as_role("viewer", "shop")
    listed = viewer.get("/volumes").body["items"]
    assert [item["project"]["name"] for item in listed] == ["shop"]
    assert viewer.get("/volumes", project="default").body["items"] == []
    assert len(api.get("/volumes").body["items"]) == 2


VLAN = {"name": "office", "type": "vlan", "interface": "eth1", "vlan": 7, "ipv4": "192.0.2.0/24"}


def test_a_vlan_is_used_once_on_an_interface(api: Api, as_role: Callable[..., Api]) -> None:
    made = api.post(NETWORKS, VLAN)
    assert (made.status, made.body["vlan"], made.body["interface"]) == (201, 7, "eth1")
    again = api.post(NETWORKS, {**VLAN, "name": "other", "ipv4": "198.51.100.0/24"})
    assert (again.status, again.code) == (409, "vlan_taken")
    more = {**VLAN, "ipv4": "198.51.100.0/24"}
    assert api.post(NETWORKS, {**more, "name": "third", "interface": "eth2"}).status == 201
    member = as_role("member", "default")
    assert member.post(NETWORKS, {**more, "name": "fourth", "vlan": 8}).status == 403


def test_vlans_are_for_hosts_that_can_make_them(api: Api, services: Services) -> None:
    """Others would not even understand what they are asked for."""
    api.post(NETWORKS, VLAN)
    host = PretendHost(services)
    spec = {"kind": "container", "image": "busybox", "nics": [{"network": "office"}]}
    refused = api.post("/projects/default/workloads", {**spec, "name": "web1"})
    assert refused.code == "no_placement"
    assert "VLAN" in refused.body["detail"]
    api.post("/projects/default/workloads", {**spec, "name": "web2", "nics": []})
    host.converge()
    attached = api.post("/projects/default/workloads/web2/nics", {"network": "office"})
    assert attached.code == "no_vlan"
    able = host.fingerprint().model_copy(update={"kernel_features": {"vlan": True}})
    host.sync(SyncRequest(fingerprint=able, known_revision=host.known_revision))
    assert api.post("/projects/default/workloads", {**spec, "name": "web1"}).status == 202
    host.sync_down()
    assert host.last is not None
    assert host.last.networks is not None
    (network,) = host.last.networks
    assert (network.interface, network.vlan, network.is_routed) == ("eth1", 7, False)
    assert network.bridge.startswith("vmb")
    (nic,) = host.wish("web1").nics
    assert (nic.dhcp, nic.dns, nic.gateway4) == (False, (), "192.0.2.1")


def test_a_shared_network_needs_no_project(api: Api, as_role: Callable[..., Api]) -> None:
    made = api.post("/networks", {"name": "all", "ipv4": "10.2.0.0/16"})
    assert made.headers["Location"] == f"/api/v1/networks/{made.body['id']}"
    api.post(NETWORKS, {"name": "own", "ipv4": "10.3.0.0/16"})
    assert api.get("/networks/all").body == made.body
    assert api.get("/networks/own").status == 404, "it is a project's"
    assert api.get("/networks/all/addresses").body["items"] == []
    member = as_role("member", "default")
    assert member.get("/networks/all").status == 200
    assert member.patch("/networks/all", {"labels": {"a": "b"}}).status == 403
    assert api.patch("/networks/all", {"labels": {"a": "b"}}).body["labels"] == {"a": "b"}
    assert api.delete("/networks/all").status == 204


def test_topology_counts_what_may_be_seen(
    api: Api, services: Services, as_role: Callable[..., Api]
) -> None:
    host = PretendHost(services)
    api.post("/projects", {"name": "shop"})
    for project, names in (("default", ("web1", "web2")), ("shop", ("db",))):
        for name in names:
            spec = {"name": name, "kind": "container", "image": "busybox"}
            assert api.post(f"/projects/{project}/workloads", spec).status == 202
    (shared,) = api.get("/topology").body["items"]
    assert [load["workloads"] for load in shared["loads"]] == [3]
    assert shared["loads"][0]["host"]["id"] == host.id
    (seen,) = as_role("viewer", "shop").get("/topology").body["items"]
    assert [load["workloads"] for load in seen["loads"]] == [1]
    (narrowed,) = api.get("/topology", project="shop").body["items"]
    assert [load["workloads"] for load in narrowed["loads"]] == [1]
    members = api.get("/workloads", network=shared["id"]).body["items"]
    assert [item["name"] for item in members] == ["db", "web1", "web2"]
    assert api.get("/workloads", network="nothing").body["items"] == []


def test_workloads_are_found_by_what_their_nics_have(
    api: Api, services: Services, as_role: Callable[..., Api]
) -> None:
    PretendHost(services)
    for name in ("web1", "web2"):
        spec = {"name": name, "kind": "container", "image": "busybox"}
        assert api.post("/projects/default/workloads", spec).status == 202
    (nic,) = api.get("/projects/default/workloads/web2").body["nics"]
    for address in (*nic["addresses"], nic["mac"], nic["mac"].upper().replace(":", "-")):
        found = api.get("/workloads", address=address).body["items"]
        assert [item["name"] for item in found] == ["web2"], address
    assert api.get("/workloads", address="192.0.2.1").body["items"] == []
    refused = api.get("/workloads", address="10.0.0")
    assert (refused.status, refused.body["field"]) == (422, "address")
    api.post("/projects", {"name": "shop"})
    seen = as_role("viewer", "shop").get("/workloads", address=nic["mac"]).body["items"]
    assert seen == []
