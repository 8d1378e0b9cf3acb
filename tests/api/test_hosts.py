"""Clusters, hosts and pools."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.conftest import StillClock
from tests.api.contract import Api
from tests.api.host import PretendHost, fall_silent
from virtmgr.domain.errors import Forbidden, Unauthenticated
from virtmgr.domain.host import Fingerprint, Host, HostState, Pool
from virtmgr.domain.ids import new_id
from virtmgr.domain.machine import Machine
from virtmgr.domain.sync import SyncRequest
from virtmgr.enrollment import pki
from virtmgr.enrollment.authority import CertificateAuthority
from virtmgr.services import auth, enrolment
from virtmgr.services.container import Services
from virtmgr.services.host_removal import forget_silent
from virtmgr.services.sync import sync


def _enrol(services: Services, name: str) -> None:
    """What the host's first sync does."""
    with services.units() as uow:
        host = uow.hosts.find(name)
        assert host is not None
        host.state = HostState.READY
        host.capacity_vcpus, host.capacity_memory, host.capacity_disk = 4.0, 8 * 1024**3, 10**11
        host.facts = {"hostname": name}
        uow.pools.add(
            Pool(
                id=new_id(),
                host_id=host.id,
                name="default",
                path="/pool",
                capacity=100,
                used=1,
                created_at=services.clock.now(),
            )
        )
        uow.commit()


def test_a_host_is_let_in_with_a_token(api: Api, services: Services, clock: StillClock) -> None:
    made = api.post("/host-tokens", {"name": "host1", "labels": {"rack": "r1"}})
    assert (made.status, made.body["state"]) == (201, "enrolling")
    secret = made.body["join_token"]
    with services.units(read_only=True) as uow:
        host = uow.hosts.by_join_token(auth.hash_secret(secret))
    assert host is not None
    assert host.join_token_expires_at is not None
    assert (host.join_token_expires_at - clock.now()).total_seconds() == 3600
    assert "join_token" not in api.get("/hosts/host1").body
    assert api.post("/host-tokens", {"name": "host2", "cluster": "no"}).body["field"] == "cluster"


def test_free_is_capacity_times_ratio_less_claims(api: Api, services: Services) -> None:
    api.post("/host-tokens", {"name": "host1"})
    _enrol(services, "host1")
    with services.units() as uow:
        host = uow.hosts.find("host1")
        assert host is not None
        assert uow.hosts.claim(host.id, host.version, vcpus=1.5, memory=1024**3, disk=0)
        uow.commit()
    shown = api.get("/hosts/host1").body
    assert shown["free"] == {"vcpus": 14.5, "memory": 7 * 1024**3, "disk": 10**11}
    assert shown["claimed"]["vcpus"] == 1.5
    assert [p["host"]["name"] for p in api.get("/pools", host="host1").body["items"]] == ["host1"]
    assert api.get("/pools", host="nowhere").body["items"] == []


def test_cordon_and_uncordon_are_idempotent(api: Api, services: Services) -> None:
    api.post("/host-tokens", {"name": "host1"})
    assert api.post("/hosts/host1/cordon").status == 409
    _enrol(services, "host1")
    for _ in range(2):
        assert api.post("/hosts/host1/cordon").body["state"] == "cordoned"
    assert api.get("/hosts", state="cordoned").body["items"][0]["cordoned"] is True
    for _ in range(2):
        assert api.post("/hosts/host1/uncordon").body["state"] == "ready"
    assert len(api.get("/events", type="host.cordoned").body["items"]) == 1


def test_a_silent_host_stays_cordoned(api: Api, services: Services) -> None:
    api.post("/host-tokens", {"name": "host1"})
    _enrol(services, "host1")
    with services.units() as uow:
        host: Host | None = uow.hosts.find("host1")
        assert host is not None
        host.state = HostState.UNREACHABLE
        uow.commit()
    shown = api.post("/hosts/host1/cordon").body
    assert (shown["state"], shown["cordoned"]) == ("unreachable", True)
    assert "cordoned" not in shown["facts"]
    assert api.post("/hosts/host1/uncordon").body["cordoned"] is False


def test_a_cluster_with_hosts_stays(api: Api) -> None:
    made = api.post("/clusters", {"name": "lab", "policy": "pack", "overcommit_vcpus": 2})
    assert made.body["policy"] == "pack"
    api.post("/host-tokens", {"name": "host1", "cluster": "lab"})
    assert [h["name"] for h in api.get("/hosts", cluster="lab").body["items"]] == ["host1"]
    refused = api.delete("/clusters/lab")
    assert refused.body["explanation"] == {"used_by": {"host": ["host1"]}}
    assert api.patch("/hosts/host1", {"labels": {"zone": "z"}}).body["labels"] == {"zone": "z"}
    assert api.delete("/hosts/host1").status == 204
    assert api.patch("/clusters/lab", {"policy": None}).body["policy"] == "balanced"
    assert api.delete("/clusters/lab").status == 204


def test_a_host_that_lost_its_key_joins_again(api: Api, services: Services, tmp_path: Path) -> None:
    ca = CertificateAuthority(tmp_path / "ca")
    ca.create()

    def join(token: str) -> tuple[str, str]:
        request = pki.signing_request(pki.new_key()).decode()
        machine = Machine("1" * 32, "one")
        host, issued = enrolment.join(services, ca, token, request, machine, "10.0.0.7")
        return host.id, issued.serial

    made = api.post("/host-tokens", {"name": "host1"})
    host_id, lost = join(made.body["join_token"])
    enrolment.authenticate(services, host_id, lost)
    assert api.post("/host-tokens", {"name": "host1"}).code == "name_taken"
    first = api.post("/hosts/host1/join-token").body["join_token"]
    second = api.post("/hosts/host1/join-token").body
    assert second["id"] == host_id
    enrolment.authenticate(services, host_id, lost)  # good until the token is used
    with pytest.raises(Unauthenticated):
        join(first)  # the last one counts
    again, serial = join(second["join_token"])
    assert again == host_id
    enrolment.authenticate(services, host_id, serial)
    with pytest.raises(Unauthenticated) as refused:
        enrolment.authenticate(services, host_id, lost)
    assert refused.value.code == "certificate_refused"
    with pytest.raises(Unauthenticated):
        join(second["join_token"])
    assert len(api.get("/events", type="host.enrol_again").body["items"]) == 2
    assert "again" in api.get("/events", type="host.joined").body["items"][0]["message"]
    assert api.post("/hosts/nowhere/join-token").status == 404


def test_a_name_belongs_to_one_machine(api: Api, services: Services, tmp_path: Path) -> None:
    ca = CertificateAuthority(tmp_path / "ca")
    ca.create()
    one, two = Machine("1" * 32, "one"), Machine("2" * 32, "two")

    def join(token: str, machine: Machine) -> str:
        request = pki.signing_request(pki.new_key()).decode()
        return enrolment.join(services, ca, token, request, machine, "10.0.0.7")[0].id

    def refused(token: str, machine: Machine) -> str:
        with pytest.raises(Forbidden) as error:
            join(token, machine)
        return error.value.code

    def says(host_id: str, machine: Machine) -> None:
        fingerprint = Fingerprint(
            hostname=machine.hostname,
            machine_id=machine.id,
            boot_id="b",
            architecture="x86_64",
            vcpus=1,
            memory=1,
            disk=1,
        )
        sync(services, host_id, SyncRequest(full=True, fingerprint=fingerprint))

    node1 = join(api.post("/host-tokens", {"name": "node1"}).body["join_token"], one)
    token = api.post("/host-tokens", {"name": "node2"}).body["join_token"]
    assert refused(token, one) == "machine_enrolled"  # before the first sync, too
    assert join(token, two)  # the refused token was not used up
    says(node1, one)
    with pytest.raises(Forbidden) as error:
        says(node1, two)
    assert error.value.code == "another_machine"
    assert api.get("/hosts/node1").body["facts"]["hostname"] == "one"

    three = Machine("3" * 32, "three")
    again = "/hosts/node1/join-token"
    assert refused(api.post(again).body["join_token"], three) == "another_machine"
    api.post(again, {"another_machine": True})
    token = api.post(again).body["join_token"]  # the last one counts
    assert refused(token, three) == "another_machine"
    told = api.post(again, {"another_machine": True}).body
    assert "another_machine" not in told["facts"]
    says(node1, one)  # it is still there
    assert refused(told["join_token"], two) == "machine_enrolled"
    assert join(told["join_token"], three) == node1
    says(node1, three)
    with pytest.raises(Forbidden):
        says(node1, one)
    assert refused(api.post(again).body["join_token"], one) == "another_machine"  # said once


def test_a_host_is_probing_until_it_can_run_something(api: Api, services: Services) -> None:
    host = PretendHost(services)
    path = f"/hosts/{host.id}"
    with services.units() as uow:
        row = uow.hosts.lock(host.id)
        assert row is not None
        row.state = HostState.ENROLLING
        uow.commit()
    bare = host.fingerprint().model_copy(update={"drivers": (), "disk": 0})
    host.sync(SyncRequest(full=True, fingerprint=bare))
    shown = api.get(path).body
    assert (shown["state"], shown["scheduling_state"]) == ("probing", "ready")
    assert [one["code"] for one in shown["lacks"]] == ["no_driver", "no_pool"]
    spec = {"name": "web1", "kind": "container", "image": "busybox"}
    refused = api.post("/projects/default/workloads", spec)
    assert refused.code == "no_placement"
    host.sync(SyncRequest(fingerprint=host.fingerprint()))
    shown = api.get(path).body
    assert (shown["state"], shown["lacks"]) == ("ready", [])
    types = [event["type"] for event in api.get("/events", host=host.id).body["items"]]
    assert types[:2] == ["host.ready", "host.probing"]
    assert api.post("/projects/default/workloads", spec).status == 202


def test_a_host_that_is_removed_clears_up_first(api: Api, services: Services) -> None:
    host = PretendHost(services)
    path = f"/hosts/{host.id}"
    image = api.get("/images/busybox").body["id"]
    host.sync(SyncRequest(images=(image,)))
    assert api.delete(path, query={"dry_run": "true"}).status == 200
    assert api.get(path).body["state"] == "ready"
    assert api.delete(path).status == 204
    assert api.delete(path).status == 204  # twice is once
    assert api.get(path).body["state"] == "removing"
    assert api.post(f"{path}/cordon").status == 409
    host.sync_down()
    assert host.last is not None
    assert (host.last.full, host.last.removed_images) == (True, (image,))
    assert api.get(path).body["state"] == "removing"
    host.sync(SyncRequest(known_revision=host.known_revision, images=()))
    assert api.get(path).status == 404
    with pytest.raises(Forbidden) as refused:
        host.sync_down()
    assert refused.value.code == "host_removed"


def test_a_host_that_does_not_clear_up_is_removed_all_the_same(
    api: Api, services: Services, clock: StillClock
) -> None:
    host = PretendHost(services)
    assert api.delete(f"/hosts/{host.id}").status == 204
    assert forget_silent(services) == 0
    clock.advance(seconds=61)
    fall_silent(services)
    assert api.get(f"/hosts/{host.id}").body["state"] == "removing"
    assert forget_silent(services) == 1
    assert api.get(f"/hosts/{host.id}").status == 404


def test_nobody_waits_for_a_host_that_does_not_answer(
    api: Api, services: Services, clock: StillClock
) -> None:
    silent, forced = PretendHost(services), PretendHost(services)
    assert api.delete(f"/hosts/{forced.id}", query={"force": "true"}).status == 204
    assert api.get(f"/hosts/{forced.id}").status == 404
    clock.advance(seconds=31)
    fall_silent(services)
    assert api.delete(f"/hosts/{silent.id}").status == 204
    assert api.get(f"/hosts/{silent.id}").status == 404
