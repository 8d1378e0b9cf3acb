"""Clones: what is checked, charged and placed, and that their source is left alone meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.contract import Api
from tests.api.host import PretendHost
from virtmgr.ports.driver import Feature
from virtmgr.services.cloning import copy_name
from virtmgr.services.container import Services

ALL = "/projects/default/workloads"
ONE = f"{ALL}/web1"


@pytest.fixture
def host(api: Api, services: Services) -> PretendHost:
    del api  # makes the inventory
    return PretendHost(services)


def make(api: Api, host: PretendHost, **fields: Any) -> None:
    spec = {"name": "web1", "kind": "container", "image": "busybox", "state": "stopped"}
    assert api.post(ALL, {**spec, **fields}).status == 202
    host.converge()


@pytest.fixture
def web1(api: Api, host: PretendHost) -> None:
    ports = [{"host": 8080, "guest": 80}]
    make(api, host, ports=ports, labels={"tier": "web"})


@pytest.mark.usefixtures("web1")
def test_a_clone_is_like_its_source_but_for_what_is_its_own(api: Api, host: PretendHost) -> None:
    begun = api.post(f"{ONE}/clone", {"name": "web2"})
    assert (begun.status, begun.body["verb"]) == (202, "clone")
    source, clone = api.get(ONE).body, api.get(f"{ALL}/web2").body
    assert (clone["spec"]["labels"], clone["spec"]["state"]) == ({"tier": "web"}, "stopped")
    assert (clone["spec"]["ports"], clone["host"]) == ([], source["host"])
    assert clone["nics"][0]["mac"] != source["nics"][0]["mac"]
    assert clone["nics"][0]["addresses"] != source["nics"][0]["addresses"]
    host.sync_down()
    wish = host.wish("web2")
    assert (wish.clone_of and wish.clone_of.id) == source["id"]
    host.converge()
    assert api.get(f"/operations/{begun.body['id']}").body["state"] == "succeeded"
    assert api.get(f"{ALL}/web2/placement").body["explanation"]["fitting"] == 1


@pytest.mark.usefixtures("web1")
def test_the_source_is_left_alone_until_the_copy_is_made(api: Api, host: PretendHost) -> None:
    assert api.post(f"{ONE}/clone", {"name": "web2", "start": True}).status == 202
    host.sync_down()
    for refused in (
        api.post(f"{ONE}/start"),
        api.delete(ONE),
        api.patch(ONE, {"state": "running"}),
        api.post(f"{ONE}/nics", {"network": "default"}),
    ):
        assert (refused.status, refused.code) == (409, "being_cloned")
        assert refused.body["explanation"]["clones"] == ["web2"]
    assert api.post(f"{ONE}/clone", {"name": "web3"}).status == 202
    host.converge()
    assert api.post(f"{ONE}/start").status == 202
    assert api.get(f"{ALL}/web2").body["status"]["state"] == "running"


@pytest.mark.usefixtures("web1")
def test_of_clone_and_publish_the_second_waits_until_it_may(api: Api, host: PretendHost) -> None:
    assert api.post(f"{ONE}/publish", {"name": "golden"}).status == 202
    cloned = api.post(f"{ONE}/clone", {"name": "web2"})
    assert (cloned.status, cloned.code) == (409, "being_published")
    assert "'web1': image golden is being made from it" in cloned.body["detail"]
    again = api.post(f"{ONE}/publish", {"name": "silver"})
    assert (again.status, again.code) == (409, "being_published")
    assert api.delete("/images/golden").status == 204
    assert api.post(f"{ONE}/clone", {"name": "web2"}).status == 202
    published = api.post(f"{ONE}/publish", {"name": "golden"})
    assert (published.status, published.code) == (409, "being_cloned")
    assert published.body["detail"].endswith("'web1': it is being cloned to web2")
    assert published.body["hint"] == "wait until the clone is made, or delete it"
    host.converge()
    assert api.post(f"{ONE}/publish", {"name": "golden"}).status == 202


@pytest.mark.usefixtures("web1")
def test_a_clone_that_is_deleted_frees_its_source(api: Api, host: PretendHost) -> None:
    assert api.post(f"{ONE}/clone", {"name": "web2"}).status == 202
    assert api.delete(f"{ALL}/web2").status == 202
    host.converge()
    assert api.get(f"{ALL}/web2").status == 404
    assert api.delete(ONE).status == 202


@pytest.mark.usefixtures("web1")
def test_only_what_is_stopped_is_cloned(api: Api, host: PretendHost) -> None:
    api.post(f"{ONE}/start")
    host.converge()
    refused = api.post(f"{ONE}/clone", {"name": "web2"})
    assert (refused.status, refused.code) == (409, "illegal_transition")
    assert refused.body["hint"] == "stop it first"


@pytest.mark.usefixtures("web1")
def test_many_at_once_within_the_quota(api: Api, host: PretendHost) -> None:
    api.patch("/projects/default/quota", {"limit_workloads": 3})
    full = api.post(f"{ONE}/clone", {"name": "c"}, query={"count": 3})
    assert (full.status, full.code) == (409, "quota_exceeded")
    two = api.post(f"{ONE}/clone", {"name": "c"}, query={"count": 2})
    assert len(two.body["items"]) == 2
    host.converge()
    names = [item["name"] for item in api.get(ALL, sort="name").body["items"]]
    assert names == ["c-1", "c-2", "web1"]
    assert api.get("/projects/default/quota").body["used_workloads"] == 3


def test_volumes_are_copied_or_the_clone_is_refused(api: Api, host: PretendHost) -> None:
    volumes = "/projects/default/volumes"
    assert api.post(volumes, {"name": "data", "size": "1GiB"}).status == 201
    make(api, host, volumes=[{"volume": "data", "path": "/data"}])
    refused = api.post(f"{ONE}/clone", {"name": "web2"})
    assert (refused.status, refused.code) == (409, "volumes_not_shared")
    assert "--with-volumes" in refused.body["hint"]
    begun = api.post(f"{ONE}/clone", {"name": "web2", "with_volumes": True})
    assert begun.status == 202
    host.sync_down()
    wanted = host.wish("web2").volumes[0]
    source = api.get(f"{volumes}/data").body
    assert (wanted.name, wanted.path, wanted.copy_of) == ("data-web2", "/data", source["id"])
    assert api.delete(f"{ONE}/volumes/data").code == "being_cloned"
    assert api.get("/projects/default/quota").body["used_volumes"] == 2
    host.converge()
    assert api.delete(f"{ONE}/volumes/data").status == 202


def test_a_driver_that_cannot_clone_says_so(api: Api, services: Services) -> None:
    host = PretendHost(services, without=frozenset({Feature.CLONE}))
    make(api, host)
    refused = api.post(f"{ONE}/clone", {"name": "web2"})
    assert (refused.status, refused.code) == (502, "unsupported")


def test_names_of_copies_are_names() -> None:
    assert copy_name("data", "web2") == "data-web2"
    assert copy_name("a" * 63, "web2") == "a" * 58 + "-web2"
    assert copy_name("data", "b" * 63) == "b" * 63
