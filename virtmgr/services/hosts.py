"""Hosts: their enrolment, and whether they take new workloads."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from pydantic import Field

from virtmgr.domain.errors import Conflict, NotFound
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.host_states import SCHEDULING, HostVerb, after
from virtmgr.domain.ids import new_id
from virtmgr.domain.machine import MAY_REPLACE
from virtmgr.domain.migration import Phase
from virtmgr.domain.operation import OperationState
from virtmgr.domain.values import Labels, Name, Reference, Value
from virtmgr.domain.workload import PowerState, State, Workload
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services import clusters
from virtmgr.services.auth import new_secret
from virtmgr.services.context import Context
from virtmgr.services.forgetting import forget_volume, forget_workload
from virtmgr.services.in_use import refuse_in_use

JOIN_TOKEN_LIFETIME: Final = timedelta(hours=1)


class HostFields(Value):
    """What can be set of a host."""

    name: Name = Field(description="Unique. A DNS label.")
    labels: Labels = Field(
        default_factory=dict,
        description="Key and value pairs to select by; 'zone' and 'rack' are failure domains.",
    )


class HostCreate(HostFields):
    """A host to enrol."""

    cluster: Reference = Field("default", description="Its cluster, by name or id.")


def list_(context: Context, query: ListQuery) -> Page[Host]:
    """All hosts."""
    return context.uow.hosts.list(query)


def find(context: Context, reference: str, field: str | None = None) -> Host:
    """The host with this id or name.

    :raises NotFound: there is none.
    """
    host = context.uow.hosts.find(reference)
    if host is None:
        raise NotFound(f"host {reference!r} does not exist", field=field)
    return host


def lock(context: Context, reference: str) -> Host:
    """The same, to be changed."""
    found = context.uow.hosts.find(reference)
    return context.for_change(context.uow.hosts, found, f"host {reference!r}")


def create(context: Context, fields: HostCreate) -> tuple[Host, str, datetime]:
    """A host to enrol, its one-time join token, and when that expires. Only its hash is kept.

    :raises NameTaken: another host has the name.
    :raises NotFound: there is no such cluster.
    """
    secret, secret_hash = new_secret("vmj_")
    expires_at = context.now + JOIN_TOKEN_LIFETIME
    host = Host(
        id=new_id(),
        name=fields.name,
        cluster_id=clusters.find(context, fields.cluster, "cluster").id,
        labels=dict(fields.labels),
        join_token_hash=secret_hash,
        join_token_expires_at=expires_at,
        created_at=context.now,
    )
    context.uow.hosts.add(host)
    context.record("host.created", host, f"host {host.name} may join", host_id=host.id)
    return host, secret, expires_at


def enrol_again(
    context: Context, reference: str, *, another_machine: bool = False
) -> tuple[Host, str, datetime]:
    """A join token for a host that is enrolled and has lost its key: it stays the same host, with
    its workloads. Its present certificate is good until the token is used. Twice: the last counts.

    :param another_machine: which the token is for may be another than the host was.
    :raises NotFound: there is no such host.
    """
    host = lock(context, reference)
    secret, host.join_token_hash = new_secret("vmj_")
    host.join_token_expires_at = expires_at = context.now + JOIN_TOKEN_LIFETIME
    kept = {name: value for name, value in host.facts.items() if name != MAY_REPLACE}
    host.facts = {**kept, MAY_REPLACE: True} if another_machine else kept
    message = f"host {host.name} may join again, with a new key"
    if another_machine:
        message += ", as another machine"
    context.record("host.enrol_again", host, message, host_id=host.id)
    context.uow.flush()
    return host, secret, expires_at


def update(context: Context, host: Host, fields: HostFields) -> Host:
    """Set the fields of a locked host."""
    host.name, host.labels = fields.name, dict(fields.labels)
    context.record("host.updated", host, f"host {host.name} was changed", host_id=host.id)
    context.uow.flush()
    return host


def cordon(context: Context, reference: str) -> Host:
    """Let a host take nothing new; what it runs, it keeps. Twice is once.

    :raises IllegalTransition: it does not take anything anyway.
    """
    return _make(context, reference, HostVerb.CORDON, "host.cordoned", "was cordoned")


def uncordon(context: Context, reference: str) -> Host:
    """Let a host take new workloads again, also one in maintenance. Twice is once.

    :raises IllegalTransition: it is not there yet, or is being drained.
    """
    return _make(context, reference, HostVerb.UNCORDON, "host.uncordoned", "was uncordoned")


def maintain(context: Context, reference: str) -> Host:
    """Put a host on which nothing runs into maintenance. Twice is once.

    Workloads that rest on it may stay: they are not started while it is in maintenance.

    :raises IllegalTransition: it does not answer, or is being drained.
    :raises Conflict: workloads run on it, or are to; they are named.
    """
    host = lock(context, reference)
    if after(HostVerb.MAINTENANCE, host) is not host.scheduling_state:
        running = [one.name for one in context.uow.workloads.on_host(host.id) if not rests(one)]
        if running:
            shown = ", ".join(running[:5]) + (", …" if len(running) > 5 else "")
            raise Conflict(
                f"cannot put host {host.name!r} into maintenance: {len(running)} workloads run "
                f"there ({shown})",
                code="host_not_empty",
                hint=f"move them away with 'virtmgr host drain {host.name}', or stop them",
                detail={"workloads": running},
            )
    return _make(context, reference, HostVerb.MAINTENANCE, "host.maintenance", "is in maintenance")


def rests(workload: Workload) -> bool:
    """Whether a workload neither runs nor is to."""
    return workload.spec.state is PowerState.STOPPED and workload.status.state is State.STOPPED


def set_scheduling(host: Host, state: HostState) -> None:
    """Make ``state`` of a locked host; a silent one comes back as that."""
    host.scheduling_state = state
    if host.state in SCHEDULING:
        host.state = state


def _make(context: Context, reference: str, verb: HostVerb, event: str, told: str) -> Host:
    host = lock(context, reference)
    wanted = after(verb, host)
    if wanted is not host.scheduling_state:
        set_scheduling(host, wanted)
        context.record(event, host, f"host {host.name} {told}", host_id=host.id)
        context.uow.flush()
    return host


def delete(context: Context, reference: str, *, force: bool = False) -> Host:
    """Forget a host that has no workloads and no volumes; its certificate is worth nothing then.
    What is under way on it is cancelled.

    :param force: forget what is on it as well. Whether it runs on there, nobody knows: the agent,
        if it is alive, is refused from now on and changes nothing.
    :raises Conflict: it has some; they are named. Or workloads are on their way from or to it.
    """
    host = lock(context, reference)
    workloads = context.uow.workloads.on_host(host.id)
    volumes = context.uow.volumes.on_host(host.id)
    if not force:
        refuse_in_use(
            f"host {host.name!r}",
            workload=[workload.name for workload in workloads],
            volume=[volume.name for volume in volumes],
        )
    _end_migrations(context, host)
    _cancel_open(context, host.id, "the host was deleted")  # such as its installation
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
    message = f"host {host.name} was deleted"
    if workloads or volumes:
        message += f", and with it {len(workloads)} workloads and {len(volumes)} volumes"
    context.record(
        "host.deleted", host, message, host_id=host.id, data=lost if workloads or volumes else None
    )
    context.uow.hosts.remove(host)
    context.uow.flush()
    return host


def _cancel_open(context: Context, target_id: str, message: str) -> None:
    """End what is under way on something that is forgotten."""
    for operation in context.uow.operations.open_for(target_id):
        operation.state, operation.message = OperationState.CANCELLED, message
        operation.finished_at = operation.updated_at = context.now


def _end_migrations(context: Context, host: Host) -> None:
    """What a host still had to remove goes with it; anything else keeps it.

    :raises Conflict: workloads are on their way from or to it.
    """
    on_their_way = []
    for migration in context.uow.migrations.open_on(host.id):
        if migration.phase is Phase.CLEANING and migration.source_host_id == host.id:
            migration.phase, migration.finished_at = Phase.DONE, context.now
        elif migration.phase is Phase.RETREATING and migration.target_host_id == host.id:
            migration.phase, migration.finished_at = Phase.FAILED, context.now
        else:
            workload = context.uow.workloads.get(migration.workload_id)
            on_their_way.append(workload.name if workload is not None else migration.id)
    if on_their_way:
        raise Conflict(
            f"host {host.name!r} is not deleted: workloads are on their way from or to it "
            f"({', '.join(on_their_way[:5])})",
            code="in_use",
            hint="wait for them, or cancel that: see 'virtmgr migration list'",
            detail={"used_by": {"migration": on_their_way}},
        )
