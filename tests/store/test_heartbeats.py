"""Leases of many hosts are renewed by one statement; who has locked a host holds nobody up."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.store.inventory import Inventory
from virtmgr.domain.host import HostState
from virtmgr.ports.unit_of_work import Heartbeat
from virtmgr.store.unit_of_work import SqlUnitOfWorkFactory


def _hosts(units: SqlUnitOfWorkFactory, inventory: Inventory, **fields: object) -> list[str]:
    with units() as uow:
        hosts = [
            inventory.make_host(
                name=f"h{number}",
                cluster_id=inventory.host.cluster_id,
                certificate_serial=f"s{number}",
                scheduling_state=HostState.READY,
                state=HostState.READY,
                revision=number,
            )
            for number in range(5)
        ]
        for name, value in fields.items():
            setattr(hosts[0], name, value)
        for host in hosts:
            uow.hosts.add(host)
        uow.commit()
        return [host.id for host in hosts]


def test_many_at_once(units: SqlUnitOfWorkFactory, inventory: Inventory) -> None:
    ids = _hosts(units, inventory)
    beats = [Heartbeat(id, f"s{number}") for number, id in enumerate(ids)]
    with units() as uow:
        now = uow.leaderships.now()
        assert uow.hosts.renew_all(beats, now) == {id: n for n, id in enumerate(ids)}
        uow.commit()
    with units(read_only=True) as uow:
        for id in ids:
            host = uow.hosts.get(id)
            assert host is not None
            assert (host.renewals, host.last_seen_at) == (1, now)
            assert host.lease_expires_at == now + timedelta(seconds=30)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("state", HostState.UNREACHABLE),
        ("scheduling_state", HostState.CORDONED),
        ("lease_seconds", 9.0),
        ("certificate_serial", "another"),
        ("previous_certificate_serial", "s0"),
    ],
)
def test_there_is_more_to_it(
    units: SqlUnitOfWorkFactory, inventory: Inventory, field: str, value: object
) -> None:
    ids = _hosts(units, inventory, **{field: value})
    beats = [Heartbeat(id, f"s{number}") for number, id in enumerate(ids[:2])]
    with units() as uow:
        renewed = uow.hosts.renew_all([*beats, Heartbeat("no id", "s3")], uow.leaderships.now())
        assert list(renewed) == ids[1:2]
