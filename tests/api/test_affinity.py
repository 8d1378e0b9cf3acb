"""Affinity between workloads that are placed and those that come later."""

from __future__ import annotations

from typing import Any

from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.services.container import Services

ALL = "/projects/default/workloads"
APART = {"mode": "apart", "labels": {"tier": "batch"}}


def create(api: Api, name: str, *, labels: dict[str, str], apart: bool = False) -> Any:
    spec = {"name": name, "kind": "container", "image": "busybox", "state": "stopped"}
    placement = {"affinity": [APART]} if apart else {}
    return api.post(ALL, {**spec, "labels": labels, "placement": placement})


def host_of(api: Api, name: str) -> str:
    found: str = api.get(f"{ALL}/{name}").body["host"]["id"]
    return found


def test_who_requires_to_be_alone_stays_so_when_others_come(api: Api, services: Services) -> None:
    """Whichever of the two is first: the newcomer need not know of the other one's wish."""
    for _ in range(2):
        PretendHost(services)
    assert create(api, "database", labels={"tier": "db"}, apart=True).status == 202
    for number in range(4):
        assert create(api, f"job-{number}", labels={"tier": "batch"}).status == 202
    beside = {host_of(api, f"job-{number}") for number in range(4)}
    assert host_of(api, "database") not in beside
    assert create(api, "web", labels={"tier": "web"}).status == 202  # which is nobody's business
    again = create(api, "database-2", labels={"tier": "db"}, apart=True)
    assert again.status == 202
    assert host_of(api, "database-2") == host_of(api, "database")


def test_the_refusal_says_why(api: Api, services: Services) -> None:
    PretendHost(services)
    assert create(api, "database", labels={"tier": "db"}, apart=True).status == 202
    refused = create(api, "job", labels={"tier": "batch"})
    assert (refused.status, refused.code) == (409, "no_placement")
    assert "requires to be apart from it" in refused.body["detail"]
