"""Published ports: a host has each only once, and placing knows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.services.container import Services

ALL = "/projects/default/workloads"


def create(api: Api, name: str, *, query: dict[str, Any] | None = None, **port: Any) -> Any:
    spec = {"name": name, "kind": "container", "image": "busybox", "state": "stopped"}
    spec["ports"] = [{"host": 8080, "guest": 80, **port}]
    return api.post(ALL, spec, query=query or {})


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_two_that_publish_one_port_get_a_host_each(
    address: str, api: Api, services: Services
) -> None:
    hosts = [PretendHost(services), PretendHost(services)]
    assert create(api, "web1").status == 202
    assert create(api, "web2", address=address).status == 202
    placed = {api.get(f"{ALL}/{name}").body["host"]["id"] for name in ("web1", "web2")}
    assert placed == {host.id for host in hosts}
    refused = create(api, "web3")
    assert (refused.status, refused.code) == (409, "no_placement")
    assert "2 publish port 127.0.0.1:8080/tcp already" in refused.body["detail"]
    reasons = {
        reason["code"]
        for verdict in refused.body["explanation"]["verdicts"]
        for reason in verdict["reasons"]
    }
    assert reasons == {"port_taken"}
    assert create(api, "web3", protocol="udp").status == 202
    assert create(api, "web4", host=8081).status == 202
    assert api.delete(f"{ALL}/web1").status == 202
    assert create(api, "web5").status == 202


def test_a_batch_gets_a_host_each_or_none(api: Api, services: Services) -> None:
    for _ in range(2):
        PretendHost(services)
    refused = create(api, "web", query={"count": 3})
    assert (refused.status, refused.code) == (409, "no_placement")
    made = create(api, "web", query={"count": 2})
    assert made.status == 202
    placed = {api.get(f"{ALL}/web-{number}").body["host"]["id"] for number in (1, 2)}
    assert len(placed) == 2
