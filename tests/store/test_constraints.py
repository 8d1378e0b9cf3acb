"""What the database refuses, and how the refusal reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.store.inventory import NOW, Inventory
from virtmgr.domain.errors import Conflict, InvalidRequest, NameTaken
from virtmgr.domain.host import Pool
from virtmgr.domain.ids import new_id
from virtmgr.domain.network import Network
from virtmgr.domain.operation import IdempotencyKey
from virtmgr.domain.project import Project, Role, RoleBinding, Token, User
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory

Twice = Callable[[Inventory], list[tuple[str, Any]]]


def _named(kind: type[Any], repository: str, **fields: Any) -> Twice:
    def make(_made: Inventory) -> list[tuple[str, Any]]:
        return [
            (repository, kind(id=new_id(), name="same", created_at=NOW, **fields)) for _ in range(2)
        ]

    return make


def _nics(**same: Any) -> Twice:
    def make(made: Inventory) -> list[tuple[str, Any]]:
        one, other = made.make_workload("one"), made.make_workload("other")
        if "index" in same:
            other = one
        nics = [("nics", made.make_nic(one, **same)), ("nics", made.make_nic(other, **same))]
        workloads = [("workloads", one)] + ([("workloads", other)] if other is not one else [])
        return [*workloads, *nics]

    return make


TAKEN: dict[str, tuple[str, Twice]] = {
    "project": ("name", _named(Project, "projects")),
    "user": ("name", _named(User, "users")),
    "shared network": ("name", _named(Network, "networks", project_id=None)),
    "own network": (
        "name",
        lambda made: [
            (
                "networks",
                Network(id=new_id(), project_id=made.project.id, name="same", created_at=NOW),
            )
            for _ in range(2)
        ],
    ),
    "workload": ("name", lambda m: [("workloads", m.make_workload("same")) for _ in range(2)]),
    "volume": ("name", lambda m: [("volumes", m.make_volume("same")) for _ in range(2)]),
    "host": ("name", lambda m: [("hosts", m.make_host(name="same")) for _ in range(2)]),
    "image": ("name", lambda m: [("images", m.make_image(name="same")) for _ in range(2)]),
    "image named as an alias": (
        "name",
        lambda m: [
            ("images", m.make_image(name="x", aliases=["same"])),
            ("images", m.make_image(name="same")),
        ],
    ),
    "alias named as an image": (
        "aliases",
        lambda m: [("images", m.make_image(name="x", aliases=["debian"]))],
    ),
    "address": (
        "address",
        lambda m: [("addresses", m.make_address("10.40.0.9")) for _ in range(2)],
    ),
    "mac": ("mac", _nics(mac="52:00:00:00:00:01")),
    "nic index": ("index", _nics(index=1)),
    "pool": (
        "name",
        lambda m: [
            ("pools", Pool(id=new_id(), host_id=m.host.id, name="same", created_at=NOW))
            for _ in range(2)
        ],
    ),
    "token": (
        "secret",
        lambda m: [
            (
                "tokens",
                Token(
                    id=new_id(), user_id=m.user.id, name="t", secret_hash="s" * 64, created_at=NOW
                ),
            )
            for _ in range(2)
        ],
    ),
    "role everywhere": (
        "role",
        lambda m: [
            (
                "role_bindings",
                RoleBinding(
                    id=new_id(), user_id=m.user.id, role=Role.ADMIN, project_id=None, created_at=NOW
                ),
            )
            for _ in range(2)
        ],
    ),
    "idempotency key": (
        "key",
        lambda m: [
            (
                "idempotency",
                IdempotencyKey(
                    user_id=m.user.id,
                    key="k",
                    request_hash="h",
                    status=200,
                    body="",
                    created_at=NOW,
                ),
            )
            for _ in range(2)
        ],
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken(units: SqlUnitOfWorkFactory, inventory: Inventory, case: str) -> None:
    field, make = TAKEN[case]
    *before, (repository, last) = make(inventory)
    with units() as uow:
        for name, entity in before:
            getattr(uow, name).add(entity)
        uow.commit()
    with units() as uow, pytest.raises(NameTaken) as caught:
        getattr(uow, repository).add(last)
    assert caught.value.field == field
    assert caught.value.hint
    assert "s" * 64 not in caught.value.message
    if field == "name":
        assert caught.value.code == "name_taken"
        assert repr(last.name) in caught.value.message


def test_rename_to_a_taken_name_is_refused_at_commit(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    with units() as uow:
        uow.workloads.add(inventory.make_workload("one"))
        other = inventory.make_workload("other")
        uow.workloads.add(other)
        uow.commit()
    with units() as uow:
        found = uow.workloads.get(other.id)
        assert found is not None
        found.name = "one"
        with pytest.raises(NameTaken):
            uow.commit()


def test_the_same_name_in_another_project_is_fine(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    other = Project(id=new_id(), name="other", created_at=NOW)
    with units() as uow:
        uow.projects.add(other)
        uow.workloads.add(inventory.make_workload())
        uow.workloads.add(inventory.make_workload(project_id=other.id))
        uow.commit()


BROKEN: dict[str, Callable[[Inventory], tuple[str, Any]]] = {
    "negative claim": lambda m: ("workloads", m.make_workload(claim_memory=-1)),
    "negative vcpus": lambda m: ("workloads", m.make_workload(claim_vcpus=-0.5)),
    "generation 0": lambda m: ("workloads", m.make_workload(generation=0)),
    "unknown generation": lambda m: ("workloads", m.make_workload(observed_generation=2)),
    "negative size": lambda m: ("volumes", m.make_volume(size=-1)),
    "negative capacity": lambda m: ("hosts", m.make_host(name="x", capacity_disk=-1)),
    "ready image without manifest": lambda m: (
        "images",
        m.make_image(name="x", state="ready"),
    ),
    "progress": lambda m: ("operations", m.make_operation(new_id(), progress=1.1)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_rules(units: SqlUnitOfWorkFactory, inventory: Inventory, case: str) -> None:
    repository, entity = BROKEN[case](inventory)
    with units() as uow, pytest.raises(InvalidRequest, match="rule ck_"):
        getattr(uow, repository).add(entity)


def test_values_that_no_column_holds(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    with units() as uow, pytest.raises(InvalidRequest) as caught:
        uow.volumes.add(inventory.make_volume(size=2**70))
    assert "64 bits" in (caught.value.hint or "")


def test_references_to_nothing_are_refused(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    with units() as uow, pytest.raises(Conflict) as caught:
        uow.workloads.add(inventory.make_workload(image_id=new_id()))
    assert caught.value.code == "reference_broken"


@pytest.mark.parametrize(
    ("repository", "name", "users"),
    [
        ("projects", "acme", "2 workloads (web1, web2)"),
        ("hosts", "host1", "2 workloads (web1, web2)"),
        ("clusters", "default", "1 host (host1)"),
        ("images", "debian", "2 workloads (web1, web2)"),
    ],
)
def test_what_is_used_stays(
    units: SqlUnitOfWorkFactory, inventory: Inventory, repository: str, name: str, users: str
) -> None:
    with units() as uow:
        for workload in ("web1", "web2"):
            uow.workloads.add(inventory.make_workload(workload))
        uow.commit()
    with units() as uow:
        entity = getattr(uow, repository).find(name)
        with pytest.raises(Conflict) as caught:
            getattr(uow, repository).remove(entity)
    assert caught.value.code == "in_use"
    assert f"{name}: it is still used by" in caught.value.message
    assert users in caught.value.message


def test_what_belongs_to_a_row_goes_with_it(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    workload = inventory.make_workload()
    nic = inventory.make_nic(workload)
    volume = inventory.make_volume(workload_id=workload.id)
    with units() as uow:
        uow.workloads.add(workload)
        uow.nics.add(nic)
        uow.addresses.add(inventory.make_address("10.40.0.7", nic_id=nic.id))
        uow.volumes.add(volume)
        uow.commit()
    with units() as uow:
        found = uow.workloads.get(workload.id)
        assert found is not None
        uow.workloads.remove(found)
        uow.commit()
    with units(read_only=True) as uow:
        assert uow.nics.get(nic.id) is None
        assert uow.addresses.taken(inventory.network.id) == frozenset()
        left = uow.volumes.get(volume.id)
        assert left is not None
        assert left.workload_id is None


def test_a_read_only_unit_cannot_write(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    with units(read_only=True) as uow, pytest.raises(Exception, match=r"read-?only"):
        uow.volumes.add(inventory.make_volume())
