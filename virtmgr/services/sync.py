"""The control plane's half of sync: what an agent observed goes in, what is desired goes out.

One transaction per sync. It may be repeated at any time with the same effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from virtmgr.domain.errors import Forbidden, InvalidRequest
from virtmgr.domain.failover import Failover
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.leases import USUAL
from virtmgr.domain.migration import Migration
from virtmgr.domain.sync import (
    PROTOCOL,
    DesiredWorkload,
    SyncRequest,
    SyncResponse,
)
from virtmgr.domain.sync_order import take
from virtmgr.domain.volume import VolumeState
from virtmgr.domain.workload import Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import authorities, failover_end, host_removal, overlays
from virtmgr.services.container import Services
from virtmgr.services.desired import desired_networks, desired_of_host, leftover_volumes
from virtmgr.services.enrolment import admit
from virtmgr.services.host_reports import note_file_systems, note_host, note_pools
from virtmgr.services.usage_history import note_usage_history
from virtmgr.services.workload_reports import Reports, note_usage, note_volume, note_workload


def sync(
    services: Services, host_id: str, request: SyncRequest, *, serial: str | None = None
) -> SyncResponse:
    """Take in what the host's agent observed and answer what it should run.

    :param serial: of the certificate that the agent came with; None where that was checked before.
    :raises InvalidRequest: the agent speaks another protocol.
    :raises Conflict: a sync that the agent sent later was taken in already.
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
        duties = uow.hosts.duties(host.id)  # before anything of the host changes, and is written
        take(host, request.order)
        if host.state is HostState.REMOVING:
            return _clear_up(services, uow, host, request, now)
        tunnel = host.tunnel_address
        was_silent = note_host(uow, host, request, duties, now)
        note_file_systems(host, request.file_systems)  # written with what note_host notes
        moves = uow.migrations.open_on(host.id) if duties.moves else ()
        by_workload = {one.workload_id: one for one in moves}
        if host.tunnel_address != tunnel:
            overlays.announce(services, uow, [each.id for each in uow.networks.of_host(host.id)])
        # The host is locked: only its migrations change in this unit which workloads it has.
        reports = Reports.read(uow, host, request.workloads, all=request.full and not moves)
        for observed in request.workloads:
            move = by_workload.get(observed.id)
            finished += note_workload(services, uow, host, observed, move, reports, now)
        note_usage(uow, host, request.usage)
        for volume in request.volumes:
            finished += note_volume(uow, host, volume, moves, now)
        note_pools(uow, host, request.pools, now)
        note_usage_history(uow, host, request.usage_history, now)
        has_new_images = request.images is not None and uow.hosts.note_images(
            host.id, request.images
        )
        if duties.leftovers and request.full:
            failover_end.absent(uow, host, {one.id for one in request.workloads}, now)
        uow.flush()
        on_their_way = [one for one in moves if one.finished_at is None]
        report_all = was_silent and not request.full
        if was_silent:  # what was to be removed there may be forgotten here
            request = request.model_copy(update={"full": True})
        leftovers = uow.failovers.left_on(host.id) if duties.leftovers else ()
        images = duties.images or has_new_images
        own = reports.own_left()
        further = _Further(on_their_way, leftovers, duties.volumes, images, own)
        response = _answer(uow, host, request, further, now, report_all=report_all)
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


def _renew(
    services: Services, host_id: str, request: SyncRequest, serial: str | None, now: datetime
) -> SyncResponse | None:
    """Renew the lease of a host of which nothing else is to be said; None: look at all of it.

    Most syncs of hosts with highly available workloads are such, so they cost two statements. What
    a host is granted changes with what it has, and that with its revision.
    """
    if not request.only_renews:
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
        lease_seconds=USUAL.total_seconds(),
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


@dataclass(frozen=True)
class _Further:
    """What there is to tell of a host besides what it should run; most have none of it.

    ``volumes``: some are to be removed. ``images``: some at hand may not be in the inventory.
    ``own``: all its workloads, where they were read.
    """

    moves: Sequence[Migration]
    leftovers: Sequence[Failover]
    volumes: bool
    images: bool
    own: Sequence[Workload] | None


def _answer(
    uow: UnitOfWork,
    host: Host,
    request: SyncRequest,
    further: _Further,
    now: datetime,
    *,
    report_all: bool,
) -> SyncResponse:
    moves, leftovers = further.moves, further.leftovers
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
    gone = _volumes_to_remove(uow, host) if further.volumes else []
    gone += leftover_volumes(moves, host.id)
    networks = uow.networks.of_host(host.id)
    wishes: list[DesiredWorkload] = []
    if full or not is_current:  # nothing has a later revision than its host
        after = -1 if full else request.known_revision
        own = further.own if full else None
        if own is None:
            own = uow.workloads.on_host(host.id, after_revision=after)
        wishes += desired_of_host(uow, host.id, own, after, moves, networks)
    wishes += failover_end.left_behind(uow, leftovers)
    images = uow.hosts.unknown_images(host.id) if further.images else ()
    response = SyncResponse(
        revision=host.revision,
        full=full,
        workloads=tuple(wishes),
        networks=tuple(desired_networks(uow, host.id, networks)),
        removed_volumes=tuple(gone),
        removed_images=tuple(images),
        prune_nonce=host.prune_nonce,
        report_all=report_all,
        lease_seconds=host.lease_seconds,
        server_time=now,
    )
    wanted = {move.id for move in moves if move.target_host_id == host.id}
    unwanted = tuple(id for id in request.arrivals if id not in wanted)
    # Only those that have arrivals know the field.
    return response.model_copy(update={"removed_arrivals": unwanted}) if unwanted else response


def _volumes_to_remove(uow: UnitOfWork, host: Host) -> list[str]:
    there = uow.volumes.on_host(host.id)
    return [volume.id for volume in there if volume.state is VolumeState.DELETING]
