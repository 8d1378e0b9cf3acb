"""Who places first finds the hosts known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from tests.bootstrap.raw import eventually
from tests.store.inventory import Inventory
from virtmgr.domain.host import HostState
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import looking_ahead, placement
from virtmgr.services.known_hosts import KnownHosts
from virtmgr.services.looking_ahead import look, look_ahead
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


@pytest.fixture
def names(units: SqlUnitOfWorkFactory, inventory: Inventory) -> set[str]:
    """Of all hosts."""
    hosts = [inventory.make_host(name=f"host-{number}") for number in range(7)]
    with units() as uow:
        for host in hosts:
            uow.hosts.add(host)
        uow.commit()
    return {inventory.host.name, *(host.name for host in hosts)}


def test_all_hosts_are_known_however_many_are_read_at_once(
    units: SqlUnitOfWorkFactory, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownHosts()
    monkeypatch.setattr(looking_ahead, "_AT_ONCE", 3)
    assert look(units, known) == len(names)
    assert {host.name for host in known.seen.fleet.hosts} == names
    with units(read_only=True) as uow:
        assert known.seen.marks == uow.hosts.marks()
    seen = known.seen
    assert look(units, known) == 0
    assert known.seen is seen


def test_only_what_has_changed_is_read_again(
    units: SqlUnitOfWorkFactory, inventory: Inventory, names: set[str]
) -> None:
    known = KnownHosts()
    look(units, known)
    with units() as uow:
        host = uow.hosts.lock(inventory.host.id)
        assert host is not None
        host.scheduling_state = host.state = HostState.CORDONED
        uow.commit()
    assert look(units, known) == 1
    view = known.seen.fleet.host(inventory.host.id)
    assert view is not None
    assert view.state is HostState.CORDONED
    assert len(known.seen.fleet) == len(names)


def test_what_changes_meanwhile_is_read_by_whoever_places(
    units: SqlUnitOfWorkFactory, inventory: Inventory
) -> None:
    """What was read before is not taken for what is."""
    known = KnownHosts()

    @contextmanager
    def changing(*, read_only: bool = False) -> Iterator[UnitOfWork]:
        with units(read_only=read_only) as uow:
            yield uow
        with units() as uow:
            host = uow.hosts.lock(inventory.host.id)
            assert host is not None
            host.labels = {"changed": str(host.version)}
            uow.commit()

    look(changing, known)  # type: ignore[arg-type]
    with units(read_only=True) as uow:
        host = uow.hosts.get(inventory.host.id)
        assert host is not None
        view = placement._hosts_now(uow, known, alone=False).host(host.id)
    assert view == placement.host_view(host)


def test_it_looks_until_it_is_stopped_whatever_happens(
    units: SqlUnitOfWorkFactory, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking_ahead, "_EVERY", 0.01)
    known, times = KnownHosts(), 0

    @contextmanager
    def failing_once(*, read_only: bool = False) -> Iterator[UnitOfWork]:
        nonlocal times
        times += 1
        if times == 1:
            raise OSError("the database is away")
        with units(read_only=read_only) as uow:
            yield uow

    stop = Event()
    thread = Thread(target=look_ahead, args=(failing_once, known, stop))
    thread.start()
    try:
        eventually(lambda: len(known.seen.fleet) == len(names))
    finally:
        stop.set()
        thread.join()
