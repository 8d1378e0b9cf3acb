"""Overlay networks span hosts: what changes on one, the others hear of.

A host with a workload on an overlay is told where every other member is (``services.desired``).
``announce`` lets these hosts ask again; whoever adds, removes, moves or renames a member calls it.

The hosts are told in a unit of their own, after the change is durable. It locks host rows in the
order of their ids and nothing else before, so that changes of one network on many hosts never wait
for each other in a circle. A process that dies in between loses a hint: each host asks for its
networks every few seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import partial

import structlog

from virtmgr.domain.errors import NoPlacement, VirtmgrError
from virtmgr.domain.host import Fingerprint, Host, Tunnel
from virtmgr.domain.network import Network, NetworkType
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services.container import Services

_log = structlog.get_logger()


def announce(
    services: Services, uow: UnitOfWork, network_ids: Iterable[str], *, told: Collection[str] = ()
) -> None:
    """Once ``uow`` is committed, let every host on those of the networks that are overlays sync.

    :param told: hosts that hear of the change in another way.
    """
    overlays = uow.networks.overlays(set(network_ids))
    if overlays:
        uow.after_commit(partial(_tell, services, overlays, frozenset(told)))


def _tell(services: Services, network_ids: Collection[str], told: frozenset[str]) -> None:
    try:
        with services.units() as uow:
            host_ids = uow.hosts.next_revisions(network_ids, besides=told)
            uow.commit()
    except VirtmgrError as error:
        _log.warning("overlays.not_announced", error=error.message)  # what it is about, is done
        return
    for host_id in host_ids:
        services.wake_host(host_id)


def with_usable_tunnel(uow: UnitOfWork, host: Host, fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint without a tunnel that no other host's could reach: one of the other IP
    version. One host that is set up differently must not break networks of all others."""
    address = fingerprint.tunnel.address
    if not address or address == host.tunnel_address:  # that was looked at before
        return fingerprint
    others = [other for id, other in uow.hosts.tunnels().items() if id != host.id]
    if not others or any((":" in other) == (":" in address) for other in others):
        return fingerprint
    reason = f"tunnels of other hosts, such as {others[0]}, cannot reach {address}"
    return fingerprint.model_copy(update={"tunnel": Tunnel(reason=reason)})


def needed_mtu(networks: Iterable[Network]) -> int:
    """What a host's tunnel must carry for NICs on all of these; 0: they need none."""
    return max((each.mtu for each in networks if each.type is NetworkType.OVERLAY), default=0)


def carried_mtu(host: Host) -> int:
    """The largest packet of an overlay that the host's tunnel carries; 0: it has none."""
    tunnel = host.facts.get("tunnel", {})
    return int(tunnel.get("mtu", 0)) if tunnel.get("address") else 0


def no_tunnel_reason(host: Host) -> str:
    """Why the host has no tunnel, for people."""
    return str(host.facts.get("tunnel", {}).get("reason", ""))


def check_host(host: Host, networks: Iterable[Network], what: str) -> None:
    """Refuse NICs on overlays that the host cannot take part in.

    :param what: is being done, for the error.
    :raises NoPlacement: it has no tunnel, or one for smaller packets.
    """
    needed, carried = needed_mtu(networks), carried_mtu(host)
    if needed <= carried:
        return
    why = (
        f"its tunnel carries packets of {carried} bytes, {needed} are asked"
        if carried
        else f"it has no tunnel address ({no_tunnel_reason(host)})"
    )
    raise NoPlacement(
        f"{what}: host {host.name!r} cannot take part in overlay networks: {why}",
        code="no_tunnel",
        hint="see --tunnel-address in docs/host-enrolment.md, or use another network",
    )
