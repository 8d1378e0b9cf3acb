"""Taking hosts out of the inventory: what is on them, what is on its way, and the host itself.

A host that answers is ``removing`` first: it is told that it has nothing any more, and clears up.
It is gone once it has said so, or after ``GRACE``. One that does not answer is gone at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from virtmgr.domain.errors import Conflict
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.host_states import COMING, SILENT
from virtmgr.domain.migration import AT_SOURCE, Migration, Phase
from virtmgr.domain.operation import OperationState
from virtmgr.domain.workload import State, Workload
from virtmgr.ports.unit_of_work import UnitOfWork
from virtmgr.services import failover_end, migration_steps, overlays
from virtmgr.services.container import Services
from virtmgr.services.context import Context
from virtmgr.services.forgetting import forget_volume, forget_workload
from virtmgr.services.hosts import find, lock
from virtmgr.services.in_use import refuse_in_use
from virtmgr.services.operation_end import end
from virtmgr.services.records import add_event, host_target, workload_target

GRACE: Final = timedelta(seconds=60)
"""What a host that is asked to clear up has for it."""

_NOT_YET_GOING: Final = AT_SOURCE - {Phase.MIGRATING}  # of that the source says how it ended


def remove(
    context: Context, reference: str, *, force: bool = False, take_back: bool = False
) -> Host:
    """Remove a host that has no workloads and no volumes. What is under way on it is cancelled.

    :param force: forget what is on it as well, and do not wait for it. Whether it runs on there,
        nobody knows: the agent, if it is alive, is refused from now on and changes nothing.
    :param take_back: with ``force``: what the host was taking up from others goes on there, with
        the disks as they were. What it may have written to its own is lost.
    :raises Conflict: it has some; they are named. Or workloads are on their way from or to it.
    """
    host = _lock(context, reference)
    _end_migrations(context, host, force=force, take_back=take_back)
    context.uow.flush()
    workloads = context.uow.workloads.on_host(host.id)
    volumes = context.uow.volumes.on_host(host.id)
    if not force:
        refuse_in_use(
            f"host {host.name!r}",
            workload=[workload.name for workload in workloads],
            volume=[volume.name for volume in volumes],
        )
    failover_end.host_forgotten(context.uow, host, context.now)
    _cancel_open(context, host.id, "the host was removed")  # such as its installation
    if not force and _answers(host):
        return _ask_to_clear_up(context, host)
    lost = {
        "workloads": [workload.name for workload in workloads],
        "volumes": [volume.name for volume in volumes],
    }
    for workload in workloads:
        message = f"it was forgotten with its host {host.name}"
        _cancel_open(context, workload.id, message)
        context.record("workload.lost", workload, message, host_id=host.id)
        forget_workload(context.services, context.uow, workload)
    for volume in volumes:
        context.record(
            "volume.lost", volume, f"it was forgotten with its host {host.name}", host_id=host.id
        )
        forget_volume(context.uow, volume)
    message = f"host {host.name} was removed"
    if workloads or volumes:
        message += f", and with it {len(workloads)} workloads and {len(volumes)} volumes"
    context.record(
        "host.deleted", host, message, host_id=host.id, data=lost if workloads or volumes else None
    )
    context.uow.hosts.remove(host)
    context.uow.flush()
    return host


def _lock(context: Context, reference: str) -> Host:
    """The host, with those that its migrations are from or to."""
    found = find(context, reference)
    moves = context.uow.migrations.ids_on(found.id)
    context.lock_hosts(found.id, *context.uow.migrations.hosts_of(moves))
    return lock(context, reference)


def _answers(host: Host) -> bool:
    return host.state not in COMING and host.state not in SILENT


def _ask_to_clear_up(context: Context, host: Host) -> Host:
    if host.state is HostState.REMOVING:
        return host
    host.state = HostState.REMOVING
    host.join_token_hash = host.join_token_expires_at = None
    host.lease_expires_at = context.now + GRACE
    context.uow.hosts.next_revision(host.id)
    context.uow.after_commit(partial(context.services.wake_host, host.id))
    message = f"host {host.name} clears up, and is removed then"
    context.record("host.removing", host, message, host_id=host.id)
    context.uow.flush()
    return host


def forget(uow: UnitOfWork, host: Host, now: datetime, why: str) -> None:
    """Drop the row of a locked host that is being removed; its certificate is worth nothing now."""
    message = f"host {host.name} was removed: {why}"
    add_event(uow, "host.deleted", host_target(host), now=now, message=message)
    uow.hosts.remove(host)


def forget_silent(services: Services) -> int:
    """Drop hosts that were asked to clear up and have not said that they did; how many."""
    now = services.clock.now()
    found = 0
    with services.units(read_only=True) as uow:
        late = [host.id for host in uow.hosts.removing() if _is_late(host, now)]
    if not late:
        return 0
    with services.units() as uow:
        for host in uow.hosts.lock_all_of(late):
            if _is_late(host, now):
                forget(uow, host, now, "it did not say that it has cleared up")
                found += 1
        if found:
            uow.after_commit(services.committed.notify)
            uow.commit()
    return found


def _is_late(host: Host, now: datetime) -> bool:
    ended = host.lease_expires_at is not None and host.lease_expires_at < now
    return host.state is HostState.REMOVING and ended


def _cancel_open(context: Context, target_id: str, message: str) -> None:
    """End what is under way on something that is forgotten."""
    for operation in context.uow.operations.open_for(target_id):
        end(operation, OperationState.CANCELLED, context.now, message)


def _end_migrations(context: Context, host: Host, *, force: bool, take_back: bool) -> None:
    """What a host still had to remove goes with it; by force, so does what is on its way to it.

    :raises Conflict: workloads are on their way from or to it.
    """
    arriving: list[tuple[Migration, Workload]] = []
    on_their_way: list[str] = []
    for migration in context.uow.migrations.open_on(host.id):
        workload = context.uow.workloads.lock(migration.workload_id)
        mine = migration.source_host_id == host.id
        if migration.phase is Phase.RETREATING:  # what the target still has goes by a full answer
            migration_steps.retreated(context.uow, migration, context.now)
        elif workload is None or (migration.phase is Phase.CLEANING and mine):
            migration.phase, migration.finished_at = Phase.DONE, context.now
        elif force and mine and migration.phase is Phase.MIGRATING and host.state in SILENT:
            _give_up(context, migration, workload, host)  # how it ends, nobody says any more
        elif force and migration.phase in _NOT_YET_GOING and not mine:
            _give_up(context, migration, workload, host)
        elif force and migration.phase is Phase.STARTING:
            # Of a source that goes nothing is needed any more.
            if not mine and migration.source_host_id is not None:
                arriving.append((migration, workload))
        else:
            on_their_way.append(workload.name)
    _refuse_on_their_way(host, on_their_way)
    if arriving and not take_back:
        raise _to_confirm(host, [workload.name for _, workload in arriving])
    for migration, workload in arriving:
        _take_back(context, migration, workload, host)


def _refuse_on_their_way(host: Host, names: Sequence[str]) -> None:
    if names:
        raise Conflict(
            f"host {host.name!r} is not removed: workloads are on their way from or to it "
            f"({', '.join(names[:5])})",
            code="in_use",
            hint="wait for them, or cancel that: see 'virtmgr migration list'",
            detail={"used_by": {"migration": list(names)}},
        )


def _to_confirm(host: Host, names: Sequence[str]) -> Conflict:
    return Conflict(
        f"host {host.name!r} is not removed: it was taking up {len(names)} workloads "
        f"({', '.join(names[:5])}), and may have written to their disks",
        code="taking_up",
        hint="if the host is dead for good: --force --take-back lets them go on on the host that "
        "they came from, with their disks as they were when they left",
        detail={"workloads": list(names)},
    )


def _problem(host: Host) -> dict[str, Any]:
    return {
        "code": "target_removed",
        "detail": f"its new host {host.name} was removed",
        "hint": "move it to another one",
    }


def _give_up(context: Context, migration: Migration, workload: Workload, host: Host) -> None:
    """Its worker finds at its next step that there is nothing to do any more."""
    now, problem = context.now, _problem(host)
    if migration.source_host_id == host.id:
        problem |= {"code": "source_removed", "detail": f"its host {host.name} was removed"}
    migration_steps.give_up(context.services, context.uow, migration, workload, now, problem)
    migration_steps.retreated(context.uow, migration, now)


def _take_back(context: Context, migration: Migration, workload: Workload, host: Host) -> None:
    """The workload is its source's again, which has its disks as they were, and the claim."""
    uow, source = context.uow, migration.source_host_id
    assert source is not None  # else there is nowhere to take it back to
    pools = uow.pools.of_host(source)
    for volume in uow.volumes.of_workload(workload.id):
        volume.host_id = source
        volume.pool_id = pools[0].id if pools else None
    workload.host_id, workload.updated_at = source, context.now
    workload.generation += 1
    workload.status = workload.status.model_copy(update={"state": State.UNKNOWN, "reason": None})
    uow.flush()
    migration_steps.news_for_source(context.services, uow, migration, workload)
    migration_steps.end_taken_back(uow, migration, context.now, _problem(host))
    nics = uow.nics.of_workloads([workload.id]).get(workload.id, ())
    overlays.announce(context.services, uow, [nic.network_id for nic in nics], told=(source,))
    add_event(
        uow,
        "workload.taken_back",
        workload_target(workload),
        now=context.now,
        operation_id=migration.operation_id,
        message=f"it goes on with its disks as they were before host {host.name} had it",
        data={"migration": migration.id},
    )
