"""Failover: highly available workloads of lost hosts are started again on other hosts.

The control plane that leads looks every second (``look``). What may be restarted is decided by
``domain/failover.py``. A restart is one transaction over all hosts' rows: it looks again whether
the lost host is still silent, claims room on the new one, and gives it the workload. So however
many control planes try, and wherever one is stopped, there is one restart; and a host whose sync
comes first keeps its workloads. All that is known is in the database: any leader goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from virtmgr.domain.errors import VirtmgrError
from virtmgr.domain.failover import (
    LEAVING,
    Failover,
    FailoverPhase,
    LostHost,
    Policy,
    Protected,
    Release,
    Verdict,
    judge,
)
from virtmgr.domain.host import Host
from virtmgr.domain.host_states import SILENT
from virtmgr.domain.ids import new_id
from virtmgr.domain.leases import Seen
from virtmgr.domain.migration import Phase
from virtmgr.domain.scheduling import Decision, PlacementRequest
from virtmgr.domain.volume import Volume
from virtmgr.domain.workload import PowerState, Workload, WorkloadSpec, WorkloadStatus
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import fencing, overlays, placement
from virtmgr.services.container import Services
from virtmgr.services.migration_steps import give_up
from virtmgr.services.pinned import pinned
from virtmgr.services.records import add_event, workload_target
from virtmgr.services.references import placement_request, resolve

NO_ROOM: Final = "no_room"
_PASSING: Final = ("lease",)
"""What a workload waits for that passes by itself within seconds: no event tells of it."""
_FENCING_HELPS: Final = ("lease", "not_self_fencing", "not_known_to_host")
_LOOK_FOR_ROOM: Final = timedelta(seconds=10)  # between looks whether there is room now

_log = structlog.get_logger(__name__)


def look(services: Services, seen: Mapping[str, Seen]) -> int:
    """Restart what may be restarted; how many workloads were.

    :param seen: by host, for how long its present lease has been looked at.
    """
    with services.units(read_only=True) as uow:
        lost = [host.id for host in uow.hosts.lost() if _has_news(services, uow, host, seen)]
    restarted = 0
    for host_id in lost:
        try:
            restarted += _fail_over(services, host_id, seen)
        except placement.Overtaken:
            continue  # looked at again in a second
        except VirtmgrError as error:
            _log.warning("failover.failed", host=host_id, error=error.message)
    if lost:
        services.committed.notify()
    return restarted


def _has_news(services: Services, uow: UnitOfWork, host: Host, seen: Mapping[str, Seen]) -> bool:
    """Whether anything is to be written. Nothing is locked for a host that is just away."""
    known = {one.workload_id: one for one in uow.failovers.waiting_on(host.id)}
    verdicts = _judged(uow, host, seen)
    if set(known) - {verdict.workload.id for verdict in verdicts}:
        return True
    tried = services.clock.now() - _LOOK_FOR_ROOM
    for verdict in verdicts:
        row = known.get(verdict.workload.id)
        if verdict.release is not None:
            if row is None or row.release is None or row.updated_at <= tried:
                return True
        elif row is not None and verdict.code in _FENCING_HELPS[1:] and row.updated_at <= tried:
            return True  # a fence device may answer now
        elif (row is None) != verdict.ended or (row is not None and row.code != verdict.code):
            return True
    return False


def _fail_over(services: Services, host_id: str, seen: Mapping[str, Seen]) -> int:
    """One lost host, in one transaction; how many of its workloads are another's now."""
    now = services.clock.now()
    with services.units() as uow:
        # All of them, in the order of their ids: then nobody else claims, and nobody waits for us.
        hosts = {host.id: host for host in uow.hosts.all(locked=True)}
        host = hosts.get(host_id)
        if host is None or host.state not in SILENT:
            return 0  # it spoke, or was removed
        verdicts = _judged(uow, host, seen)
        placed = _place(uow, host, [one for one in verdicts if one.release is not None])
        workloads = {one.workload.id: uow.workloads.lock(one.workload.id) for one in verdicts}
        left = _lock_volumes(uow, [id for id, one in placed.items() if isinstance(one, Decision)])
        for verdict in verdicts:
            workload = workloads[verdict.workload.id]
            if workload is None or workload.host_id != host.id:
                continue
            if verdict.code == LEAVING:
                _end_migration(services, uow, workload, verdict, now)
            outcome = placed.get(workload.id)
            if isinstance(outcome, Decision):
                volumes = left.get(workload.id, ())
                if volumes and not host.without_volumes:
                    raise placement.Overtaken(host.id)  # one was attached meanwhile
                _restart(services, uow, host, workload, verdict, outcome, volumes, now)
            else:
                _wait(uow, host, workload, outcome or verdict, now)
        if any(one.code in _FENCING_HELPS for one in verdicts):
            fencing.begin_for_lost(uow, host, now)
        _end_others(uow, host, {one.workload.id for one in verdicts}, now)
        uow.commit()
    return sum(isinstance(outcome, Decision) for outcome in placed.values())


def _judged(uow: UnitOfWork, host: Host, seen: Mapping[str, Seen]) -> list[Verdict]:
    workloads = uow.workloads.ha_on(host.id)
    if not workloads:
        return []
    watched = seen.get(host.id)
    # A lease that is not the one that was looked at has just been renewed.
    is_same = watched is not None and watched.lease.renewal == host.renewals
    lost = LostHost(
        id=host.id,
        name=host.name,
        unrenewed=watched.age if watched is not None and is_same else 0.0,
        lease=host.lease_seconds,
        self_fencing=bool(host.facts.get("self_fencing")),
        known_off=Release(host.known_off) if host.known_off is not None else None,
        without_volumes=host.without_volumes,
    )
    return judge(lost, _policy(uow, host), [_protected(uow, one) for one in workloads])


def _policy(uow: UnitOfWork, host: Host) -> Policy:
    cluster = uow.clusters.get(host.cluster_id)
    if cluster is None:
        raise AssertionError(f"host {host.name} is in no cluster")
    silent, hosts = uow.hosts.silent_shares().get(cluster.id, (0, 0))
    return Policy(
        failover=cluster.failover,
        limit=cluster.failover_limit,
        margin=cluster.ha_margin,
        hosts=hosts,
        silent=silent,
    )


def _protected(uow: UnitOfWork, workload: Workload) -> Protected:
    volumes = uow.volumes.of_workload(workload.id) if workload.spec.volumes else ()
    move = uow.migrations.open_of(workload.id)
    return Protected(
        id=workload.id,
        name=workload.name,
        host_id=workload.host_id or "",
        priority=workload.spec.ha.priority,
        created_at=workload.created_at,
        wanted=workload.spec.state,
        deleting=workload.deleting,
        known_to_host=workload.is_known_to_host,
        local_volumes=tuple(volume.name for volume in volumes),
        moving=move is not None,
        leaving=move is not None and move.phase is Phase.MIGRATING,
        being_cloned=workload.clone_of is not None,
        pinned=workload.spec.placement.host is not None,
    )


def _end_migration(
    services: Services, uow: UnitOfWork, workload: Workload, verdict: Verdict, now: datetime
) -> None:
    """Its source cannot say any more how it ended. The target may have the guest, even running:
    only once it has removed it, or is lost itself, is the workload restarted anywhere."""
    move = uow.migrations.open_of(workload.id)
    if move is None or uow.migrations.lock(move.id) is None:
        return
    problem = {
        "code": "source_lost",
        "detail": verdict.message,
        "hint": "it is restarted once its new host has removed what it has",
    }
    give_up(services, uow, move, workload, now, problem)


def _place(uow: UnitOfWork, host: Host, free: Sequence[Verdict]) -> dict[str, Decision | Verdict]:
    """Claim room for those that are free to be restarted, in their order.

    For each the decision; or the verdict that it waits, and what for.
    """
    found: dict[str, Decision | Verdict] = {}
    requests: list[PlacementRequest] = []
    by_id = {verdict.workload.id: verdict for verdict in free}
    for verdict in free:
        try:
            requests.append(_request(uow, verdict.workload.id))
        except VirtmgrError as error:
            found[verdict.workload.id] = replace(verdict, code=error.code, message=error.message)
    decisions = placement.decide(uow, requests, alone=True, moving_from=host.id) if requests else ()
    taken = []
    for request, decision in zip(requests, decisions, strict=True):
        if decision.host_id is None:
            message = f"{by_id[request.id].message}, but {decision.explanation.summary}"
            found[request.id] = replace(by_id[request.id], code=NO_ROOM, message=message)
        else:
            found[request.id] = decision
            taken.append((request, decision))
    placement.commit(uow, [one for one, _ in taken], [one for _, one in taken])
    return found


def _lock_volumes(uow: UnitOfWork, workload_ids: Sequence[str]) -> dict[str, list[Volume]]:
    """The volumes that stay on the lost host, locked after all workloads, by workload."""
    attached = [volume for id in workload_ids for volume in uow.volumes.of_workload(id)]
    found: dict[str, list[Volume]] = {}
    for id in sorted(volume.id for volume in attached):
        volume = uow.volumes.lock(id)
        if volume is not None and volume.workload_id is not None:
            found.setdefault(volume.workload_id, []).append(volume)
    return found


def _request(uow: UnitOfWork, workload_id: str) -> PlacementRequest:
    """Where it may go: without its volumes, if it has any, or it would not be asked.

    :raises VirtmgrError: what it needs is not there any more.
    """
    workload = uow.workloads.get(workload_id)
    if workload is None:
        raise AssertionError(f"workload {workload_id} was locked with its host")
    nics = uow.nics.of_workloads([workload.id]).get(workload.id, ())
    spec = _without_volumes(workload.spec)
    references = resolve(uow, workload.project_id, pinned(workload, spec, nics))
    left = uow.failovers.open_of(workload.id)
    return replace(
        placement_request(workload.project_id, workload.id, references),
        vcpus=workload.claim_vcpus,
        memory=workload.claim_memory,
        disk=workload.claim_disk,
        from_reserve=True,
        avoid=frozenset(one.lost_host_id for one in left if one.lost_host_id is not None),
    )


def _restart(
    services: Services,
    uow: UnitOfWork,
    lost: Host,
    workload: Workload,
    verdict: Verdict,
    decision: Decision,
    volumes: Sequence[Volume],
    now: datetime,
) -> None:
    """From here on the workload is its new host's, and the lost one is to remove what it has, but
    for its volumes: they are detached."""
    target = uow.hosts.get(decision.host_id or "")
    if target is None:
        raise AssertionError("the host was claimed in this transaction")
    row = _row(uow, lost, workload, now)
    row.phase, row.target_host_id, row.release = FailoverPhase.RESTARTED, target.id, verdict.release
    row.code, row.message, row.updated_at = verdict.code, verdict.message, now
    row.claim_vcpus, row.claim_memory = workload.claim_vcpus, workload.claim_memory
    row.claim_disk = workload.claim_disk
    for volume in volumes:
        volume.workload_id = None
    workload.spec = _without_volumes(workload.spec)
    workload.host_id = target.id
    workload.placement = decision.explanation.to_json()
    workload.generation += 1
    workload.updated_at = now
    workload.revision = uow.hosts.next_revision(target.id)
    workload.status = WorkloadStatus()
    uow.hosts.next_revision(lost.id)
    uow.after_commit(partial(services.wake_host, target.id))
    nics = uow.nics.of_workloads([workload.id]).get(workload.id, ())
    overlays.announce(services, uow, [nic.network_id for nic in nics], told=(lost.id, target.id))
    names = [volume.name for volume in volumes]
    without = f", without its volumes ({', '.join(names)})" if names else ""
    data = {"failover": row.id, "from": lost.name, "to": target.name, "release": row.release}
    add_event(
        uow,
        "workload.failed_over",
        workload_target(workload),
        now=now,
        message=f"from host {lost.name} to host {target.name}{without}: {verdict.message}",
        data={**data, "without_volumes": names} if names else data,
    )


def _without_volumes(spec: WorkloadSpec) -> WorkloadSpec:
    return spec.model_copy(update={"volumes": ()}) if spec.volumes else spec


def _wait(uow: UnitOfWork, host: Host, workload: Workload, verdict: Verdict, now: datetime) -> None:
    """Note what a workload waits for, and tell of it once."""
    if verdict.ended:
        return
    row = _row(uow, host, workload, now)
    is_news = row.code != verdict.code
    row.release, row.code, row.message = verdict.release, verdict.code, verdict.message
    row.updated_at = now
    if is_news and verdict.code not in _PASSING:
        add_event(
            uow,
            "workload.failover_waits",
            workload_target(workload),
            now=now,
            message=verdict.message,
            data={"failover": row.id, "code": verdict.code},
        )


def _row(uow: UnitOfWork, host: Host, workload: Workload, now: datetime) -> Failover:
    """The failover of a workload that waits; a new one if there is none."""
    for row in uow.failovers.waiting_on(host.id):
        if row.workload_id == workload.id:
            return row
    row = Failover(
        id=new_id(),
        workload_id=workload.id,
        workload_name=workload.name,
        project_id=workload.project_id,
        lost_host_id=host.id,
        created_at=now,
        updated_at=now,
    )
    uow.failovers.add(row)
    return row


def _end_others(uow: UnitOfWork, host: Host, workload_ids: set[str], now: datetime) -> None:
    """Those that wait in vain: what they are about is gone, or is to rest."""
    ended = {one.id: one for one in uow.failovers.waiting_on(host.id)}
    for row in ended.values():
        workload = uow.workloads.get(row.workload_id)
        if row.workload_id in workload_ids and workload is not None and not _rests(workload):
            continue
        row.phase, row.updated_at, row.finished_at = FailoverPhase.ENDED, now, now
        row.code, row.message = "not_wanted", "there is nothing to restart any more"


def _rests(workload: Workload) -> bool:
    return workload.deleting or workload.spec.state is PowerState.STOPPED
