"""Every entity comes back from the database as it went in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy.exc import InvalidRequestError
from structlog.testing import capture_logs

from tests.store.inventory import GIB, NOW, Inventory, make_event
from virtmgr.domain.errors import Conflict, InvalidRequest, NameTaken
from virtmgr.domain.host import Pool
from virtmgr.domain.ids import new_id
from virtmgr.domain.image import (
    Blob,
    Disk,
    ImageManifest,
    ImageState,
    ImageType,
)
from virtmgr.domain.network import NetworkType
from virtmgr.domain.operation import IdempotencyKey, Operation, OperationState, StreamTicket
from virtmgr.domain.project import Role, RoleBinding, Token
from virtmgr.domain.scheduling import PlacedWorkload
from virtmgr.domain.workload import Affinity, Init, Port, State, Usage, Workload, WorkloadStatus
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

_DIGEST = "sha256:" + "ab" * 32


def _facts(entity: Any) -> dict[str, Any]:
    """All but the explanation of a placement, which is only read when it is asked for."""
    own = {name: value for name, value in vars(entity).items() if not name.startswith("_")}
    if isinstance(entity, Workload):
        own.pop("placement", None)
    return own


def _cases(made: Inventory) -> dict[str, list[Any]]:
    workload = made.make_workload(
        init=Init.SYSTEM,
        status=WorkloadStatus(state=State.RUNNING, usage=Usage(at=NOW, cpu_seconds=1.5)),
        claim_vcpus=0.1,
        claim_memory=2**50,
        placement={"hosts": {"host1": None}},
    )
    nic = made.make_nic(workload)
    pool = Pool(id=new_id(), host_id=made.host.id, name="default", path="/var", created_at=NOW)
    token = Token(
        id=new_id(),
        user_id=made.user.id,
        name="ci",
        secret_hash="f" * 64,
        role=Role.MEMBER,
        created_at=NOW,
    )
    return {
        "workloads": [workload],
        "nics": [nic],
        "addresses": [made.make_address("10.40.0.2", nic_id=nic.id)],
        "pools": [pool],
        "volumes": [made.make_volume(workload_id=workload.id, pool_id=pool.id, labels={"a": "b"})],
        "operations": [
            made.make_operation(workload.id, error={"code": "x", "hint": None}, progress=0.5)
        ],
        "role_bindings": [
            RoleBinding(
                id=new_id(), user_id=made.user.id, role=Role.ADMIN, project_id=None, created_at=NOW
            )
        ],
        "tokens": [token],
        "tickets": [
            StreamTicket(
                id=new_id(),
                secret_hash="e" * 64,
                workload_id=workload.id,
                host_id=made.host.id,
                user_id=made.user.id,
                action="exec",
                parameters={"command": ["sh"]},
                expires_at=NOW,
            )
        ],
        "images": [
            made.make_image(
                name="alpine:3.20",
                type=ImageType.DISK,
                state=ImageState.READY,
                manifest=ImageManifest(
                    type=ImageType.DISK,
                    disk=Disk(blob=Blob(digest=_DIGEST, size=7), virtual_size=9),
                ),
                aliases=["alpine", "alp"],
                labels={"os": "linux"},
            )
        ],
    }


def test_round_trip(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    cases = _cases(inventory)
    with units() as uow:
        for repository, entities in cases.items():
            for entity in entities:
                getattr(uow, repository).add(entity)
        uow.commit()
    cases |= {
        "projects": [inventory.project],
        "users": [inventory.user],
        "clusters": [inventory.cluster],
        "hosts": [inventory.host],
        "networks": [inventory.network],
    }
    with units(read_only=True) as uow:
        for repository, entities in cases.items():
            for entity in entities:
                found = getattr(uow, repository).get(entity.id)
                assert found is not entity
                assert _facts(found) == _facts(entity)
        assert _facts(uow.quotas.get(inventory.project.id)) == _facts(inventory.quota)


_ODD = "tab\t, line\n, return\r, \\N, \\., 'quotes\", {braces}, ünïcödé 🐍"


def test_many_rows_come_back_as_they_went_in(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    workloads = [
        inventory.make_workload(
            f"web{number}",
            claim_vcpus=0.1 * number,
            host_id=None if number % 2 else inventory.host.id,
            placement={"summary": _ODD, "score": 0.1 + 0.2, "none": None} if number % 3 else None,
        )
        for number in range(12)
    ]
    operations = [
        inventory.make_operation(one.id, message=_ODD, progress=0.5, error={"said": _ODD})
        for one in workloads
    ]
    with units() as uow:
        uow.workloads.add_all(workloads)
        uow.operations.add_all(operations)
        for one in workloads:
            uow.events.append(make_event(message=f"workload {one.name} {_ODD}"))
        uow.commit()
    with units(read_only=True) as uow:
        for workload in workloads:
            found = uow.workloads.get(workload.id)
            assert found is not None
            assert found.claim_vcpus == pytest.approx(workload.claim_vcpus)
            workload.claim_vcpus = found.claim_vcpus
            assert _facts(found) == _facts(workload)
            assert uow.workloads.explanation(workload.id) == workload.placement
        for operation in operations:
            assert _facts(uow.operations.get(operation.id)) == _facts(operation)
        assert [one.message for one in uow.events.after(0, limit=20)] == [
            f"workload {one.name} {_ODD}" for one in workloads
        ]


def test_what_many_rows_break_is_told_as_of_one(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    workloads = [inventory.make_workload(f"web{number}") for number in range(12)]
    twice = [*workloads[1:], inventory.make_workload("web5")]
    with units() as uow, pytest.raises(NameTaken, match="its name is taken in this project"):
        uow.workloads.add_all(twice)
    astray = [inventory.make_workload(f"web{number}", host_id=new_id()) for number in range(12)]
    with units() as uow, pytest.raises(Conflict, match="something that it refers to is gone"):
        uow.workloads.add_all(astray)
    too_much = [inventory.make_workload(f"web{number}", revision=-1) for number in range(12)]
    with units() as uow, pytest.raises(InvalidRequest, match="breaks the inventory's rule"):
        uow.workloads.add_all(too_much)
    with units() as uow:  # and the connection is as good as before
        uow.workloads.add_all(workloads)
        uow.commit()


def test_entities_are_made_as_their_classes_say(inventory: Inventory) -> None:
    one, other = inventory.make_operation("a"), inventory.make_operation("b")
    assert one.parameters == {}
    assert one.parameters is not other.parameters
    assert one.finished_at is None
    with pytest.raises(TypeError, match="target_id"):
        Operation(id="x", verb="create")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="colour"):
        inventory.make_operation("a", colour="red")


def test_a_change_in_place_of_what_was_just_made_is_kept(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    operation = inventory.make_operation("a", parameters={"from": "a"})
    with units() as uow:
        uow.operations.add(operation)
        operation.parameters["to"] = "b"
        operation.message = "on its way"
        uow.commit()
    with units(read_only=True) as uow:
        found = uow.operations.get(operation.id)
    assert found is not None
    assert (found.parameters, found.message) == ({"from": "a", "to": "b"}, "on its way")


def test_a_workload_is_found_without_its_explanation(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    workload = inventory.make_workload(placement={"summary": "one"})
    with units() as uow:
        uow.workloads.add(workload)
        uow.commit()
    with units() as uow:
        found = uow.workloads.lock(workload.id)
        assert found is not None
        with pytest.raises(InvalidRequestError, match="placement"):
            found.placement  # noqa: B018  nothing is loaded behind a reader's back
        assert uow.workloads.explanation(workload.id) == {"summary": "one"}
        found.placement = {"summary": "another"}
        uow.commit()
        assert found.version == 2
    with units(read_only=True) as uow:
        assert uow.workloads.explanation(workload.id) == {"summary": "another"}
        assert uow.workloads.explanation(new_id()) is None


def test_entities_stay_readable_after_their_unit(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    with units(read_only=True) as uow:
        host = uow.hosts.find("host1")
    with units() as uow:
        found = uow.hosts.lock(inventory.host.id)
        assert found is not None
        found.labels["zone"] = "a"
        uow.commit()
    assert host is not None
    assert host.labels == {}
    assert found.labels == {"zone": "a"}
    assert found.version == 2


def test_leaving_without_commit_changes_nothing(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    ran: list[str] = []
    with units() as uow:
        uow.workloads.add(inventory.make_workload())
        uow.events.append(make_event())
        uow.after_commit(lambda: ran.append("no"))
    with units() as uow:
        assert uow.workloads.find(inventory.project.id, "web1") is None
        assert uow.events.last_sequence() == 0
        uow.after_commit(lambda: ran.append("first"))
        uow.after_commit(lambda: ran.append("second"))
        uow.commit()
        uow.commit()
    assert ran == ["first", "second"]


def test_what_is_committed_stands_whatever_comes_after(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    ran: list[str] = []

    def fail() -> None:
        raise OSError("no space left on device")

    with capture_logs() as logs, units() as uow:
        uow.workloads.add(inventory.make_workload())
        uow.after_commit(fail)
        uow.after_commit(lambda: ran.append("the next"))
        uow.commit()
    assert ran == ["the next"]
    assert [entry["event"] for entry in logs] == ["after_commit.failed"]
    with units(read_only=True) as uow:
        assert uow.workloads.find(inventory.project.id, "web1") is not None


def test_remove_and_find(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    workload = inventory.make_workload()
    with units() as uow:
        uow.workloads.add(workload)
        uow.nics.add(inventory.make_nic(workload))
        assert uow.workloads.find(inventory.project.id, "web1") is workload
        assert uow.workloads.find(inventory.project.id, workload.id) is workload
        assert uow.workloads.find(new_id(), workload.id) is None
        assert uow.hosts.find(inventory.host.id) is inventory.host or uow.hosts.find("host1")
        uow.commit()
    with units() as uow:
        found = uow.workloads.get(workload.id)
        assert found is not None
        uow.workloads.remove(found)
        assert uow.workloads.get(workload.id) is None
        assert uow.nics.of_workloads([workload.id]) == {workload.id: []}
        uow.commit()


@pytest.mark.parametrize("garbage", ["", "x", "'; --", "0" * 36, "\u0000", "ö" * 400])
def test_garbage_references_find_nothing(
    units: SqlUnitOfWorkFactory, inventory: Inventory, garbage: str
) -> None:
    with units(read_only=True) as uow:
        assert uow.workloads.get(garbage) is None
        assert uow.workloads.lock(garbage) is None
        if "\u0000" not in garbage:
            assert uow.hosts.find(garbage) is None
            assert uow.networks.find(inventory.project.id, garbage) is None


def test_times_are_utc_whatever_the_zone(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    elsewhere = datetime(2026, 5, 4, 3, tzinfo=timezone(timedelta(hours=-5)))
    with units() as uow:
        uow.volumes.add(inventory.make_volume(created_at=elsewhere))
        uow.commit()
    with units(read_only=True) as uow:
        volume = uow.volumes.find(inventory.project.id, "data")
        assert volume is not None
        assert volume.created_at == elsewhere
        assert volume.created_at.utcoffset() == timedelta(0)


def test_networks_shared_and_own(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    shared = inventory.network
    with units() as uow:
        found = uow.networks.find(inventory.project.id, "default")
        assert found is not None
        assert found.id == shared.id
        own = type(shared)(
            id=new_id(),
            project_id=inventory.project.id,
            name="default",
            type=NetworkType.NAT,
            created_at=NOW,
        )
        uow.networks.add(own)
        assert uow.networks.find(inventory.project.id, "default") is own
        assert uow.networks.find(inventory.project.id, shared.id) is not None
        workload = inventory.make_workload()
        uow.workloads.add(workload)
        assert uow.networks.of_host(inventory.host.id) == []
        nic = inventory.make_nic(workload)
        uow.nics.add(nic)
        uow.addresses.add(inventory.make_address("10.40.0.2", nic_id=nic.id))
        uow.addresses.add(inventory.make_address("fd00::2", nic_id=nic.id))
        assert [n.id for n in uow.networks.of_host(inventory.host.id)] == [shared.id]
        assert uow.networks.names([shared.id]) == [
            (shared.id, "web1", workload.kind, inventory.host.id, nic.mac, ("10.40.0.2", "fd00::2"))
        ]
        assert uow.addresses.taken(shared.id) == {"10.40.0.2", "fd00::2"}
        addresses = uow.addresses.of_nics([nic.id])[nic.id]
        assert [address.address for address in addresses] == ["10.40.0.2", "fd00::2"]


@pytest.mark.usefixtures("inventory")
def test_images_by_alias_and_blob(units: SqlUnitOfWorkFactory) -> None:
    with units() as uow:
        image = uow.images.find("debian")
        assert image is not None
        uow.images.set_aliases(image, ["stable", "bookworm", "stable"])
        assert uow.images.find("stable") is image
        assert not uow.images.find_by_blob(_DIGEST)
        image.manifest = ImageManifest(
            type=ImageType.ISO, disk=Disk(blob=Blob(digest=_DIGEST, size=7), virtual_size=9)
        )
        image.state = ImageState.READY
        uow.images.set_aliases(image, ["bookworm"])
        image.name = "debian:12"
        assert uow.images.find("stable") is None
        assert uow.images.find("debian") is None
        assert uow.images.find("debian:12") is image
        assert uow.images.find_by_blob(_DIGEST)
        uow.commit()
    with units() as uow:
        found = uow.images.find("bookworm")
        assert found is not None
        assert found.aliases == ["bookworm"]
        uow.images.remove(found)
        assert uow.images.find("bookworm") is None
        assert not uow.images.find_by_blob(_DIGEST)


def test_operations_tickets_idempotency_settings(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    later = NOW + timedelta(seconds=30)
    with units() as uow:
        workload = inventory.make_workload()
        uow.workloads.add(workload)
        old = inventory.make_operation(workload.id, verb="import")
        new = inventory.make_operation(workload.id, verb="import", created_at=later)
        done = inventory.make_operation(workload.id, state=OperationState.SUCCEEDED)
        for operation in (new, old, done):
            uow.operations.add(operation)
        assert uow.operations.open_for(workload.id) == [old, new]
        assert uow.operations.take(["build"], "me", later, NOW) is None
        assert uow.operations.take(["import", "build"], "me", later, NOW) is old
        assert (old.state, old.owner, old.lease_expires_at) == ("running", "me", later)
        assert uow.operations.take(["import"], "you", later, NOW) is new
        assert uow.operations.take(["import"], "you", later, NOW) is None
        much_later = later + timedelta(hours=1)
        assert uow.operations.take(["import"], "you", much_later, much_later) is old

        ticket = StreamTicket(
            id=new_id(),
            secret_hash="a" * 64,
            workload_id=workload.id,
            host_id=inventory.host.id,
            user_id=None,
            action="vnc",
            expires_at=later,
        )
        uow.tickets.add(ticket)
        assert uow.tickets.redeem("b" * 64, NOW) is None
        assert uow.tickets.redeem("a" * 64, later) is None
        assert uow.tickets.redeem("a" * 64, NOW) is ticket
        assert ticket.used_at == NOW
        assert uow.tickets.redeem("a" * 64, NOW) is None
        uow.tickets.purge(much_later)
        uow.commit()
    with units() as uow:
        assert uow.tickets.get(ticket.id) is None
        entry = IdempotencyKey(
            user_id=inventory.user.id,
            key="k",
            request_hash="h",
            status=202,
            body="{}",
            created_at=NOW,
        )
        uow.idempotency.add(entry)
        assert uow.idempotency.get(inventory.user.id, "k") is entry
        assert uow.idempotency.get(inventory.user.id, "other") is None
        assert uow.settings.get("initialised") is None
        uow.settings.set("initialised", "yes")
        uow.settings.set("initialised", "twice")
        assert uow.settings.get("initialised") == "twice"
        uow.commit()
    with units() as uow:
        uow.idempotency.purge(much_later)
        uow.commit()
    with units() as uow:
        assert uow.idempotency.get(inventory.user.id, "k") is None


@pytest.mark.parametrize(
    "ask",
    [
        lambda uow: uow.hosts.by_certificate("AB12"),
        lambda uow: uow.hosts.by_join_token("c" * 64),
    ],
)
def test_hosts_by_their_secrets(
    units: SqlUnitOfWorkFactory,
    inventory: Inventory,
    ask: Callable[[UnitOfWork], Any],
) -> None:
    with units() as uow:
        assert ask(uow) is None
        host = uow.hosts.lock(inventory.host.id)
        assert host is not None
        host.certificate_serial = "AB12"
        host.join_token_hash = "c" * 64
        assert ask(uow) is host


def test_workload_lookups(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    with units() as uow:
        for name, revision in (("a", 1), ("b", 2)):
            uow.workloads.add(inventory.make_workload(name, revision=revision))
        uow.workloads.add(inventory.make_workload("c", host_id=None))
        volume = inventory.make_volume(host_id=inventory.host.id, size=3 * GIB)
        uow.volumes.add(volume)
        on_host = uow.workloads.on_host
        assert [w.name for w in on_host(inventory.host.id)] == ["a", "b"]
        assert [w.name for w in on_host(inventory.host.id, after_revision=1)] == ["b"]
        here = {"project_id": inventory.project.id, "host_id": inventory.host.id}
        web_tier: dict[str, Any] = {**here, "labels": {"tier": "web"}}
        found = sorted(uow.workloads.placed(), key=lambda one: one.id)
        there = sorted(one.id for one in on_host(inventory.host.id))
        assert found == [PlacedWorkload(id=id, **web_tier) for id in there]
        assert uow.workloads.published() == []
        web = Port(host=8080, guest=80)
        for name, deleting in (("d", False), ("e", True)):
            made = inventory.make_workload(name, deleting=deleting)
            made.spec = made.spec.model_copy(update={"ports": (web,)})
            uow.workloads.add(made)
        assert uow.workloads.published() == [(inventory.host.id, (web,))]
        assert uow.workloads.with_affinity() == []
        apart = Affinity(mode="apart", labels={"tier": "web"})
        choosy = inventory.make_workload("f")
        choosy.spec = choosy.spec.model_copy(
            update={"placement": choosy.spec.placement.model_copy(update={"affinity": (apart,)})}
        )
        uow.workloads.add(choosy)
        told = PlacedWorkload(id=choosy.id, **web_tier, affinity=(apart,))
        assert uow.workloads.with_affinity({inventory.project.id}) == [told]
        assert uow.workloads.with_affinity({new_id()}) == []
        assert uow.volumes.on_host(inventory.host.id) == [volume]
        assert uow.volumes.of_workload(new_id()) == []
