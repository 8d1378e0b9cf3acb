"""Asking for hosts to be made by ssh: what is checked, what is kept and what is shown."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.api.conftest import SSH_KEY
from tests.api.contract import Api
from virtmgr.domain.host import HostState
from virtmgr.domain.operation import OperationState
from virtmgr.services.container import Services
from virtmgr.services.host_installation import login

_PRIVATE_KEY = (
    ed25519.Ed25519PrivateKey.generate()
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    .decode()
)


def _body(name: str = "node1", address: str = "10.0.0.11", **changed: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": address,
        "ssh": {"user": "admin", "private_key": _PRIVATE_KEY, "become_password": "hunter2"},
        "host_key": SSH_KEY.fingerprint,
        **changed,
    }


def _fail(services: Services, name: str) -> None:
    """What the worker does at the end of a run that failed."""
    with services.units() as uow:
        host = uow.hosts.find(name)
        assert host is not None
        host.state = HostState.INSTALL_FAILED
        access = uow.host_access.get(host.id)
        assert access is not None
        access.sealed = access.sealed if access.kept else None
        for operation in uow.operations.open_for(host.id):
            operation.state = OperationState.FAILED
        uow.commit()


def test_the_keys_of_an_ssh_server_are_shown(api: Api) -> None:
    shown = api.post("/hosts/scan-key", {"address": "10.0.0.11"}).body
    assert shown["keys"] == [{"type": SSH_KEY.type, "fingerprint": SSH_KEY.fingerprint}]
    assert api.post("/hosts/scan-key", {"address": "-oProxyCommand=x"}).status == 422


def test_a_machine_becomes_a_host_that_is_being_installed(api: Api, services: Services) -> None:
    started = api.post("/hosts", _body(labels={"rack": "r1"}))
    assert (started.status, started.body["verb"], started.body["state"]) == (
        202,
        "enroll",
        "pending",
    )
    host = api.get("/hosts/node1").body
    assert (host["state"], host["labels"]) == ("installing", {"rack": "r1"})
    with services.units(read_only=True) as uow:
        access = uow.host_access.get(host["id"])
        operation = uow.operations.get(started.body["id"])
    assert access is not None
    assert operation is not None
    given = login(services, access)
    assert (given.user, given.private_key, given.become_password) == (
        "admin",
        _PRIVATE_KEY,
        "hunter2",
    )
    assert "hunter2" not in repr((access, operation, given))
    events = str(api.get("/events").body)
    assert "host.created" in events
    assert "hunter2" not in events


def test_a_dry_run_makes_nothing(api: Api) -> None:
    tried = api.post("/hosts", _body(), query={"dry_run": "true"})
    assert tried.body["would"]["host"]["name"] == "node1"
    assert api.get("/hosts").body["items"] == []


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"address": "a b"}, "address"),
        ({"ssh": {"user": "root"}}, "ssh"),
        ({"ssh": {"password": "two\nlines"}}, "ssh"),
        ({"ssh": {"user": "-x", "password": "p"}}, "ssh.user"),
        ({"ssh": {"private_key": "hunter2"}}, "ssh.private_key"),
        ({"host_key": "anything"}, "host_key"),
    ],
)
def test_what_cannot_work_is_refused_at_once(api: Api, changed: dict[str, Any], field: str) -> None:
    refused = api.post("/hosts", _body(**changed))
    assert refused.status == 422
    assert field in str(refused.body)
    assert "hunter2" not in str(refused.body)
    assert api.get("/hosts").body["items"] == []


def test_a_machine_that_is_a_host_is_refused_and_the_host_named(api: Api) -> None:
    api.post("/hosts", _body())
    taken = api.post("/hosts", _body("node2"))
    assert (taken.status, taken.body["code"]) == (409, "address_taken")
    assert "'node1'" in taken.body["detail"]
    assert api.post("/hosts", _body("node1", "10.0.0.12")).body["code"] == "name_taken"


def test_an_installation_that_failed_is_tried_again(api: Api, services: Services) -> None:
    started = api.post("/hosts", _body())
    under_way = api.post("/hosts/node1/retry", {})
    assert (under_way.status, under_way.body["code"]) == (409, "under_way")
    assert started.body["id"] in under_way.body["hint"]
    _fail(services, "node1")
    again = api.post("/hosts/node1/retry", {})
    assert (again.status, again.body["code"]) == (422, "credentials_needed")
    assert api.get("/hosts/node1").body["state"] == "install_failed"
    again = api.post("/hosts/node1/retry", {"ssh": {"password": "hunter2"}})
    assert (again.status, again.body["verb"]) == (202, "enroll")
    assert api.get("/hosts/node1").body["state"] == "installing"


def test_kept_credentials_serve_again(api: Api, services: Services) -> None:
    api.post("/hosts", _body(keep_credentials=True))
    _fail(services, "node1")
    assert api.post("/hosts/node1/retry", {}).status == 202


def test_a_host_that_is_installed_is_reinstalled_and_not_tried_again(
    api: Api, services: Services
) -> None:
    api.post("/host-tokens", {"name": "node1"})
    with services.units() as uow:
        host = uow.hosts.find("node1")
        assert host is not None
        host.state = HostState.READY
        host.facts = {"stream_url": "wss://10.0.0.11:7446"}
        uow.commit()
    assert api.post("/hosts/node1/retry", {}).status == 409
    assert api.post("/hosts/node1/reinstall", {}).body["code"] == "credentials_needed"
    how = {key: value for key, value in _body().items() if key in ("ssh", "host_key")}
    assert api.post("/hosts", _body("node2")).body["code"] == "address_taken"
    again = api.post("/hosts/node1/renew-certificates", {**how, "address": "10.0.0.11"})
    assert (again.status, again.body["verb"]) == (202, "renew_certificates")
    assert api.get("/hosts/node1").body["state"] == "ready"


def test_removing_the_host_cancels_its_installation(api: Api) -> None:
    started = api.post("/hosts", _body())
    assert api.delete("/hosts/node1").status == 204
    assert api.get(f"/operations/{started.body['id']}").body["state"] == "cancelled"


def test_the_log_is_read_from_where_one_was(api: Api, services: Services) -> None:
    id = api.post("/hosts", _body()).body["id"]
    assert api.get(f"/operations/{id}/log").body == {"items": [], "finished": False}
    with services.units() as uow:
        uow.operation_log.append(id, services.clock.now(), ["one", "two"])
        uow.commit()
    first = api.get(f"/operations/{id}/log", limit=1).body
    assert [line["text"] for line in first["items"]] == ["one"]
    rest = api.get(f"/operations/{id}/log", after=first["items"][0]["sequence"]).body
    assert [line["text"] for line in rest["items"]] == ["two"]
    _fail(services, "node1")
    assert api.get(f"/operations/{id}/log").body["finished"] is True


def test_a_name_may_come_from_the_address(api: Api) -> None:
    body = {**_body(), "address": "node7.example.org"}
    del body["name"]
    assert api.post("/hosts", body).body["target"]["name"] == "node7"
    refused = api.post("/hosts", {**body, "address": "10.0.0.12"})
    assert (refused.status, refused.body["field"]) == (422, "name")


@pytest.mark.parametrize("missing", ["address", "ssh", "host_key"])
def test_by_ssh_all_of_it_is_needed(api: Api, missing: str) -> None:
    body = _body()
    del body[missing]
    refused = api.post("/hosts", body)
    assert (refused.status, refused.body["field"]) == (422, missing)


def test_callers_of_before_are_answered_as_before(api: Api) -> None:
    made = api.post("/hosts", {"name": "node1"}, query={"wait": "1"})
    assert (made.status, made.body["state"]) == (201, "enrolling")
    assert made.body["join_token"].startswith("vmj_")
    refused = api.post("/hosts", {"name": "node2", "vms": False})
    assert (refused.status, refused.body["field"]) == (422, "ssh")
    started = api.post("/hosts/enroll", _body("node3", "10.0.0.13"))
    assert (started.status, started.body["verb"]) == (202, "enroll")


def test_an_upgrade_is_asked_for_of_hosts_that_have_an_agent(api: Api, services: Services) -> None:
    api.post("/host-tokens", {"name": "node1"})
    how = {"address": "10.0.0.11", "ssh": {"password": "x"}, "host_key": SSH_KEY.fingerprint}
    assert api.post("/hosts/node1/upgrade", how).code == "not_installed"
    with services.units() as uow:
        host = uow.hosts.find("node1")
        assert host is not None
        host.state = HostState.READY
        uow.commit()
    assert api.post("/hosts/node1/upgrade", {}).code == "credentials_needed"
    started = api.post("/hosts/node1/upgrade", how)
    assert (started.status, started.body["verb"]) == (202, "upgrade")
    assert api.post("/hosts/node1/upgrade", how).code == "under_way"
