"""Names change: of workloads, and of what they refer to."""

from __future__ import annotations

import pytest

from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.services.container import Services

ALL = "/projects/default/workloads"
ONE = f"{ALL}/web1"


@pytest.fixture
def host(api: Api, services: Services) -> PretendHost:
    del api  # makes the inventory
    return PretendHost(services)


@pytest.fixture
def web1(api: Api, host: PretendHost) -> str:
    """A running container's id."""
    spec = {"name": "web1", "kind": "container", "image": "busybox"}
    made = api.post(ALL, spec)
    assert made.status == 202
    host.converge()
    return str(made.body["target"]["id"])


def test_a_workload_is_renamed_and_its_dns_name_with_it(
    api: Api, host: PretendHost, web1: str
) -> None:
    begun = api.patch(ONE, {"name": "shop"})
    assert (begun.status, begun.body["target"]["name"]) == (202, "shop")
    host.converge()
    assert host.dns_names() == {"shop"}
    assert (host.wish("shop").id, host.wish("shop").spec.name) == (web1, "shop")
    assert api.get(f"/operations/{begun.body['id']}").body["state"] == "succeeded"
    assert (api.get(ONE).status, api.get(f"{ALL}/shop").body["id"]) == (404, web1)
    event = api.get("/events", type="workload.renamed").body["items"][0]
    assert (event["target"]["name"], event["data"]) == ("shop", {"from": "web1", "to": "shop"})
    again = api.post(ALL, {"name": "web1", "kind": "container", "image": "busybox"})
    assert again.status == 202


@pytest.mark.usefixtures("web1")
def test_a_name_is_unique_and_a_dns_label(api: Api) -> None:
    assert api.post(ALL, {"name": "b", "kind": "container", "image": "busybox"}).status == 202
    taken = api.patch(ONE, {"name": "b"})
    assert (taken.status, taken.code, taken.body["field"]) == (409, "name_taken", "name")
    wrong = api.patch(ONE, {"name": "No_Name"})
    assert (wrong.status, wrong.body["field"]) == (422, "name")
    assert api.get(ONE).body["name"] == "web1"


@pytest.mark.usefixtures("web1")
def test_a_workload_keeps_what_was_renamed(api: Api) -> None:
    before = api.get(ONE).body["nics"]
    assert api.patch("/images/busybox", {"name": "toolbox"}).status == 200
    assert api.patch("/clusters/default", {"name": "lab"}).status == 200
    assert api.patch("/projects/default/networks/default", {"name": "inner"}).status == 200
    assert api.patch(ONE, {"description": "changed"}).status == 202
    after = api.get(ONE).body
    assert after["nics"][0]["network"]["name"] == "inner"
    assert [nic["addresses"] for nic in after["nics"]] == [nic["addresses"] for nic in before]
    assert api.patch(ONE, {"nics": [{"network": "inner"}], "image": "toolbox"}).status == 202
    assert api.get(ONE).body["nics"] == after["nics"]
    refused = api.patch(ONE, {"image": "busybox-vm"})
    assert refused.status == 422


@pytest.mark.usefixtures("web1")
def test_a_name_that_another_took_over_changes_nothing(api: Api) -> None:
    networks = "/projects/default/networks"
    before = api.get(ONE).body["nics"][0]
    assert api.patch(f"{networks}/default", {"name": "inner"}).status == 200
    other = {"name": "default", "type": "nat", "ipv4": "10.77.0.0/24"}
    assert api.post(networks, other).status == 201
    assert api.patch(ONE, {"description": "changed"}).status == 202
    after = api.get(ONE).body["nics"][0]
    assert (after["mac"], after["addresses"]) == (before["mac"], before["addresses"])
    assert api.post(f"{ONE}/nics", {"network": "default"}).status == 202
    names = [nic["network"]["name"] for nic in api.get(ONE).body["nics"]]
    assert names == ["inner", "default"]
