"""Which host has which image: what hosts say, what placing makes of it, and what may go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.inventory import Inventory
from virtmgr.domain.host import HostState
from virtmgr.domain.ids import new_id
from virtmgr.domain.image import Image
from virtmgr.domain.scheduling import PlacementRequest
from virtmgr.domain.sync import SyncRequest, SyncResponse
from virtmgr.domain.workload import Kind
from virtmgr.images.blobs import BlobStore
from virtmgr.services import placement
from virtmgr.services.container import Services
from virtmgr.services.sync import sync
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


@pytest.fixture
def services(units: SqlUnitOfWorkFactory, tmp_path: Path) -> Services:
    return Services(units=units, blobs=BlobStore(tmp_path / "images"))


def say(services: Services, host_id: str, *images: Image | str) -> SyncResponse:
    ids = tuple(image if isinstance(image, str) else image.id for image in images)
    return sync(services, host_id, SyncRequest(images=ids))


def at_hand(services: Services, host_id: str) -> list[str]:
    with services.units(read_only=True) as uow:
        return [image.name for image in uow.images.on_host(host_id)]


def test_a_host_says_what_it_has(services: Services, inventory: Inventory) -> None:
    host, image = inventory.host, inventory.image
    other = inventory.make_image(name="alpine")
    with services.units() as uow:
        uow.images.add(other)
        uow.commit()
    for _ in range(2):
        say(services, host.id, image, other, "no id at all")
        assert at_hand(services, host.id) == ["alpine", "debian"]
    sync(services, host.id, SyncRequest())  # nothing new
    assert at_hand(services, host.id) == ["alpine", "debian"]
    say(services, host.id, other)
    assert at_hand(services, host.id) == ["alpine"]
    with services.units(read_only=True) as uow:
        assert [each.name for each in uow.hosts.with_image(other.id)] == ["host1"]
        assert uow.hosts.with_image(image.id) == []
    say(services, host.id)
    assert at_hand(services, host.id) == []


def test_it_hears_of_an_image_that_is_gone_until_it_says_so(
    services: Services, inventory: Inventory
) -> None:
    host, image = inventory.host, inventory.image
    assert say(services, host.id, image).removed_images == ()
    with services.units() as uow:
        found = uow.images.get(image.id)
        assert found is not None
        uow.images.remove(found)
        uow.commit()
    for _ in range(2):
        assert sync(services, host.id, SyncRequest()).removed_images == (image.id,)
    assert say(services, host.id).removed_images == ()


def test_reports_are_no_change_of_the_host(services: Services, inventory: Inventory) -> None:
    """A placement commits only against the version of the host that it read."""
    before = inventory.host.version
    say(services, inventory.host.id, inventory.image)
    with services.units(read_only=True) as uow:
        host = uow.hosts.get(inventory.host.id)
        assert host is not None
        assert host.version == before


def test_a_removed_host_takes_its_rows_along(services: Services, inventory: Inventory) -> None:
    say(services, inventory.host.id, inventory.image)
    with services.units() as uow:
        host = uow.hosts.get(inventory.host.id)
        assert host is not None
        uow.hosts.remove(host)
        uow.commit()
        assert uow.hosts.images_at_hand([inventory.image.id]) == {}


def test_placing_prefers_the_host_that_has_the_image(
    services: Services, inventory: Inventory
) -> None:
    hosts = [inventory.make_host(name=f"more{number}") for number in range(3)]
    with services.units() as uow:
        for host in hosts:
            uow.hosts.add(host)
        for host in (*hosts, inventory.host):
            found = uow.hosts.get(host.id)
            assert found is not None
            found.facts = {
                "drivers": [
                    {"name": "oci", "healthy": True, "kinds": ["container"], "inits": ["app"]}
                ]
            }
        uow.commit()
    for host in (*hosts, inventory.host):
        say(services, host.id, *([inventory.image] if host is hosts[1] else []))
    request = PlacementRequest(
        id=new_id(),
        name="w",
        project_id=inventory.project.id,
        cluster_id=inventory.cluster.id,
        kind=Kind.CONTAINER,
        init="app",
        vcpus=1,
        memory=1024**2,
        disk=1024**2,
        image_id=inventory.image.id,
    )
    with services.units(read_only=True) as uow:
        (decision,) = placement.decide(uow, [request])
        assert decision.host_id == hosts[1].id
        assert all(host.state is HostState.READY for host in uow.hosts.all())


def test_images_that_no_workload_of_their_host_needs(
    services: Services, inventory: Inventory
) -> None:
    host, image = inventory.host, inventory.image
    cdrom, left = inventory.make_image(name="cdrom"), inventory.make_image(name="left")
    empty = inventory.make_host(name="empty")
    with services.units() as uow:
        uow.images.add(cdrom)
        uow.images.add(left)
        uow.hosts.add(empty)
        uow.workloads.add(inventory.make_workload(cdrom_image_id=cdrom.id))
        uow.commit()
    say(services, host.id, image, cdrom, left)
    say(services, empty.id, image)
    with services.units() as uow:
        assert set(uow.hosts.unneeded_images()) == {(host.id, left.id), (empty.id, image.id)}
        assert uow.hosts.unneeded_images(host.id) == [(host.id, left.id)]
        uow.hosts.ask_to_prune([host.id])
        uow.commit()
    assert sync(services, host.id, SyncRequest()).prune_nonce == 1
    assert sync(services, host.id, SyncRequest()).revision == inventory.host.revision + 1
    assert sync(services, empty.id, SyncRequest()).prune_nonce == 0
