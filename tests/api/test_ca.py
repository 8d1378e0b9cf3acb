"""The private CA is changed for another one: requests, syncs, and the leader's part of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.api.conftest import StillClock
from tests.api.contract import Api
from virtmgr.domain.authority import SETTLING
from virtmgr.domain.host import HostState
from virtmgr.domain.machine import Machine
from virtmgr.domain.project import Role
from virtmgr.domain.sync import SyncRequest
from virtmgr.enrollment import pki
from virtmgr.ports.certificates import Authority
from virtmgr.services import authorities, enrolment
from virtmgr.services.container import Services
from virtmgr.services.sync import sync


@pytest.fixture
def authority(services: Services) -> Authority:
    assert services.authority is not None
    return services.authority


@pytest.fixture
def enrol(api: Api, services: Services, authority: Authority) -> Callable[[str], str]:
    """Lets a host join; its id."""

    def enrol(name: str) -> str:
        token = api.post("/hosts", {"name": name}).body["join_token"]
        request = pki.signing_request(pki.new_key()).decode()
        machine = Machine(name.ljust(32, "0"), name)
        return enrolment.join(services, authority, token, request, machine, "10.0.0.7")[0].id

    return enrol


def _renew(services: Services, authority: Authority, host_id: str, *, use: bool) -> None:
    request = pki.signing_request(pki.new_key()).decode()
    with services.units(read_only=True) as uow:
        host = uow.hosts.get(host_id)
        assert host is not None
        assert host.certificate_serial is not None
    issued = enrolment.renew(
        services, authority, host_id, host.certificate_serial, request, "10.0.0.7"
    )
    if use:
        sync(services, host_id, SyncRequest(), serial=issued.serial)


def _fall_silent(services: Services, host_id: str) -> None:
    with services.units() as uow:
        host = uow.hosts.lock(host_id)
        assert host is not None
        host.state = HostState.UNREACHABLE
        uow.commit()


def test_hosts_are_told_and_waited_for(
    api: Api,
    services: Services,
    authority: Authority,
    clock: StillClock,
    enrol: Callable[[str], str],
) -> None:
    (old,) = authority.authorities().trusted
    one, two, silent = enrol("one"), enrol("two"), enrol("silent")
    for host_id in (one, two, silent):
        assert sync(services, host_id, SyncRequest(trusted_authorities=(old,))).authorities == ""
    _fall_silent(services, silent)
    assert not authorities.advance(services)  # there is nothing to be done

    assert api.post("/ca/rotate").body["phase"] == "spreading"
    new = authority.authorities().other
    assert new is not None
    clock.advance(seconds=2 * SETTLING.total_seconds())
    told = sync(services, one, SyncRequest()).authorities
    assert pki.fingerprints(told.encode()) == (old, new)
    sync(services, one, SyncRequest(trusted_authorities=(old, new)))
    assert not authorities.advance(services)
    assert [each["host"] for each in api.get("/ca").body["waits_for"]] == ["two"]
    assert sync(services, two, SyncRequest(trusted_authorities=(old, new))).authorities == ""
    assert authorities.advance(services)  # whatever the silent one does

    shown = api.get("/ca").body
    assert (shown["phase"], shown["authorities"][0]["fingerprint"]) == ("replacing", new)
    assert [each["host"] for each in shown["waits_for"]] == ["one", "two", "silent"]
    told = sync(services, two, SyncRequest(brief=True)).authorities  # also in a brief answer
    assert pki.fingerprints(told.encode()) == (new, old)
    for host_id in (one, two, silent):
        sync(services, host_id, SyncRequest(trusted_authorities=(new, old)))
    _renew(services, authority, one, use=True)
    _renew(services, authority, two, use=False)
    _renew(services, authority, silent, use=True)
    reasons = {each["host"]: each["reason"] for each in api.get("/ca").body["waits_for"]}
    assert list(reasons) == ["two"]
    assert "not used" in reasons["two"]
    clock.advance(seconds=2 * SETTLING.total_seconds())
    assert api.post("/ca/retire").code == "still_depended_on"
    _renew(services, authority, two, use=True)

    assert api.post("/ca/retire", query={"dry_run": "true"}).body["would"]["phase"] == "steady"
    assert authority.authorities().trusted == (new, old)
    retired = api.post("/ca/retire").body
    assert (retired["phase"], len(retired["authorities"])) == ("steady", 1)
    assert authority.authorities().trusted == (new,)
    assert retired["certificate"] == authority.certificate().decode()
    with services.units(read_only=True) as uow:
        assert uow.settings.get(authorities.SETTING) == new
    types = {each["type"] for each in api.get("/events", limit=500).body["items"]}
    assert {"ca.rotation_begun", "ca.replaced", "ca.retired"} <= types


def test_an_agent_that_knows_nothing_of_it_is_told_nothing_and_holds_it_up(
    api: Api, services: Services, clock: StillClock, enrol: Callable[[str], str]
) -> None:
    host_id = enrol("old")
    sync(services, host_id, SyncRequest())
    api.post("/ca/rotate")
    clock.advance(seconds=2 * SETTLING.total_seconds())
    assert sync(services, host_id, SyncRequest()).authorities == ""
    assert not authorities.advance(services)
    (waits,) = api.get("/ca").body["waits_for"]
    assert "older version" in waits["reason"]


def test_what_a_crash_left_is_gone_on_with(
    api: Api, services: Services, authority: Authority, clock: StillClock
) -> None:
    authority.rotate()  # and the transaction with it did not come to its end
    assert api.get("/ca").body["since"] is None
    assert api.post("/ca/rotate").status == 200
    assert api.post("/ca/rotate").code == "rotation_under_way"
    clock.advance(seconds=2 * SETTLING.total_seconds())
    authority.replace()  # again
    assert api.post("/ca/retire", query={"force": "true"}).code == "too_early"
    assert not authorities.advance(services)
    clock.advance(seconds=2 * SETTLING.total_seconds())
    assert api.post("/ca/retire").status == 200


def test_everybody_may_look_and_administrators_change(as_role: Callable[..., Api]) -> None:
    viewer = as_role(Role.VIEWER)
    shown = viewer.get("/ca").body
    assert "BEGIN CERTIFICATE" in shown["certificate"]
    assert "KEY" not in shown["certificate"]
    assert viewer.post("/ca/rotate").status == 403
    assert as_role(Role.OPERATOR).post("/ca/retire").status == 403
    assert as_role(Role.ADMIN).post("/ca/rotate", query={"dry_run": "true"}).status == 200
