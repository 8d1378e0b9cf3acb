"""Hosts: their enrolment, and whether they take new workloads."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from pydantic import Field

from virtmgr.domain.errors import Conflict, NotFound
from virtmgr.domain.host import Host, HostState
from virtmgr.domain.ids import new_id
from virtmgr.domain.machine import MAY_REPLACE
from virtmgr.domain.operation import OperationState
from virtmgr.domain.values import Labels, Name, Reference, Value
from virtmgr.ports.unit_of_work import ListQuery, Page
from virtmgr.services import clusters
from virtmgr.services.auth import new_secret
from virtmgr.services.context import Context
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

    :raises Conflict: it does not take anything anyway.
    """
    host = lock(context, reference)
    if host.state is HostState.CORDONED:
        return host
    if host.state is HostState.UNREACHABLE:
        host.facts = {**host.facts, "cordoned": True}  # sync takes it up when the host is back
    elif host.state is HostState.READY:
        host.state = HostState.CORDONED
    else:
        raise Conflict(f"host {host.name!r} is {host.state.value}: it takes nothing new anyway")
    context.record("host.cordoned", host, f"host {host.name} was cordoned", host_id=host.id)
    context.uow.flush()
    return host


def uncordon(context: Context, reference: str) -> Host:
    """Let a host take new workloads again. Twice is once."""
    host = lock(context, reference)
    if host.state is HostState.READY:
        return host
    if host.state is HostState.UNREACHABLE:
        host.facts = {**host.facts, "cordoned": False}
    elif host.state is HostState.CORDONED:
        host.state = HostState.READY
    else:
        raise Conflict(f"host {host.name!r} is {host.state.value}, not cordoned")
    context.record("host.uncordoned", host, f"host {host.name} was uncordoned", host_id=host.id)
    context.uow.flush()
    return host


def delete(context: Context, reference: str) -> Host:
    """Forget a host that has no workloads and no volumes; its certificate is worth nothing then.
    What is under way on it is cancelled.

    :raises Conflict: it has some; they are named.
    """
    host = lock(context, reference)
    refuse_in_use(
        f"host {host.name!r}",
        workload=[workload.name for workload in context.uow.workloads.on_host(host.id)],
        volume=[volume.name for volume in context.uow.volumes.on_host(host.id)],
    )
    for operation in context.uow.operations.open_for(host.id):  # such as its installation
        operation.state = OperationState.CANCELLED
        operation.message = "the host was deleted"
        operation.updated_at = operation.finished_at = context.now
    context.record("host.deleted", host, f"host {host.name} was deleted", host_id=host.id)
    context.uow.hosts.remove(host)
    context.uow.flush()
    return host
