"""Simulated hosts in the inventory: many at once, with certificates, marked as what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from virtmgr.domain.errors import NotFound
from virtmgr.domain.host import Host
from virtmgr.domain.ids import new_id
from virtmgr.ports.certificates import Authority, Certificate
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.container import Services
from virtmgr.services.records import add_event, host_target

LABEL: Final = "simulated"
"""The label of simulated hosts; its value is ``true``."""

_AT_ONCE = 250  # hosts in one transaction
_RACK, _ZONE = 20, 200  # hosts in each


@dataclass(frozen=True)
class Newcomer:
    """A simulated host that is to be; ``number`` gives it its rack and zone."""

    number: int
    name: str
    machine_id: str
    signing_request: bytes


def enrol(
    services: Services, authority: Authority, cluster: str, newcomers: Sequence[Newcomer]
) -> Iterator[tuple[Host, Certificate]]:
    """Put simulated hosts into the inventory as if each had joined with a token of its own.

    They come in their order, some hundred in each transaction; what was given is committed.

    :param cluster: by name or id.
    :raises NotFound: there is no such cluster.
    :raises NameTaken: one of the names is another host's.
    """
    for first in range(0, len(newcomers), _AT_ONCE):
        now = services.clock.now()
        with services.units() as uow:
            cluster_id = _cluster(uow, cluster)
            some = [
                _enrol(uow, authority, cluster_id, one, now)
                for one in newcomers[first : first + _AT_ONCE]
            ]
            uow.commit()
        services.committed.notify()
        yield from some


def _cluster(uow: UnitOfWork, reference: str) -> str:
    found = uow.clusters.find(reference)
    if found is None:
        raise NotFound(
            f"enrol simulated hosts in cluster {reference!r}: it does not exist",
            hint="see 'virtmgr cluster list'",
        )
    return found.id


def _enrol(
    uow: UnitOfWork, authority: Authority, cluster_id: str, newcomer: Newcomer, now: datetime
) -> tuple[Host, Certificate]:
    host_id = new_id()
    issued = authority.issue_host(newcomer.signing_request, host_id, (newcomer.name,))
    host = Host(
        id=host_id,
        name=newcomer.name,
        cluster_id=cluster_id,
        labels={
            LABEL: "true",
            "rack": f"rack-{newcomer.number // _RACK}",
            "zone": f"zone-{newcomer.number // _ZONE}",
        },
        facts={"machine_id": newcomer.machine_id, "hostname": newcomer.name},
        machine_id=newcomer.machine_id,
        certificate_serial=issued.serial,
        certificate_expires_at=issued.expires_at,
        certificate_issuer=issued.issuer,
        created_at=now,
    )
    uow.hosts.add(host)
    add_event(uow, "host.joined", host_target(host), now=now, message="it is simulated")
    return host, issued
