"""The control plane's half of sync: what an agent observed goes in, what is desired goes out.

One transaction per sync. It may be repeated at any time with the same effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from virtmgr.domain.errors import Forbidden, InvalidRequest
from virtmgr.domain.failover import Failover
from virtmgr.domain.host import Fingerprint, Host, HostState, Pool
from virtmgr.domain.host_states import COMING, SILENT, may_fall_silent, spoke
from virtmgr.domain.ids import new_id
from virtmgr.domain.leases import Seen
from virtmgr.domain.machine import MAY_REPLACE, Machine, check_machine, is_news
from virtmgr.domain.migration import Migration, MigrationMode
from virtmgr.domain.operation import Operation, OperationState
from virtmgr.domain.outcome import outcome
from virtmgr.domain.readiness import missing
from virtmgr.domain.sync import (
    PROTOCOL,
    ObservedPool,
    ObservedVolume,
    ObservedWorkload,
    SyncRequest,
    SyncResponse,
)
from virtmgr.domain.volume import VolumeState
from virtmgr.domain.workload import State, Usage, Workload, WorkloadStatus
from virtmgr.ports.unit_of_work import Duties, UnitOfWork
from virtmgr.services import authorities, failover_end, host_removal, overlays
from virtmgr.services.container import Services
from virtmgr.services.desired import desired_networks, desired_of_host, leftover_volumes
from virtmgr.services.enrolment import admit
from virtmgr.services.forgetting import forget_volume, forget_workload
from virtmgr.services.live_steps import note, note_own
from virtmgr.services.migration_steps import removed, removed_at_target, retreated, taken_up
from virtmgr.services.operation_end import end
from virtmgr.services.records import Target, add_event, host_target, workload_target

LEASE = timedelta(seconds=30)
"""Of hosts without highly available workloads; the others have their cluster's ``ha_lease``."""
MOVE = "move"
"""The verb of operations that end with their migration, not with a report of their workload."""


def sync(
    services: Services, host_id: str, request: SyncRequest, *, serial: str | None = None
) -> SyncResponse:
    """Take in what the host's agent observed and answer what it should run.

    :param serial: of the certificate that the agent came with; None where that was checked before.
    :raises InvalidRequest: the agent speaks another protocol.
    :raises Forbidden: the host is not in the inventory any more, or is another machine.
    :raises Unauthenticated: the certificate is not the host's (any more).
    """
    _check_protocol(request)
    now = services.clock.now()
    renewed = _renew(services, host_id, request, serial, now)
    if renewed is not None:
        return renewed
    finished: list[str] = []
    with services.units() as uow:
        host = _admitted(uow, host_id, request, serial)
        if host.state is HostState.REMOVING:
            return _clear_up(services, uow, host, request, now)
        tunnel = host.tunnel_address
        duties = uow.hosts.duties(host.id)
        was_silent = _note_host(uow, host, request, duties, now)
        moves = uow.migrations.open_on(host.id)
        by_workload = {one.workload_id: one for one in moves}
        if host.tunnel_address != tunnel:
            overlays.announce(services, uow, [each.id for each in uow.networks.of_host(host.id)])
        for observed in request.workloads:
            move = by_workload.get(observed.id)
            finished += _note_workload(services, uow, host, observed, move, now)
        for workload_id, usage in request.usage.items():
            _note_usage(uow, host, workload_id, usage)
        for volume in request.volumes:
            finished += _note_volume(uow, host, volume, moves, now)
        _note_pools(uow, host, request.pools, now)
        if request.images is not None:
            uow.hosts.note_images(host.id, request.images)
        if duties.leftovers and request.full:
            failover_end.absent(uow, host, {one.id for one in request.workloads}, now)
        uow.flush()
        on_their_way = [one for one in moves if one.finished_at is None]
        report_all = was_silent and not request.full
        if was_silent:  # what was to be removed there may be forgotten here
            request = request.model_copy(update={"full": True})
        leftovers = uow.failovers.left_on(host.id) if duties.leftovers else ()
        response = _answer(uow, host, request, on_their_way, leftovers, now, report_all=report_all)
        trusted = host.trusted_authorities
        uow.commit()
    if pem := authorities.news_for(services, trusted):
        response = response.model_copy(update={"authorities": pem})
    if request.workloads or request.volumes:
        services.committed.notify()
        services.done.note(finished)
    return response


def _check_protocol(request: SyncRequest) -> None:
    if request.protocol != PROTOCOL:
        raise InvalidRequest(
            f"the agent speaks sync protocol {request.protocol}, this control plane {PROTOCOL}",
            code="protocol_mismatch",
            hint="upgrade the older of the two",
        )


def _is_renewal(request: SyncRequest) -> bool:
    """Whether all that it wants is the lease renewed."""
    said = request.model_dump(exclude_defaults=True, exclude={"brief", "known_revision"})
    return request.brief and not said


def _renew(
    services: Services, host_id: str, request: SyncRequest, serial: str | None, now: datetime
) -> SyncResponse | None:
    """Renew the lease of a host of which nothing else is to be said; None: look at all of it.

    Most syncs of hosts with highly available workloads are such, so they cost two statements. What
    a host is granted changes with what it has, and that with its revision.
    """
    if not _is_renewal(request):
        return None
    with services.units() as uow:
        renewal = uow.hosts.renew(host_id, request.known_revision, serial, now)
        if renewal is None:
            return None
        uow.commit()
    return SyncResponse(
        revision=request.known_revision,
        full=False,
        networks=None,
        prune_nonce=renewal.prune_nonce,
        lease_seconds=renewal.lease_seconds,
        server_time=now,
    )


def _clear_up(
    services: Services, uow: UnitOfWork, host: Host, request: SyncRequest, now: datetime
) -> SyncResponse:
    """A host that is being removed is told that it has nothing; once it has, it is forgotten."""
    host.last_seen_at = now
    if request.images is not None:
        uow.hosts.note_images(host.id, request.images)
    images = tuple(image.id for image in uow.images.on_host(host.id))
    images += tuple(uow.hosts.unknown_images(host.id))
    response = SyncResponse(
        revision=host.revision,
        full=True,
        removed_images=images,
        prune_nonce=host.prune_nonce + 1,
        lease_seconds=LEASE.total_seconds(),
        server_time=now,
    )
    if request.known_revision >= host.revision and not images:
        host_removal.forget(uow, host, now, "it has cleared up")
        uow.after_commit(services.committed.notify)
    uow.commit()
    return response


def _admitted(uow: UnitOfWork, host_id: str, request: SyncRequest, serial: str | None) -> Host:
    """The host, locked, and with it the others of the migrations that it tells of: they hear of it.

    :raises Forbidden: it is not in the inventory any more.
    :raises Unauthenticated: the certificate is not the host's (any more).
    """
    moves = {one.arrived for one in request.workloads if one.arrived}
    moves |= {one.move.id for one in request.workloads if one.move is not None}
    others = uow.migrations.hosts_of(sorted(moves)) if moves else frozenset()
    locked = uow.hosts.lock_all_of({host_id, *others})
    host = next((host for host in locked if host.id == host_id), None)
    if serial is not None:
        admit(host, serial)
    if host is None:
        raise Forbidden(
            "this host is not in the inventory any more",
            code="host_removed",
            hint="enrol it again with a new join token",
        )
    return host


def _answer(
    uow: UnitOfWork,
    host: Host,
    request: SyncRequest,
    moves: Sequence[Migration],
    leftovers: Sequence[Failover],
    now: datetime,
    *,
    report_all: bool,
) -> SyncResponse:
    is_current = request.known_revision == host.revision and not leftovers
    if request.brief and not request.full and is_current:
        return SyncResponse(
            revision=host.revision,
            full=False,
            networks=None,
            prune_nonce=host.prune_nonce,
            report_all=report_all,
            lease_seconds=host.lease_seconds,
            server_time=now,
        )
    full = request.full or request.known_revision > host.revision or bool(leftovers)
    after = -1 if full else request.known_revision
    gone = [
        volume.id for volume in uow.volumes.on_host(host.id) if volume.state is VolumeState.DELETING
    ]
    gone += leftover_volumes(moves, host.id)
    wishes = desired_of_host(uow, host.id, after, moves)
    wishes += failover_end.left_behind(uow, leftovers)
    response = SyncResponse(
        revision=host.revision,
        full=full,
        workloads=tuple(wishes),
        networks=tuple(desired_networks(uow, host.id)),
        removed_volumes=tuple(gone),
        removed_images=tuple(uow.hosts.unknown_images(host.id)),
        prune_nonce=host.prune_nonce,
        report_all=report_all,
        lease_seconds=host.lease_seconds,
        server_time=now,
    )
    wanted = {move.id for move in moves if move.target_host_id == host.id}
    unwanted = tuple(id for id in request.arrivals if id not in wanted)
    # Only those that have arrivals know the field.
    return response.model_copy(update={"removed_arrivals": unwanted}) if unwanted else response


def _note_host(
    uow: UnitOfWork, host: Host, request: SyncRequest, duties: Duties, now: datetime
) -> bool:
    """Take in that the host spoke, and grant it a lease; whether it had been silent."""
    host.lease_seconds = _granted(uow, host, duties)
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
    host.known_off = None
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


def _granted(uow: UnitOfWork, host: Host, duties: Duties) -> float:
    """Seconds for which a host may go without a sync. A short lease costs more syncs, so only those
    have it that a workload is to be restarted from."""
    cluster = uow.clusters.get(host.cluster_id) if duties.ha else None
    return LEASE.total_seconds() if cluster is None else cluster.ha_lease


def _trusted(host: Host) -> tuple[str, ...]:
    return tuple(host.trusted_authorities or ())


def _check_machine(uow: UnitOfWork, host: Host, fingerprint: Fingerprint) -> None:
    """A key that was copied to another machine is worth nothing there."""
    machine = Machine(fingerprint.machine_id, fingerprint.hostname)
    if is_news(host, machine):
        check_machine(host, machine, uow.hosts.all())


def _note_reboot(uow: UnitOfWork, host: Host, now: datetime) -> None:
    """What ran before does not run any more; what does now, the agent is about to say."""
    add_event(uow, "host.rebooted", host_target(host), now=now)
    _forget_states(uow, host, now)


def _forget_states(uow: UnitOfWork, host: Host, now: datetime) -> None:
    """Nobody knows how the host's workloads are."""
    for workload in uow.workloads.on_host(host.id):
        if workload.status.state is not State.UNKNOWN:
            before = workload.status
            workload.status = before.model_copy(update={"state": State.UNKNOWN})
            _note_transition(uow, workload, before, workload.status, now)


def _note_fingerprint(host: Host, fingerprint: Fingerprint) -> None:
    host.architecture = fingerprint.architecture
    host.tunnel_address = fingerprint.tunnel.address or None
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


def _note_workload(
    services: Services,
    uow: UnitOfWork,
    host: Host,
    observed: ObservedWorkload,
    move: Migration | None,
    now: datetime,
) -> list[str]:
    """Take in one workload; ids of the operations that have come to their end by it.

    :param move: from this host or to it, if it is on its way.
    """
    workload = uow.workloads.get(observed.id)
    if observed.gone and (workload is None or workload.host_id != host.id):
        failover_end.removed(uow, host, observed.id, now)
    if workload is None:
        return []  # the agent learns from the next full answer that it must not be here
    if workload.host_id != host.id:
        return _note_others(services, uow, host, observed, move, workload, now)
    before = workload.status
    if observed.gone:
        return _finish_delete(services, uow, workload, now) if workload.deleting else []
    workload.status = _kept_usage(before, observed.status)
    workload.observed_generation = observed.observed_generation
    if observed.cloned and workload.clone_of is not None:
        workload.clone_of = None
        for volume in uow.volumes.of_workload(workload.id):
            volume.copy_of = None
    if before.state is not observed.status.state:
        _note_transition(uow, workload, before, observed.status, now)
    finished = _advance_operations(uow, workload, now, gone=False)
    if move is not None and move.mode is MigrationMode.LIVE:
        finished += note_own(services, uow, host.id, move, workload, observed.move, now)
    elif move is not None and observed.arrived == move.id:
        finished += taken_up(services, uow, move, workload, now)
    return finished


def _note_others(
    services: Services,
    uow: UnitOfWork,
    host: Host,
    observed: ObservedWorkload,
    move: Migration | None,
    workload: Workload,
    now: datetime,
) -> list[str]:
    """Take in what a host says of a workload that is another's: it has left it, or comes to it."""
    if move is None:
        return []
    if observed.gone and move.source_host_id == host.id:
        return removed(uow, move, observed.id, now)
    if move.target_host_id != host.id:
        return []
    if observed.gone:
        return removed_at_target(uow, move, observed.id, now)
    if observed.move is None:
        return []
    return note(services, uow, host.id, move, workload, observed.move, now)


def _note_usage(uow: UnitOfWork, host: Host, workload_id: str, usage: Usage) -> None:
    workload = uow.workloads.get(workload_id)
    if workload is not None and workload.host_id == host.id:
        usage = usage.since(workload.status.usage)
        workload.status = workload.status.model_copy(update={"usage": usage})


def _kept_usage(before: WorkloadStatus, after: WorkloadStatus) -> WorkloadStatus:
    if after.usage is None and after.state is before.state and before.usage is not None:
        return after.model_copy(update={"usage": before.usage})
    return after


def _note_transition(
    uow: UnitOfWork,
    workload: Workload,
    before: WorkloadStatus,
    after: WorkloadStatus,
    now: datetime,
) -> None:
    data: dict[str, Any] = {"from": before.state.value, "to": after.state.value}
    if after.exit_code is not None:
        data["exit_code"] = after.exit_code
    message = after.reason.message if after.reason else ""
    add_event(
        uow,
        f"workload.{after.state.value}",
        workload_target(workload),
        now=now,
        message=message,
        data=data,
    )


def _advance_operations(
    uow: UnitOfWork, workload: Workload, now: datetime, *, gone: bool
) -> list[str]:
    """Bring its operations forward; ids of those that are finished by it."""
    known = [one for one in uow.operations.open_for(workload.id) if one.verb != MOVE]
    for operation in known:
        _advance_operation(uow, operation, workload, now, gone=gone)
    return [operation.id for operation in known if operation.finished_at is not None]


def _advance_operation(
    uow: UnitOfWork, operation: Operation, workload: Workload, now: datetime, *, gone: bool
) -> None:
    result = outcome(
        operation,
        workload.status,
        observed_generation=workload.observed_generation,
        gone=gone,
    )
    if (operation.state, operation.message) == (result.state, result.message):
        return
    operation.state = result.state
    operation.progress = result.progress
    operation.message = result.message
    operation.updated_at = now
    problem = None
    if result.reason is not None:
        problem = {
            "code": result.reason.code,
            "detail": result.reason.message,
            "hint": result.reason.hint,
        }
        operation.error = problem
    if result.state not in (OperationState.PENDING, OperationState.RUNNING):
        end(operation, result.state, now, result.message, problem=problem)
        add_event(
            uow,
            f"operation.{result.state.value}",
            workload_target(workload),
            now=now,
            user_id=operation.user_id,
            operation_id=operation.id,
            message=f"{operation.verb}: {result.message}".rstrip(": "),
        )


def _finish_delete(
    services: Services, uow: UnitOfWork, workload: Workload, now: datetime
) -> list[str]:
    """Nothing is left on the host: give back claim, quota and addresses, and drop the row.

    Ids of the operations that are finished by it.
    """
    finished = _advance_operations(uow, workload, now, gone=True)
    add_event(uow, "workload.deleted", workload_target(workload), now=now)
    forget_workload(services, uow, workload)
    return finished


def _note_volume(
    uow: UnitOfWork,
    host: Host,
    observed: ObservedVolume,
    moves: Sequence[Migration],
    now: datetime,
) -> list[str]:
    """Take in one volume; ids of the operations that are finished by it."""
    volume = uow.volumes.get(observed.id)
    if observed.gone and (volume is None or volume.host_id != host.id):
        return _note_left_volume(uow, observed.id, moves, now)
    if volume is None or volume.host_id != host.id:
        return []
    target = Target("volume", volume.id, volume.name, volume.project_id, host.id)
    if observed.gone:
        if volume.state is not VolumeState.DELETING:
            return []
        finished = list(uow.operations.open_for(volume.id))
        for operation in finished:
            end(operation, OperationState.SUCCEEDED, now)
        add_event(uow, "volume.deleted", target, now=now)
        forget_volume(uow, volume)
        return [operation.id for operation in finished]
    if volume.state is VolumeState.PENDING and observed.ready:
        volume.state = VolumeState.READY
    return []


def _note_left_volume(
    uow: UnitOfWork, volume_id: str, moves: Sequence[Migration], now: datetime
) -> list[str]:
    """A volume that went to another host with its workload is removed here."""
    left = [one for one in moves if volume_id in one.leftovers]
    steps = (removed, removed_at_target)
    return [id for move in left for step in steps for id in step(uow, move, volume_id, now)]


def _note_pools(
    uow: UnitOfWork, host: Host, observed: Iterable[ObservedPool], now: datetime
) -> None:
    known = {pool.name: pool for pool in uow.pools.of_host(host.id)} if observed else {}
    for pool in observed:
        present = known.get(pool.name)
        if present is None:
            uow.pools.add(
                Pool(
                    id=new_id(),
                    host_id=host.id,
                    name=pool.name,
                    path=pool.path,
                    capacity=pool.capacity,
                    used=pool.used,
                    created_at=now,
                )
            )
        else:
            present.path, present.capacity, present.used = pool.path, pool.capacity, pool.used


def mark_unreachable(services: Services, seen: Mapping[str, Seen]) -> int:
    """Hosts whose lease ran out become unreachable and their workloads unknown; how many did.

    :param seen: by host, for how long its present lease has been looked at.
    """
    silent = [id for id, one in sorted(seen.items()) if one.age > one.lease.seconds]
    with services.units(read_only=True) as uow:
        silent = [id for id in silent if _has_fallen_silent(uow.hosts.get(id), seen[id])]
    if not silent:
        return 0
    now = services.clock.now()
    found = 0
    with services.units() as uow:
        for host in uow.hosts.lock_all_of(silent):
            if not _has_fallen_silent(host, seen[host.id]):
                continue  # it spoke, or was removed, since it was looked at
            host.state = HostState.UNREACHABLE
            found += 1
            add_event(
                uow,
                "host.unreachable",
                host_target(host),
                now=now,
                message=f"no sync since {host.last_seen_at:%Y-%m-%d %H:%M:%S} UTC",
            )
            _forget_states(uow, host, now)
            for move in uow.migrations.open_on(host.id):
                if move.target_host_id == host.id:
                    retreated(uow, move, now)  # it removes what is left once it is back
        if found:
            uow.commit()
    if found:
        services.committed.notify()
    return found


def _has_fallen_silent(host: Host | None, seen: Seen) -> bool:
    """Whether it has not renewed the lease that was looked at, and nobody has noticed yet."""
    if host is None or host.renewals != seen.lease.renewal:
        return False
    return may_fall_silent(host.state)
