"""Taking in what an agent says of its host; the caller has locked it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from virtmgr.domain.host import Fingerprint, Host, HostState, Pool
from virtmgr.domain.host_states import COMING, SILENT, spoke
from virtmgr.domain.ids import new_id
from virtmgr.domain.leases import USUAL
from virtmgr.domain.machine import MAY_REPLACE, Machine, check_machine, is_news
from virtmgr.domain.readiness import missing
from virtmgr.domain.sync import ObservedFileSystem, ObservedPool, SyncRequest
from virtmgr.domain.workload import State
from virtmgr.ports.unit_of_work import Duties, UnitOfWork
from virtmgr.services import failover_end, overlays
from virtmgr.services.records import add_event, host_target
from virtmgr.services.workload_reports import note_transition


def note_host(
    uow: UnitOfWork, host: Host, request: SyncRequest, duties: Duties, now: datetime
) -> bool:
    """Take in that the host spoke, and grant it a lease; whether it had been silent."""
    host.lease_seconds = _granted(uow, host, duties, now)
    host.renewals += 1
    host.last_seen_at = now
    host.lease_expires_at = now + timedelta(seconds=host.lease_seconds)
    if request.trusted_authorities and request.trusted_authorities != _trusted(host):
        host.trusted_authorities = list(request.trusted_authorities)
    if request.fingerprint is not None:
        _check_machine(uow, host, request.fingerprint)
        if host.facts.get("boot_id") not in (None, request.fingerprint.boot_id):
            _note_reboot(uow, host, now)
        _note_fingerprint(host, overlays.with_usable_tunnel(uow, host, request.fingerprint))
    was = host.state
    host.state = spoke(host)
    host.known_off, host.without_volumes = None, False
    if was in SILENT:
        failover_end.recovered(uow, host, now)
    if was in COMING or was in SILENT:
        type = "host.enrolled" if was in COMING else "host.recovered"
        add_event(uow, type, host_target(host), now=now, message=f"it was {was.value}")
    if was is not host.state and HostState.PROBING in (was, host.state):
        lacking = "; ".join(one.message for one in missing(host.facts))
        type = "host.probing" if lacking else "host.ready"
        add_event(uow, type, host_target(host), now=now, message=lacking)
    return was in SILENT


def _granted(uow: UnitOfWork, host: Host, duties: Duties, now: datetime) -> float:
    """Seconds for which a host may go without a sync. A short lease costs more syncs, so only those
    have it that a workload is to be restarted from.

    A lease is not shortened under what the host runs already: the answer that says so may be lost,
    and the host goes on with the one of before. What the host does not know yet comes to it with
    the short one (``virtmgr.agent.guard.Guard.granted``).
    """
    cluster = uow.clusters.get(host.cluster_id) if duties.ha else None
    seconds = USUAL.total_seconds() if cluster is None else cluster.ha_lease
    if cluster is None or seconds >= host.lease_seconds or host.lease_expires_at is None:
        return seconds
    known = any(one.is_known_to_host for one in uow.workloads.ha_on(host.id))
    left = (host.lease_expires_at - now).total_seconds()
    return max(seconds, left) if known else seconds


def _trusted(host: Host) -> tuple[str, ...]:
    return tuple(host.trusted_authorities or ())


def _check_machine(uow: UnitOfWork, host: Host, fingerprint: Fingerprint) -> None:
    """A key that was copied to another machine is worth nothing there."""
    machine = Machine(fingerprint.machine_id, fingerprint.hostname)
    if is_news(host, machine):
        check_machine(host, machine, uow.hosts.on_machine(machine.id))


def _note_reboot(uow: UnitOfWork, host: Host, now: datetime) -> None:
    """What ran before does not run any more; what does now, the agent is about to say."""
    add_event(uow, "host.rebooted", host_target(host), now=now)
    forget_states(uow, host, now)


def forget_states(uow: UnitOfWork, host: Host, now: datetime) -> None:
    """Nobody knows how the host's workloads are."""
    for workload in uow.workloads.on_host(host.id):
        if workload.status.state is not State.UNKNOWN:
            before = workload.status
            workload.status = before.model_copy(update={"state": State.UNKNOWN})
            note_transition(uow, workload, before, workload.status, now)


def _note_fingerprint(host: Host, fingerprint: Fingerprint) -> None:
    host.architecture = fingerprint.architecture
    host.tunnel_address = fingerprint.tunnel.address or None
    host.machine_id = fingerprint.machine_id or None
    if (host.capacity_vcpus, host.capacity_memory, host.capacity_disk) != (
        fingerprint.vcpus,
        fingerprint.memory,
        fingerprint.disk,
    ):
        host.capacity_vcpus = fingerprint.vcpus
        host.capacity_memory = fingerprint.memory
        host.capacity_disk = fingerprint.disk
    kept = {key: host.facts[key] for key in (MAY_REPLACE,) if key in host.facts}
    host.facts = {**fingerprint.model_dump(mode="json"), **kept}


def note_file_systems(host: Host, observed: Iterable[ObservedFileSystem] | None) -> None:
    """Take in how full the host's own are; None: as before."""
    if observed is None:
        return
    host.file_systems = [one.model_dump() for one in observed]
    host.fullness = max((one.used / one.capacity for one in observed if one.capacity), default=0.0)


def note_pools(
    uow: UnitOfWork, host: Host, observed: Iterable[ObservedPool], now: datetime
) -> None:
    pools = [
        Pool(
            id=new_id(),
            host_id=host.id,
            name=pool.name,
            path=pool.path,
            capacity=pool.capacity,
            used=pool.used,
            created_at=now,
        )
        for pool in observed
    ]
    uow.pools.note(pools)
